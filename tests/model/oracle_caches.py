# SPDX-License-Identifier: Apache-2.0
"""The oracle with caches that forget exactly what a command names (IHI 0070 §4.3 and §4.4), and nothing else.

Law: structures are kept singly, valid or not, and leaves that passed their access flag; a failed fetch or walk
leaves nothing. Where overlapping leaves are kept, any of them may answer: ``choice`` says which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.model.oracle import CR2, EL1, EL2, EL2_E2H, STRTAB_BASE_CFG, Access, Config, Leaf, Oracle, Ram, bits


@dataclass(frozen=True)
class Kept:
    """A leaf with its tags; ``asid`` None: global in its ASET, or of a regime without ASIDs."""

    world: str
    asid: int | None
    aset: int
    leaf: Leaf


class CachingOracle(Oracle):
    def __init__(self, ram: Ram, ids: dict[str, int]) -> None:
        super().__init__(ram, ids)
        self.structures: dict[tuple[object, ...], int] = {}
        self.leaves: list[Kept] = []
        self.choice = 0
        self.choices = 1

    # -- what is kept ------------------------------------------------------------------------------------------

    def kept(self, name: tuple[object, ...]) -> int | None:
        return self.structures.get(name)

    def structure(self, name: tuple[object, ...], at: int, size: int) -> int | None:
        if name not in self.structures:
            fetched = super().structure(name, at, size)
            if fetched is None:
                return None
            self.structures[name] = fetched
        return self.structures[name]

    def leaf(self, access: Access, config: Config, iova: int, va: int) -> Leaf:
        asid = bits(config.cd, 63, 48)
        # §3.17.1: global leaves are of one ASID set, where there are ASIDs.
        aset = bits(config.cd, 47, 47) if config.world != EL2 else 0
        hits = [
            kept.leaf
            for kept in self.leaves
            if kept.world == config.world
            and (kept.asid, kept.aset) in ((None, aset), (asid, 0))
            and kept.leaf.va >> kept.leaf.shift == va >> kept.leaf.shift
        ]
        if hits:
            self.choices = len(hits)
            return hits[self.choice % len(hits)]
        leaf = self.walk(access, config, iova, va)
        tag = asid if leaf.not_global and config.world != EL2 else None
        self.leaves.append(Kept(config.world, tag, aset if tag is None else 0, leaf))
        return leaf

    # -- what is forgotten -------------------------------------------------------------------------------------

    def command(self, command: int) -> int:
        error = super().command(command)
        if not error:
            opcode = bits(command, 7, 0)
            if opcode <= 0x06:
                self.forget_structures(opcode, command)
            elif opcode != 0x46:
                self.forget_leaves(opcode, command)
        return error

    def forget_structures(self, opcode: int, command: int) -> None:
        sid, ssid = bits(command, 63, 32), bits(command, 31, 12)
        leaf_only = bits(command, 64, 64)
        split = bits(self.register(STRTAB_BASE_CFG), 10, 6)
        if opcode in (0x03, 0x04):
            span = 0 if opcode == 0x03 else bits(command, 68, 64) + 1
            first = sid >> span << span
            sids = (first, first + (1 << span) - 1)
            if span == 32:
                sids = (0, 2**32 - 1)

            def named(name: tuple[object, ...]) -> bool:
                number = name[1]
                assert isinstance(number, int)
                if name[0] == "L1STD":
                    return not (opcode == 0x03 and leaf_only) and sids[0] >> split <= number <= sids[1] >> split
                return sids[0] <= number <= sids[1]

        elif opcode == 0x05:
            ste = self.structures.get(("STE", sid), 0)
            leaf_bits = 6 if bits(ste, 5, 4) == 1 else 10

            def named(name: tuple[object, ...]) -> bool:
                return name == ("CD", sid, ssid) or (not leaf_only and name == ("L1CD", sid, ssid >> leaf_bits))

        elif opcode == 0x06:

            def named(name: tuple[object, ...]) -> bool:
                return name[0] in ("CD", "L1CD") and name[1] == sid

        else:
            return  # a prefetch
        self.structures = {name: value for name, value in self.structures.items() if not named(name)}

    def forget_leaves(self, opcode: int, command: int) -> None:
        asid = bits(command, 63, 48)
        e2h = EL2_E2H if bits(self.register(CR2), 0, 0) else EL2

        def at(kept: Kept) -> bool:
            return self.covers(command, kept.leaf)

        named: dict[int, Callable[[Kept], bool]] = {
            0x10: lambda kept: kept.world == EL1,
            0x11: lambda kept: kept.world == EL1 and kept.asid == asid,
            0x12: lambda kept: kept.world == EL1 and kept.asid in (None, asid) and at(kept),
            0x13: lambda kept: kept.world == EL1 and at(kept),
            0x20: lambda kept: kept.world in (EL2, EL2_E2H),
            0x21: lambda kept: kept.world == EL2_E2H and kept.asid == asid,
            0x22: lambda kept: kept.world == e2h and kept.asid in (None, asid) and at(kept),
            0x23: lambda kept: kept.world == e2h and at(kept),
            0x30: lambda kept: kept.world == EL1,
        }
        self.leaves = [kept for kept in self.leaves if not named[opcode](kept)]

    def covers(self, command: int, leaf: Leaf) -> bool:
        """Whether a leaf is of the addresses, the granule and the level that a command names (§4.4.1.1)."""
        address = bits(command, 127, 76) << 12
        end = address + 1
        if bits(self.idr3, 10, 10) and bits(command, 75, 74):
            granule = (0, 12, 14, 16)[bits(command, 75, 74)]
            level = bits(command, 73, 72)
            if granule == 14 and level == 1:
                level = 0
            if leaf.granule != granule or level not in (0, leaf.level):
                return False
            end = address + ((bits(command, 16, 12) + 1 << bits(command, 24, 20)) << granule)
        return leaf.va < end and address < leaf.va + (1 << leaf.shift)
