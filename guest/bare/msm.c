/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Qualcomm's IOMMU of 2010: machine ids, contexts with tables of short descriptors, faults, stalls, invalidations, V2P.
 * What one table for two IOMMUs means is shown here, since Linux' driver makes each attach a table of its own.
 */
#include "vt.h"

#define PAGE 0x1000UL
#define MEGABYTE 0x100000UL
#define SOURCE 0x10003000UL /* input addresses, of which nothing is a physical one */
#define TARGET 0x20045000UL

/* of a context, which is at its number times 4 KiB */
#define SCTLR 0x00
#define SCTLR_M (1u << 0)
#define SCTLR_TRE (1u << 1)
#define SCTLR_AFE (1u << 2)
#define ACTLR 0x04
#define ACTLR_CFERE (1u << 0)
#define ACTLR_CFEIE (1u << 1)
#define ACTLR_CFCFG (1u << 14)
#define CONTEXTIDR 0x08
#define TTBR0 0x10
#define PAR 0x1c
#define FSR 0x20
#define FSR_TF (1u << 1)
#define FSR_APF (1u << 3)
#define FSR_HTWDEEF (1u << 5)
#define FSR_SL (1u << 16)
#define FSR_SS (1u << 30)
#define FAR 0x28
#define FSYNR0 0x2c
#define FSYNR1 0x30
#define FSYNR1_AWRITE (1u << 8)
#define PRRR 0x34
#define NMRR 0x38
#define CTX_TLBIALL 0x800
#define TLBIASID 0x804
#define TLBIVA 0x808
#define TLBIVAA 0x80c
#define V2PPR 0x810
#define RESUME 0x820
#define RESUME_TERMINATE 1u
/* global */
#define M2VCBR(mid) (0xff000 + 4 * (mid))
#define CBACR(context) (0xff800 + 4 * (context))
#define GLOBAL_TLBIALL 0xfff00
#define CR 0xfff80
#define CR_RPUERE (1u << 1)
#define ESR 0xfff88
#define ESR_CFG (1u << 0)
#define ESYNR0 0xfff90
#define IDR 0xffff8

/* short descriptors: nG, AP[2], and AP[1:0] = 0b11, of which AP[0] is the access flag */
enum { TABLE = 1, SECTION = 2, LARGE = 1, SMALL = 2 };
#define SECTION_RW (3u << 10 | 1u << 17)
#define SUPERSECTION (1u << 18)
#define PAGE_RW (3u << 4 | 1u << 11)
#define PAGE_RO (PAGE_RW | 1u << 9)

#define CONTEXT 1u

struct iommu {
	uint64_t base;
	struct vt_engine engine;
};

static uint8_t *source, *target;

static uint32_t get(const struct iommu *iommu, uint32_t at) { return vt_read32(iommu->base + at); }
static void set(const struct iommu *iommu, uint32_t at, uint32_t value) { vt_write32(iommu->base + at, value); }
static uint32_t get_c(const struct iommu *iommu, uint32_t at) { return get(iommu, CONTEXT * 0x1000 + at); }
static void set_c(const struct iommu *iommu, uint32_t at, uint32_t value) { set(iommu, CONTEXT * 0x1000 + at, value); }

/* The IOMMU 'index' and the engine behind it, with its first machine id at CONTEXT, and all else off. */
static bool begin_one(struct iommu *iommu, unsigned int index, const uint32_t *root, uint32_t more)
{
	const struct vt_master_config *master = NULL;

	for (unsigned int i = 0; i < vt_config.masters; i++)
		if (vt_config.master[i].smmu == index && vt_starts_with(vt_config.master[i].compatible, "arm,smmute"))
			master = &vt_config.master[i];
	if (index >= vt_config.smmus || !master) {
		vt_skip("the machine has not as many IOMMUs with an engine");
		return false;
	}
	iommu->base = vt_config.smmu[index].base;
	vt_engine_init(&iommu->engine, master);
	set(iommu, CR, CR_RPUERE);
	set(iommu, ESR, ~0u);
	set(iommu, GLOBAL_TLBIALL, 0);
	set(iommu, CBACR(CONTEXT), 0);
	set(iommu, M2VCBR(iommu->engine.sid), CONTEXT << 8);
	set_c(iommu, FSR, ~0u);
	set_c(iommu, RESUME, RESUME_TERMINATE);
	set_c(iommu, CONTEXTIDR, CONTEXT);
	set_c(iommu, PRRR, 0x800b8204);
	set_c(iommu, NMRR, 0x40004000);
	set_c(iommu, TTBR0, (uint32_t)(uint64_t)root);
	set_c(iommu, ACTLR, ACTLR_CFERE | ACTLR_CFEIE | more);
	set_c(iommu, SCTLR, SCTLR_M | SCTLR_TRE | SCTLR_AFE);
	return true;
}

static uint32_t *new_root(void)
{
	source = vt_alloc(16 * PAGE, 16 * PAGE);
	target = vt_alloc(16 * PAGE, 16 * PAGE);
	for (unsigned int i = 0; i < PAGE; i++)
		source[i] = (uint8_t)(i * 7 + 3);
	return vt_alloc(0x4000, 0x4000);
}

/* The descriptor of 'va' at level 2; the table is made. */
static uint32_t *page(uint32_t *root, uint32_t va)
{
	uint32_t *of = &root[va >> 20];

	if (!(*of & 3))
		*of = (uint32_t)(uint64_t)vt_alloc(0x400, 0x400) | TABLE;
	return (uint32_t *)(uint64_t)(*of & ~0x3ffu) + (va >> 12 & 0xff);
}

static void map(uint32_t *root, uint32_t va, const void *to, uint32_t rights)
{
	*page(root, va) = (uint32_t)(uint64_t)to | rights | SMALL;
	vt_barrier();
}

static bool copies(struct iommu *iommu, uint64_t to, uint64_t from)
{
	memset(target, 0, PAGE);
	return vt_engine_copy(&iommu->engine, to, from, PAGE, VT_NO_SSID) == VT_ENGINE_HALTED &&
	       !memcmp(source, target, PAGE);
}

static void a_probe_finds_a_walk_that_ends_in_a_fault(void)
{
	static struct iommu iommu;
	uint32_t *root = new_root();

	if (!begin_one(&iommu, 0, root, 0))
		return;
	VT_CHECK((get(&iommu, IDR) >> 16 & 0xff) > CONTEXT, "IDR %x has no context %u", get(&iommu, IDR), CONTEXT);
	set_c(&iommu, TTBR0, 0);
	set_c(&iommu, PAR, 0);
	set_c(&iommu, V2PPR, 0);
	VT_CHECK(get_c(&iommu, PAR) == (FSR_HTWDEEF | 1), "PAR is %x", get_c(&iommu, PAR));
	VT_CHECK(!get_c(&iommu, FSR), "FSR is %x, though V2P records nothing", get_c(&iommu, FSR));
}

static void pages_of_4k_and_64k_are_translated(void)
{
	static struct iommu iommu;
	uint32_t *root = new_root();

	if (!begin_one(&iommu, 0, root, 0))
		return;
	map(root, SOURCE, source, PAGE_RO);
	for (unsigned int i = 0; i < 16; i++)
		*page(root, (TARGET & ~0xffffu) + i * PAGE) = (uint32_t)(uint64_t)target | PAGE_RW | LARGE;
	vt_barrier();
	VT_CHECK(copies(&iommu, TARGET & ~0xffffu, SOURCE), "bytes are not copied, FSR %x FAR %x", get_c(&iommu, FSR),
		 get_c(&iommu, FAR));
	set_c(&iommu, V2PPR, (uint32_t)(TARGET & ~0xffffu) + 3 * PAGE);
	VT_CHECK((get_c(&iommu, PAR) & ~0xfffu) == (uint32_t)(uint64_t)target + 3 * PAGE, "PAR is %x", get_c(&iommu, PAR));
}

static void sections_of_1m_and_16m_are_translated(void)
{
	static struct iommu iommu;
	uint32_t *root = new_root();
	uint32_t of_source = (uint32_t)((uint64_t)source & (MEGABYTE - 1));
	uint32_t of_target = (uint32_t)((uint64_t)target & (16 * MEGABYTE - 1));

	if (!begin_one(&iommu, 0, root, 0))
		return;
	root[0x123] = ((uint32_t)(uint64_t)source & ~(uint32_t)(MEGABYTE - 1)) | SECTION_RW | SECTION;
	for (unsigned int i = 0; i < 16; i++)
		root[0x500 + i] = ((uint32_t)(uint64_t)target & 0xff000000) | SECTION_RW | SUPERSECTION | SECTION;
	vt_barrier();
	VT_CHECK(copies(&iommu, 0x50000000UL + of_target, 0x12300000UL + of_source), "bytes are not copied, FSR %x FAR %x",
		 get_c(&iommu, FSR), get_c(&iommu, FAR));
}

static void a_machine_id_without_a_context_is_an_error(void)
{
	static struct iommu iommu;
	uint32_t *root = new_root();

	if (!begin_one(&iommu, 0, root, 0))
		return;
	set(&iommu, M2VCBR(iommu.engine.sid), 0xff00);
	VT_CHECK(vt_engine_read(&iommu.engine, SOURCE, PAGE) == VT_ENGINE_ERROR, "a read without a context is answered");
	VT_CHECK(get(&iommu, ESR) == ESR_CFG, "ESR is %x", get(&iommu, ESR));
	VT_CHECK((get(&iommu, ESYNR0) & 0xff) == iommu.engine.sid, "ESYNR0 is %x", get(&iommu, ESYNR0));
}

static void a_fault_says_where_and_by_whom(void)
{
	static struct iommu iommu;
	uint32_t *root = new_root();

	if (!begin_one(&iommu, 0, root, 0))
		return;
	map(root, SOURCE, source, PAGE_RO);
	VT_CHECK(vt_engine_write(&iommu.engine, SOURCE, 8) == VT_ENGINE_ERROR, "what is read-only is written");
	VT_CHECK(get_c(&iommu, FSR) == (FSR_APF | FSR_SL), "FSR is %x", get_c(&iommu, FSR));
	VT_CHECK(get_c(&iommu, FAR) == SOURCE, "FAR is %x", get_c(&iommu, FAR));
	VT_CHECK((get_c(&iommu, FSYNR0) & 0xff) == iommu.engine.sid, "FSYNR0 is %x", get_c(&iommu, FSYNR0));
	VT_CHECK(get_c(&iommu, FSYNR1) & FSYNR1_AWRITE, "FSYNR1 is %x", get_c(&iommu, FSYNR1));
	VT_CHECK(vt_engine_read(&iommu.engine, SOURCE, 8) == VT_ENGINE_ERROR, "a fault that is pending lets a read pass");
	set_c(&iommu, FSR, ~0u);
	VT_CHECK(vt_engine_read(&iommu.engine, SOURCE, 8) == VT_ENGINE_HALTED, "a read is not answered once FSR is clear");
	VT_CHECK(vt_engine_read(&iommu.engine, 0x60000000, 8) == VT_ENGINE_ERROR, "what is not mapped is read");
	VT_CHECK(get_c(&iommu, FSR) == FSR_TF, "FSR is %x", get_c(&iommu, FSR));
}

static void a_stalled_access_goes_on_once_it_is_mapped_and_resumed(void)
{
	static struct iommu iommu;
	uint32_t *root = new_root();

	if (!begin_one(&iommu, 0, root, ACTLR_CFCFG))
		return;
	vt_engine_start_read(&iommu.engine, SOURCE, PAGE);
	VT_CHECK(VT_WAIT(get_c(&iommu, FSR) & FSR_SS, 5), "nothing stalls, FSR %x", get_c(&iommu, FSR));
	map(root, SOURCE, source, PAGE_RO);
	/* as Linux' driver does it, which resumes nothing */
	set_c(&iommu, FSR, 0x4000000f);
	VT_CHECK(vt_engine_busy(&iommu.engine), "a stall ends without RESUME");
	set_c(&iommu, FSR, ~0u);
	set_c(&iommu, RESUME, 0);
	VT_CHECK(vt_engine_end(&iommu.engine) == VT_ENGINE_HALTED, "what is resumed does not end well");
}

static void a_stalled_access_ends_when_it_is_terminated(void)
{
	static struct iommu iommu;
	uint32_t *root = new_root();

	if (!begin_one(&iommu, 0, root, ACTLR_CFCFG))
		return;
	vt_engine_start_read(&iommu.engine, SOURCE, PAGE);
	VT_CHECK(VT_WAIT(get_c(&iommu, FSR) & FSR_SS, 5), "nothing stalls, FSR %x", get_c(&iommu, FSR));
	set_c(&iommu, FSR, ~0u);
	set_c(&iommu, RESUME, RESUME_TERMINATE);
	VT_CHECK(vt_engine_end(&iommu.engine) == VT_ENGINE_ERROR, "what is terminated ends well");
}

/* Whether a store of 'value' to 'at' has the page be looked up anew, which is mapped to 'target' meanwhile. */
static bool drops(struct iommu *iommu, uint32_t *root, uint32_t at, uint32_t value)
{
	uint64_t sum, other;

	map(root, SOURCE, source, PAGE_RW);
	set_c(iommu, CTX_TLBIALL, 0);
	memset(target, 0, PAGE);
	vt_engine_sum(&iommu->engine, SOURCE, PAGE, &sum);
	map(root, SOURCE, target, PAGE_RW);
	vt_engine_sum(&iommu->engine, SOURCE, PAGE, &other);
	if (other != sum) {
		vt_fail("what is cached is gone without an invalidation");
		return false;
	}
	set_c(iommu, at, value);
	vt_engine_sum(&iommu->engine, SOURCE, PAGE, &other);
	return other != sum;
}

static void an_invalidation_drops_what_it_names(void)
{
	static struct iommu iommu;
	uint32_t *root = new_root();

	if (!begin_one(&iommu, 0, root, 0))
		return;
	VT_CHECK(drops(&iommu, root, TLBIVA, SOURCE | CONTEXT), "TLBIVA drops nothing");
	VT_CHECK(!drops(&iommu, root, TLBIVA, SOURCE | (CONTEXT + 1)), "TLBIVA of another ASID drops it");
	VT_CHECK(!drops(&iommu, root, TLBIVA, (SOURCE + PAGE) | CONTEXT), "TLBIVA of another page drops it");
	VT_CHECK(drops(&iommu, root, TLBIVAA, SOURCE), "TLBIVAA drops nothing");
	VT_CHECK(drops(&iommu, root, TLBIASID, CONTEXT), "TLBIASID drops nothing");
	VT_CHECK(!drops(&iommu, root, TLBIASID, CONTEXT + 1), "TLBIASID of another ASID drops it");
	VT_CHECK(drops(&iommu, root, CTX_TLBIALL, 0), "CTX_TLBIALL drops nothing");
}

static void two_iommus_share_one_table(void)
{
	static struct iommu one, other;
	uint32_t *root = new_root();

	if (!begin_one(&one, 0, root, 0) || !begin_one(&other, 1, root, 0))
		return;
	map(root, SOURCE, source, PAGE_RO);
	map(root, TARGET, target, PAGE_RW);
	VT_CHECK(copies(&one, TARGET, SOURCE), "the first does not copy, FSR %x", get_c(&one, FSR));
	VT_CHECK(copies(&other, TARGET, SOURCE), "the second does not copy, FSR %x", get_c(&other, FSR));
	/* one unmap, and an invalidation for each: neither drops the other's */
	*page(root, SOURCE) = 0;
	vt_barrier();
	set_c(&one, TLBIVA, SOURCE | CONTEXT);
	VT_CHECK(vt_engine_read(&one.engine, SOURCE, PAGE) == VT_ENGINE_ERROR, "the first has kept what it was to drop");
	VT_CHECK(copies(&other, TARGET, SOURCE), "the second has dropped what the first was told to");
	set_c(&other, TLBIVA, SOURCE | CONTEXT);
	VT_CHECK(vt_engine_read(&other.engine, SOURCE, PAGE) == VT_ENGINE_ERROR, "the second has kept what it was to drop");
}

VT_CASES(
	{"a_probe_finds_a_walk_that_ends_in_a_fault", a_probe_finds_a_walk_that_ends_in_a_fault},
	{"pages_of_4k_and_64k_are_translated", pages_of_4k_and_64k_are_translated},
	{"sections_of_1m_and_16m_are_translated", sections_of_1m_and_16m_are_translated},
	{"a_machine_id_without_a_context_is_an_error", a_machine_id_without_a_context_is_an_error},
	{"a_fault_says_where_and_by_whom", a_fault_says_where_and_by_whom},
	{"a_stalled_access_goes_on_once_it_is_mapped_and_resumed", a_stalled_access_goes_on_once_it_is_mapped_and_resumed},
	{"a_stalled_access_ends_when_it_is_terminated", a_stalled_access_ends_when_it_is_terminated},
	{"an_invalidation_drops_what_it_names", an_invalidation_drops_what_it_names},
	{"two_iommus_share_one_table", two_iommus_share_one_table},
);
