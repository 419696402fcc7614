# SPDX-License-Identifier: Apache-2.0
"""The trace as a viewer of timelines shows it: slices, flows, counters, the guest."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.chrome_trace import Event, check, nanoseconds, slices
from vhost_iommu.cli.common import tracing
from vhost_iommu.errors import UsageError
from vhost_iommu.smmu.v2.records import GlobalFault
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3 import events as e
from vhost_iommu.smmu.v3.structures import STE
from vhost_iommu.trace import Chrome, Trace, load_chrome
from vhost_iommu.trace.text import Text
from vhost_iommu.watch import (
    Accessed,
    Commanded,
    Dropped,
    Fetched,
    Filled,
    Found,
    Gap,
    Interrupted,
    Kind,
    Moved,
    Noted,
    Reported,
    Served,
    Snapshot,
    Stalled,
    Translated,
    Used,
    Value,
    Watch,
    kind_of,
)

SID, OTHER = 0x100, 0x200
IOVA = 0xFFFF_FFFF_E000
INVALIDATION = c.CMD_TLBI_NH_VA.of(ASID=1, Address=IOVA)
SYNC = c.CMD_SYNC.of()


def chrome(began: int = 0, only: Iterable[str] | None = None) -> Chrome:
    made = Chrome(began)
    made.only = None if only is None else frozenset(only)
    watch = Watch("smmu0")
    watch.master("disk0", [SID])
    watch.master("engine0", [OTHER])
    made.joined(watch)
    return made


def told(values: Iterable[Value], form: Chrome | None = None) -> list[Event]:
    """Events that come of these values; a viewer takes them."""
    form = form or chrome()
    parts = [form.begin(), *(part for value in values for part in form.tell(value)), *form.rest(), form.end()]
    events: list[Event] = json.loads(b"".join(parts))
    check(events)
    for flow in flows(events).values():
        kinds = [kind for _, kind in flow]
        assert kinds in (["request", "translation"], ["request", "translation", "fill"])
    return events


def flows(events: list[Event]) -> dict[int, list[tuple[str, str]]]:
    """Of each flow its steps: the phase, and the kind of the slice that it binds to, which is the innermost."""
    found: dict[int, list[tuple[str, str]]] = {}
    tracks = slices(events)
    for event in events:
        if event["ph"] in "stf":
            time, track = nanoseconds(event["ts"]), tracks[event["pid"], event["tid"]]
            around = [each for each in track if each[0] <= time < each[1]]
            inner = min(around, key=lambda each: each[1] - each[0])
            found.setdefault(event["id"], []).append((event["ph"], inner[2]["cat"]))
    return found


def of(events: Iterable[Event], kind: str, phase: str = "X") -> list[Event]:
    return [event for event in events if event["ph"] == phase and event["cat"] == kind]


def within(events: list[Event], outer: Event) -> list[str]:
    """Names of what lies in a slice on its track."""
    track = slices(events)[outer["pid"], outer["tid"]]
    (bounds,) = [(begin, end) for begin, end, event in track if event is outer]
    inner = [each for each in track if each[2] is not outer and bounds[0] <= each[0] and each[1] <= bounds[1]]
    return [event["name"] for _, _, event in sorted(inner, key=lambda each: each[0])]


def place(events: list[Event], event: Event) -> tuple[str, str]:
    """Names of the process and the thread."""
    names = {(each["name"], each["pid"], each.get("tid")): each["args"] for each in events if each["ph"] == "M"}
    process = names["process_name", event["pid"], None]["name"]
    return process, names["thread_name", event["pid"], event["tid"]]["name"]


def store(time: int, register: str, value: int) -> Accessed:
    return Accessed(0, time, "smmu0", register, 0x98, 4, value, True)


def command(time: int, what: c.Command, error: str = "CERROR_NONE") -> Commanded:
    return Commanded(0, time, "smmu0", what, error)


def filled(time: int, base: int = IOVA, sid: int = SID) -> Filled:
    return Filled(0, time, "smmu0", sid, None, 1, 1, 0, 1, 0, base, 12, 0x4395_B000, 3, 12, 0x4395_BF47, 0x4395_DFF0, 7)


def translated(begin: int, end: int, iova: int = IOVA, sid: int = SID, outcome: str = "ok") -> Translated:
    pa = 0x4395_B000 if outcome == "ok" else None
    return Translated(0, end, "smmu0", sid, None, iova, 4096, False, pa, outcome, 0, 0, begin)


def served(begin: int, end: int, sector: int = 8) -> Served:
    return Served(0, end, "disk0", "IN", "OK", end - begin, {"sector": sector, "size": 65536})


# -- what is a slice ---------------------------------------------------------------------------------------------


def test_a_burst_is_a_slice_from_the_store_to_prod_until_cons_has_reached_it() -> None:
    values: list[Value] = [
        store(50, "CMDQ_BASE", 8),
        store(100, "CMDQ_PROD", 2),
        command(150, INVALIDATION),
        command(200, SYNC),
        store(900, "CMDQ_PROD", 3),
        command(950, SYNC),
    ]
    events = told(values)
    bursts = [event for event in of(events, "command") if "commands" in event["args"]]
    assert [(each["name"], each["ts"], each["dur"]) for each in bursts] == [
        ("2 commands: CMD_TLBI_NH_VA, CMD_SYNC", 0.1, 0.1),
        ("1 command: CMD_SYNC", 0.9, 0.05),
    ]
    assert within(events, bursts[0]) == ["CMD_TLBI_NH_VA ASID 0x1 0xffffffffe000", "CMD_SYNC"]
    assert (bursts[0]["args"]["commands"], bursts[0]["args"]["PROD"]) == (2, "0x2")
    depths = [(event["ts"], event["args"]["depth"]) for event in events if event["name"] == "CMDQ"]
    assert depths == [(0.05, 0), (0.1, 2), (0.15, 1), (0.2, 0), (0.9, 1), (0.95, 0)]


def test_a_store_while_commands_are_consumed_is_of_their_burst() -> None:
    values: list[Value] = [store(1, "CMDQ_BASE", 8), store(100, "CMDQ_PROD", 2), command(150, INVALIDATION)]
    values += [store(160, "CMDQ_PROD", 3), command(200, INVALIDATION), command(210, SYNC)]
    (burst,) = [event for event in of(told(values), "command") if "commands" in event["args"]]
    assert (burst["args"]["commands"], burst["args"]["PROD"]) == (3, "0x3")


def test_a_refused_command_ends_its_burst_and_says_so() -> None:
    values: list[Value] = [store(1, "CMDQ_BASE", 8), store(100, "CMDQ_PROD", 2)]
    events = told([*values, command(150, INVALIDATION, "CERROR_ILL"), command(900, INVALIDATION), command(910, SYNC)])
    bursts = [event for event in of(events, "command") if "commands" in event["args"]]
    assert [(each["name"], each["ts"]) for each in bursts] == [
        ("1 command: CMD_TLBI_NH_VA: CERROR_ILL", 0.1),
        ("2 commands: CMD_TLBI_NH_VA, CMD_SYNC", 0.9),
    ]


def test_what_an_invalidation_dropped_is_with_it() -> None:
    values: list[Value] = [store(1, "CMDQ_BASE", 8), store(100, "CMDQ_PROD", 2), filled(110)]
    values.append(command(150, INVALIDATION))
    events = told([*values, Dropped(0, 155, "smmu0", "TLB", 1, {"asid": 1}), command(200, SYNC)])
    (invalidation,) = [event for event in of(events, "command") if event["args"].get("command") == "CMD_TLBI_NH_VA"]
    assert invalidation["args"]["dropped of TLB"] == 1
    assert [event["args"]["entries"] for event in events if event["name"] == "TLB"] == [1, 0]


def test_a_long_burst_is_written_in_pieces_that_follow_each_other() -> None:
    values: list[Value] = [store(1, "CMDQ_BASE", 14), store(100, "CMDQ_PROD", 10_000)]
    values += [command(100 + 10 * at, INVALIDATION) for at in range(1, 10_001)]
    bursts = [event for event in of(told(values), "command") if "commands" in event["args"]]
    assert [each["args"]["commands"] for each in bursts] == [4096, 4096, 1808]
    assert bursts[1]["ts"] == round(bursts[0]["ts"] + bursts[0]["dur"], 3)


def test_a_walk_lies_in_its_translation_and_says_what_it_found() -> None:
    events = told([filled(140), filled(160, IOVA + 4096), translated(100, 200)])
    (translation,) = of(events, "translation")
    assert (translation["name"], translation["ts"], translation["dur"]) == ("read 4 KiB at 0xffffffffe000", 0.1, 0.1)
    assert within(events, translation) == [
        "walk of stage 1: 0xffffffffe000 is 0x4395b000, 4 KiB",
        "walk of stage 1: 0xfffffffff000 is 0x4395b000, 4 KiB",
    ]
    assert [(each["ts"], each["dur"]) for each in of(events, "fill")] == [(0.101, 0.039), (0.14, 0.02)]
    (walk, _) = of(events, "fill")
    assert walk["args"].items() >= {"descriptor": "0x4395bf47", "level": 3, "asid": "0x1"}.items()
    assert place(events, walk) == ("smmu0", "translations: disk0")


def test_a_failed_translation_says_how_it_ended() -> None:
    (translation,) = of(told([translated(100, 200, outcome="abort")]), "translation")
    assert translation["name"] == "read 4 KiB at 0xffffffffe000: abort"


def test_a_request_flows_to_its_translations_and_their_walks() -> None:
    events = told([translated(10, 20), filled(120), translated(110, 130), translated(140, 150), served(100, 200)])
    (request,) = of(events, "request")
    assert (request["name"], request["ts"], request["dur"]) == ("read 64 KiB sector 8", 0.1, 0.1)
    assert place(events, request) == ("disk0", "requests")
    assert list(flows(events).values()) == [
        [("s", "request"), ("t", "translation"), ("f", "fill")],
        [("s", "request"), ("f", "translation")],
    ]


def test_a_master_that_tells_of_no_requests_holds_nothing_up() -> None:
    form = chrome()
    parts = [part for at in range(3) for part in form.tell(translated(at * 10**9, at * 10**9 + 5, sid=OTHER))]
    assert b"read 4 KiB" in b"".join(parts)


def test_transfers_that_overlap_lie_on_tracks_beside_each_other() -> None:
    events = told([translated(100, 200, sid=OTHER), translated(150, 250, sid=OTHER), translated(260, 270, sid=OTHER)])
    tracks = [place(events, event)[1] for event in of(events, "translation")]
    assert tracks == ["translations: engine0", "translations: engine0 (2)", "translations: engine0"]


def test_a_stall_is_a_slice_and_counted() -> None:
    stall = Stalled(0, 100, "smmu0", 7, SID, IOVA, 8, True, None, "for software", False)
    again, end = stall._replace(time=150, stag=3), stall._replace(time=300, ended=True)
    events = told([stall, again, end, stall._replace(key=8, time=400)])
    stalled = of(events, "fault")
    assert [(each["ts"], each["dur"]) for each in stalled] == [(0.1, 0.2), (0.4, 0.001)]
    assert stalled[0]["name"] == "stalled write of 0x100 at 0xffffffffe000, STAG 0x3"
    assert stalled[1]["args"]["answered"] == "not yet"
    assert [event["args"]["outstanding"] for event in events if event["name"] == "stalls"] == [1, 0, 1]


def test_events_and_aborts_are_seen_beside_all_tracks_and_fill_their_queue() -> None:
    record = e.F_TRANSLATION.of(SID=SID, InputAddr=IOVA)
    aborted = Moved(0, 120, "disk0", IOVA, 64, True, 16, "terminated")
    values: list[Value] = [store(50, "EVENTQ_BASE", 8), Reported(0, 110, "smmu0", record, True), aborted]
    events = told([*values, store(200, "EVENTQ_CONS", 1)])
    assert [(each["name"], each["s"]) for each in of(events, "fault", "i")] == [
        ("smmu0: F_TRANSLATION SID=0x100 InputAddr=0xffffffffe000", "g"),
        ("disk0: write at 0xffffffffe010: terminated", "g"),
    ]
    assert [event["args"]["depth"] for event in events if event["name"] == "EVENTQ"] == [0, 1, 0]


def test_an_instance_without_queues_counts_none() -> None:
    record = GlobalFault.of(USF=1, SID=SID, FADDR=IOVA)
    events = told([Reported(0, 110, "smmu0", record, True), store(200, "TLBIALL", 0)])
    assert of(events, "counter", "C") == []
    assert of(events, "fault", "i")[0]["name"].startswith("smmu0: GlobalFault USF=1")


def test_the_guests_console_and_its_cases_are_tracks_of_a_process_of_their_own(tmp_path: Path) -> None:
    with Trace.file(tmp_path / "t.json", clock=lambda: 1000) as trace:
        trace.said("Linux version \x1b[0m 6.12 \x85")
        trace.case("disk0_appears", "passed", 2000, 5000)
        trace.case("disk0_reads", "failed", 5000, 9000)
    events = json.loads((tmp_path / "t.json").read_text())
    check(events)
    (line,) = of(events, "console", "i")
    assert (line["name"], place(events, line)) == ("Linux version \x1b[0m 6.12 \x85", ("guest", "console"))
    assert [(each["name"], each["ts"], each["dur"]) for each in of(events, "case")] == [
        ("disk0_appears", 1, 3),
        ("disk0_reads: failed", 4, 4),
    ]


def test_the_guests_console_and_its_cases_are_lines_of_a_text(tmp_path: Path) -> None:
    with Trace.file(tmp_path / "t.txt", clock=lambda: 1_000_000) as trace:
        trace.said("Linux version 6.12")
        trace.case("disk0_appears", "passed", 2_000_000, 5_000_000)
        trace.said("\x1b[0m two\nlines\x85")
    assert (tmp_path / "t.txt").read_text().splitlines() == [
        "    0.000000 guest console Linux version 6.12",
        "    0.004000 guest case disk0_appears outcome=passed took=3000.0us",
        r"    0.000000 guest console \u001b[0m two\nlines\u0085",
    ]


def test_an_instance_at_work_begins_with_what_it_has() -> None:
    registers = {"CMDQ_BASE": 8, "CMDQ_PROD": 5, "CMDQ_CONS": 5, "EVENTQ_BASE": 8, "EVENTQ_PROD": 3, "EVENTQ_CONS": 1}
    events = told([Snapshot(0, 100, "smmu0", registers, (), (filled(100),)), store(200, "CMDQ_PROD", 6)])
    counted = [(event["name"], *event["args"].values()) for event in events if event["ph"] == "C"]
    assert counted == [("CMDQ", 0), ("EVENTQ", 2), ("TLB", 1), ("stalls", 0), ("CMDQ", 1)]
    assert any(event["name"].startswith("watched from here: 1 entries") for event in events)


def test_what_began_before_the_trace_begins_with_it() -> None:
    events = told([translated(50, 60), translated(100, 1500), served(100, 2000)], chrome(began=1000))
    shown = [(event["cat"], event["ts"], event["dur"]) for event in events if event["ph"] == "X"]
    assert shown == [("translation", 0, 0.001), ("request", 0, 1), ("translation", 0, 0.5)]


# -- which kinds are written ---------------------------------------------------------------------------------------

MOMENT: list[Value] = [
    store(90, "CMDQ_BASE", 8),
    store(100, "CMDQ_PROD", 1),
    command(110, INVALIDATION),
    Dropped(0, 112, "smmu0", "TLB", 1, {"asid": None}),
    Fetched(0, 120, "smmu0", SID, None, STE.of(V=1), 0x4000),
    filled(130),
    Used(0, 140, "smmu0", SID, None, IOVA, 8, 0x4395_B000, False),
    translated(125, 150),
    Moved(0, 150, "disk0", IOVA, 4096, False, 4096, None, 125),
    served(115, 160),
    Reported(0, 170, "smmu0", e.F_TRANSLATION.of(SID=SID), True),
    Interrupted(0, 180, "smmu0", "eventq", 0x0802_0040, 3),
    Interrupted(0, 185, "disk0", "", None, None),
    Noted(0, 190, "engine0", "request", "MEMCPY", {"begin": 0x1000}),
    Noted(0, 192, "smmu0", "fault", "drop-sync", {"what": "CMD_SYNC", "struck": 1}),
    Noted(0, 195, "guest", "console", "hello", {}),
    Noted(0, 197, "guest", "case", "works", {"outcome": "passed", "took": 50}),
    Found(0, 198, "smmu0", 3, SID, None, IOVA, False, 0x4395_B703, None, 7),
    Gap(0, 199, "smmu0", 4, {Kind.MOVED: 3}),
]


@pytest.mark.parametrize("kind", Chrome.kinds)
def test_each_kind_can_be_written_alone(kind: str) -> None:
    events = told(MOMENT, chrome(only=[kind]))
    assert {event["cat"] for event in events if event["ph"] in "XiC"} == {kind, "trace"}


@pytest.mark.parametrize("kind", Chrome.kinds)
def test_what_a_kind_is_made_of_is_wanted_for_it(kind: str, tmp_path: Path) -> None:
    with Trace.file(tmp_path / "t.json", clock=lambda: 0) as trace:
        trace.only([kind])
        for value in MOMENT:
            if trace.wants & kind_of(type(value)):
                trace.tell(value)
    alone = json.loads((tmp_path / "t.json").read_text())
    assert shown(alone) == shown(told(MOMENT, chrome(only=[kind])))
    assert {event["cat"] for event in alone if event["ph"] in "XiC"} >= {kind}


def shown(events: Iterable[Event]) -> list[Event]:
    return [{**event, "pid": 0, "tid": 0} for event in events if event["ph"] in "XiC" and event["cat"] != "trace"]


def test_a_kind_that_is_not_there_is_the_operators_mistake(tmp_path: Path) -> None:
    for name, kind, why in (
        ("t.json", "commands", r"--trace-only: there is no kind 'commands' in .*t.json; they are mmio, command, "),
        ("t.txt", "counter", r"no kind 'counter' .* counters are in a trace for a viewer, --trace F\.json"),
    ):
        with pytest.raises(UsageError, match=why), tracing(tmp_path / name, [kind]):
            pass
    with tracing(tmp_path / "t.json", ["counter", "case"]) as trace:
        assert trace is not None
    assert not (tmp_path / "t.txt").exists()


# -- whatever comes ------------------------------------------------------------------------------------------------


def _values() -> st.SearchStrategy[list[Value]]:
    times = st.integers(0, 3000) | st.integers(0, 5 * 10**9)
    sids = st.sampled_from([SID, OTHER, 7])

    def made(kind: str, time: int, took: int, sid: int, number: int) -> Value:
        begin = max(time - took, 0)
        match kind:
            case "store":
                return store(time, "CMDQ_PROD", number)
            case "base":
                return store(time, "CMDQ_BASE", number)
            case "command":
                return command(time, (INVALIDATION, SYNC)[number % 2], "CERROR_ILL" if number % 7 == 0 else "")
            case "drop":
                return Dropped(0, time, "smmu0", "TLB", number, {})
            case "fill":
                return filled(time, sid=sid)
            case "translation":
                return translated(begin if number % 5 else 0, time, sid=sid)
            case "request":
                return served(begin, time)
            case "dma":
                return Moved(0, time, "disk0", IOVA, 8, False, 8, None, begin)
            case "stall":
                return Stalled(0, time, "smmu0", number % 3, sid, IOVA, 8, True, number, "", number % 2 == 0)
            case "event":
                return Reported(0, time, "smmu0", e.F_TRANSLATION.of(SID=sid), number % 2 == 0)
            case "case":
                return Noted(0, time, "guest", "case", "t", {"outcome": "passed", "took": took})
        return Noted(0, time, "guest", "console", "x" * number, {})

    kinds = ("store", "base", "command", "drop", "fill", "translation", "request", "dma", "stall", "event", "case", "")
    one = st.builds(made, st.sampled_from(kinds), times, st.integers(0, 2000), sids, st.integers(0, 30))
    return st.lists(one, max_size=60)


@given(_values(), st.none() | st.sets(st.sampled_from(sorted(Chrome.kinds))), st.integers(0, 1500))
def test_whatever_is_told_in_whatever_order_a_viewer_takes_it(
    values: list[Value], only: set[str] | None, began: int
) -> None:
    told(values, chrome(began, only))


@given(_values())
def test_a_trace_can_end_behind_whatever_is_written_at_once(values: list[Value]) -> None:
    form = chrome()
    text = form.begin()
    for part in [part for value in values for part in form.tell(value)] + list(form.rest()):
        check(json.loads(text + form.last("WRITE_FAILED", "the disk is full") + form.end()))
        text += part
        assert load_chrome(text.decode()) == json.loads(text + b"]")


def test_each_value_is_told_once(tmp_path: Path) -> None:
    """All that is slices comes out, in whatever order it was told."""
    values: list[Any] = [translated(100 * at, 100 * at + 50) for at in range(50)]
    values += [served(100 * at, 100 * at + 99) for at in range(0, 50, 2)]
    events = told(sorted(values, key=lambda each: each.time))
    assert len(of(events, "translation")) == 50
    assert len(of(events, "request")) == len({event["id"] for event in events if event["ph"] == "f"}) == 25


def test_each_type_of_values_is_written_in_either_form() -> None:
    stall = Stalled(0, 100, "smmu0", 7, SID, IOVA, 8, True, None, "for software", False)
    snapshot = Snapshot(0, 1, "smmu0", {}, (), (filled(1),))
    values = [snapshot, *MOMENT, stall]
    assert {type(value) for value in values} == set(get_args(Value))
    for value in values:
        assert b"".join(Text(0).tell(value))
    assert len(told(values)) > len(values)
