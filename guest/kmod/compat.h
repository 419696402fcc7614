/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The IOMMU API of the kernel that we are built for, whichever it is.
 *
 * Kbuild looks into the kernel's own <linux/iommu.h> and defines HAS_name for what is there: a version number says
 * nothing of a vendor's kernel. What is missing is made up for here, or is a reason to skip.
 */
#ifndef VT_COMPAT_H
#define VT_COMPAT_H

#include <linux/iommu.h>

/* A domain for the device's SMMU, to be filled by vt_map; ERR_PTR. */
static inline struct iommu_domain *vt_domain_alloc(struct device *dev)
{
#ifdef HAS_iommu_paging_domain_alloc
	return iommu_paging_domain_alloc(dev);
#else
	struct iommu_domain *domain = iommu_domain_alloc(dev->bus);
	int error;

	if (!domain)
		return ERR_PTR(-ENOMEM);
	/* It was the first device attached that said of which SMMU a domain is; nothing could be mapped before. */
	error = iommu_attach_device(domain, dev);
	if (error) {
		iommu_domain_free(domain);
		return ERR_PTR(error);
	}
	iommu_detach_device(domain, dev);
	return domain;
#endif
}

/* The function has a "gfp" since 6.3. */
static inline int vt_map(struct iommu_domain *domain, unsigned long iova, phys_addr_t pa, size_t bytes, int prot)
{
	typedef int (*with_gfp)(struct iommu_domain *, unsigned long, phys_addr_t, size_t, int, gfp_t);
	typedef int (*without)(struct iommu_domain *, unsigned long, phys_addr_t, size_t, int);
#define map_if(type) __builtin_choose_expr(__builtin_types_compatible_p(typeof(&iommu_map), type), &iommu_map, (type)NULL)
	const with_gfp map = map_if(with_gfp);
	const without map_once = map_if(without);
#undef map_if

	return map ? map(domain, iova, pa, bytes, prot, GFP_KERNEL) : map_once(domain, iova, pa, bytes, prot);
}

/*
 * PASIDs of the IOMMU API: since the SMMU's driver attaches what iommu_map fills to one, attaching takes a handle.
 * Before, there was nothing to attach but a process's address space.
 */
#ifdef HAS_iommu_attach_handle
#define VT_PASIDS
#endif

#endif
