/* SPDX-License-Identifier: Apache-2.0 */
/* Frame 0 of an SMMUv3TestEngine: a page of user frames, and 64 KiB above it the page of privileged ones. */
#include "vt.h"

#define PRIVILEGED_PAGE 0x10000
/* user frame */
#define CMD 0x00
#define MSIADDRESS 0x10
#define ATTRIBUTES 0x20
#define SEED 0x24
#define BEGIN 0x28
#define END_INCL 0x30
#define STRIDE 0x38
#define UDATA(n) (0x40 + 8 * (n))
/* privileged frame */
#define STREAMID 0x08
#define SUBSTREAMID 0x0c

#define WRITE_BACK_SHAREABLE 0x42ff42ff

void vt_engine_init(struct vt_engine *engine, const struct vt_master_config *config)
{
	engine->user = config->base;
	engine->privileged = config->base + PRIVILEGED_PAGE;
	engine->sid = config->sid[0];
}

/* Run 'command' on [at, at + size) as the engine's stream; how it ended. */
static uint32_t run(struct vt_engine *engine, uint32_t command, uint64_t at, uint64_t size, uint32_t ssid)
{
	vt_write32(engine->privileged + STREAMID, engine->sid);
	vt_write32(engine->privileged + SUBSTREAMID, ssid);
	vt_write64(engine->user + MSIADDRESS, 0);
	vt_write32(engine->user + ATTRIBUTES, WRITE_BACK_SHAREABLE);
	vt_write32(engine->user + SEED, 0);
	vt_write64(engine->user + BEGIN, at);
	vt_write64(engine->user + END_INCL, at + size - 1);
	vt_write64(engine->user + STRIDE, 1);
	vt_barrier();
	vt_write32(engine->user + CMD, command);
	if (!VT_WAIT(vt_read32(engine->user + CMD) != command, 5))
		return VT_ENGINE_BUSY;
	vt_barrier();
	return vt_read32(engine->user + CMD);
}

uint32_t vt_engine_copy(struct vt_engine *engine, uint64_t to, uint64_t from, uint64_t size, uint32_t ssid)
{
	vt_write64(engine->user + UDATA(0), to);
	return run(engine, VT_ENGINE_MEMCPY, from, size, ssid);
}

uint32_t vt_engine_sum(struct vt_engine *engine, uint64_t at, uint64_t size, uint64_t *sum)
{
	uint32_t status = run(engine, VT_ENGINE_SUM64, at, size, VT_NO_SSID);

	*sum = vt_read64(engine->user + UDATA(1));
	return status;
}

uint64_t vt_engine_fault(const struct vt_engine *engine)
{
	return vt_read64(engine->user + UDATA(2));
}
