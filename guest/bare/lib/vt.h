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
		uint32_t smmu, intid;
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
/* Whether 'name' is wanted: cases=a,b names those that are; without it all are. */
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
	uint32_t idr0, idr1, idr5;
	unsigned int sid_bits, command_bits, event_bits;
	uint64_t *strtab;
	uint64_t *commands, *events;
	uint32_t command_prod, event_cons;
	uint16_t next_asid;
};

enum vt_config_kind { VT_ABORT = 0, VT_BYPASS = 4, VT_STAGE1 = 5 };
enum vt_event_id {
	VT_C_BAD_STREAMID = 0x02,
	VT_C_BAD_STE = 0x04,
	VT_C_BAD_SUBSTREAMID = 0x08,
	VT_C_BAD_CD = 0x0a,
	VT_F_TRANSLATION = 0x10,
	VT_F_ADDR_SIZE = 0x11,
	VT_F_ACCESS = 0x12,
	VT_F_PERMISSION = 0x13,
};

/* An event record as the SMMU wrote it, and its most used fields. */
struct vt_event {
	uint64_t word[4];
	uint8_t id;
	uint32_t sid, ssid;
	bool ssv, read, stage2;
	uint64_t address;
};

/* One address space: stage 1, 4K granule, 39 bits. */
struct vt_space {
	uint64_t *root;
	uint16_t asid;
};
enum vt_rights { VT_READ = 1, VT_WRITE = 2 };

/* Bring the SMMU 'config' up with an empty linear stream table: every stream faults. Ends the guest if it cannot. */
void vt_smmu_start(struct vt_smmu *smmu, const struct vt_smmu_config *config);
/* Put one command on the queue; waits for room. */
void vt_smmu_command(struct vt_smmu *smmu, uint64_t word0, uint64_t word1);
/* CMD_SYNC; false when it did not complete within a second or the queue stopped on an error. */
bool vt_smmu_sync(struct vt_smmu *smmu);
/* Take the oldest event; false when the queue stays empty for 'seconds'. */
bool vt_smmu_event(struct vt_smmu *smmu, struct vt_event *event, unsigned int seconds);
/* Have event interrupts sent: by MSI when the SMMU has them, else on its wire. The INTID, or 0: it has neither. */
uint32_t vt_smmu_event_interrupt(struct vt_smmu *smmu, const struct vt_smmu_config *config);
/* Turn translation off or on again (CR0.SMMUEN). */
void vt_smmu_enable(struct vt_smmu *smmu, bool on);
/* Drop all events. */
void vt_smmu_drain(struct vt_smmu *smmu);

void vt_smmu_abort(struct vt_smmu *smmu, uint32_t sid);
void vt_smmu_bypass(struct vt_smmu *smmu, uint32_t sid);
/* Make the stream invalid again (STE.V = 0). */
void vt_smmu_forget(struct vt_smmu *smmu, uint32_t sid);
/* Translate the stream by 'space'. */
void vt_smmu_attach(struct vt_smmu *smmu, uint32_t sid, const struct vt_space *space);

/* The same for 'count' (a power of two) substreams, of which each has its space; NULL: none. */
void vt_smmu_attach_substreams(struct vt_smmu *smmu, uint32_t sid, const struct vt_space *const *spaces,
			       unsigned int count);

void vt_space_init(struct vt_smmu *smmu, struct vt_space *space);
/* Map whole pages; invalidates nothing. */
void vt_map(struct vt_space *space, uint64_t iova, uint64_t pa, size_t size, unsigned int rights);
/* Unmap whole pages, and unless 'keep_tlb', invalidate them and wait for that. */
void vt_unmap(struct vt_smmu *smmu, struct vt_space *space, uint64_t iova, size_t size, bool keep_tlb);

/* -- the DMA engine (SMMUv3TestEngine) --------------------------------------------------------------------------- */

struct vt_engine {
	uint64_t user, privileged;
	uint32_t sid;
};
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

/* Frame 0 of 'config', with its first StreamID. */
void vt_engine_init(struct vt_engine *engine, const struct vt_master_config *config);
/* Copy 'size' bytes between IOVAs as stream (sid, ssid); how it ended. */
uint32_t vt_engine_copy(struct vt_engine *engine, uint64_t to, uint64_t from, uint64_t size, uint32_t ssid);
/* Sum the 64-bit words of [at, at + size), both multiples of 8, into *sum; how it ended. */
uint32_t vt_engine_sum(struct vt_engine *engine, uint64_t at, uint64_t size, uint64_t *sum);
/* The address at which the last command was aborted. */
uint64_t vt_engine_fault(const struct vt_engine *engine);

#endif
