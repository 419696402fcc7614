// SPDX-License-Identifier: GPL-2.0
/*
 * Takes an SMMU from its driver and gives it back, which the driver keeps sysfs from doing.
 *
 *     echo 10000000.iommu >/sys/module/vt_away/parameters/device    # its driver lets go of it
 *     echo >/sys/module/vt_away/parameters/device                   # and is bound to it again
 *
 * Whoever does so unbinds the drivers of its masters before. Any platform device will do. Another name, or the
 * module's end, gives back what was taken before.
 */

#include <linux/device.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/string.h>

static struct device *away;

static int give_back(void)
{
	struct device *device = away;
	int bound;

	if (!device)
		return 0;
	away = NULL;
	bound = device_attach(device);
	put_device(device);
	return bound < 0 ? bound : bound ? 0 : -ENODEV;
}

static int take(const char *text, const struct kernel_param *param)
{
	char name[64];
	int error = give_back();

	strscpy(name, text, sizeof(name));
	if (error || !*strim(name))
		return error;
	away = bus_find_device_by_name(&platform_bus_type, NULL, strim(name));
	if (!away)
		return -ENODEV;
	device_release_driver(away);
	return 0;
}

static int tell(char *text, const struct kernel_param *param)
{
	return sysfs_emit(text, "%s\n", away ? dev_name(away) : "");
}

static const struct kernel_param_ops operations = {
	.set = take,
	.get = tell,
};
module_param_cb(device, &operations, NULL, 0644);
MODULE_PARM_DESC(device, "name of the platform device that is without its driver; none: no device");

static int __init vt_away_init(void)
{
	return 0;
}
module_init(vt_away_init);

static void __exit vt_away_exit(void)
{
	give_back();
}
module_exit(vt_away_exit);

MODULE_DESCRIPTION("Takes a platform device from its driver and gives it back");
MODULE_LICENSE("GPL");
