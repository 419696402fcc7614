/* SPDX-License-Identifier: Apache-2.0 */
/* The commands that change nothing but caches, and the plain CMD_SYNC (chapter 4; command_queue.py). */
#include "v3/commands.h"

#include "tell.h"

/* Commands that are fetched at once. */
#define AT_ONCE 64

/* What is not carried out here: it is illegal, tells somebody, or is none of ours. The caller looks at it itself. */
enum handled { DONE, NOT_OURS };

struct scope {
    struct vi_v3 *v3;
    struct vi_core *core;
    uint16_t vmid_mask;
};

/* Without stage 2 all entries have VMID 0, whatever the command says (§4.4.2). */
static int32_t vmid_of(const struct scope *s, uint64_t vmid) { return IDR0_S2P(s->v3->idr0) ? (int32_t)vmid : 0; }

/* The address, or the range of §4.4.1.1, whose fields all commands by address have at the same place. */
static enum handled by_address(const struct scope *s, int world, const uint64_t *command, uint64_t address,
                               int32_t vmid, int32_t asid)
{
    static const uint8_t granules[] = {0, 12, 14, 16};
    uint8_t granule_bits = 0;
    int8_t level = VI_ANY_LEVEL;
    uint64_t size = 1;
    if (IDR3_RIL(s->v3->idr3) && CMD_TLBI_NH_VA_TG(command)) {
        bool ds = IDR5_DS(s->v3->idr5);
        granule_bits = granules[CMD_TLBI_NH_VA_TG(command)];
        uint64_t ttl = CMD_TLBI_NH_VA_TTL(command), scale = CMD_TLBI_NH_VA_SCALE(command);
        if (ttl == 1 && granule_bits == 14 && !ds)
            ttl = 0;
        if (!ds)
            scale &= 31;
        if (scale > 39)
            scale = 39;
        if (!ttl && !CMD_TLBI_NH_VA_NUM(command) && !scale)
            return NOT_OURS; /* illegal */
        level = ttl ? (int8_t)ttl : VI_ANY_LEVEL;
        unsigned bits = (unsigned)scale + granule_bits;
        uint64_t units = CMD_TLBI_NH_VA_NUM(command) + 1;
        size = units > UINT64_MAX >> bits ? UINT64_MAX : units << bits;
    }
    vi_invalidate_range(s->core, world, address, size, vmid, s->vmid_mask, asid, granule_bits, level);
    return DONE;
}

static enum handled spaces(const struct scope *s, int world, int32_t vmid, int32_t asid)
{
    vi_invalidate_spaces(s->core, world, vmid, s->vmid_mask, asid);
    return DONE;
}

/* For the model; false: there is no room. */
static bool keep(struct vi_v3 *v3, const uint64_t *command)
{
    if (v3->kept == VI_MOST_KEPT)
        return false;
    memcpy(v3->keeps[v3->kept++], command, sizeof *v3->keeps);
    return true;
}

static enum handled streams(const struct scope *s, const uint64_t *command, uint64_t first, uint64_t last)
{
    if (!keep(s->v3, command))
        return NOT_OURS;
    vi_withdraw_streams(s->core, (uint32_t)first, (uint32_t)last);
    return DONE;
}

static enum handled stes(const struct scope *s, const uint64_t *command)
{
    uint64_t others = (UINT64_C(2) << CMD_CFGI_STE_RANGE_Range(command)) - 1; /* of 31: all */
    return streams(s, command, CMD_CFGI_STE_RANGE_SID(command) & ~others, CMD_CFGI_STE_RANGE_SID(command) | others);
}

static enum handled cd(const struct scope *s, const uint64_t *command)
{
    uint32_t sid = (uint32_t)CMD_CFGI_CD_SID(command), ssid = (uint32_t)CMD_CFGI_CD_SSID(command);
    if (!keep(s->v3, command))
        return NOT_OURS;
    vi_withdraw(s->core, sid, ssid);
    /* Without a SubstreamID the CD in use is that of index 0. */
    if (ssid == 0)
        vi_withdraw(s->core, sid, VI_NO_SSID);
    return DONE;
}

static enum handled execute(const struct scope *s, const uint64_t *command)
{
    uint32_t idr0 = s->v3->idr0;
    bool s1 = IDR0_S1P(idr0), s2 = IDR0_S2P(idr0), hyp = s1 && IDR0_Hyp(idr0), e2h = CR2_E2H(s->v3->cr2);
    if (CMD_CFGI_STE_SSec(command))
        return NOT_OURS;
    switch (Command_OPCODE(command)) {
    case VI_Opcode_CMD_CFGI_STE:
        return streams(s, command, CMD_CFGI_STE_SID(command), CMD_CFGI_STE_SID(command));
    case VI_Opcode_CMD_CFGI_STE_RANGE:
        return stes(s, command);
    case VI_Opcode_CMD_CFGI_CD:
        return s1 ? cd(s, command) : NOT_OURS;
    case VI_Opcode_CMD_CFGI_CD_ALL:
        return s1 ? streams(s, command, CMD_CFGI_CD_ALL_SID(command), CMD_CFGI_CD_ALL_SID(command)) : NOT_OURS;
    case VI_Opcode_CMD_TLBI_NH_ALL:
        return s1 ? spaces(s, VI_WORLD_EL1, vmid_of(s, CMD_TLBI_NH_ALL_VMID(command)), VI_ANY) : NOT_OURS;
    case VI_Opcode_CMD_TLBI_NH_ASID:
        return s1 ? spaces(s, VI_WORLD_EL1, vmid_of(s, CMD_TLBI_NH_ASID_VMID(command)),
                           (int32_t)CMD_TLBI_NH_ASID_ASID(command))
                  : NOT_OURS;
    case VI_Opcode_CMD_TLBI_NH_VA:
        return s1 ? by_address(s, VI_WORLD_EL1, command, CMD_TLBI_NH_VA_Address(command), vmid_of(s, CMD_TLBI_NH_VA_VMID(command)),
                               (int32_t)CMD_TLBI_NH_VA_ASID(command))
                  : NOT_OURS;
    case VI_Opcode_CMD_TLBI_NH_VAA:
        return s1 ? by_address(s, VI_WORLD_EL1, command, CMD_TLBI_NH_VAA_Address(command), vmid_of(s, CMD_TLBI_NH_VAA_VMID(command)), VI_ANY) : NOT_OURS;
    case VI_Opcode_CMD_TLBI_EL2_ALL:
        if (!hyp)
            return NOT_OURS;
        spaces(s, VI_WORLD_EL2, VI_ANY, VI_ANY);
        return spaces(s, VI_WORLD_EL2_E2H, VI_ANY, VI_ANY);
    case VI_Opcode_CMD_TLBI_EL2_ASID:
        return hyp ? spaces(s, VI_WORLD_EL2_E2H, VI_ANY, (int32_t)CMD_TLBI_EL2_ASID_ASID(command)) : NOT_OURS;
    case VI_Opcode_CMD_TLBI_EL2_VA:
        if (!s1 || !hyp)
            return NOT_OURS;
        return e2h ? by_address(s, VI_WORLD_EL2_E2H, command, CMD_TLBI_EL2_VA_Address(command), VI_ANY, (int32_t)CMD_TLBI_EL2_VA_ASID(command))
                   : by_address(s, VI_WORLD_EL2, command, CMD_TLBI_EL2_VA_Address(command), VI_ANY, VI_ANY);
    case VI_Opcode_CMD_TLBI_EL2_VAA:
        return s1 && hyp ? by_address(s, e2h ? VI_WORLD_EL2_E2H : VI_WORLD_EL2, command, CMD_TLBI_EL2_VAA_Address(command), VI_ANY, VI_ANY) : NOT_OURS;
    case VI_Opcode_CMD_TLBI_NSNH_ALL:
        vi_invalidate_spaces(s->core, VI_WORLD_EL1, VI_ANY, 0xFFFF, VI_ANY);
        vi_invalidate_spaces(s->core, VI_WORLD_STAGE2, VI_ANY, 0xFFFF, VI_ANY);
        return DONE;
    case VI_Opcode_CMD_TLBI_S12_VMALL:
        if (!s2)
            return NOT_OURS;
        spaces(s, VI_WORLD_EL1, (int32_t)CMD_TLBI_S12_VMALL_VMID(command), VI_ANY);
        return spaces(s, VI_WORLD_STAGE2, (int32_t)CMD_TLBI_S12_VMALL_VMID(command), VI_ANY);
    case VI_Opcode_CMD_TLBI_S2_IPA:
        return s2 ? by_address(s, VI_WORLD_STAGE2, command, CMD_TLBI_S2_IPA_Address(command), (int32_t)CMD_TLBI_S2_IPA_VMID(command), VI_ANY) : NOT_OURS;
    default:
        return NOT_OURS;
    }
}

static void tell_command(struct vi_record *record, uint64_t number, const uint64_t *command)
{
    record->flags = 0;
    memcpy(record->word, command, 16);
    vi_tell(record, number, VI_COMMAND);
}

/* Whether it is carried out here; numbered before that is. */
static bool execute_told(const struct scope *s, const uint64_t *command)
{
    struct vi_watch *watch = vi_watching(s->core);
    uint64_t number;
    if (VI_LIKELY(!watch))
        return execute(s, command) == DONE;
    vi_ready_to_invalidate(s->core);
    struct vi_record *record = vi_tell_begin(watch, &number);
    bool done = execute(s, command) == DONE;
    if (done && vi_wanted(watch, VI_COMMAND))
        tell_command(record, number, command);
    else
        vi_tell(record, number, VI_VOID);
    return done;
}

/* After the readers were waited for, and before its completion can be seen. */
static void tell_sync(struct vi_core *core, const uint64_t *command)
{
    struct vi_watch *watch = vi_watching(core);
    uint64_t number;
    if (VI_LIKELY(!watch))
        return;
    struct vi_record *record = vi_tell_begin(watch, &number);
    atomic_store(&watch->synced, number);
    if (vi_wanted(watch, VI_COMMAND))
        tell_command(record, number, command);
    else
        vi_tell(record, number, VI_VOID);
}

/* Whether this CMD_SYNC's signal is an MSI, and to guest memory. */
static bool signals_in_ram(const struct vi_v3 *v3, const uint64_t *sync)
{
    struct vi_reader *reader = vi_enter(v3->core, 0);
    uint64_t address = CMD_SYNC_MSIAddress(sync);
    bool in_ram = address && IDR0_MSI(v3->idr0) &&
                  vi_find(reader, address & reader->setup->output_mask, 4, VI_MAY_WRITE);
    vi_exit(reader);
    return in_ram;
}

static bool may_sync(const struct vi_v3 *v3, const struct vi_command_queue *queue, const uint64_t *sync)
{
    uint64_t signal = CMD_SYNC_CS(sync);
    return queue->may_sync && signal != 3 &&
           (signal != VI_CompletionSignal_SIG_IRQ || queue->signals == VI_SIGNALS_ALL ||
            (queue->signals == VI_SIGNALS_IN_RAM && signals_in_ram(v3, sync)));
}

uint32_t vi_consume(struct vi_v3 *v3, const struct vi_command_queue *queue, uint32_t limit, struct vi_consumed *so_far)
{
    struct vi_core *core = v3->core;
    uint64_t fetched[AT_ONCE][2];
    uint32_t slots = UINT32_C(1) << queue->log2size, index_mask = 2 * slots - 1, done = 0;
    *so_far = (struct vi_consumed){.cons = queue->cons & index_mask};
    while (done < limit && so_far->cons != (queue->prod & index_mask)) {
        /* As many as lie in a row, which ends where the ring begins anew. */
        uint32_t slot = so_far->cons & (slots - 1), count = (queue->prod - so_far->cons) & index_mask;
        count = count < slots - slot ? count : slots - slot;
        count = count < limit - done ? count : limit - done;
        count = count < AT_ONCE ? count : AT_ONCE;
        struct vi_reader *reader = vi_enter(core, 0);
        bool read = vi_read(reader, queue->base + (uint64_t)slot * 16, fetched, (uint64_t)count * 16);
        vi_exit(reader);
        if (!read)
            return done; /* the caller finds out where it aborts */
        struct scope scope = {v3, core, queue->vmid_mask};
        for (uint32_t at = 0; at < count; at++) {
            const uint64_t *command = fetched[at];
            bool sync = Command_OPCODE(command) == VI_Opcode_CMD_SYNC;
            if (sync ? !may_sync(v3, queue, command) : !execute_told(&scope, command))
                return done;
            VI_COUNT(v3->carried_out[Command_OPCODE(command)]);
            so_far->cons = (so_far->cons + 1) & index_mask;
            done++;
            if (!sync)
                continue;
            vi_quiesce(core);
            tell_sync(core, command);
            so_far->syncs++;
            if (CMD_SYNC_CS(command) == VI_CompletionSignal_SIG_IRQ) {
                /* Its signal must not be seen before CONS has passed it, which is the caller's. */
                so_far->signals = true;
                memcpy(so_far->command, command, sizeof so_far->command);
                return done;
            }
        }
    }
    return done;
}
