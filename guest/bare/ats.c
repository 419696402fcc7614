/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCIe ATS and PRI: translations that the engine asks for and keeps, invalidations that CMD_SYNC waits for, page
 * requests and their responses, and what is refused (IHI 0070 §3.9.1, §4.5, chapter 8).
 *
 * The engine's registers for this are ours: its extension frame counts what one frame does, its last page is the
 * cache (ATC) of all frames.
 */
#include "smmu.h"
#include "vt.h"

/* extension frame */
#define ATS_RESULT 0x2c
#define ATS_HITS 0x30
#define ATS_REQUESTS 0x34
#define PAGE_REQUESTS 0x38
#define PAGE_SUCCESSES 0x3c
#define PAGE_INVALIDS 0x40
#define PAGE_FAILURES 0x44
enum { GRANTED = 1, DENIED = 2, UNSUPPORTED_REQUEST = 3, COMPLETER_ABORT = 4 };
/* the ATC's page, 64 KiB above the extension frames */
#define ATC_PAGE 0x30000
#define ATC_FEATURES 0x04
#define ATC_HELD 0x20
#define ATC_ANSWERING 0x28
enum { COMPLETE = 0, HOLD = 1, TIME_OUT = 2 };

static struct vt_scene scene;
static struct vt_smmu *const smmu = &scene.smmu;
static struct vt_engine *const engine = &scene.engine;
static uint64_t *requests; /* the PRI queue */

static uint32_t own(uint32_t at) { return vt_read32(engine->extension + at); }
static uint32_t atc(uint32_t at) { return vt_read32(scene.master->base + ATC_PAGE + at); }
static void answer(uint32_t how) { vt_write32(scene.master->base + ATC_PAGE + ATC_ANSWERING, how); }

static bool command(uint64_t word0, uint64_t word1)
{
	vt_smmu_command(smmu, word0, word1);
	return vt_smmu_sync(smmu);
}

/* A stream that may use ATS, with an empty ATC; false: skipped. */
static bool begin(void)
{
	if (!vt_scene_begin(&scene))
		return false;
	if (!(smmu->idr0 & IDR0_ATS)) {
		vt_skip("the SMMU has no ATS");
		return false;
	}
	if (scene.master->size <= ATC_PAGE || !(atc(ATC_FEATURES) & 1)) {
		vt_skip("the engine has no ATC");
		return false;
	}
	scene.ste[1] |= STE_EATS_FULL;
	vt_scene_ste(&scene);
	answer(COMPLETE);
	if (!command(CMD_ATC_INV | CMD_SID(engine->sid), ATC_INV_ALL))
		vt_fail("CMD_ATC_INV of all is not obeyed");
	engine->pctrl = VT_ATS;
	return true;
}

/* The same with page requests, taken into a queue of 2^bits at 'at'; false: skipped. */
static bool begin_pri(uint64_t at, unsigned int bits)
{
	if (!begin())
		return false;
	if (!(smmu->idr0 & IDR0_PRI)) {
		vt_skip("the SMMU has no page requests");
		return false;
	}
	vt_smmu_set64(smmu, PRIQ_BASE, at | bits);
	vt_smmu_set(smmu, PRIQ_PROD, 0);
	vt_smmu_set(smmu, PRIQ_CONS, 0);
	vt_smmu_cr0(smmu, CR0_SMMUEN | CR0_PRIQEN | CR0_EVENTQEN | CR0_CMDQEN);
	engine->pctrl |= VT_PRI;
	return true;
}

static bool begin_queue(void)
{
	requests = vt_alloc(4 * 16, 4 * 16);
	return begin_pri((uint64_t)requests, 2);
}

static bool reads(uint64_t at)
{
	return vt_engine_read(engine, at, VT_PAGE) == VT_ENGINE_HALTED && vt_engine_result(engine) == scene.sum;
}

/* -- translation requests -- */

static void a_translation_is_asked_for_once(void)
{
	uint32_t asked, hits;

	if (!begin())
		return;
	asked = own(ATS_REQUESTS);
	VT_CHECK(reads(VT_SOURCE), "a read by way of the ATC fails");
	VT_CHECK(own(ATS_RESULT) == GRANTED, "the translation request ends with %u", own(ATS_RESULT));
	VT_CHECK(own(ATS_REQUESTS) == asked + 1, "there are %u translation requests", own(ATS_REQUESTS) - asked);
	hits = own(ATS_HITS);
	VT_CHECK(reads(VT_SOURCE), "a read of a cached page fails");
	VT_CHECK(own(ATS_REQUESTS) == asked + 1 && own(ATS_HITS) == hits + 1, "a cached page is asked for again");
	VT_SILENT(smmu);
}

static void what_is_not_permitted_is_denied_without_an_event(void)
{
	if (!begin())
		return;
	VT_CHECK(vt_engine_read(engine, VT_TARGET + VT_PAGE, 64) == VT_ENGINE_ERROR, "an unmapped page can be read");
	VT_CHECK(own(ATS_RESULT) == DENIED, "the translation request ends with %u", own(ATS_RESULT));
	VT_CHECK(reads(VT_SOURCE), "a read-only page cannot be read");
	VT_CHECK(vt_engine_write(engine, VT_SOURCE, 64) == VT_ENGINE_ERROR, "a read-only page can be written");
	VT_CHECK(own(ATS_RESULT) == DENIED, "the translation request ends with %u", own(ATS_RESULT));
	VT_SILENT(smmu);
}

static void where_eats_is_0_ats_is_f_bad_ats_treq(void)
{
	struct vt_event event;

	if (!begin())
		return;
	scene.ste[1] &= ~STE_EATS_FULL;
	vt_scene_ste(&scene);
	VT_CHECK(vt_engine_read(engine, VT_SOURCE + 64, 64) == VT_ENGINE_ERROR, "a stream without ATS uses it");
	VT_CHECK(own(ATS_RESULT) == UNSUPPORTED_REQUEST, "the translation request ends with %u", own(ATS_RESULT));
	/* What word 1 tells of the request is in a figure alone, which we lack: it is not compared. */
	VT_CHECK(vt_smmu_event(smmu, &event, 1), "no event came");
	VT_CHECK(event.word[0] == VT_EVENT(VT_F_BAD_ATS_TREQ, engine->sid) && (event.address & ~0xfffUL) == VT_SOURCE,
		 "the event is %lx at %lx", event.word[0], event.address);
	VT_SILENT(smmu);
	engine->pctrl = 0;
	VT_CHECK(reads(VT_SOURCE), "an ordinary read fails, too");
}

static void a_stream_without_an_entry_is_a_completer_abort(void)
{
	if (!begin())
		return;
	scene.ste[0] &= ~STE_V;
	vt_scene_ste(&scene);
	VT_CHECK(vt_engine_read(engine, VT_SOURCE, 64) == VT_ENGINE_ERROR, "an invalid stream uses ATS");
	VT_CHECK(own(ATS_RESULT) == COMPLETER_ABORT, "the translation request ends with %u", own(ATS_RESULT));
	VT_SILENT(smmu); /* CR2.REC_CFG_ATS is 0 */
}

static void atschk_forbids_what_eats_no_longer_allows(void)
{
	if (!begin())
		return;
	VT_CHECK(reads(VT_SOURCE), "a read by way of the ATC fails");
	scene.ste[1] &= ~STE_EATS_FULL; /* though the ATC still has the page */
	vt_scene_ste(&scene);
	VT_CHECK(reads(VT_SOURCE), "without ATSCHK a translated transaction is checked");
	vt_smmu_cr0(smmu, CR0_SMMUEN | CR0_EVENTQEN | CR0_CMDQEN | CR0_ATSCHK);
	VT_CHECK(vt_engine_read(engine, VT_SOURCE + 64, 64) == VT_ENGINE_ERROR, "ATSCHK checks nothing");
	VT_EXPECT(smmu, VT_EVENT(VT_F_TRANSL_FORBIDDEN, engine->sid), EVENT_RNW, (uint64_t)scene.source + 64, 0);
}

/* -- invalidations -- */

static void atc_inv_drops_what_it_names(void)
{
	static const uint64_t sizes[] = {0, 3, ATC_INV_ALL};

	if (!begin())
		return;
	for (unsigned int i = 0; i < 3; i++) {
		uint64_t *descriptor = vt_descriptor(&scene.space, VT_SOURCE, 3), good = *descriptor;

		VT_CHECK(reads(VT_SOURCE), "a read by way of the ATC fails");
		*descriptor = 0;
		vt_scene_tlbi(&scene);
		/* The endpoint was not told, so it goes on; the SMMU cannot know. */
		vt_note("stale other=atc translates=%d", reads(VT_SOURCE));
		vt_note("stale other=atc_page translates=%d",
			command(CMD_ATC_INV | CMD_SID(engine->sid), VT_SOURCE + 8 * VT_PAGE) && reads(VT_SOURCE));
		VT_CHECK(command(CMD_ATC_INV | CMD_SID(engine->sid), VT_SOURCE | sizes[i]), "CMD_ATC_INV is not obeyed");
		VT_CHECK(vt_engine_read(engine, VT_SOURCE, 64) == VT_ENGINE_ERROR, "CMD_ATC_INV of size %lu drops nothing",
			 sizes[i]);
		VT_CHECK(own(ATS_RESULT) == DENIED, "the translation request ends with %u", own(ATS_RESULT));
		*descriptor = good;
		vt_barrier();
	}
	VT_SILENT(smmu);
}

static void sync_waits_for_the_endpoint(void)
{
	if (!begin())
		return;
	answer(HOLD);
	vt_smmu_command(smmu, CMD_ATC_INV | CMD_SID(engine->sid), ATC_INV_ALL);
	vt_smmu_command(smmu, CMD_SYNC, 0);
	VT_CHECK(VT_WAIT(atc(ATC_HELD) == 1, 2), "the invalidation does not reach the endpoint");
	VT_CHECK((vt_smmu_get(smmu, CMDQ_CONS) & 0xfffff) != smmu->command_prod, "CMD_SYNC does not wait for the endpoint");
	answer(COMPLETE);
	VT_CHECK(vt_smmu_consumed(smmu), "CMD_SYNC does not complete when the endpoint has answered");
}

static void a_time_out_is_cerror_atc_inv_sync(void)
{
	if (!begin())
		return;
	answer(TIME_OUT);
	vt_smmu_command(smmu, CMD_ATC_INV | CMD_SID(engine->sid), ATC_INV_ALL);
	VT_CHECK(!vt_smmu_sync(smmu), "CMD_SYNC completes though the endpoint does not answer");
	VT_CHECK(vt_smmu_errors(smmu) == GERROR_CMDQ_ERR, "GERROR has %x", vt_smmu_errors(smmu));
	VT_CHECK(CMDQ_CONS_ERR(vt_smmu_get(smmu, CMDQ_CONS)) == CERROR_ATC_INV_SYNC, "CMDQ_CONS is %x",
		 vt_smmu_get(smmu, CMDQ_CONS));
	answer(COMPLETE);
	vt_smmu_acknowledge(smmu); /* the same CMD_SYNC again, which has nothing to wait for */
	VT_CHECK(vt_smmu_consumed(smmu), "the queue does not go on after the error");
}

/* -- page requests -- */

/* The 'n'th request must be this. */
static bool requested(unsigned int n, uint64_t word0, uint64_t word1)
{
	volatile uint64_t *entry = requests + 2 * n;

	if (!VT_WAIT((vt_smmu_get(smmu, PRIQ_PROD) & 7) == n + 1, 2))
		vt_fail("PRIQ_PROD is %x, not %u", vt_smmu_get(smmu, PRIQ_PROD), n + 1);
	else if (entry[0] != word0 || entry[1] != word1)
		vt_fail("the page request is %016lx %016lx, not %016lx %016lx", entry[0], entry[1], word0, word1);
	else
		return true;
	return false;
}

static void a_page_request_is_answered_by_a_page(void)
{
	uint64_t at = VT_TARGET + VT_PAGE;

	if (!begin_queue())
		return;
	vt_engine_start_read(engine, at, VT_PAGE);
	if (!requested(0, engine->sid | PRI_R | PRI_LAST, at))
		return;
	VT_CHECK(vt_engine_busy(engine), "the engine does not wait for the response");
	vt_map(&scene.space, at, (uint64_t)scene.source, VT_PAGE, VT_READ | VT_WRITE);
	VT_CHECK(command(CMD_PRI_RESP | CMD_SID(engine->sid), PRI_RESP_SUCCESS), "CMD_PRI_RESP is not consumed");
	VT_CHECK(vt_engine_end(engine) == VT_ENGINE_HALTED && vt_engine_result(engine) == scene.sum, "the read does not go on");
	VT_CHECK(own(PAGE_SUCCESSES) > 0, "the engine has no response");
	VT_SILENT(smmu);
}

static void a_page_request_interrupts(void)
{
	volatile uint32_t *word = vt_alloc(64, 64);

	if (!begin_queue())
		return;
	if (!(smmu->idr0 & IDR0_MSI)) {
		vt_skip("the SMMU has no MSIs");
		return;
	}
	vt_smmu_set64(smmu, PRIQ_IRQ_CFG0, (uint64_t)word);
	vt_smmu_set(smmu, PRIQ_IRQ_CFG1, 0x5eed);
	vt_smmu_set(smmu, IRQ_CTRL, IRQ_CTRL_PRIQ);
	VT_CHECK(VT_WAIT(vt_smmu_get(smmu, IRQ_CTRLACK) == IRQ_CTRL_PRIQ, 1), "IRQ_CTRL is not acknowledged");
	vt_engine_start_read(engine, VT_TARGET + VT_PAGE, 64);
	VT_CHECK(VT_WAIT(*word == 0x5eed, 2), "a page request sends no MSI");
	command(CMD_PRI_RESP | CMD_SID(engine->sid), PRI_RESP_FAILURE);
	VT_CHECK(vt_engine_end(engine) == VT_ENGINE_ERROR, "the engine goes on after Response Failure");
	VT_SILENT(smmu);
}

static void a_page_request_says_what_is_wanted(void)
{
	const struct vt_space *spaces[8] = {[5] = &scene.space};
	uint64_t at = VT_TARGET + VT_PAGE, from;
	struct vt_engine second;

	if (!begin_queue())
		return;
	if (IDR1_SSIDSIZE(smmu->idr1) < 3) {
		vt_skip("the SMMU has too few SubstreamIDs");
		return;
	}
	vt_smmu_attach_substreams(smmu, engine->sid, spaces, 8);
	scene.ste[1] |= STE_EATS_FULL;
	vt_scene_ste(&scene);
	from = engine->sid | 5UL << 32 | PRI_SSV | PRI_LAST;
	second = *engine;
	second.user += 3 * 128;
	second.privileged += 3 * 128;
	second.extension += 3 * 128;
	engine->ssid = second.ssid = 5;
	vt_engine_start_write(engine, at, 64);
	if (!requested(0, from | PRI_W, at))
		return;
	second.attributes |= VT_PRIVILEGED | VT_INSTRUCTION;
	vt_engine_start_read(&second, at + VT_PAGE, 64);
	if (!requested(1, from | PRI_R | PRI_X | PRI_PRIV, (at + VT_PAGE) | 3))
		return;
	command(CMD_PRI_RESP | CMD_SSV | CMD_SSID(5) | CMD_SID(engine->sid), PRI_RESP_INVALID);
	VT_CHECK(vt_engine_end(engine) == VT_ENGINE_ERROR, "the engine goes on after Invalid Request");
	VT_CHECK(vt_engine_busy(&second), "a response to group 0 is one to group 3");
	command(CMD_PRI_RESP | CMD_SSV | CMD_SSID(5) | CMD_SID(engine->sid), PRI_RESP_FAILURE | 3);
	VT_CHECK(vt_engine_end(&second) == VT_ENGINE_ERROR, "the engine goes on after Response Failure");
	VT_CHECK(own(PAGE_INVALIDS) > 0 && vt_read32(second.extension + PAGE_FAILURES) > 0, "a response says otherwise");
	VT_SILENT(smmu);
	/* Once a frame has done with a PASID it says so, by a stop marker: Last alone. */
	engine->pctrl = second.pctrl = 0;
	engine->ssid = second.ssid = VT_NO_SSID;
	vt_smmu_bypass(smmu, engine->sid);
	VT_CHECK(vt_engine_read(engine, (uint64_t)scene.source, 64) == VT_ENGINE_HALTED, "the bypass fails");
	if (!requested(2, from, 0))
		return;
	VT_CHECK(vt_engine_read(&second, (uint64_t)scene.source, 64) == VT_ENGINE_HALTED, "the bypass fails");
	requested(3, from, 0);
}

static void an_overflow_answers_success_and_queues_nothing(void)
{
	struct vt_engine second;
	uint64_t at = VT_TARGET + VT_PAGE;

	requests = vt_alloc(4 * 16, 4 * 16);
	if (!begin_pri((uint64_t)requests, 0)) /* a queue of one */
		return;
	second = *engine;
	second.user += 128;
	second.privileged += 128;
	second.extension += 128;
	vt_engine_start_read(engine, at, 64);
	VT_CHECK(VT_WAIT(vt_smmu_get(smmu, PRIQ_PROD) == 1, 2), "PRIQ_PROD is %x", vt_smmu_get(smmu, PRIQ_PROD));
	/* It asks again after each Success, as often as it may, and gives up. */
	VT_CHECK(vt_engine_read(&second, at + VT_PAGE, 64) == VT_ENGINE_ERROR, "the engine reads an unmapped page");
	VT_CHECK(vt_read32(second.extension + PAGE_SUCCESSES) > 1, "an overflow does not answer Success");
	VT_CHECK(vt_smmu_get(smmu, PRIQ_PROD) == (OVFLG | 1), "PRIQ_PROD after an overflow is %x",
		 vt_smmu_get(smmu, PRIQ_PROD));
	VT_CHECK(!((volatile uint64_t *)requests)[2], "an entry lies behind the queue");
	/* Room alone does not end an overflow, as it does for events: it must be acknowledged. */
	vt_smmu_set(smmu, PRIQ_CONS, 1);
	VT_CHECK(vt_engine_read(&second, at + VT_PAGE, 64) == VT_ENGINE_ERROR, "the engine reads an unmapped page");
	VT_CHECK(vt_smmu_get(smmu, PRIQ_PROD) == (OVFLG | 1), "a request is queued while the overflow is active");
	vt_smmu_set(smmu, PRIQ_CONS, OVACKFLG | 1);
	vt_engine_start_read(&second, at + VT_PAGE, 64);
	VT_CHECK(VT_WAIT(vt_smmu_get(smmu, PRIQ_PROD) == OVFLG, 2), "PRIQ_PROD is %x", vt_smmu_get(smmu, PRIQ_PROD));
	command(CMD_PRI_RESP | CMD_SID(engine->sid), PRI_RESP_FAILURE);
	command(CMD_PRI_RESP | CMD_SID(engine->sid), PRI_RESP_FAILURE | 1);
	VT_CHECK(vt_engine_end(engine) == VT_ENGINE_ERROR && vt_engine_end(&second) == VT_ENGINE_ERROR,
		 "the engine goes on after Response Failure");
}

static void a_queue_that_is_off_answers_failure(void)
{
	uint32_t failures;

	if (!begin_queue())
		return;
	failures = own(PAGE_FAILURES);
	vt_smmu_cr0(smmu, CR0_SMMUEN | CR0_EVENTQEN | CR0_CMDQEN);
	VT_CHECK(vt_engine_read(engine, VT_TARGET + VT_PAGE, 64) == VT_ENGINE_ERROR, "the engine reads an unmapped page");
	VT_CHECK(own(PAGE_FAILURES) == failures + 1, "%u requests are answered Failure", own(PAGE_FAILURES) - failures);
	VT_CHECK(!vt_smmu_get(smmu, PRIQ_PROD), "PRIQ_PROD moves to %x while the queue is off", vt_smmu_get(smmu, PRIQ_PROD));
}

static void an_unwritable_queue_is_priq_abt_err(void)
{
	uint32_t failures;

	if (!begin_pri(VT_NOWHERE, 2))
		return;
	failures = own(PAGE_FAILURES);
	for (unsigned int i = 0; i < 2; i++) {
		VT_CHECK(vt_engine_read(engine, VT_TARGET + VT_PAGE, 64) == VT_ENGINE_ERROR, "an unmapped page is read");
		VT_CHECK(vt_smmu_errors(smmu) == GERROR_PRIQ_ABT_ERR, "GERROR has %x", vt_smmu_errors(smmu));
	}
	VT_CHECK(own(PAGE_FAILURES) == failures + 2, "%u requests are answered Failure", own(PAGE_FAILURES) - failures);
	VT_CHECK(!vt_smmu_get(smmu, PRIQ_PROD), "PRIQ_PROD passes an entry that was not written");
	vt_smmu_acknowledge(smmu);
}

VT_CASES(
	{"a_translation_is_asked_for_once", a_translation_is_asked_for_once},
	{"what_is_not_permitted_is_denied_without_an_event", what_is_not_permitted_is_denied_without_an_event},
	{"where_eats_is_0_ats_is_f_bad_ats_treq", where_eats_is_0_ats_is_f_bad_ats_treq},
	{"a_stream_without_an_entry_is_a_completer_abort", a_stream_without_an_entry_is_a_completer_abort},
	{"atschk_forbids_what_eats_no_longer_allows", atschk_forbids_what_eats_no_longer_allows},
	{"atc_inv_drops_what_it_names", atc_inv_drops_what_it_names},
	{"sync_waits_for_the_endpoint", sync_waits_for_the_endpoint},
	{"a_time_out_is_cerror_atc_inv_sync", a_time_out_is_cerror_atc_inv_sync},
	{"a_page_request_is_answered_by_a_page", a_page_request_is_answered_by_a_page},
	{"a_page_request_interrupts", a_page_request_interrupts},
	{"a_page_request_says_what_is_wanted", a_page_request_says_what_is_wanted},
	{"an_overflow_answers_success_and_queues_nothing", an_overflow_answers_success_and_queues_nothing},
	{"a_queue_that_is_off_answers_failure", a_queue_that_is_off_answers_failure},
	{"an_unwritable_queue_is_priq_abt_err", an_unwritable_queue_is_priq_abt_err},
);
