# SPDX-License-Identifier: Apache-2.0
"""The command, event and PRI queues of an SMMUv3 against lists (IHI 0070 §3.5, §3.18, §7.1 to §7.5, §8.1, §8.2).

Law: the model keeps entries in lists and errors in a set; whatever has a position is checked in memory, at the
address that §3.5.1 gives. VI_EXAMPLES multiplies the number of examples.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from random import Random

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.model.examples import SCALE, TIMEOUT, examples
from vhost_iommu.layout import Register
from vhost_iommu.memory import Ended
from vhost_iommu.smmu.ats import AtsInvalidation, PageRequest, PageResponse, PrgResponse
from vhost_iommu.smmu.transaction import Outcome, Stall, Transaction
from vhost_iommu.smmu.v3 import Features, Smmu
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3 import registers as r
from vhost_iommu.smmu.v3.events import C_BAD_STREAMID, F_TRANSLATION, PRIEntry
from vhost_iommu.smmu.v3.structures import CD, STE, STE_CONFIG

pytestmark = TIMEOUT

#: Queues lie apart by more than the largest takes.
COMMANDS, EVENTS, REQUESTS = 1 << 32, 2 << 32, 3 << 32
STREAMS, CONTEXT = 4 << 32, 5 << 32
#: Where MSIs go: written, aborted at once, aborted later.
GOOD, BAD, LATE = 6 << 32, (6 << 32) + 0x40, (6 << 32) + 0x80
DOORBELLS = (0, GOOD, BAD, LATE)
#: The one stream that there is; its faults stall. Others are refused, and their number is in the record.
STALLING = 0
STALL_MAX = 2
ENDPOINT = 7
NO_OPCODE = 0xFF

SIZES = st.sampled_from([0, 0, 1, 1, 2, 3, 4, 7, 19])


class Words:
    """A memory of 2^64 bytes, zero where nothing was written; entries in ``bad`` abort."""

    def __init__(self) -> None:
        self.words: dict[int, int] = {}
        self.bad: set[int] = set()
        #: MSIs that were written: (address, data); and what is told how those at LATE ended.
        self.posted: list[tuple[int, int]] = []
        self.held: list[Ended] = []

    def read(self, pa: int, size: int) -> bytes | None:
        if pa in self.bad:
            return None
        return b"".join(self.words.get(at, 0).to_bytes(8, "little") for at in range(pa, pa + size, 8))

    def write(self, pa: int, data: bytes) -> bool:
        if pa in self.bad:
            return False
        for at in range(0, len(data), 8):
            self.words[pa + at] = int.from_bytes(data[at : at + 8], "little")
        return True

    def compare_and_swap_u64(self, pa: int, expected: int, new: int) -> bool | None:
        raise AssertionError("nothing here updates a descriptor")

    def post(self, pa: int, data: bytes, ended: Ended) -> None:
        self.posted.append((pa, int.from_bytes(data, "little")))
        if pa == LATE:
            self.held.append(ended)
        else:
            ended(pa == BAD)


@dataclass
class Queue:
    """What is between its two ends, oldest first."""

    entry_size: int
    most: int
    base_register: type[Register]
    own: type[Register]  #: the SMMU's index
    theirs: type[Register]  #: software's
    own_field: str
    theirs_field: str
    bits: int = 0
    base: int = 0
    first: int = 0  #: index of the oldest entry
    entries: list[int] = field(default_factory=list)
    overflow: int = 0
    acknowledged: int = 0

    @property
    def period(self) -> int:
        return 2 << self.bits

    @property
    def end(self) -> int:
        return (self.first + len(self.entries)) % self.period

    @property
    def full(self) -> bool:
        return len(self.entries) == 1 << self.bits

    def address(self, number: int) -> int:
        """Of the ``number``-th entry from the oldest on."""
        size = self.entry_size << self.bits
        align = max(size, 32)
        return self.base // align * align + (self.first + number) % (1 << self.bits) * self.entry_size

    def take(self, count: int) -> None:
        del self.entries[:count]
        self.first = (self.first + count) % self.period


class Endpoint:
    """Remembers what it was answered."""

    def __init__(self) -> None:
        self.responses: list[PageResponse] = []

    def invalidate(self, invalidation: AtsInvalidation) -> None:
        raise AssertionError("nobody asks for it")

    def page_response(self, response: PageResponse) -> None:
        self.responses.append(response)


class World:
    """An SMMU with all three queues, and beside it lists."""

    def __init__(self, seed: int, caps: tuple[int, int, int]) -> None:
        self.random = Random(seed)
        self.memory = Words()
        self.wires: list[str] = []
        commands, events, requests = caps
        features = Features(
            stall_model="both",
            stall_max=STALL_MAX,
            ats="full",
            pri=True,
            pri_pasid=True,
            stream_id_bits=32,
            substream_id_bits=8,
            command_queue_bits=commands,
            event_queue_bits=events,
            page_request_queue_bits=requests,
        )
        self.smmu = Smmu(self.memory, features, interrupt=self.wires.append)
        self.endpoint = self.smmu.endpoints[ENDPOINT] = Endpoint()
        self.memory.write(STREAMS, STE.of(V=1, Config=STE_CONFIG.S1, S1ContextPtr=CONTEXT).to_bytes())
        self.memory.write(CONTEXT, CD.of(V=1, AA64=1, A=1, R=1, S=1, T0SZ=25, EPD1=1, IPS=5, ASID=1).to_bytes())
        self.write(r.STRTAB_BASE, STREAMS)
        self.write(r.CR2, r.CR2.of(RECINVSID=1).raw)

        self.commands = Queue(16, commands, r.CMDQ_BASE, r.CMDQ_CONS, r.CMDQ_PROD, "RD", "WR")
        self.events = Queue(32, events, r.EVENTQ_BASE, r.EVENTQ_PROD, r.EVENTQ_CONS, "WR", "RD")
        self.requests = Queue(16, requests, r.PRIQ_BASE, r.PRIQ_PROD, r.PRIQ_CONS, "WR", "RD")
        self.enables = r.CR0(0)
        #: As stored, and as in effect: what is disabled is in effect until its MSIs have been answered (§3.18.1).
        self.irqs_stored = self.irqs = r.IRQ_CTRL(0)
        self.last_only = False
        self.doorbells = {"gerror": 0, "eventq": 0, "priq": 0}
        self.active: set[str] = set()
        self.cerror = r.CommandError.CERROR_NONE
        #: STAG → serial number of a stall that software was told of; those that it was not, in order.
        self.told: dict[int, int] = {}
        self.untold: list[int] = []
        self.stalls: dict[int, Stall] = {}
        self.ended: set[int] = set()
        self.held: list[tuple[str, str]] = []  # source and error of each MSI in Words.held
        self.responses: list[PageResponse] = []
        self.wired: Counter[str] = Counter()
        self.msis: dict[int, list[int]] = defaultdict(list)
        self.serial = 0
        self.seen: Counter[str] = Counter()

    def write(self, register: type[Register], value: int) -> None:
        self.smmu.write(register.at, register.size, value)

    def enabled(self, queue: Queue) -> int:
        name = {id(self.commands): "CMDQEN", id(self.events): "EVENTQEN", id(self.requests): "PRIQEN"}[id(queue)]
        return int(getattr(self.enables, name))

    # -- errors and interrupts (§7.5, §3.18) -----------------------------------------------------------------

    def error(self, name: str) -> None:
        """An error that is active already is not logged again; each but a GERROR MSI's abort interrupts."""
        self.seen[name] += 1
        if name in self.active:
            return
        self.active.add(name)
        if name != "MSI_GERROR_ABT_ERR" and self.irqs.GERROR_IRQEN:
            self.interrupt("gerror", "MSI_GERROR_ABT_ERR")

    def interrupt(self, source: str, abort: str) -> None:
        self.wired[source] += 1
        self.msi(source, self.doorbells[source], DATA[source], abort)

    def msi(self, source: str, address: int, data: int, abort: str) -> None:
        if address:
            self.msis[address].append(data)
        if address == BAD:
            self.error(abort)
        if address == LATE:
            self.held.append((source, abort))

    def waits(self, source: str) -> bool:
        return any(each == source for each, _ in self.held)

    def answer_late(self, aborted: bool) -> None:
        """The answer to an MSI comes, and what waited for it goes on."""
        if not self.held:
            return
        self.memory.held.pop(0)(aborted)
        source, abort = self.held.pop(0)
        if aborted:
            self.error(abort)
        if not self.waits(source):
            self.seen[f"no {source} MSI under way"] += 1
            self.irqs_in_effect()
            self.run()

    def acknowledge(self, names: set[str]) -> None:
        """Toggle GERRORN of active errors; what they held up goes on."""
        names &= self.active
        gerrorn = self.smmu.read(r.GERRORN.at, 4)
        self.active -= names
        self.write(r.GERRORN, gerrorn ^ sum(getattr(r.GERROR, name).mask for name in names))
        if "CMDQ_ERR" in names:
            self.run()
        if "EVENTQ_ABT_ERR" in names:
            self.tell()

    # -- software sets up ------------------------------------------------------------------------------------

    def write_cr0(self, value: int) -> None:
        old, self.enables = self.enables, r.CR0(value)
        before = len(self.stalls)
        self.write(r.CR0, value)
        assert len(self.stalls) == before
        if old.SMMUEN and not self.enables.SMMUEN:
            self.end({*self.told.values(), *self.untold})
        if self.enables.EVENTQEN and not old.EVENTQEN:
            self.tell()
        if self.enables.CMDQEN and not old.CMDQEN:
            self.run()

    def write_irq_ctrl(self, value: int) -> None:
        self.irqs_stored = r.IRQ_CTRL(value)
        self.write(r.IRQ_CTRL, value)
        self.irqs_in_effect()

    def irqs_in_effect(self) -> None:
        old, new = self.irqs.values(), self.irqs_stored.values()
        for source in DATA:
            name = f"{source.upper()}_IRQEN"
            if old[name] and not new[name] and self.waits(source):
                self.seen[f"{name} waits"] += 1
                new[name] = 1
        self.irqs = r.IRQ_CTRL.of(**new)

    def write_doorbell(self, source: str, address: int) -> None:
        """Guarded by its IRQEN (§6.3.21, §6.3.30, §6.3.34)."""
        enable, cfg0, cfg1 = {
            "gerror": ("GERROR_IRQEN", r.GERROR_IRQ_CFG0, r.GERROR_IRQ_CFG1),
            "eventq": ("EVENTQ_IRQEN", r.EVENTQ_IRQ_CFG0, r.EVENTQ_IRQ_CFG1),
            "priq": ("PRIQ_IRQEN", r.PRIQ_IRQ_CFG0, r.PRIQ_IRQ_CFG1),
        }[source]
        self.write(cfg0, address)
        self.write(cfg1, DATA[source])
        if not getattr(self.irqs, enable):
            self.doorbells[source] = address

    def write_last_only(self, last_only: bool) -> None:
        self.write(r.PRIQ_IRQ_CFG2, r.PRIQ_IRQ_CFG2.of(LO=last_only).raw)
        if not self.irqs.PRIQ_IRQEN:
            self.last_only = last_only

    def set_up(self, queue: Queue, log2size: int, held: int, start: int) -> None:
        """Base, size and indices as §6.3.26 wants: empty, filled or between. Without effect while enabled.

        Bits above a size are ignored, and so are those of the address that its alignment needs.
        """
        random = self.random
        bits = min(log2size, queue.most)
        near = {id(self.commands): COMMANDS, id(self.events): EVENTS, id(self.requests): REQUESTS}[id(queue)]
        base = near + random.getrandbits(26) & ~0x1F
        self.write(queue.base_register, base | log2size)
        if self.enabled(queue):
            self.write(queue.own, random.getrandbits(32))
            return
        # Before software writes it again, the index is what is left of the old one.
        assert getattr(self.read(queue.own), queue.own_field) < 2 << bits
        queue.bits, queue.base = bits, base
        queue.first = start % queue.period
        queue.entries = [-1] * min(held, 1 << bits)
        queue.overflow = queue.acknowledged = random.getrandbits(1)
        own, theirs = queue.end, queue.first
        if queue is self.commands:
            queue.overflow = queue.acknowledged = 0
            queue.entries = []
            own = theirs = queue.first
        above = random.getrandbits(20) >> bits + 1 << bits + 1
        self.write(queue.own, own | above | queue.overflow << 31)
        self.write_theirs(queue, theirs)
        if queue is self.commands:
            self.submit([self.some_command() for _ in range(min(held, 1 << bits))])

    def read(self, register: type[Register]) -> Register:
        return register(self.smmu.read(register.at, register.size))

    def write_theirs(self, queue: Queue, index: int) -> None:
        """Software's index; bits above the wrap flag "might be stored but have no other effect"."""
        above = self.random.getrandbits(20) >> queue.bits + 1 << queue.bits + 1
        self.write(queue.theirs, index | above | queue.acknowledged << 31)
        if queue is self.events:
            self.tell()

    # -- commands (§4, §7.1) ---------------------------------------------------------------------------------

    def some_command(self) -> int:
        random = self.random
        kind = random.choice(["tlbi", "tlbi", "sync", "irq", "irq", "ill", "cs3", "resume", "term"])
        if kind == "sync":
            return c.CMD_SYNC.of(CS=random.choice([0, 2])).raw
        if kind == "irq":
            self.serial += 1
            return c.CMD_SYNC.of(CS=1, MSIAddress=random.choice(DOORBELLS), MSIData=self.serial).raw
        if kind == "ill":
            return NO_OPCODE
        if kind == "cs3":
            return c.CMD_SYNC.of(CS=3).raw
        if kind == "resume":
            stag = random.choice([*self.told, 0xFFFF])
            return c.CMD_RESUME.of(SID=STALLING, STAG=stag, Ac=random.getrandbits(1), Ab=random.getrandbits(1)).raw
        if kind == "term":
            return c.CMD_STALL_TERM.of(SID=random.choice([STALLING, 1])).raw
        return c.CMD_TLBI_NSNH_ALL.of().raw

    def submit(self, commands: list[int]) -> None:
        queue = self.commands
        for command in commands:
            if not queue.full:
                self.memory.write(queue.address(len(queue.entries)), command.to_bytes(16, "little"))
                # In memory that aborts nothing is stored; it is mended with another command.
                queue.entries.append(command)
        self.write_theirs(queue, queue.end)
        self.run()

    def take_back(self, count: int) -> None:
        """While an error is active PROD may be moved backwards, as far as CONS (§7.1)."""
        queue = self.commands
        if "CMDQ_ERR" in self.active and count:
            del queue.entries[-count:]
            self.write_theirs(queue, queue.end)

    def replace_first(self) -> None:
        """While an error is active commands may be changed; they are fetched again."""
        queue = self.commands
        if "CMDQ_ERR" in self.active and queue.entries:
            self.memory.bad.discard(queue.address(0))
            queue.entries[0] = self.some_command()
            self.memory.write(queue.address(0), queue.entries[0].to_bytes(16, "little"))

    def run(self) -> None:
        """Consume commands up to an error; CONS stays at the one that is at fault."""
        queue = self.commands
        while self.enables.CMDQEN and "CMDQ_ERR" not in self.active and queue.entries:
            command = c.decode(queue.entries[0].to_bytes(16, "little"))
            if queue.address(0) in self.memory.bad:
                self.cerror = r.CommandError.CERROR_ABT
            elif isinstance(command, c.CMD_SYNC) and self.waits("cmdq-sync"):
                self.seen["CMD_SYNC waits"] += 1
                return
            elif queue.entries[0] == NO_OPCODE or (isinstance(command, c.CMD_SYNC) and command.CS == 3):
                self.cerror = r.CommandError.CERROR_ILL
            else:
                if isinstance(command, c.CMD_RESUME):
                    self.resume(command)
                if isinstance(command, c.CMD_STALL_TERM):
                    if command.SID == STALLING:
                        self.end({*self.told.values(), *self.untold})
                    self.tell()
                queue.take(1)
                if isinstance(command, c.CMD_SYNC) and command.CS == 1:
                    self.wired["cmdq-sync"] += 1
                    self.msi("cmdq-sync", command.MSIAddress, command.MSIData, "MSI_CMDQ_ABT_ERR")
                continue
            self.seen[self.cerror.name] += 1
            self.error("CMDQ_ERR")

    # -- events and stalls (§7.2, §7.4, §3.12.2) -------------------------------------------------------------

    @property
    def writable(self) -> bool:
        return bool(self.enables.EVENTQEN) and not self.events.full and "EVENTQ_ABT_ERR" not in self.active

    def record(self, what: int) -> None:
        """A record that can be lost; a queue that is full then overflows, unless it has done so before."""
        queue = self.events
        if not self.writable:
            if self.enables.EVENTQEN and queue.full and "EVENTQ_ABT_ERR" not in self.active:
                self.seen["event overflow"] += 1
                queue.overflow = 1 - queue.acknowledged
            return
        if queue.address(len(queue.entries)) in self.memory.bad:
            self.error("EVENTQ_ABT_ERR")
            return
        queue.entries.append(what)
        if len(queue.entries) == 1 and self.irqs.EVENTQ_IRQEN:
            self.interrupt("eventq", "MSI_EVENTQ_ABT_ERR")

    def transaction(self, stalls: bool) -> None:
        self.serial += 1
        number = self.serial
        iova = number << 12
        answer = self.smmu.translate(Transaction(STALLING if stalls else number, iova))
        if not self.enables.SMMUEN:
            assert answer.outcome is Outcome.OK
        elif stalls:
            assert answer.outcome is Outcome.STALLED
            assert answer.stall is not None
            self.stalls[number] = answer.stall
            self.untold.append(number)
            if len(self.untold) == 1:
                self.tell()
        else:
            assert answer.outcome is Outcome.ABORT
            self.record(C_BAD_STREAMID.of(SID=number).raw)

    def tell(self) -> None:
        """Stalls that wait for room are recorded in turn; none is ever lost, unless its record's write aborts."""
        for number in list(self.untold):
            if not self.writable or len(self.told) >= STALL_MAX:
                return
            self.untold.remove(number)
            self.seen["stall told"] += 1
            # Which STAG is the SMMU's choice, among those that are free; without a record it is nobody's.
            data = self.memory.read(self.events.address(len(self.events.entries)), F_TRANSLATION.size)
            stag = -1 - number if data is None else F_TRANSLATION.from_bytes(data).STAG
            if data is None and (known := self.stalls[number].stag) is not None:
                stag = known
            assert stag not in self.told
            self.told[stag] = number
            record = F_TRANSLATION.of(SID=STALLING, STAG=max(stag, 0), STALL=1, RnW=1, CLASS=2, InputAddr=number << 12)
            self.record(record.raw)

    def resume(self, command: c.CMD_RESUME) -> None:
        if command.SID != STALLING or command.STAG not in self.told:
            return
        number = self.told.pop(command.STAG)
        if command.Ac:
            # It faults again, as though it had just come, and before those that wait.
            self.untold.insert(0, number)
            if not self.writable:
                self.untold.append(self.untold.pop(0))
        else:
            self.finish(number)
        self.tell()

    def end(self, numbers: set[int]) -> None:
        self.told.clear()
        self.untold.clear()
        for number in numbers:
            self.finish(number)

    def finish(self, number: int) -> None:
        self.ended.add(number)

    # -- page requests (§8.1, §8.2) --------------------------------------------------------------------------

    def page_request(self, request: PageRequest) -> None:
        self.smmu.page_request(request)
        queue = self.requests
        enabled = self.enables.PRIQEN and self.enables.SMMUEN
        if not enabled or "PRIQ_ABT_ERR" in self.active:
            self.respond(request, PrgResponse.FAILURE, None)
            return
        overflowed = queue.overflow != queue.acknowledged
        if overflowed or queue.full:
            self.seen["request overflow"] += 1
            queue.overflow = 1 - queue.acknowledged
            if request.last:
                self.respond(request, PrgResponse.SUCCESS, request.ssid)
        elif queue.address(len(queue.entries)) in self.memory.bad:
            self.error("PRIQ_ABT_ERR")
            self.respond(request, PrgResponse.FAILURE, None)
            return
        else:
            queue.entries.append(
                PRIEntry.of(
                    SID=request.sid,
                    SSID=request.ssid or 0,
                    SSV=request.ssid is not None,
                    R=request.read,
                    W=request.write,
                    Last=request.last,
                    PRGIndex=request.prgi,
                    Address=request.address,
                ).raw
            )
            if not self.last_only and len(queue.entries) == 1 and self.irqs.PRIQ_IRQEN:
                self.interrupt("priq", "MSI_PRIQ_ABT_ERR")
        if self.last_only and request.last and self.irqs.PRIQ_IRQEN:
            self.interrupt("priq", "MSI_PRIQ_ABT_ERR")

    def respond(self, request: PageRequest, code: PrgResponse, ssid: int | None) -> None:
        if not request.stop_marker:
            self.responses.append(PageResponse(request.sid, request.prgi, code, ssid))

    # -- software consumes -----------------------------------------------------------------------------------

    def consume(self, queue: Queue, count: int, acknowledge: bool) -> None:
        queue.take(min(count, len(queue.entries)))
        if acknowledge:
            queue.acknowledged = queue.overflow
        self.write_theirs(queue, queue.first)

    def toggle_bad(self, queue: Queue, number: int) -> None:
        """The memory of an entry that is not in use begins or ceases to abort."""
        free = (1 << queue.bits) - len(queue.entries)
        if free:
            self.memory.bad ^= {queue.address(len(queue.entries) + number % free)}

    # -- the comparison --------------------------------------------------------------------------------------

    def check(self) -> None:
        errors = self.smmu.read(r.GERROR.at, 4) ^ self.smmu.read(r.GERRORN.at, 4)
        assert {each.name for each in r.GERROR.fields if errors & each.mask} == self.active
        cons = r.CMDQ_CONS(self.smmu.read(r.CMDQ_CONS.at, 4))
        assert self.commands.first == cons.RD
        assert "CMDQ_ERR" not in self.active or self.cerror == cons.ERR
        for queue in (self.events, self.requests):
            prod = r.EVENTQ_PROD(self.smmu.read(queue.own.at, 4))
            assert (queue.end, queue.overflow) == (prod.WR, prod.OVFLG), queue
            for number, entry in enumerate(queue.entries):
                if entry >= 0:
                    data = self.memory.read(queue.address(number), queue.entry_size)
                    assert data == entry.to_bytes(queue.entry_size, "little"), (queue, number)
        assert Counter(self.wires) == self.wired
        posted: dict[int, list[int]] = defaultdict(list)
        for address, word in self.memory.posted:
            posted[address].append(word)
        assert posted == self.msis
        assert (self.read(r.IRQ_CTRL), self.read(r.IRQ_CTRLACK)) == (self.irqs_stored, r.IRQ_CTRLACK(self.irqs.raw))
        assert self.endpoint.responses == self.responses
        for number, stall in self.stalls.items():
            assert (stall.answer is not None) == (number in self.ended), number


#: What the MSI of each source says.
DATA = {"gerror": 0x6E7707, "eventq": 0xE7E217, "priq": 0x9819}


class Queues(RuleBasedStateMachine):
    world: World

    @initialize(seed=st.integers(0, 2**32 - 1), caps=st.tuples(SIZES, SIZES, SIZES), log2size=st.integers(0, 4))
    def start(self, seed: int, caps: tuple[int, int, int], log2size: int) -> None:
        self.world = world = World(seed, caps)
        for queue in (world.commands, world.events, world.requests):
            world.set_up(queue, log2size, 0, seed)
        world.write_irq_ctrl(7)
        world.write_cr0(0xF)
        world.check()

    def queue(self, number: int) -> Queue:
        return (self.world.commands, self.world.events, self.world.requests)[number]

    @rule(number=st.integers(0, 2), log2size=st.sampled_from([0, 1, 2, 3, 19, 31]), held=st.integers(0, 9),
          start=st.sampled_from([0, 1, 2, 3, (1 << 19) - 1, (1 << 20) - 1]), off=st.booleans())  # fmt: skip
    def set_up(self, number: int, log2size: int, held: int, start: int, off: bool) -> None:
        world = self.world
        before = world.enables.raw
        if off:
            world.write_cr0(before & ~(r.CR0.CMDQEN.mask, r.CR0.EVENTQEN.mask, r.CR0.PRIQEN.mask)[number])
        world.set_up(self.queue(number), log2size, held, start)
        if off:
            world.write_cr0(before)
        world.check()

    @rule(value=st.integers(0, 15))
    def enable(self, value: int) -> None:
        self.world.write_cr0(value)
        self.world.check()
        self.world.write_cr0(15)
        self.world.check()

    @rule(value=st.integers(0, 15))
    def enable_some(self, value: int) -> None:
        self.world.write_cr0(value)
        self.world.check()

    @rule(value=st.integers(0, 7))
    def enable_interrupts(self, value: int) -> None:
        self.world.write_irq_ctrl(value)

    @rule(source=st.sampled_from(sorted(DATA)), address=st.sampled_from(DOORBELLS), off=st.booleans())
    def doorbell(self, source: str, address: int, off: bool) -> None:
        before = self.world.irqs.raw
        if off:
            self.world.write_irq_ctrl(0)
        self.world.write_doorbell(source, address)
        if off:
            self.world.write_irq_ctrl(before)

    @rule(last_only=st.booleans(), off=st.booleans())
    def last_only(self, last_only: bool, off: bool) -> None:
        before = self.world.irqs.raw
        if off:
            self.world.write_irq_ctrl(0)
        self.world.write_last_only(last_only)
        if off:
            self.world.write_irq_ctrl(before)

    @rule(count=st.integers(1, 9))
    def submit(self, count: int) -> None:
        self.world.submit([self.world.some_command() for _ in range(count)])
        self.world.check()

    @rule(count=st.integers(0, 4))
    def take_back(self, count: int) -> None:
        self.world.take_back(count)
        self.world.check()

    @rule()
    def replace_first(self) -> None:
        self.world.replace_first()
        self.world.acknowledge({"CMDQ_ERR"})
        self.world.check()

    @rule(names=st.sets(st.sampled_from([each.name for each in r.GERROR.fields])))
    def acknowledge(self, names: set[str]) -> None:
        self.world.acknowledge(names)
        self.world.check()

    @rule()
    def acknowledge_all(self) -> None:
        self.world.acknowledge(set(self.world.active))
        self.world.check()

    @rule(aborted=st.booleans())
    def answer_late(self, aborted: bool) -> None:
        self.world.answer_late(aborted)
        self.world.check()

    @rule(count=st.integers(1, 6), stalls=st.booleans())
    def transactions(self, count: int, stalls: bool) -> None:
        for _ in range(count):
            self.world.transaction(stalls)
            self.world.check()

    @rule(ssid=st.sampled_from([None, 3]), last=st.booleans(), read=st.booleans(), count=st.integers(1, 6))
    def page_requests(self, ssid: int | None, last: bool, read: bool, count: int) -> None:
        for _ in range(count):
            self.world.serial += 1
            address, prgi = self.world.serial << 12, self.world.serial & 0x1FF
            self.world.page_request(PageRequest(ENDPOINT, address, prgi, ssid, read=read, last=last))
            self.world.check()

    @rule(number=st.integers(1, 2), count=st.integers(0, 9), acknowledge=st.booleans())
    def consume(self, number: int, count: int, acknowledge: bool) -> None:
        self.world.consume(self.queue(number), count, acknowledge)
        self.world.check()

    @rule(number=st.integers(0, 2), entry=st.integers(0, 3))
    def toggle_bad(self, number: int, entry: int) -> None:
        self.world.toggle_bad(self.queue(number), entry)


def test_queues_are_lists() -> None:
    run_state_machine_as_test(
        Queues,
        settings=examples(300, steps=40),
    )


def walk_about(seed: int, steps: int) -> Counter[str]:
    """Many steps of one machine, without hypothesis: deeper, and quicker."""
    random = Random(seed)
    sizes = [0, 1, 2, 3, 19]
    world = World(seed, (random.choice(sizes), random.choice(sizes), random.choice(sizes)))
    queues = (world.commands, world.events, world.requests)
    for queue in queues:
        world.set_up(queue, random.randrange(4), 0, seed)
    world.write_irq_ctrl(7)
    world.write_cr0(15)
    for source in DATA:
        world.write_doorbell(source, 0)
    for _ in range(steps):
        queue = random.choice(queues)
        match random.randrange(14):
            case 0:
                world.write_cr0(random.choice([0, 1, 14, random.getrandbits(4)]))
                world.set_up(queue, random.choice([0, 1, 2, 3, 31]), random.randrange(9), random.getrandbits(20))
            case 1:
                world.write_irq_ctrl(0)
                world.write_doorbell(random.choice(sorted(DATA)), random.choice(DOORBELLS))
                world.write_last_only(random.random() < 0.5)
                world.write_irq_ctrl(random.choice([7, 7, random.getrandbits(3)]))
            case 2 | 3:
                world.submit([world.some_command() for _ in range(random.randrange(1, 5))])
            case 4:
                world.take_back(random.randrange(3))
                world.replace_first()
            case 5 | 6:
                world.acknowledge(set(world.active))
            case 7:
                world.answer_late(random.random() < 0.7)
            case 8 | 9:
                world.transaction(random.random() < 0.3)
            case 10:
                world.serial += 1
                ssid = random.choice([None, 3])
                read, last = random.random() < 0.5, random.random() < 0.5
                request = PageRequest(ENDPOINT, world.serial << 12, world.serial & 511, ssid, read=read, last=last)
                world.page_request(request)
            case 11 | 12:
                world.consume(random.choice(queues[1:]), random.randrange(5), random.random() < 0.7)
            case _:
                world.toggle_bad(queue, random.randrange(3))
                world.write_cr0(15)
        world.check()
    return world.seen


def test_long_walks_meet_every_error_and_overflow() -> None:
    seen: Counter[str] = Counter()
    for seed in range(int(300 * SCALE) or 1):
        seen += walk_about(seed, 200)
    errors = [each.name for each in r.GERROR.fields if each.name not in ("SFM_ERR", "CMDQP_ERR", "DPT_ERR")]
    wanted = [*errors, "CERROR_ILL", "CERROR_ABT", "event overflow", "request overflow", "stall told"]
    wanted += ["CMD_SYNC waits", "GERROR_IRQEN waits", "EVENTQ_IRQEN waits", "PRIQ_IRQEN waits"]
    assert all(seen[name] > 20 for name in wanted), dict(seen)
