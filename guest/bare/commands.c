/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command queue as software sees it: which commands are illegal, how the queue stops and goes on, what CMD_SYNC
 * signals, and that each invalidation is obeyed (IHI 0070 chapter 4, §7.1, §7.5).
 *
 * What a command needs is read from the ID registers, so that the program says the right thing on any machine.
 */
#include "smmu.h"
#include "vt.h"

static struct vt_scene scene;
static struct vt_smmu *const smmu = &scene.smmu;
static struct vt_engine *const engine = &scene.engine;

static uint32_t index_of(uint32_t pointer) { return pointer & ((1U << smmu->command_bits) - 1); }

static uint32_t cons(void) { return vt_smmu_get(smmu, CMDQ_CONS); }

/* Put a command; CERROR_NONE when it was consumed, else the error at which the queue stopped, which it still does. */
static uint32_t try(uint64_t word0, uint64_t word1)
{
	vt_smmu_command(smmu, word0, word1);
	if (vt_smmu_consumed(smmu))
		return CERROR_NONE;
	if (!(vt_smmu_errors(smmu) & GERROR_CMDQ_ERR)) {
		vt_fail("command %lx %lx is neither consumed nor an error", word0, word1);
		return ~0U;
	}
	return CMDQ_CONS_ERR(cons());
}

/* The entry at which the queue stopped, which is the last that was put. */
static uint64_t *stopped_at(void)
{
	if (index_of(cons()) != index_of(smmu->command_prod - 1))
		vt_fail("CMDQ_CONS is %x, where the queue should have stopped before %x", cons(), smmu->command_prod);
	return smmu->commands + 2 * index_of(smmu->command_prod - 1);
}

/* As drivers do: a CMD_SYNC in place of the command, then the error is acknowledged. */
static bool recover(void)
{
	uint64_t *entry = stopped_at();

	entry[0] = CMD_SYNC;
	entry[1] = 0;
	vt_barrier();
	vt_smmu_acknowledge(smmu);
	if (vt_smmu_consumed(smmu))
		return true;
	vt_fail("the queue does not go on after the error was acknowledged");
	return false;
}

/* Return from the case unless the command is illegal. */
#define VT_ILLEGAL(word0, word1, what) \
	do { \
		uint32_t vt_error = try(word0, word1); \
		VT_CHECK(vt_error == CERROR_ILL, "%s gives CERROR %x", what, vt_error); \
		if (!recover()) \
			return; \
	} while (0)

static bool begin(void) { return vt_scene_begin(&scene); }

/* Move the queue, which is empty and has no error, to 2^bits entries at 'at'. */
static void move_queue(uint64_t at, unsigned int bits)
{
	vt_smmu_cr0(smmu, CR0_SMMUEN | CR0_EVENTQEN);
	smmu->commands = (uint64_t *)at;
	smmu->command_bits = bits;
	smmu->command_prod = 0;
	vt_smmu_set64(smmu, CMDQ_BASE, at | BASE_RA | bits);
	vt_smmu_set(smmu, CMDQ_PROD, 0);
	vt_smmu_set(smmu, CMDQ_CONS, 0);
	vt_smmu_cr0(smmu, CR0_SMMUEN | CR0_EVENTQEN | CR0_CMDQEN);
}

/* -- what is illegal -- */

/* A StreamID that no transaction of these tests has. */
#define NO_SID CMD_SID(0x77)

/* Every command, and what it needs of IDR0; a command with SSec has it in common with the Secure queue. */
static const struct command {
	const char *name;
	uint64_t opcode, word1;
	uint32_t needs;
	bool ssec;
} commands[] = {
	{"CMD_PREFETCH_CONFIG", CMD_PREFETCH_CONFIG, 0, 0, true},
	{"CMD_PREFETCH_ADDR", CMD_PREFETCH_ADDR, 0, 0, true},
	{"CMD_CFGI_STE", CMD_CFGI_STE, CMD_LEAF, 0, true},
	{"CMD_CFGI_STE_RANGE", CMD_CFGI_ALL, 31, 0, true},
	{"CMD_CFGI_CD", CMD_CFGI_CD, CMD_LEAF, IDR0_S1P, true},
	{"CMD_CFGI_CD_ALL", CMD_CFGI_CD_ALL, 0, IDR0_S1P, true},
	{"CMD_TLBI_NH_ALL", CMD_TLBI_NH_ALL, 0, IDR0_S1P, false},
	{"CMD_TLBI_NH_ASID", CMD_TLBI_NH_ASID, 0, IDR0_S1P, false},
	{"CMD_TLBI_NH_VA", CMD_TLBI_NH_VA, 0, IDR0_S1P, false},
	{"CMD_TLBI_NH_VAA", CMD_TLBI_NH_VAA, 0, IDR0_S1P, false},
	{"CMD_TLBI_EL2_ALL", CMD_TLBI_EL2_ALL, 0, IDR0_HYP, false},
	{"CMD_TLBI_EL2_ASID", CMD_TLBI_EL2_ASID, 0, IDR0_HYP, false},
	{"CMD_TLBI_EL2_VA", CMD_TLBI_EL2_VA, 0, IDR0_HYP, false},
	{"CMD_TLBI_EL2_VAA", CMD_TLBI_EL2_VAA, 0, IDR0_HYP, false},
	{"CMD_TLBI_S12_VMALL", CMD_TLBI_S12_VMALL, 0, IDR0_S2P, false},
	{"CMD_TLBI_S2_IPA", CMD_TLBI_S2_IPA, 0, IDR0_S2P, false},
	{"CMD_TLBI_NSNH_ALL", CMD_TLBI_NSNH_ALL, 0, 0, false},
	{"CMD_ATC_INV", CMD_ATC_INV | NO_SID, 52, IDR0_ATS, false},
	{"CMD_PRI_RESP", CMD_PRI_RESP | NO_SID, 0, IDR0_PRI, false},
	{"CMD_SYNC", CMD_SYNC, 0, 0, false},
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void commands_of_features_that_are_there_are_consumed(void)
{
	if (!begin())
		return;
	for (const struct command *each = commands; each < commands + COMMANDS; each++) {
		uint32_t error;

		if (each->needs & ~smmu->idr0)
			continue;
		error = try(each->opcode | (each->ssec ? NO_SID : 0), each->word1);
		VT_CHECK(!error, "%s gives CERROR %x", each->name, error);
	}
	if (smmu->idr0 & IDR0_S1P && smmu->idr0 & IDR0_S2P && MPAMIDR_PARTID_MAX(vt_smmu_get(smmu, MPAMIDR)))
		VT_CHECK(!try(CMD_CFGI_VMS_PIDM, 0), "CMD_CFGI_VMS_PIDM is an error");
	if (IDR0_STALL_MODEL(smmu->idr0) != 1) {
		VT_CHECK(!try(CMD_RESUME | NO_SID, 0), "CMD_RESUME of no stall is an error");
		VT_CHECK(!try(CMD_STALL_TERM | NO_SID, 0), "CMD_STALL_TERM of no stall is an error");
	}
	VT_CHECK(!vt_smmu_errors(smmu), "GERROR has %x", vt_smmu_errors(smmu));
}

static void commands_of_features_that_are_absent_are_illegal(void)
{
	unsigned int absent = 0;

	if (!begin())
		return;
	for (const struct command *each = commands; each < commands + COMMANDS; each++) {
		if (!(each->needs & ~smmu->idr0))
			continue;
		VT_ILLEGAL(each->opcode, each->word1, each->name);
		absent++;
	}
	if (IDR0_STALL_MODEL(smmu->idr0) == 1) {
		VT_ILLEGAL(CMD_RESUME, 0, "CMD_RESUME");
		VT_ILLEGAL(CMD_STALL_TERM, 0, "CMD_STALL_TERM");
		absent += 2;
	}
	if (!(smmu->idr3 >> 7 & 1)) { /* IDR3.MPAM */
		VT_ILLEGAL(CMD_CFGI_VMS_PIDM, 0, "CMD_CFGI_VMS_PIDM");
		absent++;
	}
	vt_note("absent_commands count=%u", absent);
}

static void unknown_opcodes_are_illegal(void)
{
	static const uint8_t opcodes[] = {0x00, 0x08, 0x0f, 0x14, 0x2f, 0x42, 0x47, 0x7f, 0x80, 0xff};

	if (!begin())
		return;
	for (unsigned int i = 0; i < sizeof(opcodes); i++) {
		vt_note("opcode %02x", opcodes[i]);
		VT_ILLEGAL(opcodes[i], 0, "an unknown opcode");
	}
}

static void commands_of_the_secure_state_are_illegal(void)
{
	static const uint8_t opcodes[] = {0x50, 0x51, 0x55, 0x58, 0x5b, 0x60, 0x62, 0x64};

	if (!begin())
		return;
	for (const struct command *each = commands; each < commands + COMMANDS; each++)
		if (each->ssec && !(each->needs & ~smmu->idr0)) {
			vt_note("%s", each->name);
			VT_ILLEGAL(each->opcode | CMD_SSEC, each->word1, "a command with SSec");
		}
	if (IDR0_STALL_MODEL(smmu->idr0) != 1) {
		VT_ILLEGAL(CMD_RESUME | CMD_SSEC, 0, "CMD_RESUME with SSec");
		VT_ILLEGAL(CMD_STALL_TERM | CMD_SSEC, 0, "CMD_STALL_TERM with SSec");
	}
	for (unsigned int i = 0; i < sizeof(opcodes); i++)
		VT_ILLEGAL(opcodes[i], 0, "a command of the Secure queue");
	VT_ILLEGAL(CMD_TLBI_EL3_ALL, 0, "CMD_TLBI_EL3_ALL");
	VT_ILLEGAL(CMD_TLBI_EL3_VA, 0, "CMD_TLBI_EL3_VA");
}

static void reserved_values_are_illegal(void)
{
	if (!begin())
		return;
	VT_ILLEGAL(CMD_SYNC | SYNC_CS(3), 0, "CMD_SYNC with CS = 3");
	if (smmu->idr0 & IDR0_PRI)
		VT_ILLEGAL(CMD_PRI_RESP | NO_SID, 3UL << 12, "CMD_PRI_RESP with Resp = 3");
	if (smmu->idr3 & IDR3_RIL) {
		VT_ILLEGAL(CMD_TLBI_NH_VA, VT_TARGET | TLBI_TG_4K, "CMD_TLBI_NH_VA with TG but no range and no level");
		VT_CHECK(!try(CMD_TLBI_NH_VA | 1UL << 12, VT_TARGET | TLBI_TG_4K), "a range of two pages is illegal");
		VT_CHECK(!try(CMD_TLBI_NH_VA, VT_TARGET | TLBI_TG_4K | 3UL << 8), "a level hint is illegal");
	}
}

/* -- how the queue stops and goes on -- */

/* Whether a queue may have four entries; skips the case if not. */
static bool room(void)
{
	if (IDR1_CMDQS(smmu->idr1) >= 2)
		return true;
	vt_skip("the SMMU's command queue has too few entries");
	return false;
}

static void an_error_stops_the_queue_until_it_is_acknowledged(void)
{
	uint64_t *bad;
	uint32_t at;

	if (!begin() || !room())
		return;
	VT_CHECK(try(0xff, 0) == CERROR_ILL, "opcode 0xff gives CERROR %x", CMDQ_CONS_ERR(cons()));
	VT_CHECK(vt_smmu_errors(smmu) == GERROR_CMDQ_ERR, "GERROR has %x", vt_smmu_errors(smmu));
	bad = stopped_at();
	at = cons();
	for (unsigned int i = 0; i < 3; i++) /* writes of CMDQ_PROD do not restart it */
		vt_smmu_command(smmu, CMD_SYNC, 0);
	VT_CHECK(cons() == at, "CMDQ_CONS moves from %x to %x while the error is active", at, cons());
	vt_smmu_acknowledge(smmu); /* the command is as bad as before */
	VT_CHECK(VT_WAIT(vt_smmu_errors(smmu) == GERROR_CMDQ_ERR, 1), "a command that was left is not fetched again");
	VT_CHECK(cons() == at, "CMDQ_CONS is %x, not %x", cons(), at);
	bad[0] = CMD_SYNC;
	vt_smmu_command(smmu, CMD_SYNC, 0);
	VT_CHECK(cons() == at, "CMDQ_CONS moves before the error is acknowledged");
	vt_smmu_acknowledge(smmu);
	VT_CHECK(vt_smmu_consumed(smmu), "the queue does not go on; CMDQ_CONS is %x", cons());
	VT_CHECK(!vt_smmu_errors(smmu), "GERROR has %x", vt_smmu_errors(smmu));
}

static void what_was_put_before_an_error_is_done(void)
{
	if (!begin() || !room())
		return;
	VT_CHECK(vt_engine_read(engine, VT_SOURCE, 64) == VT_ENGINE_HALTED, "a mapped page cannot be read");
	*vt_descriptor(&scene.space, VT_SOURCE, 3) = 0;
	vt_barrier();
	vt_smmu_command(smmu, CMD_TLBI_NSNH_ALL, 0);
	vt_smmu_command(smmu, CMD_SYNC, 0);
	VT_CHECK(try(0xff, 0) == CERROR_ILL, "opcode 0xff is no error");
	VT_CHECK(vt_engine_read(engine, VT_SOURCE, 64) == VT_ENGINE_ERROR, "an invalidation before the error is lost");
	VT_EXPECT(smmu, VT_EVENT(VT_F_TRANSLATION, engine->sid), EVENT_CLASS_IN | EVENT_RNW, VT_SOURCE, 0);
	recover();
}

static void a_full_queue_wraps_around(void)
{
	uint64_t *entries;

	if (!begin() || !room())
		return;
	entries = vt_alloc(8 * 16, 8 * 16);
	move_queue((uint64_t)entries, 2);
	for (unsigned int round = 0; round < 5; round++) {
		VT_CHECK(try(0xff, 0) == CERROR_ILL, "opcode 0xff is no error");
		for (unsigned int i = 0; i < 3; i++) /* now it is full */
			vt_smmu_command(smmu, CMD_TLBI_NSNH_ALL, 0);
		VT_CHECK((cons() & 7) == ((smmu->command_prod - 4) & 7), "CMDQ_CONS is %x in round %u", cons(), round);
		smmu->commands[2 * index_of(cons())] = CMD_SYNC;
		vt_barrier();
		vt_smmu_acknowledge(smmu);
		VT_CHECK(vt_smmu_consumed(smmu), "a full queue is not consumed in round %u", round);
		VT_CHECK(vt_smmu_sync(smmu), "CMD_SYNC does not complete in round %u", round);
	}
	for (unsigned int i = 8; i < 16; i++)
		VT_CHECK(!((volatile uint64_t *)entries)[i], "the program wrote behind its queue");
}

static void an_unreadable_queue_is_cerror_abt(void)
{
	uint64_t *entries;

	if (!begin())
		return;
	vt_smmu_cr0(smmu, CR0_SMMUEN | CR0_EVENTQEN);
	vt_smmu_set64(smmu, CMDQ_BASE, VT_NOWHERE | BASE_RA);
	vt_smmu_set(smmu, CMDQ_PROD, 1);
	vt_smmu_set(smmu, CMDQ_CONS, 0);
	vt_smmu_cr0(smmu, CR0_SMMUEN | CR0_EVENTQEN | CR0_CMDQEN);
	VT_CHECK(VT_WAIT(vt_smmu_errors(smmu) == GERROR_CMDQ_ERR, 1), "GERROR has %x", vt_smmu_errors(smmu));
	VT_CHECK(CMDQ_CONS_ERR(cons()) == CERROR_ABT, "CMDQ_CONS is %x", cons());
	VT_CHECK(!(cons() & 0xfffff), "CMDQ_CONS passes what was not fetched: %x", cons());
	vt_smmu_acknowledge(smmu);
	VT_CHECK(VT_WAIT(vt_smmu_errors(smmu) == GERROR_CMDQ_ERR, 1), "the fetch is not tried again");
	entries = vt_alloc(8 * 16, 8 * 16);
	move_queue((uint64_t)entries, 0);
	vt_smmu_acknowledge(smmu);
	VT_CHECK(vt_smmu_sync(smmu), "a queue in memory does not work after one that was not");
}

static void a_disabled_queue_consumes_nothing(void)
{
	if (!begin())
		return;
	vt_smmu_cr0(smmu, CR0_SMMUEN | CR0_EVENTQEN);
	vt_smmu_command(smmu, CMD_SYNC, 0);
	VT_CHECK((cons() & 0xfffff) != smmu->command_prod, "a queue that is off consumes a command");
	vt_smmu_cr0(smmu, CR0_SMMUEN | CR0_EVENTQEN | CR0_CMDQEN);
	VT_CHECK(vt_smmu_consumed(smmu), "what was put while the queue was off is not consumed");
}

static void commands_are_consumed_while_translation_is_off(void)
{
	if (!begin())
		return;
	vt_smmu_enable(smmu, false);
	VT_CHECK(vt_smmu_sync(smmu), "CMD_SYNC does not complete while SMMUEN is 0");
	VT_CHECK(try(0xff, 0) == CERROR_ILL, "opcode 0xff is no error while SMMUEN is 0");
	recover();
}

/* -- CMD_SYNC and interrupts -- */

/* Whether the SMMU has MSIs; skips the case if not. */
static bool msis(void)
{
	if (smmu->idr0 & IDR0_MSI)
		return true;
	vt_skip("the SMMU has no MSIs");
	return false;
}

static void sync_signals_by_a_write_to_memory(void)
{
	volatile uint32_t *word;

	if (!begin() || !msis())
		return;
	word = vt_alloc(64, 64);
	word[1] = word[3] = 0x5a5a5a5a;
	vt_smmu_command(smmu, CMD_SYNC | SYNC_CS(SYNC_SIG_IRQ) | SYNC_MSI_DATA(0xc0ffee01), (uint64_t)(word + 2));
	VT_CHECK(VT_WAIT(word[2] == 0xc0ffee01, 2), "the word is %x", word[2]);
	VT_CHECK((cons() & 0xfffff) == smmu->command_prod, "CMD_SYNC signals before CMDQ_CONS passes it");
	VT_CHECK(word[1] == 0x5a5a5a5a && word[3] == 0x5a5a5a5a, "more than four bytes are written");
	vt_smmu_command(smmu, CMD_SYNC | SYNC_MSI_DATA(1), (uint64_t)(word + 2));
	vt_smmu_command(smmu, CMD_SYNC | SYNC_CS(SYNC_SIG_SEV) | SYNC_MSI_DATA(1), (uint64_t)(word + 2));
	VT_CHECK(vt_smmu_sync(smmu) && word[2] == 0xc0ffee01, "a CMD_SYNC that is to signal otherwise writes memory");
}

static void sync_signals_into_its_own_entry(void)
{
	volatile uint32_t *entry;

	if (!begin() || !msis())
		return;
	for (unsigned int i = 0; i < 5; i++) {
		entry = (volatile uint32_t *)(smmu->commands + 2 * index_of(smmu->command_prod));
		vt_smmu_command(smmu, CMD_SYNC | SYNC_CS(SYNC_SIG_IRQ), (uint64_t)entry);
		VT_CHECK(VT_WAIT(!entry[0], 2), "the entry's first word stays %x", entry[0]);
	}
}

static void sync_can_interrupt(void)
{
	if (!begin() || !msis())
		return;
	vt_interrupt_listen(VT_MSI_INTID);
	VT_CHECK(vt_smmu_sync(smmu) && !vt_interrupt_pending(VT_MSI_INTID), "an interrupt comes unasked");
	vt_smmu_command(smmu, CMD_SYNC | SYNC_CS(SYNC_SIG_IRQ) | SYNC_MSI_DATA(VT_MSI_INTID), VT_MSI_DOORBELL);
	VT_CHECK(VT_WAIT(vt_interrupt_pending(VT_MSI_INTID), 2), "CMD_SYNC's interrupt does not come");
	vt_interrupt_listen(VT_MSI_INTID);
}

static void an_aborted_sync_msi_is_a_global_error(void)
{
	if (!begin() || !msis())
		return;
	vt_smmu_command(smmu, CMD_SYNC | SYNC_CS(SYNC_SIG_IRQ) | SYNC_MSI_DATA(1), VT_NOWHERE);
	VT_CHECK(VT_WAIT(vt_smmu_errors(smmu) == GERROR_MSI_CMDQ_ABT_ERR, 2), "GERROR has %x", vt_smmu_errors(smmu));
	VT_CHECK(vt_smmu_sync(smmu), "the queue stops at a lost interrupt");
	vt_smmu_acknowledge(smmu);
	VT_CHECK(!vt_smmu_errors(smmu), "the error stays active");
}

/* Have global errors interrupt by writing 'intid' to 'doorbell'. */
static void interrupt_on_errors(uint64_t doorbell, uint32_t intid)
{
	vt_smmu_set64(smmu, GERROR_IRQ_CFG0, doorbell);
	vt_smmu_set(smmu, GERROR_IRQ_CFG1, intid);
	vt_smmu_set(smmu, GERROR_IRQ_CFG2, 1);
	vt_smmu_set(smmu, IRQ_CTRL, IRQ_CTRL_GERROR);
	if (!VT_WAIT(vt_smmu_get(smmu, IRQ_CTRLACK) == IRQ_CTRL_GERROR, 1))
		vt_fail("IRQ_CTRL is not acknowledged");
}

static void a_global_error_interrupts(void)
{
	if (!begin() || !msis())
		return;
	vt_interrupt_listen(VT_MSI_INTID);
	interrupt_on_errors(VT_MSI_DOORBELL, VT_MSI_INTID);
	VT_CHECK(vt_smmu_sync(smmu) && !vt_interrupt_pending(VT_MSI_INTID), "an interrupt comes without an error");
	VT_CHECK(try(0xff, 0) == CERROR_ILL, "opcode 0xff is no error");
	VT_CHECK(VT_WAIT(vt_interrupt_pending(VT_MSI_INTID), 2), "the error does not interrupt");
	recover();
	vt_interrupt_listen(VT_MSI_INTID);
}

static void an_aborted_error_msi_is_one_error_more(void)
{
	uint32_t wanted = GERROR_CMDQ_ERR | GERROR_MSI_GERROR_ABT_ERR;

	if (!begin() || !msis())
		return;
	interrupt_on_errors(VT_NOWHERE, 1);
	VT_CHECK(try(0xff, 0) == CERROR_ILL, "opcode 0xff is no error");
	VT_CHECK(VT_WAIT(vt_smmu_errors(smmu) == wanted, 2), "GERROR has %x", vt_smmu_errors(smmu));
	recover();
}

/* -- invalidations -- */

/* Translate the page, unmap it, give the command: it must be gone. */
static bool drops(const char *name, uint64_t word0, uint64_t word1)
{
	uint64_t *descriptor = vt_descriptor(&scene.space, VT_SOURCE, 3), old = *descriptor;
	bool gone;

	if (vt_engine_read(engine, VT_SOURCE, 64) != VT_ENGINE_HALTED) {
		vt_fail("a mapped page cannot be read before %s", name);
		return false;
	}
	*descriptor = 0;
	vt_barrier();
	vt_smmu_command(smmu, word0, word1);
	if (!vt_smmu_sync(smmu))
		vt_fail("CMD_SYNC after %s does not complete", name);
	gone = vt_engine_read(engine, VT_SOURCE, 64) == VT_ENGINE_ERROR;
	*descriptor = old;
	vt_barrier();
	if (gone && vt_smmu_expect(smmu, VT_EVENT(VT_F_TRANSLATION, engine->sid), EVENT_CLASS_IN | EVENT_RNW, VT_SOURCE, 0))
		return true;
	vt_fail("%s does not drop a translation that it names", name);
	return false;
}

static void each_tlb_invalidation_is_obeyed(void)
{
	uint64_t asid;

	if (!begin())
		return;
	asid = CMD_ASID(scene.space.asid);
	if (!drops("CMD_TLBI_NSNH_ALL", CMD_TLBI_NSNH_ALL, 0) || !drops("CMD_TLBI_NH_ALL", CMD_TLBI_NH_ALL, 0) ||
	    !drops("CMD_TLBI_NH_ASID", CMD_TLBI_NH_ASID | asid, 0) ||
	    !drops("CMD_TLBI_NH_VA", CMD_TLBI_NH_VA | asid, VT_SOURCE) ||
	    !drops("CMD_TLBI_NH_VA of a leaf", CMD_TLBI_NH_VA | asid, VT_SOURCE | CMD_LEAF) ||
	    !drops("CMD_TLBI_NH_VAA", CMD_TLBI_NH_VAA, VT_SOURCE))
		return;
	if (!(smmu->idr3 & IDR3_RIL))
		return;
	/* 4 pages, of which it is the last; 2 << 3, of which it is the 13th; itself, by its level. */
	drops("CMD_TLBI_NH_VA of 4 pages", CMD_TLBI_NH_VA | asid | 3UL << 12, (VT_SOURCE - 3 * VT_PAGE) | TLBI_TG_4K);
	drops("CMD_TLBI_NH_VA of 16 pages", CMD_TLBI_NH_VA | asid | 1UL << 12 | 3UL << 20,
	      (VT_SOURCE - 12 * VT_PAGE) | TLBI_TG_4K);
	drops("CMD_TLBI_NH_VA of level 3", CMD_TLBI_NH_VA | asid, VT_SOURCE | TLBI_TG_4K | 3UL << 8 | CMD_LEAF);
}

static void an_invalidation_spares_what_it_does_not_name(void)
{
	static const struct {
		const char *what;
		uint64_t word0, word1;
	} others[] = {
		{"asid", CMD_TLBI_NH_ASID | CMD_ASID(0xfe), 0},
		{"va_asid", CMD_TLBI_NH_VA | CMD_ASID(0xfe), VT_SOURCE},
		{"va", CMD_TLBI_NH_VAA, VT_SOURCE + VT_PAGE},
		{"range", CMD_TLBI_NH_VAA | 1UL << 12, (VT_SOURCE + VT_PAGE) | TLBI_TG_4K},
	};

	if (!begin())
		return;
	/* An SMMU may forget more than it is told to, so this is only noted; the launcher knows what ours does. */
	VT_CHECK(vt_engine_read(engine, VT_SOURCE, 64) == VT_ENGINE_HALTED, "a mapped page cannot be read");
	*vt_descriptor(&scene.space, VT_SOURCE, 3) = 0;
	vt_barrier();
	for (unsigned int i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		VT_CHECK(!try(others[i].word0, others[i].word1) && vt_smmu_sync(smmu), "the command is not consumed");
		vt_note("stale other=%s translates=%d", others[i].what,
			vt_engine_read(engine, VT_SOURCE, 64) == VT_ENGINE_HALTED);
	}
}

/* Make the stream's entry invalid and give the command: it must be seen. */
static bool sees(const char *name, uint64_t word0, uint64_t word1)
{
	bool seen;

	scene.ste[0] &= ~STE_V;
	vt_barrier();
	vt_smmu_command(smmu, word0, word1);
	if (!vt_smmu_sync(smmu))
		vt_fail("CMD_SYNC after %s does not complete", name);
	seen = vt_engine_read(engine, VT_SOURCE, 64) == VT_ENGINE_ERROR &&
	       vt_smmu_expect(smmu, VT_EVENT(VT_C_BAD_STE, engine->sid), 0, 0, 0);
	scene.ste[0] |= STE_V;
	vt_scene_ste(&scene);
	if (seen && vt_engine_read(engine, VT_SOURCE, 64) == VT_ENGINE_HALTED)
		return true;
	vt_fail("%s does not drop a stream table entry that it names", name);
	return false;
}

static void each_configuration_invalidation_is_obeyed(void)
{
	uint64_t sid, bad_cd, good;

	if (!begin())
		return;
	sid = CMD_SID(engine->sid);
	bad_cd = VT_EVENT(VT_C_BAD_CD, engine->sid);
	VT_CHECK(vt_engine_read(engine, VT_SOURCE, 64) == VT_ENGINE_HALTED, "a mapped page cannot be read");
	if (!sees("CMD_CFGI_STE", CMD_CFGI_STE | sid, 0) || !sees("CMD_CFGI_STE of a leaf", CMD_CFGI_STE | sid, CMD_LEAF) ||
	    !sees("CMD_CFGI_STE_RANGE of 2", CMD_CFGI_ALL | sid, 0) ||
	    !sees("CMD_CFGI_STE_RANGE of 16", CMD_CFGI_ALL | CMD_SID(engine->sid | 8), 3) ||
	    !sees("CMD_CFGI_STE_RANGE of all", CMD_CFGI_ALL, 31))
		return;
	good = scene.cd[0];
	for (unsigned int i = 0; i < 4; i++) {
		static const char *const names[] = {"CMD_CFGI_CD", "CMD_CFGI_CD_ALL", "CMD_CFGI_STE", "CMD_CFGI_STE_RANGE"};
		static const uint64_t opcodes[] = {CMD_CFGI_CD, CMD_CFGI_CD_ALL, CMD_CFGI_STE, CMD_CFGI_ALL};

		scene.cd[0] = good & ~CD_V;
		vt_barrier();
		VT_CHECK(!try(opcodes[i] | sid, i ? 0 : CMD_LEAF) && vt_smmu_sync(smmu), "%s is not consumed", names[i]);
		VT_CHECK(vt_engine_read(engine, VT_SOURCE, 64) == VT_ENGINE_ERROR, "%s does not drop a CD", names[i]);
		VT_EXPECT(smmu, bad_cd, 0, 0, 0);
		scene.cd[0] = good;
		vt_scene_cd(&scene);
		VT_CHECK(vt_engine_read(engine, VT_SOURCE, 64) == VT_ENGINE_HALTED, "a mended CD is not seen");
	}
}

VT_CASES(
	{"commands_of_features_that_are_there_are_consumed", commands_of_features_that_are_there_are_consumed},
	{"commands_of_features_that_are_absent_are_illegal", commands_of_features_that_are_absent_are_illegal},
	{"unknown_opcodes_are_illegal", unknown_opcodes_are_illegal},
	{"commands_of_the_secure_state_are_illegal", commands_of_the_secure_state_are_illegal},
	{"reserved_values_are_illegal", reserved_values_are_illegal},
	{"an_error_stops_the_queue_until_it_is_acknowledged", an_error_stops_the_queue_until_it_is_acknowledged},
	{"what_was_put_before_an_error_is_done", what_was_put_before_an_error_is_done},
	{"a_full_queue_wraps_around", a_full_queue_wraps_around},
	{"an_unreadable_queue_is_cerror_abt", an_unreadable_queue_is_cerror_abt},
	{"a_disabled_queue_consumes_nothing", a_disabled_queue_consumes_nothing},
	{"commands_are_consumed_while_translation_is_off", commands_are_consumed_while_translation_is_off},
	{"sync_signals_by_a_write_to_memory", sync_signals_by_a_write_to_memory},
	{"sync_signals_into_its_own_entry", sync_signals_into_its_own_entry},
	{"sync_can_interrupt", sync_can_interrupt},
	{"an_aborted_sync_msi_is_a_global_error", an_aborted_sync_msi_is_a_global_error},
	{"a_global_error_interrupts", a_global_error_interrupts},
	{"an_aborted_error_msi_is_one_error_more", an_aborted_error_msi_is_one_error_more},
	{"each_tlb_invalidation_is_obeyed", each_tlb_invalidation_is_obeyed},
	{"an_invalidation_spares_what_it_does_not_name", an_invalidation_spares_what_it_does_not_name},
	{"each_configuration_invalidation_is_obeyed", each_configuration_invalidation_is_obeyed},
);
