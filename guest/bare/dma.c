/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One SMMU, one DMA engine behind it: what a driver may rely on, each promise a case that needs no other.
 *
 * Each case makes its own address space, and compares bytes of memory: a register alone proves nothing.
 */
#include "vt.h"

#define PAGE 4096UL
/* Input addresses that are no one's physical address. */
#define SOURCE 0x10000000UL
#define TARGET 0x20000000UL

static struct vt_smmu smmu;
static struct vt_engine engine;
static struct vt_space space;
static uint8_t *source, *target;

/* A new address space with a filled page at SOURCE and an empty one at TARGET; false: skipped. */
static bool prepare(void)
{
	static bool started;
	const struct vt_master_config *config = vt_master("arm,smmute", 0);

	if (!config) {
		vt_skip("the machine has no DMA engine");
		return false;
	}
	if (!started)
		vt_smmu_start(&smmu, &vt_config.smmu[config->smmu]);
	started = true;
	vt_engine_init(&engine, config);
	vt_smmu_drain(&smmu);
	source = vt_alloc(PAGE, PAGE);
	target = vt_alloc(PAGE, PAGE);
	for (unsigned int i = 0; i < PAGE; i++)
		source[i] = (uint8_t)(i * 7 + (i >> 8) + 1);
	vt_space_init(&smmu, &space);
	vt_map(&space, SOURCE, (uint64_t)source, PAGE, VT_READ);
	vt_map(&space, TARGET, (uint64_t)target, PAGE, VT_READ | VT_WRITE);
	vt_smmu_attach(&smmu, engine.sid, &space);
	return true;
}

static uint32_t copy(void) { return vt_engine_copy(&engine, TARGET, SOURCE, PAGE, VT_NO_SSID); }

static bool arrived(void) { return !memcmp(source, target, PAGE); }

/* Whether 'target' is as it was made. */
static bool untouched(void)
{
	for (unsigned int i = 0; i < PAGE; i++)
		if (((volatile uint8_t *)target)[i])
			return false;
	return true;
}

/* Check that exactly one event came, and that it says this. */
static void expect_event(uint8_t id, uint32_t sid, uint64_t address, bool read)
{
	struct vt_event event, other;

	VT_CHECK(vt_smmu_event(&smmu, &event, 1), "no event came, where one with ID %x should", id);
	VT_CHECK(event.id == id, "the event's ID is %x, not %x", event.id, id);
	VT_CHECK(event.sid == sid, "the event's StreamID is %x, not %x", event.sid, sid);
	if (id >= VT_F_TRANSLATION && id <= VT_F_PERMISSION) {
		VT_CHECK(event.address == address, "the event's address is %lx, not %lx", event.address, address);
		VT_CHECK(event.read == read, "the event calls a %s a %s", read ? "read" : "write",
			 read ? "write" : "read");
		VT_CHECK(!event.stage2, "the event blames stage 2");
	}
	VT_CHECK(!vt_smmu_event(&smmu, &other, 0), "one fault makes two events; the second has ID %x", other.id);
}

static void expect_no_event(void)
{
	struct vt_event event;

	if (vt_smmu_event(&smmu, &event, 0))
		vt_fail("an event with ID %x came unasked", event.id);
}

static void dma_before_revoke(void)
{
	if (!prepare())
		return;
	VT_CHECK(copy() == VT_ENGINE_HALTED, "the engine does not complete a copy of mapped pages");
	VT_CHECK(arrived(), "the copy is not what was copied");
	expect_no_event();
}

static void sum_is_right(void)
{
	uint64_t sum, wanted = 0;

	if (!prepare())
		return;
	for (unsigned int i = 0; i < PAGE / 8; i++)
		wanted += ((volatile uint64_t *)source)[i];
	VT_CHECK(vt_engine_sum(&engine, SOURCE, PAGE, &sum) == VT_ENGINE_HALTED, "the engine does not complete a sum");
	VT_CHECK(sum == wanted, "the engine's sum is %lx, the CPU's %lx", sum, wanted);
	expect_no_event();
}

static void pages_need_not_be_in_order(void)
{
	uint8_t *pages, *copies;

	if (!prepare())
		return;
	pages = vt_alloc(4 * PAGE, PAGE);
	copies = vt_alloc(4 * PAGE, PAGE);
	for (unsigned int i = 0; i < 4 * PAGE; i++)
		pages[i] = (uint8_t)(i ^ i >> 7);
	for (unsigned int i = 0; i < 4; i++) {
		vt_map(&space, SOURCE + (1 + i) * PAGE, (uint64_t)pages + (3 - i) * PAGE, PAGE, VT_READ);
		vt_map(&space, TARGET + (1 + i) * PAGE, (uint64_t)copies + (3 - i) * PAGE, PAGE, VT_WRITE | VT_READ);
	}
	VT_CHECK(vt_engine_copy(&engine, TARGET + PAGE, SOURCE + PAGE, 4 * PAGE, VT_NO_SSID) == VT_ENGINE_HALTED,
		 "the engine does not complete a copy across pages");
	VT_CHECK(!memcmp(pages, copies, 4 * PAGE), "the pages of the copy are mixed up");
	expect_no_event();
}

static void dma_after_unmap_faults(void)
{
	if (!prepare())
		return;
	VT_CHECK(copy() == VT_ENGINE_HALTED && arrived(), "the copy before the unmap fails");
	memset(target, 0, PAGE);
	vt_unmap(&smmu, &space, TARGET, PAGE, !vt_argument("revoke", 1));
	VT_CHECK(copy() == VT_ENGINE_ERROR, "the engine does not see that its write was aborted");
	VT_CHECK(untouched(), "an unmapped page was written");
	expect_event(VT_F_TRANSLATION, engine.sid, TARGET, false);
}

static void event_record_matches(void)
{
	if (!prepare())
		return;
	VT_CHECK(vt_engine_copy(&engine, TARGET, SOURCE + 16 * PAGE, 64, VT_NO_SSID) == VT_ENGINE_ERROR,
		 "the engine does not see that its read was aborted");
	VT_CHECK(vt_engine_fault(&engine) == SOURCE + 16 * PAGE, "the engine names address %lx",
		 vt_engine_fault(&engine));
	expect_event(VT_F_TRANSLATION, engine.sid, SOURCE + 16 * PAGE, true);
	VT_CHECK(untouched(), "a read that faulted wrote something");
}

static void read_only_page_is_not_written(void)
{
	if (!prepare())
		return;
	vt_map(&space, TARGET + PAGE, (uint64_t)target, PAGE, VT_READ);
	VT_CHECK(vt_engine_copy(&engine, TARGET + PAGE, SOURCE, PAGE, VT_NO_SSID) == VT_ENGINE_ERROR,
		 "the engine writes a read-only page");
	VT_CHECK(untouched(), "a read-only page was written");
	expect_event(VT_F_PERMISSION, engine.sid, TARGET + PAGE, false);
}

static void invalid_stream_is_refused(void)
{
	if (!prepare())
		return;
	vt_smmu_forget(&smmu, engine.sid);
	VT_CHECK(copy() == VT_ENGINE_ERROR, "a stream without a valid entry reaches memory");
	VT_CHECK(untouched(), "a stream without a valid entry wrote memory");
	expect_event(VT_C_BAD_STE, engine.sid, 0, true);
}

static void wrong_sid(void)
{
	const struct vt_master_config *config;

	if (!prepare())
		return;
	config = vt_master("arm,smmute", 0);
	if (config->sids < 2) {
		vt_skip("the engine has only one StreamID");
		return;
	}
	engine.sid = config->sid[1];
	vt_smmu_forget(&smmu, engine.sid);
	VT_CHECK(copy() == VT_ENGINE_ERROR, "another stream uses the first one's translations");
	VT_CHECK(untouched(), "another stream wrote memory");
	expect_event(VT_C_BAD_STE, config->sid[1], 0, true);
	engine.sid = config->sid[0];
	VT_CHECK(copy() == VT_ENGINE_HALTED && arrived(), "the first stream suffers for the second one's fault");
}

static void streams_have_their_own_spaces(void)
{
	const struct vt_master_config *config;
	struct vt_space second;
	uint8_t *page;

	if (!prepare())
		return;
	config = vt_master("arm,smmute", 0);
	if (config->sids < 2) {
		vt_skip("the engine has only one StreamID");
		return;
	}
	page = vt_alloc(PAGE, PAGE);
	vt_space_init(&smmu, &second);
	vt_map(&second, SOURCE, (uint64_t)source, PAGE, VT_READ);
	vt_map(&second, TARGET, (uint64_t)page, PAGE, VT_READ | VT_WRITE);
	vt_smmu_attach(&smmu, config->sid[1], &second);
	VT_CHECK(copy() == VT_ENGINE_HALTED && arrived(), "the first stream's copy fails");
	memset(target, 0, PAGE);
	engine.sid = config->sid[1];
	VT_CHECK(copy() == VT_ENGINE_HALTED, "the second stream's copy fails");
	VT_CHECK(!memcmp(source, page, PAGE), "the second stream's copy is not in its page");
	VT_CHECK(untouched(), "the second stream wrote the first one's page");
	expect_no_event();
	vt_smmu_forget(&smmu, config->sid[1]);
}

static void bypass_takes_physical_addresses(void)
{
	if (!prepare())
		return;
	vt_smmu_bypass(&smmu, engine.sid);
	VT_CHECK(vt_engine_copy(&engine, (uint64_t)target, (uint64_t)source, PAGE, VT_NO_SSID) == VT_ENGINE_HALTED,
		 "a stream in bypass does not reach memory");
	VT_CHECK(arrived(), "the copy in bypass is not what was copied");
	expect_no_event();
}

static void abort_is_silent(void)
{
	if (!prepare())
		return;
	vt_smmu_abort(&smmu, engine.sid);
	VT_CHECK(copy() == VT_ENGINE_ERROR, "a stream that is to be aborted reaches memory");
	VT_CHECK(untouched(), "a stream that is to be aborted wrote memory");
	expect_no_event();
}

static void an_event_interrupts(void)
{
	const struct vt_smmu_config *config;
	uint32_t intid;

	if (!prepare())
		return;
	config = &vt_config.smmu[vt_master("arm,smmute", 0)->smmu];
	intid = vt_smmu_event_interrupt(&smmu, config);
	if (!intid) {
		vt_skip("the SMMU has neither MSIs nor a wire for events");
		return;
	}
	vt_interrupt_listen(intid);
	VT_CHECK(copy() == VT_ENGINE_HALTED && arrived(), "the copy before the fault fails");
	VT_CHECK(!vt_interrupt_pending(intid), "interrupt %u comes without an event", intid);
	vt_unmap(&smmu, &space, TARGET, PAGE, false);
	VT_CHECK(copy() == VT_ENGINE_ERROR, "the engine does not see that its write was aborted");
	VT_CHECK(VT_WAIT(vt_interrupt_pending(intid), 2), "interrupt %u does not come with an event", intid);
	expect_event(VT_F_TRANSLATION, engine.sid, TARGET, false);
}

static void substreams_have_their_own_spaces(void)
{
	struct vt_space second;
	const struct vt_space *spaces[4] = {&space, NULL, &second, NULL};
	struct vt_event event;
	uint8_t *page;

	if (!prepare())
		return;
	if ((smmu.idr1 >> 6 & 31) < 2) {
		vt_skip("the SMMU has no SubstreamIDs");
		return;
	}
	page = vt_alloc(PAGE, PAGE);
	vt_space_init(&smmu, &second);
	vt_map(&second, SOURCE, (uint64_t)source, PAGE, VT_READ);
	vt_map(&second, TARGET, (uint64_t)page, PAGE, VT_READ | VT_WRITE);
	vt_smmu_attach_substreams(&smmu, engine.sid, spaces, 4);
	VT_CHECK(copy() == VT_ENGINE_HALTED && arrived(), "a copy without SubstreamID fails");
	memset(target, 0, PAGE);
	VT_CHECK(vt_engine_copy(&engine, TARGET, SOURCE, PAGE, 2) == VT_ENGINE_HALTED, "a copy of substream 2 fails");
	VT_CHECK(!memcmp(source, page, PAGE), "the copy of substream 2 is not in its page");
	VT_CHECK(untouched(), "substream 2 wrote substream 0's page");
	expect_no_event();
	VT_CHECK(vt_engine_copy(&engine, TARGET, SOURCE, PAGE, 1) == VT_ENGINE_ERROR,
		 "a substream without a descriptor reaches memory");
	VT_CHECK(vt_smmu_event(&smmu, &event, 1), "a substream without a descriptor makes no event");
	VT_CHECK(event.id == VT_C_BAD_CD, "the event's ID is %x, not C_BAD_CD", event.id);
	VT_CHECK(event.ssv && event.ssid == 1, "the event's SubstreamID is %x, valid %d", event.ssid, event.ssv);
	VT_CHECK(vt_engine_copy(&engine, TARGET, SOURCE, PAGE, 4) == VT_ENGINE_ERROR,
		 "a substream outside of the table reaches memory");
	VT_CHECK(vt_smmu_event(&smmu, &event, 1) && event.id == VT_C_BAD_SUBSTREAMID,
		 "a substream outside of the table makes no C_BAD_SUBSTREAMID");
}

VT_CASES(
	{"dma_before_revoke", dma_before_revoke},
	{"sum_is_right", sum_is_right},
	{"pages_need_not_be_in_order", pages_need_not_be_in_order},
	{"dma_after_unmap_faults", dma_after_unmap_faults},
	{"event_record_matches", event_record_matches},
	{"read_only_page_is_not_written", read_only_page_is_not_written},
	{"invalid_stream_is_refused", invalid_stream_is_refused},
	{"wrong_sid", wrong_sid},
	{"streams_have_their_own_spaces", streams_have_their_own_spaces},
	{"bypass_takes_physical_addresses", bypass_takes_physical_addresses},
	{"abort_is_silent", abort_is_silent},
	{"an_event_interrupts", an_event_interrupts},
	{"substreams_have_their_own_spaces", substreams_have_their_own_spaces},
);
