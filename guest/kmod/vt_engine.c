// SPDX-License-Identifier: GPL-2.0
/*
 * What the kernel's DMA and IOMMU APIs promise of an SMMU, shown with a DMA engine behind it.
 *
 * The module binds the engine (compatible "arm,smmute"), runs the tests that its parameter "tests" names, and
 * leaves a KTAP document in the kernel's log, each line behind "vt:". A test reads with the CPU what the engine
 * wrote, and the other way round. Facts come as "# word key=value", for the host to compare with what it saw:
 *
 *   # wrote  pasid= iova= pa= bytes= seed= crc32=   the engine filled memory; the CPU saw this
 *   # read   pasid= iova= pa= bytes= tag= sum=      the CPU filled memory; the engine added it up
 *   # copied iova= to= bytes= tag= crc32=           the CPU filled the source, and saw this at the destination
 *   # aborted pasid= iova=                          the engine's access ended so, as it should
 *   # stalled pasid= iova=                          the engine's access has not ended, as it should
 *   # unmapped iova= bytes=                         by the driver, just now
 *
 * pasid=-1: no SubstreamID. "bytes" are those from "iova" on; "pa" is where the kernel says that they begin.
 */

#include <linux/completion.h>
#include <linux/crc32.h>
#include <linux/dma-mapping.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/jiffies.h>
#include <linux/module.h>
#include <linux/of.h>
#include <linux/of_platform.h>
#include <linux/platform_device.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>

#include "compat.h"

static char *tests = "";
module_param(tests, charp, 0444);
MODULE_PARM_DESC(tests, "names of tests with commas between them; none: all");

static char *device = "";
module_param(device, charp, 0444);
MODULE_PARM_DESC(device, "name of the platform device to use; none: each engine");

static bool together;
module_param(together, bool, 0444);
MODULE_PARM_DESC(together, "the tests are of all engines at once, not of each");

#define say(format, ...) pr_info("vt: " format "\n", ##__VA_ARGS__)

/* -- the engine ------------------------------------------------------------------------------------------------ */

#define USER_CMD	0x00
#define USER_LAUNCHED	0x08
#define USER_RETURNED	0x0c
#define USER_ATTRIBUTES	0x20
#define USER_SEED	0x24
#define USER_BEGIN	0x28
#define USER_END_INCL	0x30
#define USER_STRIDE	0x38
#define USER_UDATA(n)	(0x40 + 8 * (n))

#define PRIVILEGED	0x10000
#define PRIV_SSID	(PRIVILEGED + 0x0c)

#define CMD_HALTED	1
#define CMD_MEMCPY	2
#define CMD_RAND48	3
#define CMD_SUM64	4
#define CMD_ERROR	0xffffffff

/* Write-back memory, inner shareable, on both sides. */
#define ATTRIBUTES	0xc2ffc2ff

#define NO_PASID	(-1)
/* What a guest that shares its processor with others may need. */
#define TIMEOUT		(10 * HZ)
#define SKIPPED		1

struct vt {
	struct device *dev;
	void __iomem *base;
	struct completion ended;
	unsigned long timeout;
	u64 sum;	/* of the last SUM64 */
	u64 aborted;	/* where the last command did */
	const char *why; /* a test is skipped */
};

static irqreturn_t vt_interrupt(int irq, void *data)
{
	struct vt *vt = data;

	complete(&vt->ended);
	return IRQ_HANDLED;
}

/* Start a command on [begin, begin + bytes). */
static void vt_start(struct vt *vt, u32 cmd, int pasid, u64 begin, size_t bytes, u64 to, u32 seed)
{
	reinit_completion(&vt->ended);
	writel(pasid, vt->base + PRIV_SSID);
	writel(ATTRIBUTES, vt->base + USER_ATTRIBUTES);
	writel(seed, vt->base + USER_SEED);
	writeq(begin, vt->base + USER_BEGIN);
	writeq(begin + bytes - 1, vt->base + USER_END_INCL);
	writeq(1, vt->base + USER_STRIDE);
	writeq(to, vt->base + USER_UDATA(0));
	writel(cmd, vt->base + USER_CMD);
}

/* Wait for the command's end. -EFAULT: it aborted; other errors: it did not run or end. */
static int vt_finish(struct vt *vt)
{
	u32 state;

	if (!wait_for_completion_timeout(&vt->ended, vt->timeout)) {
		say("# no interrupt comes, and the command's state is %#x", readl(vt->base + USER_CMD));
		return -ETIMEDOUT;
	}
	state = readl(vt->base + USER_CMD);
	if (state == CMD_ERROR) {
		vt->aborted = readq(vt->base + USER_UDATA(2));
		return -EFAULT;
	}
	vt->sum = readq(vt->base + USER_UDATA(1));
	return state == CMD_HALTED ? 0 : -EIO;
}

static int vt_command(struct vt *vt, u32 cmd, int pasid, u64 begin, size_t bytes, u64 to, u32 seed)
{
	vt_start(vt, cmd, pasid, begin, bytes, to, seed);
	return vt_finish(vt);
}

/* -- memory and what is in it ---------------------------------------------------------------------------------- */

/* The host computes the same. */
static u8 pattern_at(u32 tag, u32 i)
{
	return (i * 0x9e3779b1 + tag * 0x85ebca6b) >> 24;
}

static void pattern_fill(void *at, size_t bytes, u32 tag)
{
	u8 *to = at;
	size_t i;

	for (i = 0; i < bytes; i++)
		to[i] = pattern_at(tag, i);
}

static u32 crc_of(const void *at, size_t bytes)
{
	return ~crc32_le(~0, at, bytes);
}

static u64 sum_of(const u64 *at, size_t bytes)
{
	u64 sum = 0;
	size_t i;

	for (i = 0; i < bytes / 8; i++)
		sum += at[i];
	return sum;
}

/* Whether all of [at, at + bytes) is 'byte'. */
static bool only(const void *at, size_t bytes, u8 byte)
{
	return !memchr_inv(at, byte, bytes);
}

static u64 physical(struct vt *vt, struct iommu_domain *domain, u64 iova)
{
	if (!domain)
		domain = iommu_get_domain_for_dev(vt->dev);
	return domain ? iommu_iova_to_phys(domain, iova) : iova;
}

#define fail(...) ({ say("# " __VA_ARGS__); -EIO; })

/* -- steps that several tests share ---------------------------------------------------------------------------- */

/* The engine fills 'iova'; the CPU must find the change at 'at', and another than at the last call. */
static int engine_writes(struct vt *vt, int pasid, u64 iova, u64 pa, void *at, size_t bytes, u32 seed)
{
	int error;

	memset(at, 0, bytes);
	error = vt_command(vt, CMD_RAND48, pasid, iova, bytes, 0, seed);
	if (error)
		return fail("a write at %#llx with pasid %d ends with %d", iova, pasid, error);
	if (only(at, bytes, 0))
		return fail("a write at %#llx with pasid %d is not to be seen", iova, pasid);
	say("# wrote pasid=%d iova=%#llx pa=%#llx bytes=%zu seed=%#x crc32=%#x", pasid, iova, pa, bytes, seed,
	    crc_of(at, bytes));
	return 0;
}

/* The CPU fills 'at'; the engine must read it at 'iova'. */
static int engine_reads(struct vt *vt, int pasid, u64 iova, u64 pa, void *at, size_t bytes, u32 tag)
{
	int error;

	pattern_fill(at, bytes, tag);
	error = vt_command(vt, CMD_SUM64, pasid, iova, bytes, 0, 0);
	if (error)
		return fail("a read at %#llx with pasid %d ends with %d", iova, pasid, error);
	if (vt->sum != sum_of(at, bytes))
		return fail("the engine read %#llx, the CPU wrote %#llx", vt->sum, sum_of(at, bytes));
	say("# read pasid=%d iova=%#llx pa=%#llx bytes=%zu tag=%u sum=%#llx", pasid, iova, pa, bytes, tag, vt->sum);
	return 0;
}

/* A read of one word must abort there. */
static int engine_aborts(struct vt *vt, int pasid, u64 iova)
{
	int error = vt_command(vt, CMD_SUM64, pasid, iova, 8, 0, 0);

	if (error != -EFAULT)
		return fail("a read at %#llx with pasid %d ends with %d, not with an abort", iova, pasid, error);
	if (vt->aborted != iova)
		return fail("the read at %#llx aborted at %#llx", iova, vt->aborted);
	say("# aborted pasid=%d iova=%#llx", pasid, iova);
	return 0;
}

/* -- the DMA API ----------------------------------------------------------------------------------------------- */

/* The engine copies what the CPU wrote, and the CPU reads the copy, without a word to caches between them. */
static int copies_coherent_memory(struct vt *vt)
{
	const size_t bytes = 4 * PAGE_SIZE;
	dma_addr_t from, to;
	void *source, *target;
	int error = -ENOMEM;

	source = dma_alloc_coherent(vt->dev, bytes, &from, GFP_KERNEL);
	target = dma_alloc_coherent(vt->dev, bytes, &to, GFP_KERNEL);
	if (!source || !target)
		goto out;
	pattern_fill(source, bytes, 1);
	memset(target, 0, bytes);
	error = vt_command(vt, CMD_MEMCPY, NO_PASID, from, bytes, to, 0);
	if (error) {
		error = fail("the copy ends with %d", error);
		goto out;
	}
	if (memcmp(source, target, bytes)) {
		error = fail("the copy differs from what was copied");
		goto out;
	}
	say("# copied iova=%#llx to=%#llx bytes=%zu tag=1 crc32=%#x", from, to, bytes, crc_of(target, bytes));
	error = engine_reads(vt, NO_PASID, from, physical(vt, NULL, from), source, bytes, 2);
	if (!error)
		error = engine_writes(vt, NO_PASID, to, physical(vt, NULL, to), target, bytes, 3);
out:
	if (source)
		dma_free_coherent(vt->dev, bytes, source, from);
	if (target)
		dma_free_coherent(vt->dev, bytes, target, to);
	return error;
}

/* From an odd place to an odd place, an odd number of bytes; nothing beside them changes. */
static int copies_odd_buffers(struct vt *vt)
{
	const size_t before = 13, bytes = 5003, room = 2 * PAGE_SIZE;
	u8 *source = kmalloc(room, GFP_KERNEL), *target = kmalloc(room, GFP_KERNEL);
	dma_addr_t from, to;
	int error = -ENOMEM;

	if (!source || !target)
		goto out;
	pattern_fill(source + 7, bytes, 4);
	memset(target, 0xee, room);
	from = dma_map_single(vt->dev, source + 7, bytes, DMA_TO_DEVICE);
	if (dma_mapping_error(vt->dev, from))
		goto out;
	to = dma_map_single(vt->dev, target + before, bytes, DMA_FROM_DEVICE);
	if (dma_mapping_error(vt->dev, to)) {
		dma_unmap_single(vt->dev, from, bytes, DMA_TO_DEVICE);
		goto out;
	}
	error = vt_command(vt, CMD_MEMCPY, NO_PASID, from, bytes, to, 0);
	dma_unmap_single(vt->dev, to, bytes, DMA_FROM_DEVICE);
	dma_unmap_single(vt->dev, from, bytes, DMA_TO_DEVICE);
	if (error)
		error = fail("the copy ends with %d", error);
	else if (memcmp(source + 7, target + before, bytes))
		error = fail("the copy differs from what was copied");
	else if (!only(target, before, 0xee) || !only(target + before + bytes, room - before - bytes, 0xee))
		error = fail("bytes beside the buffer changed");
	else
		say("# copied iova=%#llx to=%#llx bytes=%zu tag=4 crc32=%#x", from, to, bytes,
		    crc_of(target + before, bytes));
out:
	kfree(source);
	kfree(target);
	return error;
}

/* Segments of odd lengths at odd offsets, each of a page of its own: gathered into memory in one piece. */
static int gathers_odd_segments(struct vt *vt)
{
	static const struct { u16 offset, length; } parts[] = {
		{ 0, 4096 }, { 0, 4096 }, { 512, 100 }, { 3, 4093 }, { 4095, 1 }, { 17, 1001 },
	};
	struct scatterlist *segment;
	struct sg_table table;
	u8 *target = NULL, *wanted;
	dma_addr_t to;
	size_t bytes = 0, at = 0;
	int error = -ENOMEM, i;

	if (sg_alloc_table(&table, ARRAY_SIZE(parts), GFP_KERNEL))
		return -ENOMEM;
	for (i = 0; i < ARRAY_SIZE(parts); i++)
		bytes += parts[i].length;
	wanted = kmalloc(bytes, GFP_KERNEL);
	target = dma_alloc_coherent(vt->dev, bytes, &to, GFP_KERNEL);
	for_each_sgtable_sg(&table, segment, i) {
		struct page *page = alloc_page(GFP_KERNEL);

		if (!page)
			goto out;
		sg_set_page(segment, page, parts[i].length, parts[i].offset);
	}
	if (!wanted || !target)
		goto out;
	memset(target, 0, bytes);
	pattern_fill(wanted, bytes, 5);
	sg_copy_from_buffer(table.sgl, table.orig_nents, wanted, bytes);
	error = dma_map_sgtable(vt->dev, &table, DMA_TO_DEVICE, 0);
	if (error)
		goto out;
	for_each_sgtable_dma_sg(&table, segment, i) {
		error = vt_command(vt, CMD_MEMCPY, NO_PASID, sg_dma_address(segment), sg_dma_len(segment), to + at, 0);
		if (error)
			break;
		at += sg_dma_len(segment);
	}
	dma_unmap_sgtable(vt->dev, &table, DMA_TO_DEVICE, 0);
	if (error)
		error = fail("segment %d's copy ends with %d", i, error);
	else if (at != bytes)
		error = fail("the mapped segments have %zu bytes of %zu", at, bytes);
	else if (memcmp(wanted, target, bytes))
		error = fail("the copy differs from the segments");
	else
		say("# gathered segments=%zu mapped=%u bytes=%zu tag=5 crc32=%#x", ARRAY_SIZE(parts), table.nents,
		    bytes, crc_of(target, bytes));
out:
	for_each_sgtable_sg(&table, segment, i)
		if (sg_page(segment))
			__free_page(sg_page(segment));
	sg_free_table(&table);
	if (target)
		dma_free_coherent(vt->dev, bytes, target, to);
	kfree(wanted);
	return error;
}

/* Pages from all over become one range of IOVAs, which the engine fills; 'gone': and cannot reach once unmapped. */
static int fill_pages(struct vt *vt, bool gone)
{
	enum { PAGES = 37 };
	struct scatterlist *segment;
	struct sg_table table;
	u8 *seen = kmalloc(PAGES * PAGE_SIZE, GFP_KERNEL);
	dma_addr_t iova = 0;
	size_t bytes = 0;
	int error = -ENOMEM, i;

	if (sg_alloc_table(&table, PAGES, GFP_KERNEL)) {
		kfree(seen);
		return -ENOMEM;
	}
	for_each_sgtable_sg(&table, segment, i) {
		struct page *page = alloc_page(GFP_KERNEL | __GFP_ZERO);

		if (!page)
			goto out;
		sg_set_page(segment, page, PAGE_SIZE, 0);
	}
	if (!seen)
		goto out;
	error = dma_map_sgtable(vt->dev, &table, DMA_FROM_DEVICE, 0);
	if (error)
		goto out;
	for_each_sgtable_dma_sg(&table, segment, i) {
		iova = i ? iova : sg_dma_address(segment);
		bytes += sg_dma_len(segment);
		error = vt_command(vt, CMD_RAND48, NO_PASID, sg_dma_address(segment), sg_dma_len(segment), 0, 6);
		if (error)
			break;
	}
	if (!error)
		say("# unmapped iova=%#llx bytes=%zu", iova, table.nents == 1 ? bytes : 0);
	dma_unmap_sgtable(vt->dev, &table, DMA_FROM_DEVICE, 0);
	sg_copy_to_buffer(table.sgl, table.orig_nents, seen, PAGES * PAGE_SIZE);
	if (error)
		error = fail("segment %d's fill ends with %d", i, error);
	else if (bytes != PAGES * PAGE_SIZE)
		error = fail("the mapped segments have %zu bytes of %zu", bytes, PAGES * PAGE_SIZE);
	else if (table.nents == 1)
		say("# wrote pasid=-1 iova=%#llx pa=%#llx bytes=%zu seed=6 crc32=%#x", iova,
		    sg_phys(table.sgl), bytes, crc_of(seen, bytes));
	for (i = 0; gone && !error && i < PAGES; i += PAGES / 4)
		error = engine_aborts(vt, NO_PASID, iova + i * PAGE_SIZE);
out:
	for_each_sgtable_sg(&table, segment, i)
		if (sg_page(segment))
			__free_page(sg_page(segment));
	sg_free_table(&table);
	kfree(seen);
	return error;
}

/* The engine fills pages that are scattered in memory, and side by side in its addresses. */
static int fills_scattered_pages(struct vt *vt)
{
	return fill_pages(vt, false);
}

/* The same pages are unmapped in one go, and each is lost. Needs a kernel that invalidates strictly. */
static int loses_all_of_a_range(struct vt *vt)
{
	return fill_pages(vt, true);
}

/* Mapped, the engine reads; unmapped, it does not: at once, or when a lazy kernel's queue was flushed. */
static int loses_what_is_unmapped(struct vt *vt)
{
	enum { ROUNDS = 8 };
	u8 *buffer = (u8 *)__get_free_page(GFP_KERNEL);
	struct iommu_domain *domain = iommu_get_domain_for_dev(vt->dev);
	unsigned long until;
	dma_addr_t iova;
	unsigned int stale = 0;
	int error = 0, i;

	if (!buffer)
		return -ENOMEM;
	if (!domain || domain->type == IOMMU_DOMAIN_IDENTITY) {
		free_page((unsigned long)buffer);
		vt->why = "the stream bypasses translation";
		return SKIPPED;
	}
	for (i = 0; i < ROUNDS && !error; i++) {
		iova = dma_map_single(vt->dev, buffer, PAGE_SIZE, DMA_BIDIRECTIONAL);
		if (dma_mapping_error(vt->dev, iova)) {
			error = -ENOMEM;
			break;
		}
		error = engine_reads(vt, NO_PASID, iova, virt_to_phys(buffer), buffer, PAGE_SIZE, 7 + i);
		dma_unmap_single(vt->dev, iova, PAGE_SIZE, DMA_BIDIRECTIONAL);
		say("# unmapped iova=%#llx bytes=%lu", iova, PAGE_SIZE);
	}
	if (!error && domain->type == IOMMU_DOMAIN_DMA_FQ) {
		until = jiffies + TIMEOUT;
		while (!vt_command(vt, CMD_SUM64, NO_PASID, iova, 8, 0, 0) && time_before(jiffies, until))
			stale++;
		say("# stale reads=%u", stale);
	}
	if (!error)
		error = engine_aborts(vt, NO_PASID, iova);
	free_page((unsigned long)buffer);
	return error;
}

/* -- the IOMMU API --------------------------------------------------------------------------------------------- */

/* A page, and a domain of its own that maps it at 'iova'. */
struct space {
	struct iommu_domain *domain;
	void *page;
	u64 iova;
	bool mapped;
};

static int space_map(struct space *space)
{
	return vt_map(space->domain, space->iova, virt_to_phys(space->page), PAGE_SIZE,
		      IOMMU_READ | IOMMU_WRITE | IOMMU_CACHE);
}

static int space_open(struct vt *vt, struct space *space, u64 iova)
{
	int error;

	memset(space, 0, sizeof(*space));
	space->iova = iova;
	space->page = (void *)__get_free_page(GFP_KERNEL);
	if (!space->page)
		return -ENOMEM;
	space->domain = vt_domain_alloc(vt->dev);
	if (IS_ERR(space->domain)) {
		error = PTR_ERR(space->domain);
		space->domain = NULL;
		return fail("no domain: %d", error);
	}
	error = space_map(space);
	if (error == -ENODEV) { /* a driver may make a domain's table when it is attached for the first time */
		error = iommu_attach_device(space->domain, vt->dev);
		if (error)
			return fail("the device is not attached: %d", error);
		error = space_map(space);
		iommu_detach_device(space->domain, vt->dev);
	}
	if (error)
		return fail("the page is not mapped at %#llx: %d", iova, error);
	space->mapped = true;
	return 0;
}

static void space_unmap(struct space *space)
{
	if (!space->mapped)
		return;
	iommu_unmap(space->domain, space->iova, PAGE_SIZE);
	say("# unmapped iova=%#llx bytes=%lu", space->iova, PAGE_SIZE);
	space->mapped = false;
}

static void space_close(struct space *space)
{
	space_unmap(space);
	if (space->domain)
		iommu_domain_free(space->domain);
	free_page((unsigned long)space->page);
}

static int space_written(struct vt *vt, struct space *space, int pasid, u32 seed)
{
	return engine_writes(vt, pasid, space->iova, virt_to_phys(space->page), space->page, PAGE_SIZE, seed);
}

#define IOVA (0x40000000ULL + PAGE_SIZE)

/* The whole device from one domain to another and back, and each access in the domain of the moment. */
static int switches_domains(struct vt *vt)
{
	struct space spaces[2] = {};
	void *own;
	dma_addr_t iova;
	int error, i;

	own = dma_alloc_coherent(vt->dev, PAGE_SIZE, &iova, GFP_KERNEL);
	if (!own)
		return -ENOMEM;
	error = space_open(vt, &spaces[0], IOVA);
	if (!error)
		error = space_open(vt, &spaces[1], IOVA);
	for (i = 0; i < 6 && !error; i++) {
		struct space *space = &spaces[i % 2];

		memset(spaces[1 - i % 2].page, 0x55, PAGE_SIZE);
		error = iommu_attach_device(space->domain, vt->dev);
		if (error) {
			error = fail("the device is not attached: %d", error);
			break;
		}
		error = space_written(vt, space, NO_PASID, 0x100 + i);
		iommu_detach_device(space->domain, vt->dev);
		if (!error && !only(spaces[1 - i % 2].page, PAGE_SIZE, 0x55))
			error = fail("the other domain's page changed");
		if (!error)
			error = engine_writes(vt, NO_PASID, iova, physical(vt, NULL, iova), own, PAGE_SIZE, 0x200 + i);
	}
	space_close(&spaces[0]);
	space_close(&spaces[1]);
	dma_free_coherent(vt->dev, PAGE_SIZE, own, iova);
	return error;
}

#ifdef VT_PASIDS

static bool has_pasids(struct vt *vt)
{
	if (vt->dev->iommu && vt->dev->iommu->max_pasids > 2)
		return true;
	vt->why = "the device has no PASIDs";
	return false;
}

/* One address, three memories: of two PASIDs, and of the kernel's own DMA, which carries none. */
static int keeps_pasids_apart(struct vt *vt)
{
	struct space spaces[2] = {};
	ioasid_t pasids[2] = { IOMMU_PASID_INVALID, IOMMU_PASID_INVALID };
	bool attached[2] = {};
	void *own, *pages[3];
	dma_addr_t iova;
	int error = 0, i, j;

	if (!has_pasids(vt))
		return SKIPPED;
	own = dma_alloc_coherent(vt->dev, PAGE_SIZE, &iova, GFP_KERNEL);
	if (!own)
		return -ENOMEM;
	for (i = 0; i < 2 && !error; i++) {
		error = space_open(vt, &spaces[i], iova);
		if (error)
			break;
		pasids[i] = iommu_alloc_global_pasid(vt->dev);
		if (pasids[i] == IOMMU_PASID_INVALID) {
			error = fail("there is no PASID to be had");
			break;
		}
		error = iommu_attach_device_pasid(spaces[i].domain, vt->dev, pasids[i], NULL);
		attached[i] = !error;
		if (error)
			error = fail("PASID %u is not attached: %d", pasids[i], error);
	}
	pages[0] = spaces[0].page;
	pages[1] = spaces[1].page;
	pages[2] = own;
	for (i = 0; i < 3 && !error; i++) {
		u64 pa = i < 2 ? virt_to_phys(pages[i]) : physical(vt, NULL, iova);
		int pasid = i < 2 ? pasids[i] : NO_PASID;

		for (j = 0; j < 3; j++)
			memset(pages[j], 0x55, PAGE_SIZE);
		error = engine_writes(vt, pasid, iova, pa, pages[i], PAGE_SIZE, 0x300 + i);
		for (j = 0; j < 3 && !error; j++)
			if (j != i && !only(pages[j], PAGE_SIZE, 0x55))
				error = fail("a write with pasid %d changed other memory", pasid);
		if (!error)
			error = engine_reads(vt, pasid, iova, pa, pages[i], PAGE_SIZE, 0x30 + i);
	}
	for (i = 0; i < 2; i++) {
		if (attached[i])
			iommu_detach_device_pasid(spaces[i].domain, vt->dev, pasids[i]);
		if (pasids[i] != IOMMU_PASID_INVALID)
			iommu_free_global_pasid(pasids[i]);
		space_close(&spaces[i]);
	}
	dma_free_coherent(vt->dev, PAGE_SIZE, own, iova);
	return error;
}

/*
 * The engine reads without a PASID, all the time, while PASIDs come and go: the driver rewrites the stream's tables
 * under way, and promises that no access sees them half written.
 */
static int streams_while_pasids_change(struct vt *vt)
{
	/* A round may end before the first change; so many changes under way, or rounds, are enough. */
	enum { BYTES = 1 << 19, CHANGES = 16, ROUNDS = 1000, TAG = 0x60 };
	unsigned int changes = 0;
	struct space space;
	dma_addr_t iova;
	void *own;
	u64 sum;
	int error, i;

	if (!has_pasids(vt))
		return SKIPPED;
	own = dma_alloc_coherent(vt->dev, BYTES, &iova, GFP_KERNEL);
	if (!own)
		return -ENOMEM;
	pattern_fill(own, BYTES, TAG);
	sum = sum_of(own, BYTES);
	error = space_open(vt, &space, IOVA);
	for (i = 0; i < ROUNDS && changes < CHANGES && !error; i++) {
		int ended;

		vt_start(vt, CMD_SUM64, NO_PASID, iova, BYTES, 0, 0);
		while (!error && !completion_done(&vt->ended)) {
			error = iommu_attach_device_pasid(space.domain, vt->dev, 1, NULL);
			if (error)
				break;
			iommu_detach_device_pasid(space.domain, vt->dev, 1);
			changes++;
		}
		ended = vt_finish(vt);
		if (error)
			error = fail("PASID 1 is not attached: %d", error);
		else if (ended)
			error = fail("the read ends with %d at %#llx", ended, vt->aborted);
		else if (vt->sum != sum)
			error = fail("the engine read %#llx, the CPU wrote %#llx", vt->sum, sum);
	}
	if (!error && changes < CHANGES)
		error = fail("PASIDs changed %u times only", changes);
	if (!error) {
		say("# read pasid=-1 iova=%#llx pa=%#llx bytes=%u tag=%u sum=%#llx", iova, physical(vt, NULL, iova), BYTES,
		    TAG, sum);
		say("# streamed rounds=%d changes=%u", i, changes);
	}
	space_close(&space);
	dma_free_coherent(vt->dev, BYTES, own, iova);
	return error;
}

static int space_read(struct vt *vt, struct space *space, int pasid, u32 tag)
{
	return engine_reads(vt, pasid, space->iova, virt_to_phys(space->page), space->page, PAGE_SIZE, tag);
}

/* A PASID loses one page, then its domain; another PASID keeps what it has, whatever becomes of the first. */
static int revokes_pasids(struct vt *vt)
{
	struct space spaces[2] = {};
	struct iommu_domain *attached[2] = {}; /* to PASIDs 1 and 2 */
	u32 beyond;
	int error, i;

	if (!has_pasids(vt))
		return SKIPPED;
	beyond = vt->dev->iommu->max_pasids;
	error = space_open(vt, &spaces[0], IOVA);
	if (!error)
		error = space_open(vt, &spaces[1], IOVA);
	if (!error && iommu_attach_device_pasid(spaces[0].domain, vt->dev, IOMMU_NO_PASID, NULL) != -EINVAL)
		error = fail("PASID 0, the device's own, may be attached");
	for (i = 0; i < 2 && !error; i++) {
		error = iommu_attach_device_pasid(spaces[i].domain, vt->dev, i + 1, NULL);
		attached[i] = error ? NULL : spaces[i].domain;
		if (error)
			error = fail("PASID %d is not attached: %d", i + 1, error);
	}
	if (!error)
		error = space_read(vt, &spaces[0], 1, 0x40);
	if (!error)
		error = space_read(vt, &spaces[1], 2, 0x41);
	if (!error) {
		space_unmap(&spaces[0]);
		error = engine_aborts(vt, 1, IOVA);
	}
	if (!error)
		error = space_written(vt, &spaces[1], 2, 0x401);
	if (!error) {
		iommu_detach_device_pasid(spaces[0].domain, vt->dev, 1);
		attached[0] = NULL;
		error = engine_aborts(vt, 1, IOVA);
	}
	if (!error)
		error = space_written(vt, &spaces[1], 2, 0x402);
	/* The same PASID with another domain. */
	if (!error) {
		error = iommu_attach_device_pasid(spaces[1].domain, vt->dev, 1, NULL);
		attached[0] = error ? NULL : spaces[1].domain;
		if (error)
			error = fail("PASID 1 is not attached again: %d", error);
	}
	if (!error)
		error = space_read(vt, &spaces[1], 1, 0x42);
	if (!error)
		error = space_read(vt, &spaces[1], 2, 0x43);
	/* Both share the one domain, so one unmap is for both. */
	if (!error) {
		space_unmap(&spaces[1]);
		error = engine_aborts(vt, 1, IOVA);
	}
	if (!error)
		error = engine_aborts(vt, 2, IOVA);
	for (i = 0; i < 2; i++)
		if (attached[i])
			iommu_detach_device_pasid(attached[i], vt->dev, i + 1);
	/* Never attached, and more than the device has. */
	if (!error)
		error = engine_aborts(vt, 3, IOVA);
	if (!error)
		error = engine_aborts(vt, beyond, IOVA);
	space_close(&spaces[0]);
	space_close(&spaces[1]);
	return error;
}

#else

static int without_pasids(struct vt *vt)
{
	vt->why = "this kernel attaches no domain to a PASID";
	return SKIPPED;
}
#define keeps_pasids_apart without_pasids
#define streams_while_pasids_change without_pasids
#define revokes_pasids without_pasids

#endif

/* A domain belongs to one SMMU: a device behind another cannot have it. */
static int refuses_a_foreign_domain(struct vt *vt)
{
	struct device_node *node;
	struct iommu_domain *domain = vt_domain_alloc(vt->dev);
	unsigned int others = 0;
	int error = 0;

	if (IS_ERR(domain))
		return fail("no domain: %ld", PTR_ERR(domain));
	for_each_compatible_node(node, NULL, "arm,smmute") {
		struct platform_device *other = of_find_device_by_node(node);

		if (other && !error && other->dev.iommu && vt->dev->iommu &&
		    other->dev.iommu->iommu_dev != vt->dev->iommu->iommu_dev) {
			others++;
			error = iommu_attach_device(domain, &other->dev);
			if (!error)
				iommu_detach_device(domain, &other->dev);
			say("# foreign domain on %s gives %d", dev_name(&other->dev), error);
			error = error == -EINVAL ? 0 : -EIO;
		}
		if (other)
			put_device(&other->dev);
	}
	iommu_domain_free(domain);
	if (!error && !others) {
		vt->why = "there is no other SMMU with an engine";
		return SKIPPED;
	}
	return error;
}

/* Without a fault handler, which this kernel lacks, nobody answers a stall. The engine is of no use afterwards. */
static int stalls_for_good(struct vt *vt)
{
	u8 *buffer = (u8 *)__get_free_page(GFP_KERNEL);
	dma_addr_t iova;
	u32 launched, returned;
	int error;

	if (!buffer)
		return -ENOMEM;
	iova = dma_map_single(vt->dev, buffer, PAGE_SIZE, DMA_BIDIRECTIONAL);
	if (dma_mapping_error(vt->dev, iova)) {
		free_page((unsigned long)buffer);
		return -ENOMEM;
	}
	error = engine_reads(vt, NO_PASID, iova, virt_to_phys(buffer), buffer, PAGE_SIZE, 0x50);
	dma_unmap_single(vt->dev, iova, PAGE_SIZE, DMA_BIDIRECTIONAL);
	if (!error) {
		vt->timeout = HZ;
		error = vt_command(vt, CMD_SUM64, NO_PASID, iova, 8, 0, 0);
		launched = readl(vt->base + USER_LAUNCHED);
		returned = readl(vt->base + USER_RETURNED);
		if (error != -ETIMEDOUT)
			error = fail("a read at %#llx ends with %d", iova, error);
		else if (launched != returned + 1)
			error = fail("%u of %u transactions returned", returned, launched);
		else
			error = 0;
	}
	if (!error)
		say("# stalled pasid=-1 iova=%#llx", iova);
	free_page((unsigned long)buffer);
	return error;
}

/* -- all engines at once --------------------------------------------------------------------------------------- */

#define MOST 8

/* With the parameter "together": all that were found. */
static struct vt *bound[MOST];
static unsigned int bound_count;

static bool several(struct vt *vt)
{
	if (bound_count > 1)
		return true;
	vt->why = "there is no other engine";
	return false;
}

/* Every engine copies at the same time from memory of its own to memory of its own, until they have met under way. */
static int copy_at_once(struct vt *vt)
{
	enum { BYTES = 1 << 21, MEETINGS = 4, ROUNDS = 1000, TAG = 0x80 };
	struct { void *source, *target; dma_addr_t from, to; } each[MOST] = {};
	unsigned int met = 0, n;
	int error = 0, rounds;

	if (!several(vt))
		return SKIPPED;
	for (n = 0; n < bound_count && !error; n++) {
		each[n].source = dma_alloc_coherent(bound[n]->dev, BYTES, &each[n].from, GFP_KERNEL);
		each[n].target = dma_alloc_coherent(bound[n]->dev, BYTES, &each[n].to, GFP_KERNEL);
		if (each[n].source && each[n].target)
			pattern_fill(each[n].source, BYTES, TAG + n);
		else
			error = -ENOMEM;
	}
	for (rounds = 0; rounds < ROUNDS && met < MEETINGS && !error; rounds++) {
		bool meeting = true;

		for (n = 0; n < bound_count; n++)
			memset(each[n].target, 0, BYTES);
		for (n = 0; n < bound_count; n++)
			vt_start(bound[n], CMD_MEMCPY, NO_PASID, each[n].from, BYTES, each[n].to, 0);
		for (n = 0; n < bound_count; n++)
			meeting &= !completion_done(&bound[n]->ended);
		for (n = 0; n < bound_count; n++) {
			int ended = vt_finish(bound[n]);

			if (ended)
				error = fail("the copy of %s ends with %d", dev_name(bound[n]->dev), ended);
			else if (memcmp(each[n].source, each[n].target, BYTES))
				error = fail("the copy of %s differs from what was copied", dev_name(bound[n]->dev));
		}
		met += meeting;
	}
	if (!error && met < MEETINGS)
		error = fail("the engines met %u times only", met);
	if (!error)
		say("# met engines=%u times=%u rounds=%d", bound_count, met, rounds);
	for (n = 0; n < bound_count; n++) {
		if (!error)
			say("# copied iova=%#llx to=%#llx bytes=%u tag=%u crc32=%#x", each[n].from, each[n].to, BYTES,
			    TAG + n, crc_of(each[n].target, BYTES));
		if (each[n].source)
			dma_free_coherent(bound[n]->dev, BYTES, each[n].source, each[n].from);
		if (each[n].target)
			dma_free_coherent(bound[n]->dev, BYTES, each[n].target, each[n].to);
	}
	return error;
}

/* One address is a page of each engine: each writes there, at the same time as the others, and finds its own. */
static int share_an_address(struct vt *vt)
{
	enum { ROUNDS = 16, SEED = 0x500 };
	struct space spaces[MOST] = {};
	bool attached[MOST] = {};
	unsigned int n, round;
	int error = 0;

	if (!several(vt))
		return SKIPPED;
	for (n = 0; n < bound_count && !error; n++) {
		if (!bound[n]->dev->iommu) {
			vt->why = "an engine is behind no SMMU";
			error = SKIPPED;
			break;
		}
		error = space_open(bound[n], &spaces[n], IOVA);
		if (error)
			break;
		error = iommu_attach_device(spaces[n].domain, bound[n]->dev);
		attached[n] = !error;
		if (error)
			error = fail("%s is not attached: %d", dev_name(bound[n]->dev), error);
	}
	for (round = 0; round < ROUNDS && !error; round++) {
		for (n = 0; n < bound_count; n++)
			vt_start(bound[n], CMD_RAND48, NO_PASID, IOVA, PAGE_SIZE, 0, SEED + n);
		for (n = 0; n < bound_count; n++) {
			int ended = vt_finish(bound[n]);

			if (ended)
				error = fail("the write of %s ends with %d", dev_name(bound[n]->dev), ended);
		}
		for (n = 1; n < bound_count && !error; n++)
			if (!memcmp(spaces[n - 1].page, spaces[n].page, PAGE_SIZE))
				error = fail("engines %u and %u wrote the same", n - 1, n);
	}
	/* What is told comes one by one, for the host to find it in this order. */
	for (n = 0; n < bound_count && !error; n++)
		error = space_written(bound[n], &spaces[n], NO_PASID, SEED + n);
	for (n = 0; n < bound_count; n++) {
		if (attached[n])
			iommu_detach_device(spaces[n].domain, bound[n]->dev);
		space_close(&spaces[n]);
	}
	return error;
}

/* -- the driver ------------------------------------------------------------------------------------------------ */

static const struct {
	const char *name;
	int (*run)(struct vt *vt);
} all[] = {
#define TEST(name) { #name, name }
	TEST(copies_coherent_memory),
	TEST(copies_odd_buffers),
	TEST(gathers_odd_segments),
	TEST(fills_scattered_pages),
	TEST(switches_domains),
	TEST(keeps_pasids_apart),
	TEST(streams_while_pasids_change),
	TEST(refuses_a_foreign_domain),
	TEST(loses_what_is_unmapped),
	TEST(loses_all_of_a_range),
	TEST(revokes_pasids),
	TEST(stalls_for_good),
	TEST(copy_at_once),
	TEST(share_an_address),
};

/* Whether the parameter "tests" asks for it. */
static bool wanted(const char *name)
{
	size_t length = strlen(name);
	const char *at;

	if (!*tests)
		return true;
	for (at = strstr(tests, name); at; at = strstr(at + 1, name))
		if ((at == tests || at[-1] == ',') && (!at[length] || at[length] == ','))
			return true;
	return false;
}

static void run_all(struct vt *vt)
{
	unsigned int count = 0, number = 0, i;
	int error;

	for (i = 0; i < ARRAY_SIZE(all); i++)
		count += wanted(all[i].name);
	say("KTAP version 1");
	say("1..%u", count);
	say("# engine %s", dev_name(vt->dev));
	for (i = 0; i < ARRAY_SIZE(all); i++) {
		if (!wanted(all[i].name))
			continue;
		error = all[i].run(vt);
		if (error == -ENOMEM)
			say("# there is no memory, or no address to map it at");
		if (error == SKIPPED)
			say("ok %u %s # SKIP %s", ++number, all[i].name, vt->why);
		else
			say("%sok %u %s", error ? "not " : "", ++number, all[i].name);
	}
}

static int vt_probe(struct platform_device *pdev)
{
	struct device *dev = &pdev->dev;
	struct vt *vt;
	int irq, error;

	if (*device && strcmp(device, dev_name(dev)))
		return -ENODEV;
	vt = devm_kzalloc(dev, sizeof(*vt), GFP_KERNEL);
	if (!vt)
		return -ENOMEM;
	vt->dev = dev;
	vt->timeout = TIMEOUT;
	init_completion(&vt->ended);
	vt->base = devm_platform_ioremap_resource(pdev, 0);
	if (IS_ERR(vt->base))
		return PTR_ERR(vt->base);
	irq = platform_get_irq(pdev, 0);
	if (irq < 0)
		return irq;
	error = devm_request_irq(dev, irq, vt_interrupt, 0, dev_name(dev), vt);
	if (error)
		return error;
	error = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(64));
	if (error)
		return error;
	/* Its commands are as long as you like. */
	dma_set_max_seg_size(dev, UINT_MAX);
	platform_set_drvdata(pdev, vt);
	if (!together)
		run_all(vt);
	else if (bound_count < MOST)
		bound[bound_count++] = vt;
	return 0;
}

static const struct of_device_id vt_match[] = {
	{ .compatible = "arm,smmute" },
	{}
};
MODULE_DEVICE_TABLE(of, vt_match);

static struct platform_driver vt_driver = {
	.probe = vt_probe,
	.driver = {
		.name = "vt_engine",
		.of_match_table = vt_match,
		.probe_type = PROBE_FORCE_SYNCHRONOUS,
	},
};

static int __init vt_engine_init(void)
{
	int error = platform_driver_register(&vt_driver);

	if (!error && bound_count)
		run_all(bound[0]);
	return error;
}
module_init(vt_engine_init);

static void __exit vt_engine_exit(void)
{
	platform_driver_unregister(&vt_driver);
}
module_exit(vt_engine_exit);

MODULE_DESCRIPTION("Tests of the DMA and IOMMU APIs on a DMA engine behind an SMMU");
MODULE_LICENSE("GPL");
