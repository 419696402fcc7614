# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, boundscheck=True, embedsignature=True
"""The door to the pump (``messages.h``): one client's messages, of which few need the interpreter.

Law: what the pump hands out goes the way that all messages go without it, in order; the interpreter is held only
meanwhile. A write of which more follow is carried out with them, and the interpreter taken once.
"""

from libc.stdlib cimport calloc, free


cdef class Mirror:
    """mmio.Mirror, for the pump to read."""

    def __cinit__(self, uint64_t size):
        if not vi_mirror_make(&self.raw, size):
            raise MemoryError(f"no mirror of {size} bytes")

    def __dealloc__(self):
        vi_mirror_free(&self.raw)

    def store(self, uint64_t offset, uint32_t size, uint64_t value):
        if not vi_mirror_store(&self.raw, offset, size, value):
            raise IndexError(f"{size} bytes at {offset:#x}")

    @property
    def plain(self):
        return self.raw.plain

    @plain.setter
    def plain(self, bint plain):
        self.raw.plain = plain

    @property
    def reads(self):
        return self.raw.reads


cdef class Wire:
    """The sending side of a connected stream socket: whole messages from any thread."""

    cdef vi_wire raw
    cdef object _unsent

    def __cinit__(self, int fd, double timeout, unsent):
        """``fd`` stays the caller's; ``unsent`` is told the errno of a message that was not sent."""
        pthread_mutex_init(&self.raw.lock, NULL)
        self.raw.fd = fd
        self.raw.most_ns = <int64_t>(timeout * 1e9)
        self._unsent = unsent

    def __dealloc__(self):
        pthread_mutex_destroy(&self.raw.lock)

    def send(self, bytes message not None):
        """Send all of ``message``, or break the connection and return False."""
        cdef const char *data = message
        cdef size_t size = len(message)
        cdef int problem
        with nogil:
            problem = vi_wire_send(&self.raw, data, size)
        if problem:
            self._unsent(problem)
        return not problem

    def close(self):
        """Nothing is sent any more, so that the descriptor may be closed."""
        with nogil:
            vi_wire_close(&self.raw)


cdef class Pump:
    """The receiving side: what one client sends to ``blocks``."""

    cdef vi_pump raw
    cdef vi_block *_blocks
    cdef Wire _wire
    cdef bytearray _room
    cdef list _reads, _writes, _mirrors

    def __cinit__(self, int fd, Wire wire not None, list blocks not None, double spin):
        """``fd``: a connected stream socket, the caller's; ``blocks``: (region, start, end, device, its mirror or None);
        ``spin``: seconds for which to look for the next message before sleeping.
        """
        cdef Mirror mirror
        cdef Py_ssize_t at
        self._wire = wire
        self._room = bytearray(VI_PUMP_ROOM)
        self._blocks = <vi_block *>calloc(max(len(blocks), 1), sizeof(vi_block))
        if self._blocks == NULL:
            raise MemoryError
        self._reads, self._writes, self._mirrors = [], [], []
        for at, (region, start, end, device, mirror) in enumerate(blocks):
            if start % 8 or end % 8:
                raise ValueError(f"{device.name}: {start:#x} to {end:#x} are not multiples of 8")
            self._blocks[at].region, self._blocks[at].start, self._blocks[at].end = region, start, end
            if mirror is not None:
                self._blocks[at].mirror = &mirror.raw
            self._mirrors.append(mirror)
            self._reads.append(device.read)
            self._writes.append(device.write)
        self.raw.wire = &wire.raw
        self.raw.fd = fd
        self.raw.blocks, self.raw.count = self._blocks, len(blocks)
        self.raw.in_ = <uint8_t *><char *>self._room
        self.raw.spin_ns = <int64_t>(spin * 1e9)
        self.raw.last_wait_ns = self.raw.spin_ns + 1

    def __dealloc__(self):
        free(self._blocks)

    def converse(self, connection):
        """Serve ``connection`` until its client is gone, or is to be dropped.

        None when the connection said so; otherwise the errno of the last receive, 0 for the end of what there is. A list
        of descriptors, which are the caller's: more came at once than were agreed. What a device raises is raised.
        """
        cdef int says
        cdef vi_access *access = &self.raw.access
        view = memoryview(self._room)
        self._look(connection)
        while True:
            with nogil:
                says = vi_pump_run(&self.raw)
            if says == VI_PUMP_READ:
                vi_pump_was_read(&self.raw, self._reads[access.block](access.offset, access.size))
            elif says == VI_PUMP_WRITE:
                self._writes[access.block](access.offset, access.size, access.value)
                while vi_pump_was_written(&self.raw):
                    self._writes[access.block](access.offset, access.size, access.value)
            elif says == VI_PUMP_FEED:
                if not connection.feed(view[self.raw.from_ : self.raw.to], self._fds()):
                    return None
                self._look(connection)
            elif says == VI_PUMP_UNSENT:
                self._wire._unsent(self.raw.problem)
            else:
                return self._fds() if says == VI_PUMP_FLOOD else self.raw.problem

    cdef _look(self, connection):
        self.raw.feed_all = connection.regions is None or connection.partial
        self.raw.may_post = connection.may_post()

    cdef list _fds(self):
        fds = [self.raw.fds[at] for at in range(self.raw.nfds)]
        self.raw.nfds = 0
        return fds
