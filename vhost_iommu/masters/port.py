# SPDX-License-Identifier: Apache-2.0
"""A DMA master's port: the only way in which its bytes reach memory, each transaction translated.

Law: what the guest did wrong is an ``Abort``, a value. A closed gate lets no byte pass, so that a device which
says that it is reset has stopped. Nothing waits here: a stalled transaction is a ``Waiting``, a value too.
Not modelled: memory types and shareability, atomics.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Generic, TypeAlias, TypeVar

from ..memory import MemoryLike
from ..mmio import Mirror
from ..sealed import Sealed, declared, refuse_replaced
from ..smmu.transaction import (
    NO_SSID,
    Answer,
    Begun,
    Outcome,
    PageHint,
    Piece,
    Requests,
    Run,
    Stall,
    Transaction,
    Translator,
)
from ..watch import Watch
from .atc import Atc, AtcAnswer, AtsUser, PageWait, Refusal
from .prompt import Batch, BellRegisters, Disk, DiskBell, DiskServer, Post, Ring, Served

T = TypeVar("T")

#: Largest transaction that our masters make, so that a huge length of a guest costs no memory: callers see to it.
CHUNK = 1 << 20

_SPACE = 1 << 64

#: Pages of 4 KiB that one hint can name.
MOST_HINTED = 255


class Why(Enum):
    """What ended a transaction."""

    TERMINATED = "terminated"  #: by the SMMU
    EXTERNAL = "external abort"  #: translated, but nothing answers there
    STOPPED = "stopped"  #: the master was reset meanwhile
    DENIED = "denied"  #: a translation request was granted no such permission
    UNSUPPORTED = "unsupported request"  #: a translation request was answered so
    COMPLETER = "completer abort"  #: a translation request was answered so
    NO_PAGE = "no page"  #: a page request was answered so


_REFUSED = {
    None: Why.TERMINATED,
    Refusal.DENIED: Why.DENIED,
    Refusal.UR: Why.UNSUPPORTED,
    Refusal.CA: Why.COMPLETER,
    Refusal.PAGE: Why.NO_PAGE,
}


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a transaction carries besides its address."""

    sid: int | None = None  #: None: the port's first
    ssid: int | None = None  #: None: no SubstreamID
    privileged: bool = False
    instruction: bool = False
    ats: AtsUser | None = None  #: it goes by way of the ATC
    unsupported: bool = False  #: it is of a type that no SMMU supports


PLAIN = Attributes()


def transactions(first: int, size: int, burst: int) -> int:
    """Into how many ``size`` bytes at ``first`` fall, none of which crosses a multiple of ``burst``."""
    return (first + size - 1) // burst - first // burst + 1 if size else 0


@dataclass(frozen=True, slots=True)
class Abort:
    """A transaction that failed at ``iova``, after its first ``done`` bytes."""

    iova: int
    done: int
    why: Why


#: What a transaction may wait for: ``resolved`` is called, from any thread, when there is an ``answer``.
Awaited: TypeAlias = Stall | PageWait


class Waiting(Generic[T]):
    """A transaction whose rest is stalled, or waits for a page; ``T`` is what it gives when it succeeds.

    It may be forgotten: then nothing of the rest is done, whatever software answers.
    """

    __slots__ = ("_go_on", "stall")

    def __init__(self, stall: Awaited, go_on: Callable[[], T | Abort | Waiting[T]]) -> None:
        self.stall = stall
        self._go_on = go_on

    def go_on(self) -> T | Abort | Waiting[T]:
        """Do the rest, once, and only after ``stall.answer`` came."""
        assert self.stall.answer is not None, "still stalled"
        return self._go_on()


#: DMA in steps, each without waiting: yields the stalls of which one must have ended before the next step, or
#: nothing to let others have a turn, and returns a ``T``. See tasks.Tasks, which runs them.
Steps: TypeAlias = Generator[Sequence[Awaited], None, T]


@dataclass(slots=True)
class Done:
    """What a port has done by itself."""

    transactions: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    stalls: int = 0
    aborts: int = 0


@declared
class Port(Sealed):
    """``sids``: the StreamIDs that this master may use, the first by default; ``smmu`` None: addresses are physical."""

    #: Its seam, and what is wired and found out later.
    OPEN = frozenset({"rewrite", "_rewrite", "on_reset", "atc", "_bell", "_take_back", "_asked", "_server", "_refused"})

    def __init__(
        self,
        name: str,
        memory: MemoryLike,
        smmu: Translator | None,
        sids: Sequence[int] = (),
        watch: Watch | None = None,
    ) -> None:
        if smmu is not None and not sids:
            raise ValueError(f"{name}: a master behind an SMMU needs a StreamID")
        self.name = name
        self.memory = memory
        self.smmu = smmu
        #: Held from translation to access: a CMD_SYNC must not complete between the two (IHI 0070 §4.7.3).
        self._hold: AbstractContextManager[Any] = nullcontext() if smmu is None else smmu.lock
        self.sids = tuple(sids)
        #: Where it tells what it does.
        self.watch = (Watch(name) if smmu is None else smmu.watch) if watch is None else watch
        self.watch.master(name, self.sids)
        #: Where the core expects this port's thread: any number will do, its own is the fastest.
        self._slot = 1 + self.sids[0] % 31 if self.sids else 0
        #: The ATC of those transactions that name a user of it; None: they cannot.
        self.atc: Atc | None = None
        self._rewrite: Callable[[Transaction], Transaction] | None = None
        #: Told of each reset of the master, under its lock: must not block.
        self.on_reset: Callable[[], None] = lambda: None
        self._bell: DiskBell | None = None
        #: Under the master's lock, the bell carries out no notification from then on.
        self._take_back: Callable[[], None] = lambda: None
        #: The stream of the last transaction, if it was terminated as one whose stream means nothing to the core.
        self._refused: tuple[int, int] | None = None
        #: What was last found out of an SMMU's requests: whether it serves disks, too.
        self._asked: Requests | None = None
        self._server: DiskServer | None = None
        self._done = Done()
        if smmu is not None:
            self.seal()
            if smmu.direct is not None:
                refuse_replaced(Port)

    @property
    def stalls(self) -> int:
        """Transactions that stalled, each time anew."""
        return self._done.stalls

    @property
    def aborts(self) -> int:
        """Transactions that aborted."""
        return self._done.aborts

    @property
    def rewrite(self) -> Callable[[Transaction], Transaction] | None:
        """The seam of a master (docs/faults.md): what each of its transactions becomes; whole requests are not made.

        It may be set while the master is at work: what the core has of it is taken back before. Set it under the
        master's lock, for no request to be half with it.
        """
        return self._rewrite

    @rewrite.setter
    def rewrite(self, rewrite: Callable[[Transaction], Transaction] | None) -> None:
        self._rewrite = rewrite  # first: while there is one, nothing is lent
        self._take_back()

    @property
    def transactions(self) -> int:
        """Transactions started."""
        return self._done.transactions + (0 if self._bell is None else self._bell.transactions)

    @property
    def bytes_read(self) -> int:
        """Bytes that reached the master."""
        return self._done.bytes_read + (0 if self._bell is None else self._bell.bytes_read)

    @property
    def bytes_written(self) -> int:
        """Bytes that reached memory."""
        return self._done.bytes_written + (0 if self._bell is None else self._bell.bytes_written)

    def read(
        self, iova: int, size: int, attributes: Attributes = PLAIN, found: bytes | Begun | None = None
    ) -> bytes | Abort | Waiting[bytes]:
        """``size`` bytes (at least one) at ``iova``; zeros where the SMMU terminates silently.

        ``found``: what a run has found of it.
        """
        done, parts = 0, []
        requests = None if found is not None else self._requests(attributes, iova + size)
        if requests is not None and (stream := self._stream(attributes)) != self._refused:
            found = requests.read(self._slot, *stream, iova, size, _access(attributes))
        if isinstance(found, bytes):
            self._done.transactions += 1
            self._done.bytes_read += size
            return found
        if found is not None:
            done = found.done
            self._done.bytes_read += done
            parts.append(found.data)
        with self._hold:
            answer = self._ask(iova + done, size - done, attributes, begun=found)
            if requests is not None:
                self._remember(stream, answer, found)
            return self._read(iova, size, done, parts, answer)

    def write(
        self, iova: int, data: bytes, attributes: Attributes = PLAIN, begun: Begun | None = None
    ) -> Abort | Waiting[None] | None:
        """Write ``data`` (at least a byte) at ``iova``; what leaves RAM is posted and may abort unseen, later.

        ``begun``: what a run has begun of it.
        """
        done, size = 0, len(data)
        requests = None if begun is not None else self._requests(attributes, iova + size)
        if requests is not None and (stream := self._stream(attributes)) != self._refused:
            begun = requests.write(self._slot, *stream, iova, data, _access(attributes))
            if begun is None:
                self._done.transactions += 1
                self._done.bytes_written += size
                return None
        if begun is not None:
            done = begun.done
            self._done.bytes_written += done
        with self._hold:
            answer = self._ask(iova + done, size - done, attributes, write=True, begun=begun)
            if requests is not None:
                self._remember(stream, answer, begun)
            return self._write(iova, data, done, self._late_abort, answer)

    def post(
        self, iova: int, data: bytes, on_abort: Callable[[], None], attributes: Attributes = PLAIN
    ) -> Waiting[None] | None:
        """A write whose master wants to hear of an abort even when it comes later, such as an MSI.

        ``on_abort`` is called at most once, now or later, and then from any thread.
        """

        def late() -> None:
            self._late_abort()
            on_abort()

        with self._hold:
            answer = self._ask(iova, len(data), attributes, write=True)
            written = self._write(iova, data, 0, late, answer)
        return _posted(written, on_abort)

    def hint(self, iova: int, size: int, attributes: Attributes = PLAIN, *, write: bool) -> None:
        """Say that ``size`` bytes at ``iova`` will soon be read or written; of many pages the first are named."""
        if self.smmu is not None:
            sid, ssid, privileged = self._sid(attributes), attributes.ssid, attributes.privileged
            npages = min((iova + size - 1 >> 12) - (iova >> 12) + 1, MOST_HINTED)
            execute = attributes.instruction and not write
            self.smmu.page_hint(PageHint(sid, iova & ~0xFFF, npages, ssid, not write, write, execute, privileged))

    # Runs of transfers, none of which crosses a multiple of ``burst`` bytes of its (source's) address, in one call of
    # the core; None without it. What ended a run is for ``read`` and ``write`` to go on with.

    def copy(
        self, source: int, target: int, size: int, burst: int, reads: Attributes = PLAIN, writes: Attributes = PLAIN
    ) -> Run | None:
        """Read each transfer at ``source`` and write it at ``target``, by one stream."""
        requests = self._requests(reads, source + size)
        if requests is None or self._requests(writes, target + size) is None:
            return None
        stream = self._stream(reads)
        assert stream == self._stream(writes)
        run = requests.run_copy(self._slot, *stream, source, target, size, _access(reads), _access(writes), burst)
        self._done.transactions += 2 * transactions(source, run.done, burst)
        self._done.bytes_read += run.done
        self._done.bytes_written += run.done
        return run

    def sum64(self, iova: int, size: int, burst: int, attributes: Attributes = PLAIN) -> Run | None:
        """Add up little-endian 64-bit words; address and size are multiples of 8."""
        if (requests := self._requests(attributes, iova + size)) is None:
            return None
        run = requests.run_sum64(self._slot, *self._stream(attributes), iova, size, _access(attributes), burst)
        self._done.transactions += transactions(iova, run.done, burst)
        self._done.bytes_read += run.done
        return run

    def fill(
        self, iova: int, size: int, data: Callable[[], bytes], burst: int, attributes: Attributes = PLAIN
    ) -> Run | None:
        """Write ``data``, which are ``size`` bytes and made only where they are used."""
        if (requests := self._requests(attributes, iova + size)) is None:
            return None
        run = requests.run_write(self._slot, *self._stream(attributes), iova, data(), _access(attributes), burst)
        self._done.transactions += transactions(iova, run.done, burst)
        self._done.bytes_written += run.done
        return run

    def serve(self, ring: Ring, disk: Disk, last_avail: int, used_idx: int, batch: Batch) -> Served | None:
        """Plain reads and writes of a disk out of a virtqueue; None: of what comes next nothing is done here."""
        if (server := self._disk_server()) is None:
            return None
        served = server.serve(self._slot, self.sids[0], ring, disk, last_avail, used_idx, batch)
        self._done.transactions += served.transactions
        self._done.bytes_read += served.bytes_read
        self._done.bytes_written += served.bytes_written
        return served

    def bell(
        self,
        lock: object,
        mirror: Mirror,
        registers: BellRegisters,
        post: Post,
        rings: int,
        batch: Batch,
        take_back: Callable[[], None],
    ) -> DiskBell | None:
        """What carries out notifications as ``serve`` does, in the thread that receives them; None: nothing can.

        ``lock`` and ``mirror``: the master's. ``take_back`` has the master take its rings back.
        """
        if (server := self._disk_server()) is not None:
            self._bell = server.disk_bell(lock, mirror, self._slot, registers, post, rings, batch)
            self._take_back = take_back
        return self._bell

    # -- inside ------------------------------------------------------------------------------------------------

    def _sid(self, attributes: Attributes) -> int:
        return self.sids[0] if attributes.sid is None else attributes.sid

    def _stream(self, attributes: Attributes) -> tuple[int, int]:
        """StreamID and SubstreamID as ``Requests`` takes them."""
        return self._sid(attributes), NO_SSID if attributes.ssid is None else attributes.ssid

    def _remember(self, stream: tuple[int, int], answer: Answer, begun: Begun | None) -> None:
        """Whether the core is to be asked about this stream next time: not where it knew nothing, and that is all."""
        if answer.outcome is Outcome.ABORT and (begun is None or not begun.counted):
            self._refused = stream
        elif self._refused is not None:
            self._refused = None

    def _prompt(self) -> Requests | None:
        """The SMMU's way to whole requests."""
        if self.watch.on:
            self.watch.relieve()
        return None if self.smmu is None or self._rewrite is not None else self.smmu.direct

    def _requests(self, attributes: Attributes, end: int) -> Requests | None:
        """The same for transactions with these attributes that end at ``end``."""
        return None if attributes.ats is not None or attributes.unsupported or end > _SPACE else self._prompt()

    def _disk_server(self) -> DiskServer | None:
        requests = self._prompt()
        if requests is not self._asked:  # which to find out takes longer than to serve
            self._asked, self._server = requests, requests if isinstance(requests, DiskServer) else None
        return self._server

    def _ask(
        self, iova: int, size: int, attributes: Attributes, *, write: bool = False, begun: Begun | None = None
    ) -> Answer:
        """What becomes of a transaction: the one place where a master's addresses are translated."""
        self._done.transactions += 1
        if iova + size > _SPACE:
            return Answer(Outcome.ABORT)
        if self.smmu is None:
            return Answer(pieces=[Piece(iova, size)])
        transaction = Transaction(
            self._sid(attributes), iova, size, write, attributes.ssid, attributes.privileged, attributes.instruction
        )
        if self._rewrite is not None:
            transaction = self._rewrite(transaction)
        if attributes.unsupported:
            return self.smmu.unsupported(transaction)
        if attributes.ats is None:
            return self.smmu.translate(transaction) if begun is None else self.smmu.translate(transaction, begun)
        assert self.atc is not None, "the port has no ATC"
        return self.atc.translate(transaction, attributes.ats)

    def _read(
        self, iova: int, size: int, done: int, parts: list[bytes], answer: Answer
    ) -> bytes | Abort | Waiting[bytes]:
        """Go on with a read of which ``parts`` are ``done`` bytes."""
        before = done
        for piece in answer.pieces:
            part = self.memory.read(piece.pa, piece.size)
            if part is None:
                self._done.bytes_read += done - before
                return self._aborted(iova, size, done, False, Why.EXTERNAL)
            parts.append(part)
            done += piece.size
        self._done.bytes_read += done - before
        if answer.outcome is Outcome.ABORT:
            return self._aborted(iova, size, done, False, _why(answer))
        if (stall := _stall(answer)) is not None:
            left = replace(stall.transaction, iova=iova + done, size=size - done)
            self._stalled(stall)

            def go_on() -> bytes | Abort | Waiting[bytes]:
                with self._hold:
                    return self._read(iova, size, done, parts, self._rest(stall, left))

            return Waiting(stall, go_on)
        if done < size:
            parts.append(bytes(size - done))
        if self.watch.on:
            self.watch.moved(self.name, iova, size, size, write=False)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _write(
        self, iova: int, data: bytes, done: int, late: Callable[[], None], answer: Answer
    ) -> Abort | Waiting[None] | None:
        """Go on with a write of which ``done`` bytes are done."""
        before, size = done, len(data)
        for piece in answer.pieces:
            part = data if piece.size == size else data[done : done + piece.size]
            if not self.memory.write(piece.pa, part) and not self._post(piece.pa, part, late):
                self._done.bytes_written += done - before
                return self._aborted(iova, size, done, True, Why.EXTERNAL)
            done += piece.size
        self._done.bytes_written += done - before
        if answer.outcome is Outcome.ABORT:
            return self._aborted(iova, size, done, True, _why(answer))
        if (stall := _stall(answer)) is not None:
            left = replace(stall.transaction, iova=iova + done, size=size - done)
            self._stalled(stall)

            def go_on() -> Abort | Waiting[None] | None:
                with self._hold:
                    return self._write(iova, data, done, late, self._rest(stall, left))

            return Waiting(stall, go_on)
        if self.watch.on:
            self.watch.moved(self.name, iova, size, size, write=True)
        return None

    def _rest(self, stall: Awaited, left: Transaction) -> Answer:
        """``stall.answer`` as it is now: what a retry found may be unmapped since, so it is found again."""
        assert self.smmu is not None
        if isinstance(stall, PageWait):
            assert self.atc is not None
            return self.atc.again(stall)
        assert stall.answer is not None
        return self.smmu.translate(left) if stall.answer.outcome is Outcome.OK else stall.answer

    def _stalled(self, stall: Awaited) -> None:
        if isinstance(stall, PageWait):
            return
        self._done.stalls += 1

    def _post(self, pa: int, data: bytes, late: Callable[[], None]) -> bool:
        """Whether it was not refused at once; ``late`` is called when it is later."""
        posted = refused = False

        def ended(aborted: bool) -> None:
            nonlocal refused
            if aborted and posted:
                late()
            refused = aborted

        self.memory.post(pa, data, ended)
        posted = True
        return not refused

    def _late_abort(self) -> None:
        self._done.aborts += 1

    def _aborted(self, iova: int, size: int, done: int, write: bool, why: Why) -> Abort:
        self._done.aborts += 1
        if self.watch.on:
            self.watch.moved(self.name, iova, size, done, why.value, write=write)
        return Abort(iova + done, done, why)


class Stray:
    """Accesses that a master makes beside its work, as it is wrong: through its SMMU, but by no gate and no seam."""

    def __init__(self, port: Port) -> None:
        self.port = Port(port.name, port.memory, port.smmu, port.sids, watch=port.watch)

    @property
    def moved(self) -> int:
        """Bytes of all of them that reached memory, or were read there."""
        return self.port.bytes_read + self.port.bytes_written

    def __call__(self, transaction: Transaction) -> str:
        """Make it, a write with bytes of 0x5a; what came of it. One that stalls is forgotten."""
        attributes = Attributes(transaction.sid, transaction.ssid, transaction.privileged, transaction.instruction)
        before = self.moved
        found: object
        if transaction.write:
            found = self.port.write(transaction.iova, b"\x5a" * transaction.size, attributes)
        else:
            found = self.port.read(transaction.iova, transaction.size, attributes)
        how = found.why.value if isinstance(found, Abort) else "stalled" if isinstance(found, Waiting) else "answered"
        return f"{how}, {self.moved - before} bytes moved"


def _access(attributes: Attributes) -> int:
    """As ``Requests`` takes it, of a read."""
    return attributes.privileged << 1 | attributes.instruction << 2


def _why(answer: Answer) -> Why:
    return _REFUSED[answer.refusal] if isinstance(answer, AtcAnswer) else Why.TERMINATED


def _stall(answer: Answer) -> Awaited | None:
    return answer.page if isinstance(answer, AtcAnswer) else answer.stall


def _posted(found: Abort | Waiting[None] | None, on_abort: Callable[[], None]) -> Waiting[None] | None:
    if isinstance(found, Waiting):
        waiting = found
        return Waiting(waiting.stall, lambda: _posted(waiting.go_on(), on_abort))
    if found is not None:
        on_abort()
    return None
