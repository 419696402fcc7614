/* SPDX-License-Identifier: Apache-2.0 */
/* Frames of an SMMUv3TestEngine: a page of user frames, 64 KiB above it the page of privileged ones. */
#include "vt.h"

#define FRAME_SIZE 128UL
#define PRIVILEGED_PAGE 0x10000
#define EXTENSION_PAGE 0x20000 /* ours, not Arm's; of an engine with up to 512 frames */
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
#define PCTRL 0x00
#define STREAMID 0x08
#define SUBSTREAMID 0x0c

/* extension frame */
#define STALLS_NOW 0x18
#define SPECIAL 0x4c

#define WRITE_BACK_SHAREABLE 0x42ff42ff

void vt_engine_init_frame(struct vt_engine *engine, const struct vt_master_config *config, unsigned int frame)
{
	engine->user = config->base + FRAME_SIZE * frame;
	engine->privileged = engine->user + PRIVILEGED_PAGE;
	engine->extension = engine->user + EXTENSION_PAGE;
	engine->sid = config->sid[0];
	engine->ssid = VT_NO_SSID;
	engine->attributes = WRITE_BACK_SHAREABLE;
	engine->pctrl = 0;
	engine->special = 0;
}

void vt_engine_init(struct vt_engine *engine, const struct vt_master_config *config)
{
	vt_engine_init_frame(engine, config, 0);
}

/* Have 'command' begin on [at, at + size). */
static void start(struct vt_engine *engine, uint32_t command, uint64_t at, uint64_t size, uint32_t ssid, uint32_t seed)
{
	vt_write32(engine->privileged + PCTRL, engine->pctrl);
	vt_write32(engine->privileged + STREAMID, engine->sid);
	vt_write32(engine->privileged + SUBSTREAMID, ssid);
	vt_write32(engine->extension + SPECIAL, engine->special);
	vt_write64(engine->user + MSIADDRESS, 0);
	vt_write32(engine->user + ATTRIBUTES, engine->attributes);
	vt_write32(engine->user + SEED, seed);
	vt_write64(engine->user + BEGIN, at);
	vt_write64(engine->user + END_INCL, at + size - 1);
	vt_write64(engine->user + STRIDE, 1);
	vt_barrier();
	vt_write32(engine->user + CMD, command);
}

bool vt_engine_busy(const struct vt_engine *engine)
{
	uint32_t state = vt_read32(engine->user + CMD);

	return state >= VT_ENGINE_MEMCPY && state <= VT_ENGINE_SUM64;
}

uint32_t vt_engine_end(struct vt_engine *engine)
{
	if (!VT_WAIT(!vt_engine_busy(engine), 5))
		return VT_ENGINE_BUSY;
	vt_barrier();
	return vt_read32(engine->user + CMD);
}

/* Run 'command' on [at, at + size) as the engine's stream; how it ended. */
static uint32_t run(struct vt_engine *engine, uint32_t command, uint64_t at, uint64_t size, uint32_t ssid)
{
	start(engine, command, at, size, ssid, 0);
	return vt_engine_end(engine);
}

void vt_engine_start_read(struct vt_engine *engine, uint64_t at, uint64_t size)
{
	start(engine, VT_ENGINE_SUM64, at, size, engine->ssid, 0);
}

void vt_engine_start_write(struct vt_engine *engine, uint64_t at, uint64_t size)
{
	start(engine, VT_ENGINE_RAND48, at, size, engine->ssid, 0);
}

uint32_t vt_engine_read(struct vt_engine *engine, uint64_t at, uint64_t size)
{
	vt_engine_start_read(engine, at, size);
	return vt_engine_end(engine);
}

uint32_t vt_engine_write(struct vt_engine *engine, uint64_t at, uint64_t size)
{
	vt_engine_start_write(engine, at, size);
	return vt_engine_end(engine);
}

uint32_t vt_engine_stalled(const struct vt_engine *engine) { return vt_read32(engine->extension + STALLS_NOW); }

uint64_t vt_engine_result(const struct vt_engine *engine) { return vt_read64(engine->user + UDATA(1)); }

uint32_t vt_engine_copy(struct vt_engine *engine, uint64_t to, uint64_t from, uint64_t size, uint32_t ssid)
{
	vt_write64(engine->user + UDATA(0), to);
	return run(engine, VT_ENGINE_MEMCPY, from, size, ssid);
}

uint32_t vt_engine_sum(struct vt_engine *engine, uint64_t at, uint64_t size, uint64_t *sum)
{
	uint32_t status = run(engine, VT_ENGINE_SUM64, at, size, VT_NO_SSID);

	*sum = vt_engine_result(engine);
	return status;
}

uint64_t vt_engine_fault(const struct vt_engine *engine)
{
	return vt_read64(engine->user + UDATA(2));
}
