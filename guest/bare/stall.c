/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transactions that stall until software answers: what their events say, CMD_RESUME, CMD_STALL_TERM, and what becomes
 * of a stall that cannot be told (IHI 0070 §3.12.2, §4.7, §7.2).
 *
 * A frame of the engine makes one transaction at a time, so several frames make several stalls. Every case leaves
 * none behind.
 */
#include "smmu.h"
#include "vt.h"

#define FRAMES 7

static struct vt_scene scene;
static struct vt_smmu *const smmu = &scene.smmu;
static struct vt_engine *const engine = &scene.engine;
static struct vt_engine frames[FRAMES];
static uint64_t translation; /* word 0 of an F_TRANSLATION of the engine's stream */

/* Whether software is told of 'count' stalls at a time; skips the case if not. */
static bool told_of(unsigned int count)
{
	if (smmu->idr5 >> 16 >= count)
		return true;
	vt_skip("the SMMU tells of too few stalls at a time");
	return false;
}

/* The page that frame 'n' reads or writes, which is not mapped. */
static uint64_t page_of(unsigned int n) { return VT_TARGET + (n + 1) * VT_PAGE; }

/* Have the scene's stream stall; false: skipped. */
static bool begin(void)
{
	if (!vt_scene_begin(&scene))
		return false;
	if (IDR0_STALL_MODEL(smmu->idr0) == 1) {
		vt_skip("the SMMU never stalls");
		return false;
	}
	scene.ste[1] &= ~STE_S1STALLD;
	scene.cd[0] |= CD_S;
	vt_scene_ste(&scene);
	vt_scene_cd(&scene);
	for (unsigned int i = 0; i < FRAMES; i++)
		vt_engine_init_frame(&frames[i], scene.master, i);
	translation = VT_EVENT(VT_F_TRANSLATION, engine->sid);
	return true;
}

/* Frame 'n' reads its page; false, and the case fails, unless it stalls with this event. */
static bool stalls(unsigned int n, uint16_t *stag)
{
	vt_engine_start_read(&frames[n], page_of(n), VT_PAGE);
	return vt_smmu_expect_stall(smmu, translation, EVENT_CLASS_IN | EVENT_RNW, page_of(n), 0, stag);
}

static void resume(uint32_t sid, uint16_t stag, uint64_t how)
{
	vt_smmu_command(smmu, CMD_RESUME | CMD_SID(sid) | how, stag);
	if (!vt_smmu_sync(smmu))
		vt_fail("CMD_SYNC after CMD_RESUME does not complete");
}

static void map(unsigned int n) { vt_map(&scene.space, page_of(n), (uint64_t)scene.source, VT_PAGE, VT_READ | VT_WRITE); }

static bool goes_on(unsigned int n)
{
	uint32_t ended = vt_engine_end(&frames[n]);

	if (ended == VT_ENGINE_HALTED && vt_engine_result(&frames[n]) == scene.sum)
		return true;
	vt_fail("frame %u ends with %x and the sum %lx, where a read of the page sums up to %lx", n, ended,
		vt_engine_result(&frames[n]), scene.sum);
	return false;
}

static bool waits(unsigned int n)
{
	if (vt_engine_busy(&frames[n]))
		return true;
	vt_fail("frame %u ends with %x, where it should wait for software", n, vt_engine_end(&frames[n]));
	return false;
}

/* -- one stall -- */

static void a_stalled_read_goes_on_once_it_is_mapped(void)
{
	uint16_t stag;

	if (!begin() || !stalls(0, &stag) || !waits(0))
		return;
	VT_SILENT(smmu);
	VT_CHECK(vt_smmu_sync(smmu), "CMD_SYNC waits for a stalled transaction");
	map(0);
	resume(engine->sid, stag, RESUME_AC);
	if (goes_on(0))
		VT_SILENT(smmu);
}

static void a_stalled_write_goes_on_where_it_stopped(void)
{
	uint8_t *pages;
	uint16_t stag;

	if (!begin())
		return;
	pages = vt_alloc(3 * VT_PAGE, VT_PAGE);
	vt_map(&scene.space, page_of(0), (uint64_t)pages, VT_PAGE, VT_WRITE | VT_READ);
	vt_map(&scene.space, page_of(2), (uint64_t)pages + 2 * VT_PAGE, VT_PAGE, VT_WRITE | VT_READ);
	vt_engine_start_write(&frames[0], page_of(0), 3 * VT_PAGE);
	if (!vt_smmu_expect_stall(smmu, translation, EVENT_CLASS_IN, page_of(1), 0, &stag) || !waits(0))
		return;
	VT_CHECK(!vt_blank(pages), "the page before the fault is not written");
	VT_CHECK(vt_blank(pages + VT_PAGE) && vt_blank(pages + 2 * VT_PAGE), "a write passes a stalled one");
	vt_map(&scene.space, page_of(1), (uint64_t)pages + VT_PAGE, VT_PAGE, VT_WRITE | VT_READ);
	resume(engine->sid, stag, RESUME_AC);
	VT_CHECK(vt_engine_end(&frames[0]) == VT_ENGINE_HALTED, "the engine does not end its write");
	VT_CHECK(!vt_blank(pages + VT_PAGE) && !vt_blank(pages + 2 * VT_PAGE), "the rest is not written");
	VT_SILENT(smmu);
}

static void each_of_the_four_faults_can_stall(void)
{
	uint64_t *descriptor, good;
	const struct {
		uint8_t id;
		uint64_t clear, set;
	} faults[] = {
		{VT_F_TRANSLATION, DESC_VALID, 0},
		{VT_F_ADDR_SIZE, 0, 1UL << 40},
		{VT_F_ACCESS, DESC_AF, 0},
		{VT_F_PERMISSION, 0, DESC_AP_RO},
	};

	if (!begin())
		return;
	scene.cd[0] = (scene.cd[0] & ~CD_IPS(7)) | CD_IPS(2); /* 40 bits */
	vt_scene_cd(&scene);
	descriptor = vt_descriptor(&scene.space, VT_TARGET, 3);
	good = *descriptor;
	for (unsigned int i = 0; i < 4; i++) {
		uint16_t stag;

		*descriptor = (good & ~faults[i].clear) | faults[i].set;
		vt_scene_tlbi(&scene);
		memset(scene.target, 0, VT_PAGE);
		vt_engine_start_write(&frames[0], VT_TARGET + 64, 64);
		if (!vt_smmu_expect_stall(smmu, VT_EVENT(faults[i].id, engine->sid), EVENT_CLASS_IN, VT_TARGET + 64, 0,
					  &stag) || !waits(0))
			return;
		VT_CHECK(vt_blank(scene.target), "a write that is stalled reaches memory");
		*descriptor = good;
		vt_scene_tlbi(&scene);
		resume(engine->sid, stag, RESUME_AC);
		VT_CHECK(vt_engine_end(&frames[0]) == VT_ENGINE_HALTED, "the write with event %x does not go on", faults[i].id);
		VT_CHECK(!vt_blank(scene.target), "the write with event %x is lost", faults[i].id);
	}
	VT_SILENT(smmu);
}

static void other_faults_abort_all_the_same(void)
{
	uint64_t at = page_of(0);

	if (!begin())
		return;
	*vt_descriptor(&scene.space, at, 2) = VT_NOWHERE | DESC_TABLE | DESC_VALID;
	vt_scene_tlbi(&scene);
	VT_CHECK(vt_engine_read(engine, at, 64) == VT_ENGINE_ERROR, "F_WALK_EABT does not abort");
	VT_EXPECT(smmu, VT_EVENT(VT_F_WALK_EABT, engine->sid), EVENT_CLASS_TT | EVENT_RNW, at,
		  VT_NOWHERE + 8 * (at >> 12 & 511));
	scene.cd[0] &= ~CD_V;
	vt_scene_cd(&scene);
	VT_CHECK(vt_engine_read(engine, at, 64) == VT_ENGINE_ERROR, "C_BAD_CD does not abort");
	VT_EXPECT(smmu, VT_EVENT(VT_C_BAD_CD, engine->sid), 0, 0, 0);
}

static void a_retry_that_faults_stalls_again(void)
{
	uint16_t stag;

	if (!begin() || !stalls(0, &stag))
		return;
	for (unsigned int i = 0; i < 3; i++) {
		resume(engine->sid, stag, RESUME_AC);
		if (!vt_smmu_expect_stall(smmu, translation, EVENT_CLASS_IN | EVENT_RNW, page_of(0), 0, &stag) || !waits(0))
			return;
	}
	vt_map(&scene.space, page_of(0), (uint64_t)scene.source, VT_PAGE, VT_READ);
	*vt_descriptor(&scene.space, page_of(0), 3) &= ~DESC_AF; /* another fault than before */
	vt_barrier();
	resume(engine->sid, stag, RESUME_AC);
	if (!vt_smmu_expect_stall(smmu, VT_EVENT(VT_F_ACCESS, engine->sid), EVENT_CLASS_IN | EVENT_RNW, page_of(0), 0,
				  &stag) || !waits(0))
		return;
	*vt_descriptor(&scene.space, page_of(0), 3) |= DESC_AF;
	vt_scene_tlbi(&scene);
	resume(engine->sid, stag, RESUME_AC);
	goes_on(0);
}

static void a_retry_finds_the_configuration_of_then(void)
{
	uint16_t stag;

	if (!begin() || !stalls(0, &stag))
		return;
	scene.ste[0] &= ~STE_V;
	vt_scene_ste(&scene);
	if (!waits(0))
		return;
	resume(engine->sid, stag, RESUME_AC);
	VT_CHECK(vt_engine_end(&frames[0]) == VT_ENGINE_ERROR, "a retry uses an entry that is gone");
	VT_EXPECT(smmu, VT_EVENT(VT_C_BAD_STE, engine->sid), 0, 0, 0);
}

static void terminating_with_abort_aborts(void)
{
	uint16_t stag;

	if (!begin() || !stalls(0, &stag))
		return;
	resume(engine->sid, stag, RESUME_AB);
	VT_CHECK(vt_engine_end(&frames[0]) == VT_ENGINE_ERROR, "the engine ends with %x", vt_engine_end(&frames[0]));
	VT_CHECK(vt_engine_fault(&frames[0]) == page_of(0), "the engine names address %lx", vt_engine_fault(&frames[0]));
	VT_SILENT(smmu);
}

static void terminating_without_reads_zero_and_ignores_writes(void)
{
	uint16_t stag;

	if (!begin())
		return;
	if (smmu->idr0 & IDR0_TERM_MODEL) {
		vt_skip("the SMMU always aborts");
		return;
	}
	if (!stalls(0, &stag))
		return;
	resume(engine->sid, stag, 0);
	VT_CHECK(vt_engine_end(&frames[0]) == VT_ENGINE_HALTED, "the read is aborted");
	VT_CHECK(!vt_engine_result(&frames[0]), "the read gives %lx, not zero", vt_engine_result(&frames[0]));
	*vt_descriptor(&scene.space, VT_TARGET, 3) |= DESC_AP_RO;
	vt_scene_tlbi(&scene);
	vt_engine_start_write(&frames[0], VT_TARGET, VT_PAGE);
	if (!vt_smmu_expect_stall(smmu, VT_EVENT(VT_F_PERMISSION, engine->sid), EVENT_CLASS_IN, VT_TARGET, 0, &stag))
		return;
	resume(engine->sid, stag, 0);
	VT_CHECK(vt_engine_end(&frames[0]) == VT_ENGINE_HALTED, "the write is aborted");
	VT_CHECK(vt_blank(scene.target), "the write reaches memory");
	VT_SILENT(smmu);
}

static void a_wrong_stag_or_streamid_changes_nothing(void)
{
	uint16_t stag;

	if (!begin() || !stalls(0, &stag))
		return;
	resume(engine->sid, (uint16_t)(stag + 1), RESUME_AC);
	resume(engine->sid, (uint16_t)(stag ^ 0x8000), RESUME_AB);
	resume(engine->sid + 1, stag, RESUME_AC);
	resume(engine->sid + 1, stag, RESUME_AB);
	resume(engine->sid | 0x80, stag, 0);
	VT_CHECK(!vt_smmu_errors(smmu), "GERROR has %x", vt_smmu_errors(smmu));
	VT_SILENT(smmu);
	if (!waits(0))
		return;
	map(0);
	resume(engine->sid, stag, RESUME_AC);
	goes_on(0);
	resume(engine->sid, stag, RESUME_AB); /* of a stall that is answered */
	VT_CHECK(!vt_smmu_errors(smmu), "GERROR has %x", vt_smmu_errors(smmu));
	VT_CHECK(vt_engine_read(engine, page_of(0), 64) == VT_ENGINE_HALTED, "the stream does not work afterwards");
}

/* -- several stalls -- */

static void stalls_are_answered_one_by_one_in_any_order(void)
{
	static const uint8_t order[] = {2, 0, 3, 1};
	uint16_t stag[4];

	if (!begin() || !told_of(4))
		return;
	for (unsigned int i = 0; i < 4; i++) {
		if (!stalls(i, &stag[i]))
			return;
		for (unsigned int j = 0; j < i; j++)
			VT_CHECK(stag[i] != stag[j], "two stalls at a time have STAG %x", stag[i]);
		map(i);
	}
	for (unsigned int i = 0; i < 4; i++) {
		for (unsigned int j = i; j < 4; j++)
			if (!waits(order[j]))
				return;
		resume(engine->sid, stag[order[i]], RESUME_AC);
		if (!goes_on(order[i]))
			return;
	}
	VT_SILENT(smmu);
}

static void a_stall_holds_up_nobody_else(void)
{
	uint16_t stag;
	struct vt_engine other;

	if (!begin() || !stalls(0, &stag))
		return;
	VT_CHECK(vt_engine_read(&frames[1], VT_SOURCE, VT_PAGE) == VT_ENGINE_HALTED, "another frame waits, too");
	if (scene.master->sids > 1) {
		vt_engine_init_frame(&other, scene.master, 2);
		other.sid = scene.master->sid[1];
		vt_smmu_attach(smmu, other.sid, &scene.space);
		VT_CHECK(vt_engine_read(&other, VT_SOURCE, VT_PAGE) == VT_ENGINE_HALTED, "another stream waits, too");
		VT_CHECK(vt_engine_read(&other, page_of(0), VT_PAGE) == VT_ENGINE_ERROR, "another stream stalls, too");
		VT_EXPECT(smmu, VT_EVENT(VT_F_TRANSLATION, other.sid), EVENT_CLASS_IN | EVENT_RNW, page_of(0), 0);
	}
	if (!waits(0))
		return;
	map(0);
	resume(engine->sid, stag, RESUME_AC);
	goes_on(0);
}

static void stall_term_aborts_all_of_one_stream(void)
{
	uint16_t stag[3], kept;
	uint32_t other;
	uint64_t *cd;

	if (!begin() || !told_of(4))
		return;
	if (scene.master->sids < 2) {
		vt_skip("the engine has only one StreamID");
		return;
	}
	other = frames[3].sid = scene.master->sid[1];
	cd = vt_smmu_attach(smmu, other, &scene.space);
	cd[0] |= CD_S;
	vt_smmu_ste(smmu, other)[1] &= ~STE_S1STALLD;
	vt_smmu_cfgi_ste(smmu, other);
	for (unsigned int i = 0; i < 3; i++)
		if (!stalls(i, &stag[i]))
			return;
	vt_engine_start_read(&frames[3], page_of(3), VT_PAGE);
	if (!vt_smmu_expect_stall(smmu, VT_EVENT(VT_F_TRANSLATION, other), EVENT_CLASS_IN | EVENT_RNW, page_of(3), 0, &kept))
		return;
	scene.ste[0] &= ~STE_CONFIG(7); /* first, so that nothing stalls anew (§4.7.2) */
	vt_scene_ste(&scene);
	vt_smmu_command(smmu, CMD_STALL_TERM | CMD_SID(engine->sid), 0);
	VT_CHECK(vt_smmu_sync(smmu), "CMD_SYNC after CMD_STALL_TERM does not complete");
	for (unsigned int i = 0; i < 3; i++)
		VT_CHECK(vt_engine_end(&frames[i]) == VT_ENGINE_ERROR, "frame %u ends with %x", i, vt_engine_end(&frames[i]));
	VT_SILENT(smmu);
	if (!waits(3))
		return;
	resume(engine->sid, stag[0], RESUME_AC); /* is answered already */
	map(3);
	resume(other, kept, RESUME_AC);
	goes_on(3);
	VT_SILENT(smmu);
}

static void turning_translation_off_aborts_all(void)
{
	uint16_t stag[2];

	if (!begin() || !told_of(2) || !stalls(0, &stag[0]) || !stalls(1, &stag[1]))
		return;
	map(0);
	map(1);
	vt_smmu_enable(smmu, false);
	for (unsigned int i = 0; i < 2; i++)
		VT_CHECK(vt_engine_end(&frames[i]) == VT_ENGINE_ERROR, "frame %u ends with %x", i, vt_engine_end(&frames[i]));
	vt_smmu_enable(smmu, true);
	resume(engine->sid, stag[0], RESUME_AC);
	VT_CHECK(!vt_smmu_errors(smmu), "GERROR has %x", vt_smmu_errors(smmu));
	VT_CHECK(vt_engine_read(&frames[0], page_of(0), VT_PAGE) == VT_ENGINE_HALTED, "the stream does not work afterwards");
	VT_SILENT(smmu);
}

/* -- stalls that cannot be told -- */

/* Take the stall event of any frame below 'count' that was not 'told' yet; the frame, or -1. */
static int next_stall(unsigned int count, uint16_t *stag, bool *told)
{
	struct vt_event event;

	if (!vt_smmu_event(smmu, &event, 1)) {
		vt_fail("no further stall is told");
		return -1;
	}
	for (unsigned int n = 0; n < count; n++)
		if (event.address == page_of(n) && !told[n] && event.word[0] == translation &&
		    (event.word[1] & ~0xffffUL) == (EVENT_STALL | EVENT_CLASS_IN | EVENT_RNW)) {
			told[n] = true;
			*stag = (uint16_t)event.word[1];
			return (int)n;
		}
	vt_fail("an event %016lx %016lx at %lx is no stall that is due", event.word[0], event.word[1], event.address);
	return -1;
}

static void a_full_queue_loses_no_stall(void)
{
	bool told[4] = {false};

	if (!begin() || !told_of(2))
		return;
	vt_smmu_event_queue(smmu, (uint64_t)vt_alloc(2 * 32, 2 * 32), 1);
	for (unsigned int i = 0; i < 4; i++)
		vt_engine_start_read(&frames[i], page_of(i), VT_PAGE);
	VT_CHECK(VT_WAIT(vt_smmu_get(smmu, EVENTQ_PROD) == 2, 2), "EVENTQ_PROD is %x", vt_smmu_get(smmu, EVENTQ_PROD));
	for (unsigned int i = 0; i < 4; i++)
		if (!waits(i))
			return;
	VT_CHECK(vt_smmu_get(smmu, EVENTQ_PROD) == 2, "a stall overflows the queue: EVENTQ_PROD is %x",
		 vt_smmu_get(smmu, EVENTQ_PROD));
	for (unsigned int i = 0; i < 4; i++) {
		uint16_t stag;
		int n = next_stall(4, &stag, told);

		if (n < 0)
			return;
		map((unsigned int)n);
		resume(engine->sid, stag, RESUME_AC);
		if (!goes_on((unsigned int)n))
			return;
	}
	VT_CHECK(!(vt_smmu_get(smmu, EVENTQ_PROD) & OVFLG), "stalls overflow the queue");
	VT_SILENT(smmu);
}

static void a_stall_that_was_not_told_is_retried_first(void)
{
	uint16_t stag;
	bool told[3] = {false};
	int n;

	if (!begin() || !told_of(3))
		return;
	vt_smmu_event_queue(smmu, (uint64_t)vt_alloc(2 * 32, 2 * 32), 1);
	for (unsigned int i = 0; i < 2; i++)
		vt_engine_start_read(&frames[i], page_of(i), VT_PAGE);
	VT_CHECK(VT_WAIT(vt_smmu_get(smmu, EVENTQ_PROD) == 2, 2), "EVENTQ_PROD is %x", vt_smmu_get(smmu, EVENTQ_PROD));
	vt_engine_start_read(&frames[2], page_of(2), VT_PAGE); /* finds the queue full */
	VT_CHECK(VT_WAIT(vt_engine_stalled(&frames[2]), 2), "frame 2 does not stall");
	map(2);
	vt_scene_tlbi(&scene);
	for (unsigned int i = 0; i < 2; i++) {
		n = next_stall(2, &stag, told);
		if (n < 0)
			return;
		resume(engine->sid, stag, RESUME_AB);
		VT_CHECK(vt_engine_end(&frames[n]) == VT_ENGINE_ERROR, "frame %d is not aborted", n);
	}
	/* By then there was room, and its page was mapped: no event is due (§7.2.1). */
	if (goes_on(2))
		VT_SILENT(smmu);
}

static void stalls_wait_while_the_queue_is_off(void)
{
	uint16_t stag;

	if (!begin())
		return;
	vt_smmu_cr0(smmu, CR0_SMMUEN | CR0_CMDQEN);
	vt_engine_start_read(&frames[0], page_of(0), VT_PAGE);
	VT_CHECK(VT_WAIT(vt_engine_stalled(&frames[0]), 2), "the engine does not stall");
	VT_CHECK(!vt_smmu_get(smmu, EVENTQ_PROD), "EVENTQ_PROD moves while the queue is off");
	vt_smmu_cr0(smmu, CR0_SMMUEN | CR0_CMDQEN | CR0_EVENTQEN);
	if (!vt_smmu_expect_stall(smmu, translation, EVENT_CLASS_IN | EVENT_RNW, page_of(0), 0, &stag) || !waits(0))
		return;
	map(0);
	resume(engine->sid, stag, RESUME_AC);
	goes_on(0);
}

static void software_is_told_of_stall_max_at_a_time(void)
{
	uint32_t most;
	bool told[FRAMES] = {false};
	uint16_t stag[FRAMES];
	int frame[FRAMES];

	if (!begin())
		return;
	most = smmu->idr5 >> 16;
	if (most >= FRAMES) {
		vt_skip("the SMMU tells of more stalls than this program makes");
		return;
	}
	for (unsigned int i = 0; i < FRAMES; i++)
		vt_engine_start_read(&frames[i], page_of(i), VT_PAGE);
	for (unsigned int i = 0; i < FRAMES; i++)
		VT_CHECK(VT_WAIT(vt_engine_stalled(&frames[i]), 2), "frame %u does not stall", i);
	VT_CHECK(vt_smmu_get(smmu, EVENTQ_PROD) == most, "%u stalls are told, not %u", vt_smmu_get(smmu, EVENTQ_PROD), most);
	for (unsigned int i = 0; i < FRAMES; i++) {
		if (i >= most) { /* a STAG was returned before */
			map((unsigned int)frame[i - most]);
			resume(engine->sid, stag[i - most], RESUME_AC);
			if (!goes_on((unsigned int)frame[i - most]))
				return;
		}
		frame[i] = next_stall(FRAMES, &stag[i], told);
		if (frame[i] < 0)
			return;
	}
	VT_SILENT(smmu);
	for (unsigned int i = FRAMES - most; i < FRAMES; i++) {
		map((unsigned int)frame[i]);
		resume(engine->sid, stag[i], RESUME_AC);
		if (!goes_on((unsigned int)frame[i]))
			return;
	}
}

VT_CASES(
	{"a_stalled_read_goes_on_once_it_is_mapped", a_stalled_read_goes_on_once_it_is_mapped},
	{"a_stalled_write_goes_on_where_it_stopped", a_stalled_write_goes_on_where_it_stopped},
	{"each_of_the_four_faults_can_stall", each_of_the_four_faults_can_stall},
	{"other_faults_abort_all_the_same", other_faults_abort_all_the_same},
	{"a_retry_that_faults_stalls_again", a_retry_that_faults_stalls_again},
	{"a_retry_finds_the_configuration_of_then", a_retry_finds_the_configuration_of_then},
	{"terminating_with_abort_aborts", terminating_with_abort_aborts},
	{"terminating_without_reads_zero_and_ignores_writes", terminating_without_reads_zero_and_ignores_writes},
	{"a_wrong_stag_or_streamid_changes_nothing", a_wrong_stag_or_streamid_changes_nothing},
	{"stalls_are_answered_one_by_one_in_any_order", stalls_are_answered_one_by_one_in_any_order},
	{"a_stall_holds_up_nobody_else", a_stall_holds_up_nobody_else},
	{"stall_term_aborts_all_of_one_stream", stall_term_aborts_all_of_one_stream},
	{"turning_translation_off_aborts_all", turning_translation_off_aborts_all},
	{"a_full_queue_loses_no_stall", a_full_queue_loses_no_stall},
	{"a_stall_that_was_not_told_is_retried_first", a_stall_that_was_not_told_is_retried_first},
	{"stalls_wait_while_the_queue_is_off", stalls_wait_while_the_queue_is_off},
	{"software_is_told_of_stall_max_at_a_time", software_is_told_of_stall_max_at_a_time},
);
