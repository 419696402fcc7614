# SPDX-License-Identifier: Apache-2.0
"""What a machine answers, as lines for people that grep well; made of plain answers, a socket's or a dump's alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

#: Executes a command: (name, arguments) -> its answer.
Ask = Callable[..., Any]

#: Streams that the page looks at, those of which it shows where they go, and runs of each.
MOST_LISTED, MOST_STREAMS, MOST_RUNS = 1024, 16, 4
#: Keys whose numbers are addresses and the like.
_HEX = {
    "address", "asid", "at", "base", "descriptor", "descriptor_at", "iova", "key", "next", "output", "pa", "sid",
    "ssid", "start", "streams", "vmid",
}  # fmt: skip


def page(ask: Ask) -> dict[str, Any]:
    """What one wants to see first, of all that can be asked."""
    status = ask("query-status")
    instances = []
    for each in ask("query-instances"):
        name = each["name"]
        found = ask("query-streams", instance=name, limit=MOST_LISTED)
        streams = [_where(ask, name, stream) for stream in alike(found["streams"])[:MOST_STREAMS]]
        events = [
            {**event, "explained": explain_event(ask, name, event)} for event in ask("query-events", instance=name)
        ]
        stalls = ask("query-stalls", instance=name)
        instances.append(
            each
            | {
                "streams": streams,
                "next": found["next"],
                "events_made": each["events"],
                "events": events,
                "stalled": stalls,
            }
        )
    shown: dict[str, Any] = status | {
        "instances": instances,
        "masters": ask("query-masters"),
        "faults": ask("query-faults"),
    }
    return shown


def alike(streams: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Consecutive streams of the same structure are one, with its ``last``."""
    found: list[dict[str, Any]] = []
    for each in streams:
        before = found[-1] if found else None
        if before and before["last"] + 1 == each["sid"] and before["structure"]["words"] == each["structure"]["words"]:
            before["last"] = each["sid"]
        else:
            found.append(each | {"last": each["sid"]})
    return found


def _where(ask: Ask, instance: str, stream: Mapping[str, Any]) -> dict[str, Any]:
    """A stream with its substreams, its spaces, and the begin of what they map."""
    sid = stream["sid"]
    if stream["last"] > sid:
        return dict(stream) | {"substreams": [], "spaces": []}
    substreams = ask("query-substreams", stream=sid, instance=instance, limit=MOST_STREAMS)["streams"]
    spaces = []
    for ssid in (None, *(each["sid"] for each in substreams)):
        for space in ask("query-spaces", stream=sid, substream=ssid, instance=instance):
            known = {"stream": sid, "substream": ssid, "stage": space["stage"], "half": space["half"]}
            runs = ask("query-tables", **known, instance=instance, first=space["start"], limit=MOST_RUNS)
            spaces.append(space | runs)
    return dict(stream) | {"substreams": substreams, "spaces": distinct(spaces)}


def distinct(spaces: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without those of a substream that are the stream's own."""
    seen: dict[tuple[Any, ...], dict[str, Any]] = {}
    for each in spaces:
        seen.setdefault((each["stage"], each["half"], each["base"], each["tags"]), each)
    return list(seen.values())


def explain_event(ask: Ask, instance: str, event: Mapping[str, Any]) -> dict[str, Any] | None:
    """The transaction of an event, explained as it would go now."""
    fields = event["fields"]
    if "InputAddr" not in fields and not event["kind"].startswith("C_"):
        return None
    said: dict[str, Any] = ask(
        "explain",
        stream=fields.get("SID", 0),
        address=fields.get("InputAddr", 0),
        substream=fields.get("SSID", 0 if fields.get("SSV") else None),
        access="read" if fields.get("RnW") else "execute" if fields.get("InD") else "write",
        privileged=bool(fields.get("PnU")),
        instance=instance,
    )
    return said


# -- lines -----------------------------------------------------------------------------------------------------------


def page_lines(shown: Mapping[str, Any]) -> Iterator[str]:
    taken = f" (a dump of {shown['taken']})" if shown["taken"] else ""
    yield f"{shown['machine']}{taken}"
    for each in shown["left_out"]:
        yield f"  not in the dump: {each}"
    masters = {sid: each["name"] for each in shown["masters"] for sid in each["streams"]}
    for each in shown["instances"]:
        yield from _instance_lines(each, masters)
    for each in shown["masters"]:
        counts = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in each["counters"].items())
        streams = ", ".join(f"{sid:#x}" for sid in each["streams"])
        behind = f"behind {each['smmu']}, stream {streams}" if each["smmu"] else "behind no SMMU"
        yield f"{each['name']}: {each['kind']}, {behind}; {counts}"
    for each in shown["faults"]:
        times = f"{each['struck']} time{'s' if each['struck'] > 1 else ''}" if each["struck"] else "never"
        yield f"{each['name']}: the fault '{each['fault']}' struck {times}"


def _instance_lines(each: Mapping[str, Any], masters: Mapping[int, str]) -> Iterator[str]:
    name, counters = each["name"], each["counters"]
    for text in each["said"]:
        yield f"{name}: {text}"
    for queue in each["queues"]:
        yield f"{name}: {_queue_line(queue)}"
    kinds = ", ".join(f"{count} {kind}" for kind, count in each["commands"].items())
    of_kinds = f" ({kinds})" if kinds else ""
    yield f"{name}: {counters['commands']} commands{of_kinds}; {counters['command_errors']} refused"
    yield (
        f"{name}: {counters['translations']} translations, {counters['walks']} walks, {counters['faults']} faults; "
        f"TLB {counters['tlb_entries']} entries, {counters['tlb_hits']} hits, {counters['tlb_misses']} misses"
    )
    for stream in each["streams"]:
        sid = stream["sid"]
        if stream["last"] > sid:
            yield f"{name}: streams {sid:#x}-{stream['last']:#x} {stream['does']}{_wrong(stream)}"
            continue
        master = f" ({masters[sid]})" if sid in masters else ""
        yield f"{name}: stream {sid:#x}{master} {stream['does']}{_wrong(stream)}"
        for sub in stream["substreams"]:
            yield f"{name}: stream {sid:#x} substream {sub['sid']:#x} {sub['does']}{_wrong(sub)}"
        for space in stream["spaces"]:
            yield from (f"{name}: stream {sid:#x} {text}" for text in space_lines(space))
    if each["next"] is not None:
        yield f"{name}: more streams from {each['next']:#x} on"
    for stall in each["stalled"]:
        where = f"stream {stall['sid']:#x} {'write' if stall['write'] else 'read'} at {stall['iova']:#x}"
        yield f"{name}: stalled {stall['seconds']:.1f} s: {where}; {stall['waits']}"
    made = each["events_made"]
    for event in each["events"]:
        count = made.get(event["kind"], 1)
        yield f"{name}: event {event['text']}{f' (the first of {count})' if count > 1 else ''}"
        if event["explained"] is not None:
            yield from (f"{name}:   {text}" for text in explanation_lines(event["explained"]))


def _wrong(stream: Mapping[str, Any]) -> str:
    return f": {'; '.join(stream['wrong'])}" if stream["wrong"] else ""


def _queue_line(queue: Mapping[str, Any]) -> str:
    state = "on" if queue["enabled"] else "off"
    error = f", {queue['error']}" if queue["error"] else ""
    return (
        f"{queue['name']} is {state}{error}: {queue['waiting']} of {queue['size']} entries wait, "
        f"PROD {queue['producer']}, CONS {queue['consumer']}, at {queue['base']:#x}"
    )


def space_lines(space: Mapping[str, Any]) -> Iterator[str]:
    """An address space and its runs."""
    of = f"stage {space['stage']}" + (f" substream {space['ssid']:#x}" if space["ssid"] is not None else "")
    if not space["runs"] and space["next"] is None:
        yield f"{of} maps nothing ({space['tags']}, table at {space['base']:#x})"
    for run in space["runs"]:
        yield f"{of} {run_text(run)}"
    if space["next"] is not None:
        yield f"{of} and more from {space['next']:#x} on"


def run_text(run: Mapping[str, Any]) -> str:
    where = f"{run['start']:#x}-{run['start'] + run['size'] - 1:#x}"
    if run["output"] is None:
        return f"{where} faults: {run['access']}"
    return f"{where} to {run['output']:#x} {run['access']}; {run['memory']}"


def explanation_lines(said: Mapping[str, Any]) -> Iterator[str]:
    """A translation, step by step."""
    t, end = said["transaction"], said["end"]
    kind = "write" if t["write"] else "execute" if t["instruction"] else "read"
    who = f"stream {t['sid']:#x}" + (f" substream {t['ssid']:#x}" if t["ssid"] is not None else "")
    yield f"{who}, {'privileged' if t['privileged'] else 'user'} {kind} at {t['iova']:#x}:"
    width = max((len(step["what"]) for step in said["steps"]), default=0)
    for step in said["steps"]:
        at = f"{step['at']:#x}" if step["at"] is not None else ""
        yield f"  {step['what']:{width}}  {at:<12}  {step['text']}"
    yield f"  {end_text(end)}"
    for text in said["differs"]:
        yield f"  stale: {text}"
    if said["cached"] is not None:
        yield f"  but the caches still say: {end_text(said['cached'])}"
    for text in said["causes"]:
        yield f"  likely: {text}"
    if said["missing"]:
        pages = ", ".join(f"{page:#x}" for page in said["missing"])
        yield f"  the dump does not have what is at {pages}: the end may be another"


def end_text(end: Mapping[str, Any]) -> str:
    if end["outcome"] == "ok":
        return f"ends at {end['pa']:#x}, {end['memory']} ({end['text']})"
    event = end["event"]
    made = f"; {event['text']}{'' if end['recorded'] else ' (not recorded)'}" if event is not None else ""
    return f"ends in {end['outcome']}: {end['text']}{made}"


def lines(answer: Any, before: str = "") -> Iterator[str]:
    """Any answer: a line for each element, ``name value`` for each number in it."""
    if _is_structure(answer):
        yield f"{before}{answer['text']}{''.join(f'; {each}' for each in answer['problems'])}"
    elif isinstance(answer, Mapping):
        words, deeper = _flat(answer)
        if words:
            yield before + " ".join(words)
        for key, value in deeper:
            yield from lines(value, f"{before}{key} ")
    elif isinstance(answer, list):
        for each in answer:
            yield from lines(each, before)
    elif answer is not None:
        yield f"{before}{answer}"


def _is_structure(value: Any) -> bool:
    return isinstance(value, Mapping) and "text" in value and "words" in value


def _flat(answer: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, Any]]]:
    """What stands in one line, and what needs lines of its own."""
    words: list[str] = []
    deeper: list[tuple[str, Any]] = []
    for key, value in answer.items():
        if _is_structure(value):
            words.append(value["text"])
        elif isinstance(value, Mapping):
            inner, below = _flat(value)
            words += [key, *inner] if inner else []
            deeper += below
        elif isinstance(value, list) and any(isinstance(each, Mapping | list) for each in value):
            deeper.append((key, value))
        elif isinstance(value, list):
            words += [key, ", ".join(_text(key, each) for each in value)] if value else []
        elif value not in (None, ""):
            words.append(f"{key} {_text(key, value)}")
    return words, deeper


def _text(key: str, value: Any) -> str:
    if type(value) is int and key in _HEX:
        return f"{value:#x}"
    return str(value).lower() if isinstance(value, bool) else f"{value:.1f}" if isinstance(value, float) else str(value)
