/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What bare-metal test programs have instead of a C library.
 *
 * A program defines its cases with VT_CASES and nothing else: vt_main prints KTAP and runs them. Bit positions
 * are written here by hand, from the specification, and not generated from the daemon's declarations: a position
 * that is wrong there must not be wrong here too.
 */
#ifndef VT_H
#define VT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* -- test cases ------------------------------------------------------------------------------------------------ */

/* One case; the launcher reads the names from the section .vt_cases of the ELF file (vhost_iommu/guest/bare.py). */
struct vt_case {
	char name[56];
	void (*run)(void);
};

#define VT_CASES(...) \
	const struct vt_case vt_case_table[] __attribute__((section(".vt_cases"), aligned(64), used)) = {__VA_ARGS__}

/* Fail the case that runs, with a reason; it goes on, and the caller returns. */
void vt_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The case that runs cannot run on this machine. */
void vt_skip(const char *reason);
/* A diagnostic line. */
void vt_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The program cannot go on: says why and ends the guest. */
void vt_bail(const char *reason) __attribute__((noreturn));

/* Return from the case when 'condition' does not hold. */
#define VT_CHECK(condition, ...) \
	do { \
		if (!(condition)) { \
			vt_fail(__VA_ARGS__); \
			return; \
		} \
	} while (0)

/* -- console, power, memory ------------------------------------------------------------------------------------ */

/* %d %u %x %lx %lu %s %c; no widths but %0Nx. */
void vt_print(const char *format, ...) __attribute__((format(printf, 1, 2)));
void vt_vprint(const char *format, __builtin_va_list list);
void vt_power_off(void) __attribute__((noreturn));

void *memset(void *at, int value, size_t size);
void *memcpy(void *to, const void *from, size_t size);
int memcmp(const void *a, const void *b, size_t size);
int vt_strcmp(const char *a, const char *b);
bool vt_starts_with(const char *text, const char *start);

/* 'size' zeroed bytes, aligned to 'alignment', a power of two. Never freed; ends the guest when there are none. */
void *vt_alloc(size_t size, size_t alignment);

static inline uint32_t vt_read32(uint64_t at) { return *(volatile uint32_t *)at; }
static inline uint64_t vt_read64(uint64_t at) { return *(volatile uint64_t *)at; }
static inline void vt_write32(uint64_t at, uint32_t value) { *(volatile uint32_t *)at = value; }
static inline void vt_write64(uint64_t at, uint64_t value) { *(volatile uint64_t *)at = value; }
static inline void vt_barrier(void) { __asm__ volatile("dsb sy" ::: "memory"); }

/* Ticks of the counter, and how many make a second. */
static inline uint64_t vt_ticks(void)
{
	uint64_t ticks;

	__asm__ volatile("isb; mrs %0, cntvct_el0" : "=r"(ticks));
	return ticks;
}
static inline uint64_t vt_frequency(void)
{
	uint64_t frequency;

	__asm__ volatile("mrs %0, cntfrq_el0" : "=r"(frequency));
	return frequency;
}
/* Wait until 'condition' holds, at most 'seconds'; whether it came to hold. */
#define VT_WAIT(condition, seconds) \
	({ \
		uint64_t vt_end = vt_ticks() + (seconds) * vt_frequency(); \
		bool vt_held; \
		while (!(vt_held = (condition)) && vt_ticks() < vt_end) \
			; \
		vt_held; \
	})

/* -- the machine ----------------------------------------------------------------------------------------------- */

#define VT_MAX_WRITES 96
#define VT_MAX_SMMUS 31
#define VT_MAX_MASTERS 64
#define VT_MAX_SIDS 8
#define VT_NO_SMMU 0xFFFFFFFF

/* What the launcher put into guest memory. bare.py has the same layout; both check its size. */
struct vt_config {
	uint32_t magic, size;
	uint32_t writes, smmus, masters, unused;
	char arguments[256];
	struct {
		uint64_t address, value;
	} write[VT_MAX_WRITES];
	struct vt_smmu_config {
		char name[32];
		uint64_t base, size;
		uint32_t intid[4]; /* eventq, gerror, priq, cmdq-sync; 0: not wired */
	} smmu[VT_MAX_SMMUS];
	struct vt_master_config {
		char name[32], compatible[32];
		uint64_t base, size;
		uint32_t smmu, intid; /* VT_NO_SMMU: behind none */
		uint32_t sids, unused;
		uint32_t sid[VT_MAX_SIDS];
	} master[VT_MAX_MASTERS];
};
#define VT_MAGIC 0x31435456 /* VTC1 */

extern struct vt_config vt_config;

/* Do the configuration's PCI writes, so that BARs decode and functions may write memory. */
void vt_configure(void);
/* The 'index'th master that is 'compatible', or NULL. */
const struct vt_master_config *vt_master(const char *compatible, unsigned int index);
/* The value of 'name=value' among the arguments, or 'otherwise'; 'name' alone is 1. */
uint64_t vt_argument(const char *name, uint64_t otherwise);
/* Whether 'name' is wanted: cases=a,b*,c names those that are, * stands for anything; without it all are. */
bool vt_wanted(const char *name);

/* -- the GIC, only to see whether an interrupt came -------------------------------------------------------------- */

#define VT_MSI_DOORBELL 0x08020040UL /* GICv2m: a 4-byte write of an INTID */
#define VT_MSI_INTID 80 /* the first, which no wire has */

/* Listen to the edges of an interrupt, and forget those that came. */
void vt_interrupt_listen(uint32_t intid);
/* Whether it came since. */
bool vt_interrupt_pending(uint32_t intid);

/* -- an SMMUv3 (IHI 0070) ---------------------------------------------------------------------------------------- */

struct vt_smmu {
	uint64_t base;
	uint32_t idr0, idr1, idr3, idr5;
	unsigned int sid_bits, command_bits, event_bits;
	uint64_t *strtab;
	uint64_t *commands, *events;
	uint32_t command_prod, event_cons;
	uint16_t next_asid;
};

enum vt_config_kind { VT_ABORT = 0, VT_BYPASS = 4, VT_STAGE1 = 5, VT_STAGE2 = 6, VT_NESTED = 7 };
enum vt_event_id {
	VT_F_UUT = 0x01,
	VT_C_BAD_STREAMID = 0x02,
	VT_F_STE_FETCH = 0x03,
	VT_C_BAD_STE = 0x04,
	VT_F_BAD_ATS_TREQ = 0x05,
	VT_F_STREAM_DISABLED = 0x06,
	VT_F_TRANSL_FORBIDDEN = 0x07,
	VT_C_BAD_SUBSTREAMID = 0x08,
	VT_F_CD_FETCH = 0x09,
	VT_C_BAD_CD = 0x0a,
	VT_F_WALK_EABT = 0x0b,
	VT_F_TRANSLATION = 0x10,
	VT_F_ADDR_SIZE = 0x11,
	VT_F_ACCESS = 0x12,
	VT_F_PERMISSION = 0x13,
	VT_F_TLB_CONFLICT = 0x20,
	VT_F_CFG_CONFLICT = 0x21,
	VT_E_PAGE_REQUEST = 0x24,
	VT_F_VMS_FETCH = 0x25,
};

/* An event record as the SMMU wrote it, and its most used fields. */
struct vt_event {
	uint64_t word[4];
	uint8_t id;
	uint32_t sid, ssid;
	bool ssv, read, stage2;
	uint64_t address;
};

/* Word 0 of an event. */
#define VT_EVENT(id, sid) ((uint64_t)(id) | (uint64_t)(sid) << 32)
#define VT_EVENT_SSID(id, sid, ssid) (VT_EVENT(id, sid) | 1UL << 11 | (uint64_t)(ssid) << 12)

/* One address space of either stage: 4K granule, 39 bits, so levels 1 to 3. */
struct vt_space {
	uint64_t *root;
	uint64_t offset; /* from a table's address to what the walk reads it by: an IPA where stage 2 translates */
	uint16_t asid;
};
enum vt_rights { VT_READ = 1, VT_WRITE = 2 };

/* Bring the SMMU 'config' up with an empty linear stream table: every stream faults. Ends the guest if it cannot.
 * It may be up already: then it starts anew, whatever was done to it, but for ASIDs that were used. */
void vt_smmu_start(struct vt_smmu *smmu, const struct vt_smmu_config *config);
/* Put one command on the queue, of which the SMMU is told with the next; waits for room. */
void vt_smmu_place(struct vt_smmu *smmu, uint64_t word0, uint64_t word1);
/* The same, and the SMMU is told. */
void vt_smmu_command(struct vt_smmu *smmu, uint64_t word0, uint64_t word1);
/* CMD_SYNC; false when it did not complete within a second or the queue stopped on an error. */
bool vt_smmu_sync(struct vt_smmu *smmu);
/* Wait until all commands are consumed; false when that takes 2 seconds, or the queue stopped on an error. */
bool vt_smmu_consumed(struct vt_smmu *smmu);
/* Take the oldest event, and note its words; false when the queue stays empty for 'seconds'. */
bool vt_smmu_event(struct vt_smmu *smmu, struct vt_event *event, unsigned int seconds);
/* Take the oldest event, which must be exactly this and the only one; false, and the case fails, when it is not. */
bool vt_smmu_expect(struct vt_smmu *smmu, uint64_t word0, uint64_t word1, uint64_t word2, uint64_t word3);
/* The same for one that says STALL and has any STAG, which is left in '*stag'; others may follow. */
bool vt_smmu_expect_stall(struct vt_smmu *smmu, uint64_t word0, uint64_t word1, uint64_t word2, uint64_t word3,
			  uint16_t *stag);
/* Whether no event waits; one that does fails the case. */
bool vt_smmu_silent(struct vt_smmu *smmu);
/* Have event interrupts sent: by MSI when the SMMU has them, else on its wire. The INTID, or 0: it has neither. */
uint32_t vt_smmu_event_interrupt(struct vt_smmu *smmu, const struct vt_smmu_config *config);
/* Turn translation off or on again (CR0.SMMUEN). */
void vt_smmu_enable(struct vt_smmu *smmu, bool on);
/* Drop all events. */
void vt_smmu_drain(struct vt_smmu *smmu);

/* Registers, by the offsets of smmu.h. */
static inline uint32_t vt_smmu_get(const struct vt_smmu *smmu, uint32_t at) { return vt_read32(smmu->base + at); }
static inline void vt_smmu_set(const struct vt_smmu *smmu, uint32_t at, uint32_t value)
{
	vt_write32(smmu->base + at, value);
}
static inline void vt_smmu_set64(const struct vt_smmu *smmu, uint32_t at, uint64_t value)
{
	vt_write64(smmu->base + at, value);
}
/* Write CR0 and wait for CR0ACK. */
void vt_smmu_cr0(const struct vt_smmu *smmu, uint32_t value);
/* Global errors that are active, and making them inactive. */
uint32_t vt_smmu_errors(const struct vt_smmu *smmu);
void vt_smmu_acknowledge(const struct vt_smmu *smmu);
/* Have events from now on written to 2^bits records at 'at'. */
void vt_smmu_event_queue(struct vt_smmu *smmu, uint64_t at, unsigned int bits);
/* Take another stream table, with STRTAB_BASE_CFG = 'config'. */
void vt_smmu_stream_table(struct vt_smmu *smmu, uint64_t at, uint32_t config);

/* A stream's entry of the linear table, to change as one likes; then vt_smmu_cfgi_ste has the SMMU see it. */
uint64_t *vt_smmu_ste(struct vt_smmu *smmu, uint32_t sid);
void vt_smmu_cfgi_ste(struct vt_smmu *smmu, uint32_t sid);
/* Have the SMMU see a context descriptor that was changed. */
void vt_smmu_cfgi_cd(struct vt_smmu *smmu, uint32_t sid, uint32_t ssid);
/* Make 'cd' say that 'space' translates, and that faults abort and are recorded. */
void vt_smmu_fill_cd(const struct vt_smmu *smmu, uint64_t *cd, const struct vt_space *space);

void vt_smmu_abort(struct vt_smmu *smmu, uint32_t sid);
void vt_smmu_bypass(struct vt_smmu *smmu, uint32_t sid);
/* Make the stream invalid again (STE.V = 0). */
void vt_smmu_forget(struct vt_smmu *smmu, uint32_t sid);
/* Translate the stream by 'space'. Where there are stalls, this stream has none. The descriptor (CD). */
uint64_t *vt_smmu_attach(struct vt_smmu *smmu, uint32_t sid, const struct vt_space *space);
/* The same for 'count' (a power of two) substreams, of which each has its space; NULL: none. The descriptors. */
uint64_t *vt_smmu_attach_substreams(struct vt_smmu *smmu, uint32_t sid, const struct vt_space *const *spaces,
				    unsigned int count);
/* Translate the stream by 'stage2', and before that by 'space' unless it is NULL. The CD or NULL. */
uint64_t *vt_smmu_attach_stage2(struct vt_smmu *smmu, uint32_t sid, const struct vt_space *space,
				const struct vt_space *stage2, uint16_t vmid);

void vt_space_init(struct vt_smmu *smmu, struct vt_space *space);
/* Map whole pages; invalidates nothing. */
void vt_map(struct vt_space *space, uint64_t iova, uint64_t pa, size_t size, unsigned int rights);
void vt_map2(struct vt_space *stage2, uint64_t ipa, uint64_t pa, size_t size, unsigned int rights);
/* The descriptor of 'iova' at 'level' (1 to 3), to change as one likes; the tables above it are made. */
uint64_t *vt_descriptor(struct vt_space *space, uint64_t iova, unsigned int level);
/* Unmap whole pages, and unless 'keep_tlb', invalidate them and wait for that. */
void vt_unmap(struct vt_smmu *smmu, struct vt_space *space, uint64_t iova, size_t size, bool keep_tlb);

/* -- the DMA engine (SMMUv3TestEngine) --------------------------------------------------------------------------- */

struct vt_engine {
	uint64_t user, privileged, extension;
	uint32_t sid, ssid;
	uint32_t attributes; /* of both sides; vt_engine_init makes them unprivileged data accesses */
	uint32_t pctrl; /* VT_ATS, VT_PRI; none by default */
	uint32_t special; /* VT_UNSUPPORTED, VT_HINTS; none by default */
};
#define VT_PRIVILEGED 0x01000100
#define VT_INSTRUCTION 0x04000400
#define VT_ATS 0x100 /* transactions go by way of the engine's translation cache (ATC) */
#define VT_PRI 0x200 /* and what that is denied is a page request, whose group is the frame's number */
#define VT_UNSUPPORTED 1 /* transactions are of a type that no SMMU supports */
#define VT_HINTS 2 /* a command begins with a hint of what it will access, for each side */
enum vt_engine_status {
	VT_ENGINE_NO_FRAME = 0,
	VT_ENGINE_HALTED = 1,
	VT_ENGINE_MEMCPY = 2,
	VT_ENGINE_RAND48 = 3,
	VT_ENGINE_SUM64 = 4,
	VT_ENGINE_MISCONFIGURED = 0xfffffffe,
	VT_ENGINE_ERROR = 0xffffffff,
	VT_ENGINE_BUSY = 0x100, /* ours: it did not end in time */
};
#define VT_NO_SSID 0xffffffff

/* Frame 0 of 'config', with its first StreamID and no SubstreamID. */
void vt_engine_init(struct vt_engine *engine, const struct vt_master_config *config);
/* The same with another frame: frames work side by side. */
void vt_engine_init_frame(struct vt_engine *engine, const struct vt_master_config *config, unsigned int frame);
/* Copy 'size' bytes between IOVAs as stream (sid, ssid); how it ended. */
uint32_t vt_engine_copy(struct vt_engine *engine, uint64_t to, uint64_t from, uint64_t size, uint32_t ssid);
/* Sum the 64-bit words of [at, at + size), both multiples of 8, into *sum; how it ended. */
uint32_t vt_engine_sum(struct vt_engine *engine, uint64_t at, uint64_t size, uint64_t *sum);
/* Read, or write, 'size' bytes at 'at', both multiples of 8; how it ended. Up to 4 KiB are one transaction. */
uint32_t vt_engine_read(struct vt_engine *engine, uint64_t at, uint64_t size);
uint32_t vt_engine_write(struct vt_engine *engine, uint64_t at, uint64_t size);
/* The same in two steps. */
void vt_engine_start_read(struct vt_engine *engine, uint64_t at, uint64_t size);
void vt_engine_start_write(struct vt_engine *engine, uint64_t at, uint64_t size);
uint32_t vt_engine_end(struct vt_engine *engine);
/* Whether a command runs. */
bool vt_engine_busy(const struct vt_engine *engine);
/* How many of its transactions are stalled. */
uint32_t vt_engine_stalled(const struct vt_engine *engine);
/* What the last read summed up. */
uint64_t vt_engine_result(const struct vt_engine *engine);
/* The address at which the last command was aborted. */
uint64_t vt_engine_fault(const struct vt_engine *engine);

/* -- the scene of most cases ------------------------------------------------------------------------------------- */

/* Input addresses that are no one's physical address, and a physical address where nothing is. */
#define VT_SOURCE 0x10000000UL
#define VT_TARGET 0x20000000UL
#define VT_NOWHERE 0x80000000UL
/* From an address of RAM to the intermediate one of vt_scene_nest; no one's physical address either. */
#define VT_IPA 0x1000000000UL
#define VT_PAGE 4096UL

/* An engine behind an SMMU, whose stream has a filled page to read and an empty one to read and write. */
struct vt_scene {
	struct vt_smmu smmu;
	struct vt_engine engine;
	const struct vt_master_config *master;
	struct vt_space space; /* source at VT_SOURCE, target at VT_TARGET */
	uint64_t *ste, *cd;
	uint8_t *source, *target;
	uint64_t sum; /* of the source's words */
};

/* Make all of it anew; false, and the case is skipped, when the machine has no engine. */
bool vt_scene_begin(struct vt_scene *scene);
/* Have the SMMU see the scene's STE, or CD, after a change. */
void vt_scene_ste(struct vt_scene *scene);
void vt_scene_cd(struct vt_scene *scene);
/* Put the stream behind a stage 2 of 'vmid', too, which maps all RAM, readable and writable, VT_IPA above where it is.
 * The scene's space is made anew, of tables and pages that stage 1 finds by such addresses. False, and the case is
 * skipped, when the SMMU has no stage 2. */
bool vt_scene_nest(struct vt_scene *scene, struct vt_space *stage2, uint16_t vmid);
/* What stage 2 says of one page of RAM, to change as one likes; 'ipa' is VT_IPA above it. */
uint64_t *vt_ram2(struct vt_space *stage2, uint64_t ipa);
/* Forget what was translated (CMD_TLBI_NSNH_ALL). */
void vt_scene_tlbi(struct vt_scene *scene);
/* Whether a page holds nothing but zeros. */
bool vt_blank(const void *page);

/* Return from the case unless the oldest event is this alone. */
#define VT_EXPECT(smmu, ...) \
	do { \
		if (!vt_smmu_expect(smmu, __VA_ARGS__)) \
			return; \
	} while (0)
#define VT_SILENT(smmu) \
	do { \
		if (!vt_smmu_silent(smmu)) \
			return; \
	} while (0)

#endif
