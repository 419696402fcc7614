/* SPDX-License-Identifier: Apache-2.0 */
/* A driver for one SMMUv3, no larger than the tests need: linear stream table, stage 1, 4K pages. */
#include "vt.h"

/* IHI 0070 chapter 6 */
#define IDR0 0x00
#define IDR1 0x04
#define IDR5 0x14
#define CR0 0x20
#define CR0ACK 0x24
#define CR1 0x28
#define CR2 0x2c
#define IRQ_CTRL 0x50
#define IRQ_CTRLACK 0x54
#define GERROR 0x60
#define GERRORN 0x64
#define STRTAB_BASE 0x80
#define STRTAB_BASE_CFG 0x88
#define CMDQ_BASE 0x90
#define CMDQ_PROD 0x98
#define CMDQ_CONS 0x9c
#define EVENTQ_BASE 0xa0
#define EVENTQ_IRQ_CFG0 0xb0
#define EVENTQ_IRQ_CFG1 0xb8
#define EVENTQ_IRQ_CFG2 0xbc
#define EVENTQ_PROD 0x100a8
#define EVENTQ_CONS 0x100ac

#define CR0_SMMUEN (1 << 0)
#define CR0_EVENTQEN (1 << 2)
#define CR0_CMDQEN (1 << 3)
#define IRQ_CTRL_EVENTQ (1 << 2)
#define CR1_INNER_SHAREABLE_WB 0x0d75
#define CR2_RECINVSID (1 << 1)
#define BASE_RA (1UL << 62)
#define OVERFLOW (1U << 31)

#define CMD_CFGI_STE 0x03UL
#define CMD_CFGI_ALL 0x04UL
#define CMD_TLBI_NH_VA 0x12UL
#define CMD_TLBI_NSNH_ALL 0x30UL
#define CMD_SYNC 0x46UL

#define STE_WORDS 8
#define PAGE 4096UL
#define MAX_BITS 8

static uint32_t get(const struct vt_smmu *smmu, uint32_t at) { return vt_read32(smmu->base + at); }
static void set(const struct vt_smmu *smmu, uint32_t at, uint32_t value) { vt_write32(smmu->base + at, value); }
static void set64(const struct vt_smmu *smmu, uint32_t at, uint64_t value) { vt_write64(smmu->base + at, value); }

static unsigned int least(unsigned int a, unsigned int b) { return a < b ? a : b; }

static void set_cr0(const struct vt_smmu *smmu, uint32_t value)
{
	set(smmu, CR0, value);
	if (!VT_WAIT(get(smmu, CR0ACK) == value, 2))
		vt_bail("the SMMU does not acknowledge CR0");
}

void vt_smmu_start(struct vt_smmu *smmu, const struct vt_smmu_config *config)
{
	size_t strtab, commands, events;

	memset(smmu, 0, sizeof(*smmu));
	smmu->base = config->base;
	smmu->idr0 = get(smmu, IDR0);
	smmu->idr1 = get(smmu, IDR1);
	smmu->idr5 = get(smmu, IDR5);
	if (smmu->idr0 == 0xffffffff)
		vt_bail("nobody answers at the SMMU's registers");
	if (!(smmu->idr0 >> 1 & 1))
		vt_bail("the SMMU has no stage 1");
	if (!(smmu->idr5 >> 4 & 1))
		vt_bail("the SMMU has no 4K granule");
	smmu->sid_bits = least(smmu->idr1 & 63, MAX_BITS);
	smmu->command_bits = least(smmu->idr1 >> 21 & 31, MAX_BITS);
	smmu->event_bits = least(smmu->idr1 >> 16 & 31, 7);
	strtab = (size_t)64 << smmu->sid_bits;
	commands = (size_t)16 << smmu->command_bits;
	events = (size_t)32 << smmu->event_bits;
	smmu->strtab = vt_alloc(strtab, strtab);
	smmu->commands = vt_alloc(commands, commands < 32 ? 32 : commands);
	smmu->events = vt_alloc(events, events);

	set_cr0(smmu, 0);
	set(smmu, IRQ_CTRL, 0);
	set(smmu, CR1, CR1_INNER_SHAREABLE_WB);
	set(smmu, CR2, CR2_RECINVSID);
	set64(smmu, STRTAB_BASE, (uint64_t)smmu->strtab | BASE_RA);
	set(smmu, STRTAB_BASE_CFG, smmu->sid_bits);
	set64(smmu, CMDQ_BASE, (uint64_t)smmu->commands | BASE_RA | smmu->command_bits);
	set(smmu, CMDQ_PROD, 0);
	set(smmu, CMDQ_CONS, 0);
	set_cr0(smmu, CR0_CMDQEN);
	vt_smmu_command(smmu, CMD_CFGI_ALL, 31);
	vt_smmu_command(smmu, CMD_TLBI_NSNH_ALL, 0);
	if (!vt_smmu_sync(smmu))
		vt_bail("the SMMU's first CMD_SYNC does not complete");
	set64(smmu, EVENTQ_BASE, (uint64_t)smmu->events | BASE_RA | smmu->event_bits);
	set(smmu, EVENTQ_PROD, 0);
	set(smmu, EVENTQ_CONS, 0);
	set_cr0(smmu, CR0_CMDQEN | CR0_EVENTQEN);
	set_cr0(smmu, CR0_CMDQEN | CR0_EVENTQEN | CR0_SMMUEN);
}

void vt_smmu_enable(struct vt_smmu *smmu, bool on)
{
	set_cr0(smmu, CR0_CMDQEN | CR0_EVENTQEN | (on ? CR0_SMMUEN : 0));
}

uint32_t vt_smmu_event_interrupt(struct vt_smmu *smmu, const struct vt_smmu_config *config)
{
	bool msi = smmu->idr0 >> 13 & 1;
	uint32_t intid = msi ? VT_MSI_INTID : config->intid[0];

	if (!intid)
		return 0;
	set(smmu, IRQ_CTRL, 0);
	if (!VT_WAIT(get(smmu, IRQ_CTRLACK) == 0, 1))
		vt_bail("the SMMU does not acknowledge IRQ_CTRL");
	if (msi) {
		set64(smmu, EVENTQ_IRQ_CFG0, VT_MSI_DOORBELL);
		set(smmu, EVENTQ_IRQ_CFG1, intid);
		set(smmu, EVENTQ_IRQ_CFG2, 1); /* Device-nGnRE */
	}
	set(smmu, IRQ_CTRL, IRQ_CTRL_EVENTQ);
	if (!VT_WAIT(get(smmu, IRQ_CTRLACK) == IRQ_CTRL_EVENTQ, 1))
		vt_bail("the SMMU does not acknowledge IRQ_CTRL");
	return intid;
}

/* -- queues: an index and above it a wrap bit (§3.5.1) -- */

static uint32_t mask(unsigned int bits) { return (1U << bits) - 1; }

void vt_smmu_command(struct vt_smmu *smmu, uint64_t word0, uint64_t word1)
{
	uint32_t full = 1U << smmu->command_bits;
	uint64_t *entry = smmu->commands + 2 * (smmu->command_prod & mask(smmu->command_bits));

	if (!VT_WAIT(((smmu->command_prod ^ get(smmu, CMDQ_CONS)) & mask(smmu->command_bits + 1)) != full, 2))
		vt_bail("the command queue stays full");
	entry[0] = word0;
	entry[1] = word1;
	vt_barrier();
	smmu->command_prod = (smmu->command_prod + 1) & mask(smmu->command_bits + 1);
	set(smmu, CMDQ_PROD, smmu->command_prod);
}

bool vt_smmu_sync(struct vt_smmu *smmu)
{
	uint32_t wanted;

	vt_smmu_command(smmu, CMD_SYNC, 0);
	wanted = smmu->command_prod;
	return VT_WAIT((get(smmu, CMDQ_CONS) & mask(smmu->command_bits + 1)) == wanted, 1);
}

bool vt_smmu_event(struct vt_smmu *smmu, struct vt_event *event, unsigned int seconds)
{
	volatile uint64_t *record = smmu->events + 4 * (smmu->event_cons & mask(smmu->event_bits));
	uint32_t wrap = mask(smmu->event_bits + 1), prod;

	if (!VT_WAIT(((prod = get(smmu, EVENTQ_PROD)) & wrap) != (smmu->event_cons & wrap), seconds))
		return false;
	vt_barrier();
	for (int i = 0; i < 4; i++)
		event->word[i] = record[i];
	event->id = (uint8_t)event->word[0];
	event->ssv = event->word[0] >> 11 & 1;
	event->ssid = event->word[0] >> 12 & 0xfffff;
	event->sid = (uint32_t)(event->word[0] >> 32);
	event->read = event->word[1] >> 35 & 1;
	event->stage2 = event->word[1] >> 39 & 1;
	event->address = event->word[2];
	smmu->event_cons = (smmu->event_cons + 1) & wrap;
	set(smmu, EVENTQ_CONS, smmu->event_cons | (prod & OVERFLOW));
	return true;
}

void vt_smmu_drain(struct vt_smmu *smmu)
{
	struct vt_event event;

	while (vt_smmu_event(smmu, &event, 0))
		;
}

/* -- the stream table (§5.2) and context descriptors (§5.4) -- */

static void put_ste(struct vt_smmu *smmu, uint32_t sid, uint64_t word0, uint64_t word1)
{
	uint64_t *ste = smmu->strtab + STE_WORDS * sid;

	if (sid >> smmu->sid_bits)
		vt_bail("a StreamID lies outside of the stream table");
	ste[0] = 0; /* V = 0 before anything else changes */
	vt_barrier();
	vt_smmu_command(smmu, CMD_CFGI_STE | (uint64_t)sid << 32, 1);
	vt_smmu_sync(smmu);
	ste[1] = word1;
	vt_barrier();
	ste[0] = word0;
	vt_barrier();
	vt_smmu_command(smmu, CMD_CFGI_STE | (uint64_t)sid << 32, 1);
	if (!vt_smmu_sync(smmu))
		vt_fail("CMD_SYNC after CMD_CFGI_STE does not complete");
}

#define STE_V 1UL
#define STE_CONFIG(kind) ((uint64_t)(kind) << 1)
#define STE_S1_INNER_WB (1UL << 2 | 1UL << 4 | 3UL << 6) /* S1CIR, S1COR write-back, S1CSH inner shareable */
#define STE_S1DSS_SUBSTREAM0 2UL /* without a SubstreamID, substream 0's descriptor is used */
#define STE_S1STALLD (1UL << 27)
#define STE_SHCFG_INCOMING (1UL << 44)

void vt_smmu_forget(struct vt_smmu *smmu, uint32_t sid) { put_ste(smmu, sid, 0, 0); }
void vt_smmu_abort(struct vt_smmu *smmu, uint32_t sid)
{
	put_ste(smmu, sid, STE_V | STE_CONFIG(VT_ABORT), 0);
}
void vt_smmu_bypass(struct vt_smmu *smmu, uint32_t sid)
{
	put_ste(smmu, sid, STE_V | STE_CONFIG(VT_BYPASS), STE_SHCFG_INCOMING);
}

#define CD_T0SZ(bits) (64UL - (bits))
#define CD_WB_INNER (1UL << 8 | 1UL << 10 | 3UL << 12) /* IR0, OR0 write-back, SH0 inner shareable */
#define CD_EPD1 (1UL << 30)
#define CD_V (1UL << 31)
#define CD_AA64 (1UL << 41)
#define CD_R (1UL << 45)
#define CD_A (1UL << 46)
#define CD_ASET (1UL << 47)

static void fill_cd(const struct vt_smmu *smmu, uint64_t *cd, const struct vt_space *space)
{
	uint64_t ips = smmu->idr5 & 7;

	cd[0] = CD_T0SZ(39) | CD_WB_INNER | CD_EPD1 | CD_V | ips << 32 | CD_AA64 | CD_R | CD_A | CD_ASET |
		(uint64_t)space->asid << 48;
	cd[1] = (uint64_t)space->root;
	cd[3] = 0xff; /* MAIR0: attribute 0 is write-back */
}

void vt_smmu_attach_substreams(struct vt_smmu *smmu, uint32_t sid, const struct vt_space *const *spaces,
			       unsigned int count)
{
	uint64_t *table = vt_alloc(64 * count, 64 * count);
	/* STALL_MODEL 0b00: stalls are possible, so this stream disables them (§5.2). */
	uint64_t no_stall = (smmu->idr0 >> 24 & 3) == 0 ? STE_S1STALLD : 0;
	uint64_t bits = 0;

	for (unsigned int i = 0; i < count; i++)
		if (spaces[i])
			fill_cd(smmu, table + 8 * i, spaces[i]);
	while (1U << bits < count)
		bits++;
	vt_barrier();
	put_ste(smmu, sid, STE_V | STE_CONFIG(VT_STAGE1) | (uint64_t)table | bits << 59,
		STE_S1DSS_SUBSTREAM0 | STE_S1_INNER_WB | no_stall);
}

void vt_smmu_attach(struct vt_smmu *smmu, uint32_t sid, const struct vt_space *space)
{
	vt_smmu_attach_substreams(smmu, sid, &space, 1);
}

/* -- page tables: 39 bits are levels 1 to 3 (Arm ARM D8) -- */

#define DESC_VALID 1UL
#define DESC_TABLE 2UL /* a page at level 3 */
#define DESC_AF (1UL << 10)
#define DESC_SH_INNER (3UL << 8)
#define DESC_NG (1UL << 11)
#define DESC_AP_EL0 (1UL << 6)
#define DESC_AP_RO (1UL << 7)
#define DESC_ADDRESS 0xfffffffff000UL

void vt_space_init(struct vt_smmu *smmu, struct vt_space *space)
{
	space->root = vt_alloc(PAGE, PAGE);
	space->asid = ++smmu->next_asid;
}

/* The level 3 descriptor of 'iova'; its tables are made. */
static uint64_t *leaf(struct vt_space *space, uint64_t iova)
{
	uint64_t *table = space->root;

	for (unsigned int shift = 30; shift > 12; shift -= 9) {
		uint64_t *entry = table + (iova >> shift & 511);

		if (!(*entry & DESC_VALID))
			*entry = (uint64_t)vt_alloc(PAGE, PAGE) | DESC_VALID | DESC_TABLE;
		table = (uint64_t *)(*entry & DESC_ADDRESS);
	}
	return table + (iova >> 12 & 511);
}

void vt_map(struct vt_space *space, uint64_t iova, uint64_t pa, size_t size, unsigned int rights)
{
	uint64_t bits = DESC_VALID | DESC_TABLE | DESC_AF | DESC_SH_INNER | DESC_NG | DESC_AP_EL0;

	if (!(rights & VT_WRITE))
		bits |= DESC_AP_RO;
	for (uint64_t at = 0; at < size; at += PAGE)
		*leaf(space, iova + at) = (pa + at) | bits;
	vt_barrier();
}

void vt_unmap(struct vt_smmu *smmu, struct vt_space *space, uint64_t iova, size_t size, bool keep_tlb)
{
	for (uint64_t at = 0; at < size; at += PAGE)
		*leaf(space, iova + at) = 0;
	vt_barrier();
	if (keep_tlb)
		return;
	for (uint64_t at = 0; at < size; at += PAGE)
		vt_smmu_command(smmu, CMD_TLBI_NH_VA | (uint64_t)space->asid << 48, (iova + at) | 1);
	if (!vt_smmu_sync(smmu))
		vt_fail("CMD_SYNC after CMD_TLBI_NH_VA does not complete");
}
