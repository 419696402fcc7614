// SPDX-License-Identifier: GPL-2.0
/*
 * How long the kernel's DMA API takes to map a page for a device and to unmap it again; nothing is transferred.
 *
 * The module binds the device that its parameter names: a DMA engine (compatible "arm,smmute"), or QEMU's PCI device
 * "edu". For each batch it leaves in the log, behind "vt:", the fact "# pairs count= ns=".
 */

#include <linux/dma-mapping.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/of.h>
#include <linux/pci.h>
#include <linux/platform_device.h>

static char *device = "";
module_param(device, charp, 0444);
MODULE_PARM_DESC(device, "name of the device");

static unsigned int batches = 8;
module_param(batches, uint, 0444);

static unsigned int pairs = 200;
module_param(pairs, uint, 0444);
MODULE_PARM_DESC(pairs, "in a batch");

static int vt_pairs(struct device *dev)
{
	void *page = (void *)__get_free_page(GFP_KERNEL);
	unsigned int batch, pair;
	int error;

	if (!page)
		return -ENOMEM;
	error = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(64));
	for (batch = 0; batch < batches && !error; batch++) {
		u64 began = ktime_get_ns();

		for (pair = 0; pair < pairs && !error; pair++) {
			dma_addr_t iova = dma_map_single(dev, page, PAGE_SIZE, DMA_TO_DEVICE);

			error = dma_mapping_error(dev, iova);
			if (!error)
				dma_unmap_single(dev, iova, PAGE_SIZE, DMA_TO_DEVICE);
		}
		if (!error)
			pr_info("vt: # pairs count=%u ns=%llu\n", pairs, ktime_get_ns() - began);
	}
	free_page((unsigned long)page);
	return error;
}

static int vt_platform_probe(struct platform_device *pdev)
{
	return strcmp(device, dev_name(&pdev->dev)) ? -ENODEV : vt_pairs(&pdev->dev);
}

static const struct of_device_id vt_match[] = {
	{ .compatible = "arm,smmute" },
	{}
};

static struct platform_driver vt_platform = {
	.probe = vt_platform_probe,
	.driver = {
		.name = "vt_maps",
		.of_match_table = vt_match,
	},
};

static int vt_pci_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	int error;

	if (strcmp(device, dev_name(&pdev->dev)))
		return -ENODEV;
	error = pcim_enable_device(pdev);
	return error ? error : vt_pairs(&pdev->dev);
}

static const struct pci_device_id vt_ids[] = {
	{ PCI_DEVICE(0x1234, 0x11e8) },
	{}
};

static struct pci_driver vt_pci = {
	.name = "vt_maps",
	.id_table = vt_ids,
	.probe = vt_pci_probe,
};

static int __init vt_maps_init(void)
{
	int error = platform_driver_register(&vt_platform);

	if (error)
		return error;
	error = pci_register_driver(&vt_pci);
	if (error)
		platform_driver_unregister(&vt_platform);
	return error;
}
module_init(vt_maps_init);

static void __exit vt_maps_exit(void)
{
	pci_unregister_driver(&vt_pci);
	platform_driver_unregister(&vt_platform);
}
module_exit(vt_maps_exit);

MODULE_DESCRIPTION("Times of the DMA API with a device behind an SMMU");
MODULE_LICENSE("GPL");
