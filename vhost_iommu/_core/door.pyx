# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, freethreading_compatible=False
"""The thin door to the compiled core: Python values in, Python values out, no meaning of its own.

Law: every call into the core enters and leaves it (``enter``, ``leave``), and in between touches no object: that may run
any code, which may wait for whoever is inside. Who waits so lets go of the interpreter, as who moves many bytes does, and
everybody where a client may withhold its pages.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int8_t, int32_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from .pump cimport Mirror, vi_load_fn, vi_mirror, vi_store_fn


cdef extern from "watch.h" nogil:
    cdef struct vi_record:
        pass
    cdef struct vi_watch:
        uint32_t kinds
        uint64_t taken, synced
        int ready
    enum: VI_TOLD
    bint vi_watch_make(vi_watch *watch, uint64_t size)
    void vi_watch_free(vi_watch *watch)
    uint64_t vi_watch_room(vi_watch *watch)
    bint vi_promise(vi_watch *watch, uint64_t count)
    void vi_unpromise(vi_watch *watch, uint64_t count)
    vi_record *vi_tell_begin(vi_watch *watch, uint64_t *number)
    void vi_tell(vi_record *record, uint64_t number, int kind)
    uint64_t vi_watch_told(vi_watch *watch)
    void vi_watch_take(vi_watch *watch, uint64_t count, vi_record *to)


cdef extern from "<sched.h>" nogil:
    int sched_yield()


cdef extern from "core.h" nogil:
    enum: VI_OF_AN_INVALIDATION, VI_OF_A_BURST
    void vi_watch_core(vi_core *core, vi_watch *watch)
    bint vi_begin_telling(vi_reader *reader, uint32_t sid, uint32_t ssid)
    cdef struct vi_window:
        uint64_t base, size
        uint8_t *host
        uint8_t allows
        void *broken  # _Atomic bool, which Cython does not know
    enum: VI_MAY_READ, VI_MAY_WRITE, VI_NO_SSID, VI_SLOTS, VI_ANY
    cdef struct vi_fault:
        uint8_t kind, stage, cause
        int8_t level
        bint table_write
        uint64_t ipa, fetch
    cdef struct vi_mapping:
        uint64_t base, output, descriptor, descriptor_at
        uint8_t shift, granule_bits
        int8_t level
        uint8_t attributes, shareability, memory, flags
    cdef struct vi_table:
        uint64_t base, mair
        uint8_t granule_bits, input_bits, output_bits
        int8_t start_level, first_block_level
        uint8_t wide, shareability, stage
        bint enabled, big_endian, hierarchical, access_fault, update_access, update_dirty, update_tables
        bint top_byte_ignored, no_unprivileged
    enum: VI_AS_IT_CAME
    cdef struct vi_context:
        uint64_t token
        bint stage1, stage2
        uint8_t output_bits, bypass_bits, world
        uint16_t vmid, asid
        uint8_t aset
        bint aarch32
        uint8_t t0sz, t1sz
        bint unprivileged, wxn, uwxn, pan, epan, execute_needs_read, xn_for_all
        bint s2_protected_walks, s2_forced_writeback, s2_execute_needs_read, s2_two_bit_xn
        uint8_t privileged, instruction
        bint replace_type
        uint8_t memattr, shcfg
        vi_table half[2]
        vi_table s2
    cdef struct vi_parameters:
        uint8_t output_bits
        bint enabled, aborts
    cdef struct vi_core:
        pass
    cdef struct vi_reader:
        pass
    vi_core *vi_core_new(uint32_t tlb_entries, uint32_t contexts)
    void vi_core_free(vi_core *core)
    vi_reader *vi_enter(vi_core *core, unsigned hint)
    vi_reader *vi_try_enter(vi_core *core, unsigned hint)
    void vi_exit(vi_reader *reader)
    bint vi_set_windows(vi_core *core, const vi_window *windows, uint32_t count)
    void vi_set_parameters(vi_core *core, const vi_parameters *parameters)
    void vi_quiesce(vi_core *core)
    uint64_t vi_quiesced(vi_core *core)
    bint vi_make_context(vi_core *core, vi_context *context)
    void vi_drop_context(vi_core *core, const vi_context *context)
    bint vi_publish(vi_core *core, uint32_t sid, uint32_t ssid, const vi_context *context)
    void vi_withdraw(vi_core *core, uint32_t sid, uint32_t ssid)
    void vi_withdraw_streams(vi_core *core, uint32_t first, uint32_t last)
    cdef struct vi_output:
        uint64_t pa, size
        bint has1, has2
        vi_mapping stage1, stage2
        uint8_t memory
    vi_fault vi_translate(vi_reader *reader, const vi_context *context, uint64_t address, unsigned access,
                          uint8_t incoming, vi_output *output)
    int vi_read_ipa(vi_reader *reader, const vi_context *context, uint64_t ipa, void *to, uint32_t size, uint64_t *pa,
                    vi_fault *fault)
    cdef struct vi_request:
        uint32_t sid, ssid
        uint64_t iova, size
        uint8_t access, incoming
    enum: VI_INCOMING
    enum: VI_DONE, VI_ASK, VI_CROWDED, VI_FAULTED, VI_OUTSIDE
    cdef struct vi_result:
        uint8_t end
        uint64_t done, pa, token
        vi_fault fault
        uint64_t quiesced, counted
    cdef struct vi_piece:
        uint64_t pa, size
        uint8_t memory
    uint32_t vi_pieces(vi_reader *reader, const vi_context *context, const vi_request *request, uint64_t counted,
                       vi_piece *pieces, uint32_t room, vi_result *result)
    int vi_dma_read(vi_reader *reader, const vi_request *request, void *to, vi_result *result)
    int vi_dma_write(vi_reader *reader, const vi_request *request, const void *from_, vi_result *result)
    enum: VI_MOST_BURST, VI_RUN_DONE, VI_RUN_READ, VI_RUN_WRITTEN
    cdef struct vi_run:
        uint64_t done
        uint8_t end
        vi_result result
        uint64_t size
        uint8_t bytes[VI_MOST_BURST]
    void vi_run_copy(vi_reader *reader, const vi_request *from_, const vi_request *to, uint32_t burst, vi_run *run)
    void vi_run_sum(vi_reader *reader, const vi_request *request, uint32_t burst, uint64_t *sum, vi_run *run)
    void vi_run_write(vi_reader *reader, const vi_request *request, uint32_t burst, const void *from_, vi_run *run)
    void vi_invalidate_spaces(vi_core *core, int world, int32_t vmid, uint16_t vmid_mask, int32_t asid)
    void vi_invalidate_range(vi_core *core, int world, uint64_t start, uint64_t size, int32_t vmid, uint16_t vmid_mask,
                             int32_t asid, uint8_t granule_bits, int8_t level)
    enum: VI_ANY_LEVEL
    void vi_invalidate_tlb(vi_core *core, int stage)
    void vi_ready_to_invalidate(vi_core *core)
    cdef struct vi_ring:
        uint32_t sid
        uint64_t desc, avail, used
        uint32_t size
        bint indirect, event_idx
        uint16_t last_avail, used_idx
    cdef struct vi_disk:
        int fd, read_flags
        bint may_write
        uint64_t sectors
    enum: VI_SERVED, VI_MORE, VI_NOT_SERVED
    cdef struct vi_served:
        uint32_t reads, writes
        uint64_t transactions, bytes_read, bytes_written
        bint notify
    int vi_serve(vi_reader *reader, vi_ring *ring, const vi_disk *disk, uint32_t chains, uint64_t bytes,
                 vi_served *served)
    cdef struct vi_tlb_state:
        uint64_t evictions, invalidated
        uint32_t capacity
    void vi_look_at_tlb(vi_core *core, int stage, vi_tlb_state *state)
    void vi_visit_tlb(vi_core *core, int stage, void *to,
                      void (*visit)(void *, int, int, int, int, const vi_mapping *) noexcept)
    void vi_fill_tlb(vi_core *core, int stage, int world, int vmid, int asid, int aset, const vi_mapping *mapping)
    enum: VI_COUNTERS
    void vi_count(vi_core *core, uint64_t *counts)
    void vi_attribute(vi_reader *reader, uint32_t sid)
    int vi_follow(vi_core *core, uint32_t mask, uint32_t value) nogil
    void vi_unfollow(vi_core *core, int followed) nogil
    void vi_followed(vi_core *core, int followed, uint64_t *counts)


cdef extern from "<stdatomic.h>" nogil:
    enum: memory_order_acq_rel
    void atomic_thread_fence(int order)


cdef extern from "guard.h" nogil:
    void *vi_guard(void *begin, size_t size)
    void vi_unguard(void *broken)


cdef extern from "v3/commands.h" nogil:
    enum: VI_MOST_KEPT
    cdef struct vi_v3:
        vi_core *core
        uint32_t idr0, idr3, idr5, cr2, kept
        uint64_t keeps[VI_MOST_KEPT][2]
        uint64_t carried_out[256]
    enum: VI_SIGNALS_ALL, VI_SIGNALS_IN_RAM, VI_SIGNALS_NONE
    cdef struct vi_command_queue:
        uint64_t base
        uint32_t log2size, prod, cons
        uint16_t vmid_mask
        bint may_sync
        uint8_t signals
    cdef struct vi_consumed:
        uint32_t cons, syncs
        bint signals
        uint64_t command[2]
    uint32_t vi_consume(vi_v3 *v3, const vi_command_queue *queue, uint32_t limit, vi_consumed *so_far)


cdef extern from "v3/doorbell.h" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    cdef struct vi_doorbell:
        pthread_mutex_t *lock
        vi_v3 *v3
        vi_mirror *mirror
        uint64_t prod_at, cons_at
        uint32_t burst
        bint armed
        uint32_t writable, cons_rest
        vi_command_queue queue
        bint told, aborted, rung
        uint64_t writes, commands, syncs
    bint vi_doorbell_store(void *doorbell, uint64_t offset, uint32_t value) noexcept


cdef extern from "diskbell.h" nogil:
    cdef struct vi_lent:
        bint lent
        vi_ring ring
    cdef struct vi_disk_bell:
        pthread_mutex_t *lock
        vi_core *core
        unsigned slot
        vi_mirror *mirror
        uint64_t notify_at, status_at, ack_at
        uint32_t chains
        uint64_t bytes
        vi_disk disk
        uint32_t count
        vi_lent *rings
        uint32_t status, unread
        uint64_t reads, writes, transactions, bytes_read, bytes_written
    bint vi_disk_bell_store(void *bell, uint64_t offset, uint32_t value) noexcept
    bint vi_disk_bell_load(void *bell, uint64_t offset, uint32_t *value) noexcept


cdef extern from "pthread.h" nogil:
    enum: PTHREAD_MUTEX_RECURSIVE
    ctypedef struct pthread_mutexattr_t:
        pass
    int pthread_mutexattr_init(pthread_mutexattr_t *attributes)
    int pthread_mutexattr_settype(pthread_mutexattr_t *attributes, int type)
    int pthread_mutexattr_destroy(pthread_mutexattr_t *attributes)
    int pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_trylock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)


cdef class Guard:
    """Guards the mapping of ``size`` bytes at ``address``, whose file may become shorter; ``broken`` once it did. To be
    released before it is unmapped, when nobody uses it.
    """

    cdef void *flag

    def __cinit__(self, uintptr_t address, size_t size):
        self.flag = vi_guard(<void *>address, size)
        if self.flag is NULL:
            raise MemoryError("no memory for a guard")

    def __dealloc__(self):
        self.release()

    def release(self):
        if self.flag is not NULL:
            vi_unguard(self.flag)
            self.flag = NULL

    @property
    def broken(self):
        return self.flag is not NULL and (<volatile char *>self.flag)[0] != 0

    def copy_out(self, uintptr_t address, Py_ssize_t size):
        """``size`` bytes at ``address``, which may be long in coming; None: it is broken."""
        data = PyBytes_FromStringAndSize(NULL, size)
        cdef char *to = PyBytes_AS_STRING(data)
        with nogil:
            memcpy(to, <const void *>address, size)
        return None if self.broken else data

    def copy_in(self, uintptr_t address, const uint8_t[::1] data not None):
        """Write ``data``, not empty, at ``address``; False: it is broken."""
        cdef const uint8_t *source = &data[0]
        cdef size_t size = data.shape[0]
        with nogil:
            memcpy(<void *>address, source, size)
        return not self.broken


WRITE, PRIVILEGED, INSTRUCTION = 1, 2, 4
NO_SSID = VI_NO_SSID

#: Shorter requests keep the interpreter's lock: to let go of it and to take it again costs as much as they do.
cdef enum: LONG = 16384

#: Slots by name: that of callers under the SMMU's own lock, and the first of those of masters.
cdef enum: OWN_SLOT = 0


cdef extern from "Python.h":
    ctypedef struct PyThreadState:
        pass
    PyThreadState *PyEval_SaveThread()
    void PyEval_RestoreThread(PyThreadState *state)


cdef struct Visit:
    vi_reader *reader
    PyThreadState *thread  # NULL: the interpreter is in hand


#: Records that a Ring has room for, of 64 bytes each.
cdef enum: RING = 16384


cdef class Ring:
    """``watch.h``: where an instance's records are numbered, and the core's kept until they are taken."""

    cdef vi_watch raw
    #: Called, with whatever locks are held, where room is wanted: it takes. Must not raise.
    cdef public object gather

    def __cinit__(self):
        if not vi_watch_make(&self.raw, RING):
            raise MemoryError("no memory for a ring")

    def __dealloc__(self):
        vi_watch_free(&self.raw)

    def claim(self):
        """The next number, whose value the caller has; -1: there is no room before ``take``."""
        cdef uint64_t number
        if not vi_promise(&self.raw, 1):
            with nogil:
                sched_yield()  # whoever tells has a turn
            return -1
        cdef vi_record *record = vi_tell_begin(&self.raw, &number)
        vi_tell(record, number, VI_TOLD)
        vi_unpromise(&self.raw, 1)
        return number

    def take(self):
        """(first number, what was told since in records of 64 bytes, those of its numbers whose values are the model's).
        One thread at a time.
        """
        cdef uint64_t first = self.raw.taken, count = vi_watch_told(&self.raw), at
        data = PyBytes_FromStringAndSize(NULL, count * 64)
        cdef char *to = PyBytes_AS_STRING(data)
        vi_watch_take(&self.raw, count, <vi_record *>to)
        return first, data, [first + at for at in range(count) if to[64 * at + KIND_AT] == VI_TOLD]

    def watch(self, uint32_t kinds):
        """Tell of these kinds from now on."""
        self.raw.kinds = kinds

    def call(self, int eventfd):
        """Have this told when there is much to take; -1: nobody."""
        self.raw.ready = eventfd

    def look_at(self, Mirror mirror not None):
        """Tell of reads that are answered from ``mirror``, too."""
        mirror.watch = self
        mirror.raw.watch = &self.raw

    def synced(self, uint64_t number):
        """A CMD_SYNC of this number has completed."""
        self.raw.synced = number

    @property
    def crowded(self):
        """Whether it is time to take."""
        return vi_watch_room(&self.raw) < RING / 2

    cdef int relieve(self) except -1:
        """Somebody of the interpreter's wants room: take, and let others tell what they are at."""
        if self.gather is not None:
            self.gather()
        with nogil:
            sched_yield()
        return 0


#: The place of a record's kind in it.
cdef enum: KIND_AT = 24


cdef int enter_own(Core core, Visit *visit) except -1:
    """The same for who holds the instance's lock and cannot do without: what it does is told.

    Not ``except *``: Cython would ask the interpreter for an error, which is not in hand here.
    """
    visit[0] = enter(core, OWN_SLOT)
    while not vi_begin_telling(visit.reader, core.sid, core.ssid):
        leave(visit[0])
        core.ring.relieve()
        visit[0] = enter(core, OWN_SLOT)
    if core.attributed >= 0:
        vi_attribute(visit.reader, <uint32_t>core.attributed)
    return 0


cdef Visit enter(Core core, unsigned slot) noexcept:
    """``vi_enter`` for who has the interpreter, which is let go of while somebody has to be waited for: a client with a page
    until ``leave``, somebody inside here."""
    cdef Visit visit
    if core.guarded:
        visit.thread = PyEval_SaveThread()
        visit.reader = vi_enter(core.core, slot)
        return visit
    visit.thread = NULL
    visit.reader = vi_try_enter(core.core, slot)
    while visit.reader is NULL:
        with nogil:
            vi_exit(vi_enter(core.core, slot))
        visit.reader = vi_try_enter(core.core, slot)
    return visit


cdef void leave(Visit visit) noexcept:
    vi_exit(visit.reader)
    if visit.thread is not NULL:
        PyEval_RestoreThread(visit.thread)


cdef class Held:
    """A context as the core has it, which ``Core.hold`` makes; the TLB spaces of its entries stay while it does."""

    cdef vi_context context
    cdef Core core

    def __dealloc__(self):
        if self.core is not None and self.core.core is not NULL:
            vi_drop_context(self.core.core, &self.context)


cdef object _set_table(vi_table *t, tuple values):
    (t.stage, t.base, t.granule_bits, t.input_bits, t.output_bits, t.start_level, t.first_block_level, t.wide, t.mair,
     t.shareability, t.big_endian, t.hierarchical, t.access_fault, t.update_access, t.update_dirty, t.update_tables,
     t.top_byte_ignored, t.no_unprivileged) = values
    t.enabled = True


cdef tuple _fault(const vi_fault *f):
    """(kind, level, stage, cause, ipa, fetch, table_write)."""
    return f.kind, f.level, f.stage, f.cause, f.ipa, f.fetch, bool(f.table_write)


cdef tuple _mapping(const vi_mapping *m):
    return (m.base, m.shift, m.output, m.granule_bits, m.level, m.descriptor, m.descriptor_at, m.flags, m.attributes,
            m.shareability, m.memory)


cdef void _append(void *to, int world, int vmid, int asid, int aset, const vi_mapping *mapping) noexcept with gil:
    (<list>to).append((world, vmid, None if asid == VI_ANY else asid, aset, _mapping(mapping)))


cdef class Ended:
    """How a request ended that was not carried out whole, for ``pieces``; ``data``: what was read of it."""

    cdef vi_result result
    cdef readonly bytes data

    @property
    def done(self):
        """Bytes before its end."""
        return self.result.done

    @property
    def counted(self):
        """Whether the request is, and the search for its context; False: the model has all of it to do."""
        return self.result.end != VI_ASK


cdef Ended _begun(const vi_result *result, bytes data):
    cdef Ended ended = Ended.__new__(Ended)
    ended.result = result[0]
    ended.data = data
    return ended


cdef class Piece:
    """Consecutive physical bytes that are reached with one memory type."""

    cdef readonly uint64_t pa
    cdef readonly uint64_t size
    cdef readonly uint8_t memory


cdef class Pieces:
    """How far a request was translated: into which pieces, of how many bytes in all, and the fault at their end or None."""

    cdef readonly list pieces
    cdef readonly uint64_t done
    cdef readonly tuple fault

    def __cinit__(self):
        self.pieces = []

    cdef void add(self, const vi_piece *next):
        cdef Piece piece
        if self.pieces:
            piece = self.pieces[-1]
            if piece.pa + piece.size == next.pa and piece.memory == next.memory:
                piece.size += next.size
                return
        piece = Piece.__new__(Piece)
        piece.pa, piece.size, piece.memory = next.pa, next.size, next.memory
        self.pieces.append(piece)


cdef vi_request _request(uint32_t sid, uint32_t ssid, uint64_t iova, uint64_t size, uint8_t access) noexcept:
    cdef vi_request request
    request.sid, request.ssid, request.iova, request.size = sid, ssid, iova, size
    request.access, request.incoming = access, VI_INCOMING
    return request


cdef class Run:
    """How far a run went: ``done`` bytes of transfers that were done whole. Of the one that ended it, ``read``: its bytes,
    or how their read ended; ``written``: how its write ended; None: it was not asked for.
    """

    cdef readonly uint64_t done
    #: Of sum64.
    cdef readonly uint64_t total
    cdef readonly object read
    cdef readonly Ended written


cdef Run _run(const vi_run *of, bint reads, uint64_t total):
    cdef Run run = Run.__new__(Run)
    run.done, run.total = of.done, total
    if of.end == VI_RUN_READ:
        run.read = _begun(&of.result, (<const char *>of.bytes)[:of.result.done])
    elif of.end == VI_RUN_WRITTEN:
        run.written = _begun(&of.result, b"")
        if reads:
            run.read = (<const char *>of.bytes)[:of.size]
    return run


cdef uint32_t _burst(uint32_t burst) except 0:
    if not 8 <= burst <= VI_MOST_BURST or burst & (burst - 1):
        raise ValueError(f"bursts of {burst} bytes")
    return burst


cdef class Served:
    """What was served out of a virtqueue, as in masters/prompt.py."""

    cdef readonly object more
    cdef readonly uint16_t last_avail, used_idx
    cdef readonly bint notify
    cdef readonly uint32_t reads, writes
    cdef readonly uint64_t transactions, bytes_read, bytes_written


cdef _lay_out(vi_ring *to, uint32_t sid, ring, uint16_t last_avail, uint16_t used_idx):
    to.desc, to.avail, to.used, to.size = ring.desc, ring.avail, ring.used, ring.size
    to.indirect, to.event_idx = ring.indirect, ring.event_idx
    to.sid, to.last_avail, to.used_idx = sid, last_avail, used_idx


cdef _name_disk(vi_disk *to, disk):
    to.fd, to.read_flags, to.may_write, to.sectors = disk.fd, disk.read_flags, disk.may_write, disk.sectors


cdef class Core:
    """One instance's core. Invalidations and changes are for one thread at a time; requests are for any."""

    cdef vi_core *core
    cdef uint64_t tokens
    cdef Py_buffer *buffers
    cdef uint32_t buffer_count
    cdef long long attributed  # the StreamID of what the model has done; -1: of none
    cdef bint guarded  # a window has a guard, so whoever is inside may have to wait for a client
    cdef Ring ring  # where it tells; None: nobody looks on
    cdef uint32_t sid, ssid  # of whom it tells under the instance's lock

    def __cinit__(self, uint32_t tlb_entries, uint32_t contexts):
        self.attributed = -1
        self.core = vi_core_new(tlb_entries, contexts)
        if self.core is NULL:
            raise MemoryError("no memory for the core")

    def __dealloc__(self):
        if self.core is not NULL:
            vi_watch_core(self.core, NULL)
            vi_core_free(self.core)
            self.core = NULL
        self._release(self.buffers, self.buffer_count)

    cdef void _release(self, Py_buffer *buffers, uint32_t count):
        for at in range(count):
            if buffers[at].buf is not NULL:
                PyBuffer_Release(&buffers[at])
        free(buffers)

    # -- what it works on ------------------------------------------------------------------------------------

    def set_windows(self, windows):
        """``windows``: (base, size, buffer or None, readable, writable, guard or None), by base; only a Guard breaks.

        The former ones are let go of.
        """
        cdef uint32_t count = len(windows), at = 0
        cdef Py_buffer *buffers = <Py_buffer *>calloc(count + 1, sizeof(Py_buffer))
        cdef vi_window *table = <vi_window *>calloc(count + 1, sizeof(vi_window))
        cdef bint done, guarded = False
        if buffers is NULL or table is NULL:
            free(buffers)
            free(table)
            raise MemoryError("no memory for windows")
        try:
            for at, (base, size, buffer, readable, writable, guard) in enumerate(windows):
                guarded |= guard is not None
                table[at].base = base
                table[at].size = size
                if buffer is not None:
                    PyObject_GetBuffer(buffer, &buffers[at], PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
                    if <uint64_t>buffers[at].len < table[at].size:
                        raise ValueError("a window is larger than its buffer")
                    table[at].host = <uint8_t *>buffers[at].buf
                    table[at].broken = (<Guard>guard).flag if isinstance(guard, Guard) else NULL
                    table[at].allows = (VI_MAY_READ if readable else 0) | (VI_MAY_WRITE if writable else 0)
            self.guarded |= guarded
            with nogil:
                done = vi_set_windows(self.core, table, count)
            if not done:
                raise MemoryError("no memory for windows")
        except BaseException:
            self._release(buffers, count)
            raise
        finally:
            free(table)
        self._release(self.buffers, self.buffer_count)
        self.buffers, self.buffer_count, self.guarded = buffers, count, guarded

    def set_parameters(self, *, uint8_t output_bits, bint enabled, bint aborts):
        cdef vi_parameters p
        p.output_bits, p.enabled, p.aborts = output_bits, enabled, aborts
        with nogil:
            vi_set_parameters(self.core, &p)

    def watch(self, Ring ring):
        """Have what it does told there; None: nowhere. Who invalidates calls this, and waits for the readers then."""
        self.ring = ring
        vi_watch_core(self.core, NULL if ring is None else &ring.raw)

    def stream(self, uint32_t sid, ssid):
        """Of whom is told what is done from now on under the instance's lock."""
        self.sid, self.ssid = sid, VI_NO_SSID if ssid is None else ssid

    cdef int promise(self, uint64_t count) except -1:
        while self.ring is not None and not vi_promise(&self.ring.raw, count):
            self.ring.relieve()
        return 0

    cdef void promised(self, uint64_t count) noexcept:
        if self.ring is not None:
            vi_unpromise(&self.ring.raw, count)

    def quiesce(self):
        """Return when no request that is under way now is."""
        with nogil:
            vi_quiesce(self.core)

    # -- contexts, for who invalidates ---------------------------------------------------------------------------

    def hold(self, *, world, vmid, output_bits, bypass_bits, privileged, instruction, overrides, stage1, stage2):
        """A Held with these fields of struct vi_context; smmu/native.py has their order."""
        cdef Held held = Held.__new__(Held)
        cdef vi_context *c = &held.context
        self.tokens += 1
        c.token, c.world, c.vmid, c.output_bits, c.bypass_bits = self.tokens, world, vmid, output_bits, bypass_bits
        c.privileged = VI_AS_IT_CAME if privileged is None else privileged
        c.instruction = VI_AS_IT_CAME if instruction is None else instruction
        c.replace_type, c.memattr, c.shcfg = overrides
        if stage1 is not None:
            c.stage1 = True
            low, high, c.asid, c.aset, c.aarch32, c.t0sz, c.t1sz, regime = stage1
            c.unprivileged, c.wxn, c.uwxn, c.pan, c.epan, c.execute_needs_read, c.xn_for_all = regime
            if low is not None:
                _set_table(&c.half[0], low)
            if high is not None:
                _set_table(&c.half[1], high)
        if stage2 is not None:
            c.stage2 = True
            table, c.s2_protected_walks, c.s2_forced_writeback, c.s2_execute_needs_read, c.s2_two_bit_xn = stage2
            _set_table(&c.s2, table)
        if not vi_make_context(self.core, c):
            raise MemoryError("no room for the spaces of a context")
        held.core = self
        return held

    def publish(self, uint32_t sid, ssid, Held held not None):
        """Have requests of a stream find this context until it is withdrawn, or too many are published."""
        cdef uint32_t substream = VI_NO_SSID if ssid is None else ssid
        cdef bint done
        with nogil:
            done = vi_publish(self.core, sid, substream, &held.context)
        if not done:
            raise MemoryError("no memory for a context")

    def withdraw(self, uint32_t sid, ssid):
        self.promise(VI_OF_AN_INVALIDATION)
        vi_withdraw(self.core, sid, VI_NO_SSID if ssid is None else ssid)
        self.promised(VI_OF_AN_INVALIDATION)

    def withdraw_streams(self, uint32_t first, uint32_t last):
        self.promise(VI_OF_AN_INVALIDATION)
        vi_withdraw_streams(self.core, first, last)
        self.promised(VI_OF_AN_INVALIDATION)

    # -- single translations ---------------------------------------------------------------------------------------

    def read_ipa(self, Held held not None, uint64_t ipa, uint32_t size):
        """The bytes at an address that stage 2 translates; the fault as a tuple; or the PA that aborted."""
        cdef vi_fault fault
        cdef uint64_t pa
        data = PyBytes_FromStringAndSize(NULL, size)
        cdef char *to = PyBytes_AS_STRING(data)
        cdef Visit visit
        enter_own(self, &visit)
        cdef int how = vi_read_ipa(visit.reader, &held.context, ipa, to, size, &pa, &fault)
        leave(visit)
        return data if how == 1 else _fault(&fault) if how == 0 else pa

    def translate(self, Held held not None, uint64_t address, unsigned access):
        """(None, pa, size, stage 1 mapping or None, that of stage 2) or (fault,)."""
        cdef vi_output output
        cdef Visit visit
        enter_own(self, &visit)
        cdef vi_fault fault = vi_translate(visit.reader, &held.context, address, access, 0, &output)
        leave(visit)
        if fault.kind:
            return (_fault(&fault),)
        return (None, output.pa, output.size, _mapping(&output.stage1) if output.has1 else None,
                _mapping(&output.stage2) if output.has2 else None)

    # -- whole requests ------------------------------------------------------------------------------------------

    def pieces(self, Held held not None, uint64_t iova, uint64_t size, uint8_t access, uint8_t incoming,
               Ended begun=None):
        """Translate up to the first fault; Pieces.

        ``begun``: how ``read`` or ``write`` ended, of which this is the rest. What that found is not looked for again,
        unless a CMD_SYNC completed since or the context is another, and not counted again. The caller is whoever
        invalidates.
        """
        cdef vi_request request
        cdef vi_result result
        cdef vi_piece few[4]
        cdef vi_piece *pieces = few
        cdef uint32_t room = 4, count, at
        cdef uint64_t counted = 0
        cdef Pieces found = Pieces.__new__(Pieces)
        cdef Visit visit
        if begun is not None and begun.result.end != VI_ASK:
            if (begun.result.end == VI_FAULTED and begun.result.token == held.context.token
                    and begun.result.quiesced == vi_quiesced(self.core)):
                found.fault = _fault(&begun.result.fault)
                return found
            counted = begun.result.counted
        request.iova, request.size, request.access, request.incoming = iova, size, access, incoming
        if size > 8192:
            room = 2 + <uint32_t>min(size >> 12, 1 << 20)
            pieces = <vi_piece *>malloc(room * sizeof(vi_piece))
            if pieces is NULL:
                raise MemoryError("no memory for pieces")
        try:
            while True:
                enter_own(self, &visit)
                count = vi_pieces(visit.reader, &held.context, &request, counted, pieces, room, &result)
                leave(visit)
                for at in range(count):
                    found.add(&pieces[at])
                found.done += result.done
                if result.end != VI_CROWDED:
                    if result.end == VI_FAULTED:
                        found.fault = _fault(&result.fault)
                    return found
                counted = result.counted
                request.iova += result.done
                request.size -= result.done
        finally:
            if pieces is not few:
                free(pieces)

    def read(self, unsigned slot, uint32_t sid, uint32_t ssid, uint64_t iova, uint64_t size, uint8_t access):
        """The bytes, or an Ended with those that were read before it; the rest is the caller's to ask for by ``pieces``."""
        cdef vi_request request = _request(sid, ssid, iova, size, access)
        cdef vi_result result
        cdef vi_reader *reader
        cdef Visit visit
        data = PyBytes_FromStringAndSize(NULL, size)
        cdef char *to = PyBytes_AS_STRING(data)
        if size < LONG:
            visit = enter(self, slot)
            vi_dma_read(visit.reader, &request, to, &result)
            leave(visit)
        else:
            with nogil:
                reader = vi_enter(self.core, slot)
                vi_dma_read(reader, &request, to, &result)
                vi_exit(reader)
        return data if result.end == VI_DONE else _begun(&result, data[:result.done] if result.done else b"")

    def write(self, unsigned slot, uint32_t sid, uint32_t ssid, uint64_t iova, const uint8_t[::1] data,
              uint8_t access):
        """None: all is written; or an Ended, as of ``read``."""
        cdef vi_request request = _request(sid, ssid, iova, data.shape[0], access | 1)
        cdef vi_result result
        cdef vi_reader *reader
        cdef Visit visit
        cdef const uint8_t *at = &data[0]
        if request.size < LONG:
            visit = enter(self, slot)
            vi_dma_write(visit.reader, &request, at, &result)
            leave(visit)
        else:
            with nogil:
                reader = vi_enter(self.core, slot)
                vi_dma_write(reader, &request, at, &result)
                vi_exit(reader)
        return None if result.end == VI_DONE else _begun(&result, b"")

    # Runs of transfers, none of which crosses a multiple of ``burst`` bytes (8 to 4096) of its (source's) address.

    def run_copy(self, unsigned slot, uint32_t sid, uint32_t ssid, uint64_t source, uint64_t target, uint64_t size,
                 uint8_t reads, uint8_t writes, uint32_t burst):
        """A Run; ``reads`` and ``writes``: the access of either side."""
        cdef vi_request a = _request(sid, ssid, source, size, reads)
        cdef vi_request b = _request(sid, ssid, target, size, writes | 1)
        cdef vi_run run
        cdef vi_reader *reader
        _burst(burst)
        with nogil:
            reader = vi_enter(self.core, slot)
            vi_run_copy(reader, &a, &b, burst, &run)
            vi_exit(reader)
        return _run(&run, True, 0)

    def run_sum64(self, unsigned slot, uint32_t sid, uint32_t ssid, uint64_t iova, uint64_t size, uint8_t access,
                  uint32_t burst):
        """A Run; addresses and size are multiples of 8."""
        cdef vi_request request = _request(sid, ssid, iova, size, access)
        cdef vi_run run
        cdef vi_reader *reader
        cdef uint64_t total = 0
        _burst(burst)
        if (iova | size) & 7:
            raise ValueError("a sum of parts of words")
        with nogil:
            reader = vi_enter(self.core, slot)
            vi_run_sum(reader, &request, burst, &total, &run)
            vi_exit(reader)
        return _run(&run, True, total)

    def run_write(self, unsigned slot, uint32_t sid, uint32_t ssid, uint64_t iova, const uint8_t[::1] data,
                  uint8_t access, uint32_t burst):
        """A Run."""
        cdef vi_request request = _request(sid, ssid, iova, data.shape[0], access | 1)
        cdef vi_run run
        cdef vi_reader *reader
        cdef const uint8_t *at = &data[0]
        _burst(burst)
        with nogil:
            reader = vi_enter(self.core, slot)
            vi_run_write(reader, &request, burst, at, &run)
            vi_exit(reader)
        return _run(&run, False, 0)

    def serve(self, unsigned slot, uint32_t sid, ring, disk, uint16_t last_avail, uint16_t used_idx, batch):
        """Serve plain reads and writes of a disk out of a virtqueue; what others there are is the caller's.

        ``ring``, ``disk`` and ``batch`` are as in masters/prompt.py.
        """
        cdef vi_ring asked
        cdef vi_disk of
        cdef vi_served served
        cdef vi_reader *reader
        cdef uint32_t chains = batch.chains
        cdef uint64_t size = batch.size
        cdef int end
        _lay_out(&asked, sid, ring, last_avail, used_idx)
        _name_disk(&of, disk)
        if not asked.size or asked.size & (asked.size - 1) or asked.size > 32768:
            raise ValueError("the size of a queue is a power of two")
        with nogil:
            reader = vi_enter(self.core, slot)
            end = vi_serve(reader, &asked, &of, chains, size, &served)
            vi_exit(reader)
        cdef Served found = Served.__new__(Served)
        found.more = None if end == VI_NOT_SERVED else end == VI_MORE
        found.last_avail, found.used_idx, found.notify = asked.last_avail, asked.used_idx, served.notify
        found.reads, found.writes, found.transactions = served.reads, served.writes, served.transactions
        found.bytes_read, found.bytes_written = served.bytes_read, served.bytes_written
        return found

    def disk_bell(self, lock, mirror, unsigned slot, registers, post, uint32_t rings, batch):
        """A DiskBell for the master whose lock and mirror these are; None: they are not of the core.

        ``registers``, ``post`` and ``batch`` are as in masters/prompt.py.
        """
        if not isinstance(lock, Lock) or not isinstance(mirror, Mirror):
            return None
        return DiskBell(lock, self, mirror, slot, registers, post, rings, batch)

    # -- invalidation ----------------------------------------------------------------------------------------

    # They may wait for whoever is inside.

    def ready_to_invalidate(self):
        """Wait for them now, so that the next of these does not."""
        with nogil:
            vi_ready_to_invalidate(self.core)

    def clear_tlb(self, int stage):
        self.promise(VI_OF_AN_INVALIDATION)
        with nogil:
            vi_invalidate_tlb(self.core, stage)
        self.promised(VI_OF_AN_INVALIDATION)

    def invalidate_spaces(self, int world, vmid, uint16_t vmid_mask, asid):
        cdef int32_t of_vmid = VI_ANY if vmid is None else vmid, of_asid = VI_ANY if asid is None else asid
        self.promise(VI_OF_AN_INVALIDATION)
        with nogil:
            vi_invalidate_spaces(self.core, world, of_vmid, vmid_mask, of_asid)
        self.promised(VI_OF_AN_INVALIDATION)

    def invalidate_range(self, int world, uint64_t start, uint64_t size, vmid, uint16_t vmid_mask, asid,
                         uint8_t granule_bits, level):
        cdef int32_t of_vmid = VI_ANY if vmid is None else vmid, of_asid = VI_ANY if asid is None else asid
        cdef int8_t of_level = VI_ANY_LEVEL if level is None else level
        self.promise(VI_OF_AN_INVALIDATION)
        with nogil:
            vi_invalidate_range(self.core, world, start, size, of_vmid, vmid_mask, of_asid, granule_bits, of_level)
        self.promised(VI_OF_AN_INVALIDATION)

    # -- to look at ------------------------------------------------------------------------------------------

    def tlb(self, int stage):
        """(capacity, evictions, invalidated)."""
        cdef vi_tlb_state state
        vi_look_at_tlb(self.core, stage, &state)
        return state.capacity, state.evictions, state.invalidated

    def entries(self, int stage):
        """Each TLB entry as (world, vmid, asid or None, aset, mapping)."""
        found = []
        vi_visit_tlb(self.core, stage, <void *>found, _append)
        return found

    def fill(self, int stage, int world, int vmid, asid, int aset, raw):
        """Have this TLB entry, as ``entries`` gives it."""
        cdef vi_mapping m
        (m.base, m.shift, m.output, m.granule_bits, m.level, m.descriptor, m.descriptor_at, m.flags, m.attributes,
         m.shareability, m.memory) = raw
        vi_fill_tlb(self.core, stage, world, vmid, VI_ANY if asid is None else asid, aset, &m)

    def counts(self):
        """As struct vi_counters has them."""
        cdef uint64_t counts[VI_COUNTERS]
        vi_count(self.core, counts)
        return tuple([counts[at] for at in range(VI_COUNTERS)])

    # -- streams that are counted apart; for who holds the lock ----------------------------------------------------

    def follow(self, uint32_t mask, uint32_t value):
        """Count requests of these StreamIDs apart; a number for the others here. MemoryError: too many are."""
        cdef int followed
        with nogil:
            followed = vi_follow(self.core, mask, value)
        if followed < 0:
            raise MemoryError("too many streams are followed")
        return followed

    def unfollow(self, int number):
        with nogil:
            vi_unfollow(self.core, number)

    def followed(self, int number):
        """As ``counts``, of these streams, since ``follow``."""
        cdef uint64_t counts[VI_COUNTERS]
        vi_followed(self.core, number, counts)
        return tuple([counts[at] for at in range(VI_COUNTERS)])

    def attribute(self, sid):
        """Until None, what ``pieces``, ``translate`` and ``read_ipa`` do is of this stream."""
        self.attributed = -1 if sid is None else sid


cdef class Commands:
    """``v3/commands.h``: SMMUv3's commands that concern caches alone. All but ``counts`` is for who invalidates."""

    cdef vi_v3 raw
    cdef Core core

    def __init__(self, Core core not None):
        self.raw.core, self.core = core.core, core

    def set_registers(self, *, uint32_t idr0, uint32_t idr3, uint32_t idr5, uint32_t cr2):
        self.raw.idr0, self.raw.idr3, self.raw.idr5, self.raw.cr2 = idr0, idr3, idr5, cr2

    def consume(self, uint64_t base, uint32_t log2size, uint32_t prod, uint32_t cons, uint32_t limit,
                uint16_t vmid_mask, bint may_sync):
        """(commands done, CONS index, CMD_SYNCs among them, the last one's 16 bytes if its signal is to be sent)."""
        cdef vi_command_queue queue
        cdef vi_consumed so_far
        cdef uint32_t done
        queue.base, queue.log2size, queue.prod, queue.cons = base, log2size, prod, cons
        queue.vmid_mask, queue.may_sync, queue.signals = vmid_mask, may_sync, VI_SIGNALS_ALL
        self.core.promise(VI_OF_A_BURST)
        with nogil:
            done = vi_consume(&self.raw, &queue, limit if limit < 128 else 128, &so_far)
        self.core.promised(VI_OF_A_BURST)
        return done, so_far.cons, so_far.syncs, (<const char *>so_far.command)[:16] if so_far.signals else None

    def carry_kept(self, carry):
        """Give ``carry`` the commands that invalidate configuration and that the model has still to carry out, 16 bytes
        each.
        """
        if self.raw.kept:
            kept = [(<const char *>self.raw.keeps[at])[:16] for at in range(self.raw.kept)]
            self.raw.kept = 0
            for command in kept:
                carry(command)

    def counts(self):
        """How many commands ``consume`` and a doorbell have carried out, by opcode."""
        return {opcode: self.raw.carried_out[opcode] for opcode in range(256) if self.raw.carried_out[opcode]}


def fence():
    """Accesses before it are seen before those after it; but a load may pass a store."""
    atomic_thread_fence(memory_order_acq_rel)


def is_mirror(mirror):
    """Whether a doorbell may store in it."""
    return isinstance(mirror, Mirror)


cdef class Lock:
    """A re-entrant lock for ``with``, that a doorbell may share."""

    cdef pthread_mutex_t mutex
    cdef Doorbell doorbell

    def __cinit__(self):
        cdef pthread_mutexattr_t attributes
        pthread_mutexattr_init(&attributes)
        pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE)
        pthread_mutex_init(&self.mutex, &attributes)
        pthread_mutexattr_destroy(&attributes)

    def __dealloc__(self):
        pthread_mutex_destroy(&self.mutex)

    def acquire(self, bint blocking=True):
        """As threading.RLock's."""
        if pthread_mutex_trylock(&self.mutex):
            if not blocking:
                return False
            with nogil:
                pthread_mutex_lock(&self.mutex)
        if self.doorbell is not None and self.doorbell.raw.rung:
            try:
                self.doorbell.tell()
            except BaseException:
                pthread_mutex_unlock(&self.mutex)
                raise
        return True

    def release(self):
        pthread_mutex_unlock(&self.mutex)

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *_):
        pthread_mutex_unlock(&self.mutex)


cdef class Doorbell:
    """``doorbell.h``: writes of CMDQ_PROD that need no interpreter. All but ``rung`` and ``counts`` is for who holds the
    lock.
    """

    cdef vi_doorbell raw
    cdef Commands commands
    cdef object told
    cdef bint telling

    def __init__(self, Lock lock not None, Commands commands not None, Mirror mirror not None, uint64_t prod_at, uint64_t cons_at,
                 uint32_t burst, told):
        """``told(prod, cons, aborted)`` is called with what the registers are now, by whoever takes the lock after it was
        rung; ``aborted``: an MSI was.
        """
        self.raw.lock, self.raw.v3, self.raw.mirror = &lock.mutex, &commands.raw, &mirror.raw
        self.raw.prod_at, self.raw.cons_at, self.raw.burst = prod_at, cons_at, burst
        self.commands, self.told = commands, told
        lock.doorbell = self
        mirror.stores = self, lock
        mirror.raw.store_of = &self.raw
        mirror.raw.store = <vi_store_fn>vi_doorbell_store

    def arm(self, uint32_t prod, uint32_t writable, uint32_t cons, uint64_t base, uint32_t log2size, uint16_t vmid_mask,
            bint msis):
        """The registers as they are, the bits of CMDQ_PROD that are ``writable``, and the queue; ``msis``: a CMD_SYNC
        signals by MSI alone, and may if that is in guest memory."""
        cdef uint32_t index_mask = (2u << log2size) - 1
        cdef vi_command_queue *queue = &self.raw.queue
        queue.base, queue.log2size, queue.prod, queue.cons = base, log2size, prod, cons & index_mask
        queue.vmid_mask, queue.may_sync, queue.signals = vmid_mask, True, VI_SIGNALS_IN_RAM if msis else VI_SIGNALS_NONE
        self.raw.writable, self.raw.cons_rest = writable, cons & ~index_mask
        self.raw.armed = True

    def disarm(self):
        self.raw.armed = False

    cdef tell(self):
        if self.telling:
            return
        armed, aborted = self.raw.armed and not self.raw.aborted, self.raw.aborted
        self.raw.aborted, self.telling = False, True
        try:
            self.told(self.raw.queue.prod, self.raw.cons_rest | self.raw.queue.cons, aborted)
            self.raw.armed = armed
        finally:
            self.telling = False
        self.raw.rung = False  # only now, for who reads a register without the lock goes by it

    def was_told(self):
        """Whether the write that now comes to the owner has been told of; asked once."""
        told, self.raw.told = self.raw.told, False
        return told

    @property
    def rung(self):
        """Whether the registers are other than was told."""
        return self.raw.rung

    def counts(self):
        """(writes, commands, CMD_SYNCs) that were carried out."""
        return self.raw.writes, self.raw.commands, self.raw.syncs


cdef class DiskBell:
    """``diskbell.h``: a disk's QueueNotify, InterruptStatus and InterruptACK without the interpreter. All but what
    counts is for who holds the lock.
    """

    cdef vi_disk_bell raw
    cdef Core core

    def __init__(self, Lock lock not None, Core core not None, Mirror mirror not None, unsigned slot, registers, post,
                 uint32_t rings, batch):
        if self.raw.rings is not NULL:
            raise ValueError("made already")
        self.raw.rings = <vi_lent *>calloc(rings, sizeof(vi_lent))
        if self.raw.rings is NULL:
            raise MemoryError("no memory for rings")
        self.raw.lock, self.raw.core, self.raw.slot, self.raw.mirror = &lock.mutex, core.core, slot, &mirror.raw
        self.raw.notify_at, self.raw.status_at = registers.notify, registers.status
        self.raw.ack_at = registers.acknowledge
        self.raw.count, self.raw.chains, self.raw.bytes = rings, batch.chains, batch.size
        self.core = core
        mirror.stores = self, lock
        mirror.raw.post_at, mirror.raw.post_value = post.address, post.value
        mirror.raw.store_of = &self.raw
        mirror.raw.load = <vi_load_fn>vi_disk_bell_load
        mirror.raw.store = <vi_store_fn>vi_disk_bell_store

    def __dealloc__(self):
        free(self.raw.rings)

    def lend(self, uint32_t number, uint32_t sid, ring, disk, uint16_t last_avail, uint16_t used_idx):
        """Have notifications of a ring carried out; arguments as of ``Core.serve``."""
        if number >= self.raw.count:
            raise IndexError(number)
        cdef vi_ring *of = &self.raw.rings[number].ring
        _lay_out(of, sid, ring, last_avail, used_idx)
        _name_disk(&self.raw.disk, disk)
        self.raw.rings[number].lent = bool(of.size) and not of.size & (of.size - 1) and of.size <= 32768

    def take(self, uint32_t number):
        """(last_avail, used_idx) of a ring, which is the caller's from now on; None: it was not lent."""
        if number >= self.raw.count or not self.raw.rings[number].lent:
            return None
        self.raw.rings[number].lent = False
        return self.raw.rings[number].ring.last_avail, self.raw.rings[number].ring.used_idx

    @property
    def status(self):
        """InterruptStatus."""
        return self.raw.status

    @status.setter
    def status(self, uint32_t status):
        self.raw.status = status

    @property
    def unread(self):
        """Those of its bits that were set after the driver last read it."""
        return self.raw.unread

    @unread.setter
    def unread(self, uint32_t unread):
        self.raw.unread = unread

    # What was done here.

    @property
    def reads(self):
        return self.raw.reads

    @property
    def writes(self):
        return self.raw.writes

    @property
    def transactions(self):
        return self.raw.transactions

    @property
    def bytes_read(self):
        return self.raw.bytes_read

    @property
    def bytes_written(self):
        return self.raw.bytes_written
