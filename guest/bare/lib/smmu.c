/* SPDX-License-Identifier: Apache-2.0 */
/* A driver for one SMMUv3, no larger than the tests need: linear stream table, both stages, 4K pages. */
#include "smmu.h"
#include "vt.h"

#define STE_WORDS 8
#define PAGE 4096UL
#define MAX_BITS 8

static uint32_t get(const struct vt_smmu *smmu, uint32_t at) { return vt_smmu_get(smmu, at); }
static void set(const struct vt_smmu *smmu, uint32_t at, uint32_t value) { vt_smmu_set(smmu, at, value); }
static void set64(const struct vt_smmu *smmu, uint32_t at, uint64_t value) { vt_smmu_set64(smmu, at, value); }

static unsigned int least(unsigned int a, unsigned int b) { return a < b ? a : b; }

void vt_smmu_cr0(const struct vt_smmu *smmu, uint32_t value)
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
	smmu->idr3 = get(smmu, IDR3);
	smmu->idr5 = get(smmu, IDR5);
	if (smmu->idr0 == 0xffffffff)
		vt_bail("nobody answers at the SMMU's registers");
	if (!(smmu->idr0 & IDR0_S1P))
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

	vt_smmu_cr0(smmu, 0);
	set(smmu, IRQ_CTRL, 0);
	set(smmu, GERRORN, get(smmu, GERROR));
	set(smmu, CR1, CR1_INNER_SHAREABLE_WB);
	set(smmu, CR2, CR2_RECINVSID);
	set64(smmu, STRTAB_BASE, (uint64_t)smmu->strtab | BASE_RA);
	set(smmu, STRTAB_BASE_CFG, smmu->sid_bits);
	set64(smmu, CMDQ_BASE, (uint64_t)smmu->commands | BASE_RA | smmu->command_bits);
	set(smmu, CMDQ_PROD, 0);
	set(smmu, CMDQ_CONS, 0);
	vt_smmu_cr0(smmu, CR0_CMDQEN);
	vt_smmu_command(smmu, CMD_CFGI_ALL, 31);
	vt_smmu_command(smmu, CMD_TLBI_NSNH_ALL, 0);
	if (!vt_smmu_sync(smmu))
		vt_bail("the SMMU's first CMD_SYNC does not complete");
	vt_smmu_event_queue(smmu, (uint64_t)smmu->events, smmu->event_bits);
	vt_smmu_cr0(smmu, CR0_CMDQEN | CR0_EVENTQEN | CR0_SMMUEN);
}

void vt_smmu_event_queue(struct vt_smmu *smmu, uint64_t at, unsigned int bits)
{
	uint32_t cr0 = get(smmu, CR0);

	vt_smmu_cr0(smmu, cr0 & ~CR0_EVENTQEN);
	smmu->events = (uint64_t *)at;
	smmu->event_bits = bits;
	smmu->event_cons = 0;
	set64(smmu, EVENTQ_BASE, at | BASE_RA | bits);
	set(smmu, EVENTQ_PROD, 0);
	set(smmu, EVENTQ_CONS, 0);
	vt_smmu_cr0(smmu, cr0 | CR0_EVENTQEN);
}

void vt_smmu_stream_table(struct vt_smmu *smmu, uint64_t at, uint32_t config)
{
	vt_smmu_enable(smmu, false);
	set64(smmu, STRTAB_BASE, at | BASE_RA);
	set(smmu, STRTAB_BASE_CFG, config);
	vt_smmu_command(smmu, CMD_CFGI_ALL, 31);
	if (!vt_smmu_sync(smmu))
		vt_fail("CMD_SYNC after CMD_CFGI_STE_RANGE does not complete");
	vt_smmu_enable(smmu, true);
}

uint32_t vt_smmu_errors(const struct vt_smmu *smmu) { return get(smmu, GERROR) ^ get(smmu, GERRORN); }

void vt_smmu_acknowledge(const struct vt_smmu *smmu) { set(smmu, GERRORN, get(smmu, GERROR)); }

void vt_smmu_enable(struct vt_smmu *smmu, bool on)
{
	vt_smmu_cr0(smmu, CR0_CMDQEN | CR0_EVENTQEN | (on ? CR0_SMMUEN : 0));
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

void vt_smmu_place(struct vt_smmu *smmu, uint64_t word0, uint64_t word1)
{
	uint32_t full = 1U << smmu->command_bits;
	uint64_t *entry = smmu->commands + 2 * (smmu->command_prod & mask(smmu->command_bits));

	if (!VT_WAIT(((smmu->command_prod ^ get(smmu, CMDQ_CONS)) & mask(smmu->command_bits + 1)) != full, 2))
		vt_bail("the command queue stays full");
	entry[0] = word0;
	entry[1] = word1;
	vt_barrier();
	smmu->command_prod = (smmu->command_prod + 1) & mask(smmu->command_bits + 1);
}

void vt_smmu_command(struct vt_smmu *smmu, uint64_t word0, uint64_t word1)
{
	vt_smmu_place(smmu, word0, word1);
	set(smmu, CMDQ_PROD, smmu->command_prod);
}

bool vt_smmu_sync(struct vt_smmu *smmu)
{
	uint32_t wanted;

	vt_smmu_command(smmu, CMD_SYNC, 0);
	wanted = smmu->command_prod;
	return vt_smmu_consumed(smmu) && (get(smmu, CMDQ_CONS) & mask(smmu->command_bits + 1)) == wanted;
}

bool vt_smmu_consumed(struct vt_smmu *smmu)
{
	uint32_t wrap = mask(smmu->command_bits + 1);
	bool all = false;

	return VT_WAIT((all = (get(smmu, CMDQ_CONS) & wrap) == smmu->command_prod) ||
			       vt_smmu_errors(smmu) & GERROR_CMDQ_ERR,
		       2) &&
	       all;
}

/* Compare the oldest event with 'word', but for the bits of word 1 in 'ignored'. */
static bool expect(struct vt_smmu *smmu, const uint64_t *word, uint64_t ignored, struct vt_event *event)
{
	if (!vt_smmu_event(smmu, event, 1)) {
		vt_fail("no event came, where one with ID %x should", (uint8_t)word[0]);
		return false;
	}
	for (int i = 0; i < 4; i++)
		if ((event->word[i] ^ word[i]) & ~(i == 1 ? ignored : 0)) {
			vt_note("wanted %016lx %016lx %016lx %016lx", word[0], word[1], word[2], word[3]);
			vt_fail("word %d of the event is not as it should be", i);
			return false;
		}
	return true;
}

bool vt_smmu_expect(struct vt_smmu *smmu, uint64_t word0, uint64_t word1, uint64_t word2, uint64_t word3)
{
	const uint64_t word[] = {word0, word1, word2, word3};
	struct vt_event event;

	return expect(smmu, word, 0, &event) && vt_smmu_silent(smmu);
}

bool vt_smmu_expect_stall(struct vt_smmu *smmu, uint64_t word0, uint64_t word1, uint64_t word2, uint64_t word3,
			  uint16_t *stag)
{
	const uint64_t word[] = {word0, word1 | EVENT_STALL, word2, word3};
	struct vt_event event;

	if (!expect(smmu, word, 0xffff, &event))
		return false;
	*stag = (uint16_t)event.word[1];
	return true;
}

bool vt_smmu_silent(struct vt_smmu *smmu)
{
	struct vt_event event;

	if (!vt_smmu_event(smmu, &event, 0))
		return true;
	vt_fail("an event with ID %x came unasked", event.id);
	return false;
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
	set(smmu, EVENTQ_CONS, smmu->event_cons | (prod & OVFLG));
	vt_note("event %016lx %016lx %016lx %016lx", event->word[0], event->word[1], event->word[2], event->word[3]);
	return true;
}

void vt_smmu_drain(struct vt_smmu *smmu)
{
	struct vt_event event;

	while (vt_smmu_event(smmu, &event, 0))
		;
}

/* -- the stream table (§5.2) and context descriptors (§5.4) -- */

uint64_t *vt_smmu_ste(struct vt_smmu *smmu, uint32_t sid)
{
	if (sid >> smmu->sid_bits)
		vt_bail("a StreamID lies outside of the stream table");
	return smmu->strtab + STE_WORDS * sid;
}

void vt_smmu_cfgi_ste(struct vt_smmu *smmu, uint32_t sid)
{
	vt_barrier();
	vt_smmu_command(smmu, CMD_CFGI_STE | CMD_SID(sid), CMD_LEAF);
	if (!vt_smmu_sync(smmu))
		vt_fail("CMD_SYNC after CMD_CFGI_STE does not complete");
}

void vt_smmu_cfgi_cd(struct vt_smmu *smmu, uint32_t sid, uint32_t ssid)
{
	vt_barrier();
	vt_smmu_command(smmu, CMD_CFGI_CD | CMD_SID(sid) | CMD_SSID(ssid), CMD_LEAF);
	if (!vt_smmu_sync(smmu))
		vt_fail("CMD_SYNC after CMD_CFGI_CD does not complete");
}

/* Replace a stream's entry; words 4 to 7 are zero. */
static void put_ste(struct vt_smmu *smmu, uint32_t sid, uint64_t word0, uint64_t word1, uint64_t word2, uint64_t word3)
{
	uint64_t *ste = vt_smmu_ste(smmu, sid);

	ste[0] = 0; /* V = 0 before anything else changes */
	vt_smmu_cfgi_ste(smmu, sid);
	ste[1] = word1;
	ste[2] = word2;
	ste[3] = word3;
	vt_barrier();
	ste[0] = word0;
	vt_smmu_cfgi_ste(smmu, sid);
}

void vt_smmu_forget(struct vt_smmu *smmu, uint32_t sid) { put_ste(smmu, sid, 0, 0, 0, 0); }
void vt_smmu_abort(struct vt_smmu *smmu, uint32_t sid)
{
	put_ste(smmu, sid, STE_V | STE_CONFIG(VT_ABORT), 0, 0, 0);
}
void vt_smmu_bypass(struct vt_smmu *smmu, uint32_t sid)
{
	put_ste(smmu, sid, STE_V | STE_CONFIG(VT_BYPASS), STE_SHCFG_INCOMING, 0, 0);
}

void vt_smmu_fill_cd(const struct vt_smmu *smmu, uint64_t *cd, const struct vt_space *space)
{
	cd[0] = CD_T0SZ(39) | CD_WB_INNER | CD_EPD1 | CD_V | CD_IPS(IDR5_OAS(smmu->idr5)) | CD_AA64 | CD_R | CD_A |
		CD_ASET | CD_ASID(space->asid);
	cd[1] = (uint64_t)space->root + space->offset;
	cd[3] = 0xff; /* MAIR0: attribute 0 is write-back */
}

/* Word 1 of an STE with stage 1. */
static uint64_t stage1_word(const struct vt_smmu *smmu)
{
	/* Where both ways to end a fault are there, this stream disables stalls (§5.2). */
	uint64_t no_stall = IDR0_STALL_MODEL(smmu->idr0) == 0 ? STE_S1STALLD : 0;

	return STE_S1DSS_SUBSTREAM0 | STE_S1_INNER_WB | no_stall;
}

uint64_t *vt_smmu_attach_substreams(struct vt_smmu *smmu, uint32_t sid, const struct vt_space *const *spaces,
				    unsigned int count)
{
	uint64_t *table = vt_alloc(64 * count, 64 * count);
	unsigned int bits = 0;

	for (unsigned int i = 0; i < count; i++)
		if (spaces[i])
			vt_smmu_fill_cd(smmu, table + 8 * i, spaces[i]);
	while (1U << bits < count)
		bits++;
	put_ste(smmu, sid, STE_V | STE_CONFIG(VT_STAGE1) | (uint64_t)table | STE_S1CDMAX(bits), stage1_word(smmu), 0, 0);
	return table;
}

uint64_t *vt_smmu_attach(struct vt_smmu *smmu, uint32_t sid, const struct vt_space *space)
{
	return vt_smmu_attach_substreams(smmu, sid, &space, 1);
}

uint64_t *vt_smmu_attach_stage2(struct vt_smmu *smmu, uint32_t sid, const struct vt_space *space,
				const struct vt_space *stage2, uint16_t vmid)
{
	uint64_t word2 = STE_S2VMID(vmid) | STE_S2T0SZ(39) | STE_S2SL0(1) | STE_S2_INNER_WB |
			 STE_S2PS(IDR5_OAS(smmu->idr5)) | STE_S2AA64 | STE_S2R;
	uint64_t word3 = (uint64_t)stage2->root;
	uint64_t *cd;

	if (!space) {
		put_ste(smmu, sid, STE_V | STE_CONFIG(VT_STAGE2), STE_SHCFG_INCOMING, word2, word3);
		return NULL;
	}
	cd = vt_alloc(PAGE, PAGE); /* a page of its own, so that stage 2 may unmap it alone */
	vt_smmu_fill_cd(smmu, cd, space);
	put_ste(smmu, sid, STE_V | STE_CONFIG(VT_NESTED) | ((uint64_t)cd + space->offset), stage1_word(smmu), word2, word3);
	return cd;
}

/* -- page tables: 39 bits are levels 1 to 3 (Arm ARM D8) -- */

void vt_space_init(struct vt_smmu *smmu, struct vt_space *space)
{
	space->root = vt_alloc(PAGE, PAGE);
	space->offset = 0;
	space->asid = ++smmu->next_asid;
}

uint64_t *vt_descriptor(struct vt_space *space, uint64_t iova, unsigned int level)
{
	uint64_t *table = space->root;
	unsigned int shift = 30;

	for (unsigned int at = 1; at < level; at++, shift -= 9) {
		uint64_t *entry = table + (iova >> shift & 511);

		if (!(*entry & DESC_VALID))
			*entry = ((uint64_t)vt_alloc(PAGE, PAGE) + space->offset) | DESC_VALID | DESC_TABLE;
		table = (uint64_t *)((*entry & DESC_ADDRESS) - space->offset);
	}
	return table + (iova >> shift & 511);
}

void vt_map(struct vt_space *space, uint64_t iova, uint64_t pa, size_t size, unsigned int rights)
{
	uint64_t bits = DESC_VALID | DESC_TABLE | DESC_AF | DESC_SH_INNER | DESC_NG | DESC_AP_EL0;

	if (!(rights & VT_WRITE))
		bits |= DESC_AP_RO;
	for (uint64_t at = 0; at < size; at += PAGE)
		*vt_descriptor(space, iova + at, 3) = (pa + at) | bits;
	vt_barrier();
}

void vt_map2(struct vt_space *stage2, uint64_t ipa, uint64_t pa, size_t size, unsigned int rights)
{
	uint64_t bits = DESC_VALID | DESC_TABLE | DESC_AF | DESC_SH_INNER | DESC_S2_NORMAL_WB;

	bits |= (rights & VT_READ ? DESC_S2AP_READ : 0) | (rights & VT_WRITE ? DESC_S2AP_WRITE : 0);
	for (uint64_t at = 0; at < size; at += PAGE)
		*vt_descriptor(stage2, ipa + at, 3) = (pa + at) | bits;
	vt_barrier();
}

void vt_unmap(struct vt_smmu *smmu, struct vt_space *space, uint64_t iova, size_t size, bool keep_tlb)
{
	for (uint64_t at = 0; at < size; at += PAGE)
		*vt_descriptor(space, iova + at, 3) = 0;
	vt_barrier();
	if (keep_tlb)
		return;
	for (uint64_t at = 0; at < size; at += PAGE)
		vt_smmu_command(smmu, CMD_TLBI_NH_VA | CMD_ASID(space->asid), (iova + at) | CMD_LEAF);
	if (!vt_smmu_sync(smmu))
		vt_fail("CMD_SYNC after CMD_TLBI_NH_VA does not complete");
}
