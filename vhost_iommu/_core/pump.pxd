# SPDX-License-Identifier: Apache-2.0
"""The pump's C side, and what other modules of the core may reach of it: a mirror's ``raw``."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "mirror.h" nogil:
    ctypedef bint (*vi_store_fn)(void *of, uint64_t offset, uint32_t value) noexcept nogil

    ctypedef bint (*vi_load_fn)(void *of, uint64_t offset, uint32_t *value) noexcept nogil

    struct vi_mirror:
        uint64_t *cells
        uint64_t size
        bint plain
        uint64_t reads
        void *watch  # struct vi_watch
        vi_store_fn store
        vi_load_fn load
        void *store_of
        uint64_t post_at
        uint32_t post_value
        bint posting

    bint vi_mirror_make(vi_mirror *mirror, uint64_t size)
    void vi_mirror_free(vi_mirror *mirror)
    bint vi_mirror_store(vi_mirror *mirror, uint64_t offset, uint32_t size, uint64_t value)


cdef extern from "messages.h" nogil:
    ctypedef struct pthread_mutex_t:
        pass

    struct vi_wire:
        pthread_mutex_t lock
        int fd
        int64_t most_ns

    int vi_wire_send(vi_wire *wire, const void *data, size_t size)
    void vi_wire_close(vi_wire *wire)

    enum:
        VI_PUMP_ROOM

    struct vi_block:
        uint32_t region
        uint64_t start
        uint64_t end
        vi_mirror *mirror

    enum:
        VI_PUMP_END
        VI_PUMP_FLOOD
        VI_PUMP_FEED
        VI_PUMP_READ
        VI_PUMP_WRITE
        VI_PUMP_UNSENT

    struct vi_access:
        uint32_t block
        uint32_t size
        uint64_t offset
        uint64_t value

    struct vi_pump:
        vi_wire *wire
        int fd
        const vi_block *blocks
        uint32_t count
        bint may_post
        bint feed_all
        int64_t spin_ns
        int64_t last_wait_ns
        uint8_t *in_ "in"
        size_t from_ "from"
        size_t to
        int fds[16]
        int nfds
        int problem
        vi_access access

    int vi_pump_run(vi_pump *pump)
    void vi_pump_was_read(vi_pump *pump, uint64_t value)
    bint vi_pump_was_written(vi_pump *pump)


cdef extern from "pthread.h" nogil:
    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)


cdef class Mirror:
    cdef vi_mirror raw
    cdef object stores  # whatever carries out writes natively; lives as long
    cdef object watch  # whoever is told of reads; likewise
