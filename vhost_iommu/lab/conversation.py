# SPDX-License-Identifier: Apache-2.0
"""A client's side of the control socket, shaped like QEMU's QMP: bytes in, bytes out (docs/reference/control.md).

Law: no I/O; whatever a client sends costs bounded memory and is answered, or ends its conversation. What a command
raises becomes an error that is told to the client alone.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from ..errors import UsageError
from .plain import plain

log = logging.getLogger("vhost_iommu.lab")

#: Bytes of one request, and levels of nesting in it.
MOST_ASKED, DEEPEST = 1 << 16, 32
#: Events that wait for a client before others are left out, and bytes before nothing more is taken from it.
MOST_EVENTS, MOST_WAITING = 1 << 12, 1 << 16


class Executor(Protocol):
    """Who carries out commands."""

    def execute(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """What the command answers; UnknownCommandError, or UsageError that says what is wrong with it."""

    def close(self) -> None:
        """Nobody asks any more."""


class UnknownCommandError(UsageError):
    """There is no such command."""


class Conversation:
    """One client. ``out`` is what it has to be sent; ``over``: nothing more is taken from it."""

    def __init__(self, executor: Executor, version: str, clock: Callable[[], float] = time.time) -> None:
        self._executor = executor
        self._clock = clock
        self._objects = Objects()
        self._negotiated = False
        self._events: deque[tuple[float, str, Any]] = deque()
        self._lost = 0
        self._asked: deque[bytes | str] = deque()
        self.out = bytearray()
        self.over = False
        major, minor, micro = version.split(".")
        told = {"qemu": {"major": int(major), "minor": int(minor), "micro": int(micro)}, "package": "vhost-iommu"}
        self._say({"QMP": {"version": told, "capabilities": []}})

    @property
    def ready(self) -> bool:
        """Whether it has read enough of what it was told to be heard again."""
        return not self._asked and self._has_room

    @property
    def _has_room(self) -> bool:
        return not self.over and len(self.out) < MOST_WAITING

    def feed(self, data: bytes) -> None:
        """Take what the client sent."""
        self._asked += self._objects.feed(data)
        self._answer()

    def _answer(self) -> None:
        """What was asked, as far as the client reads the answers."""
        while self._asked and self._has_room:
            found = self._asked.popleft()
            if isinstance(found, str):
                self._fail(None, "GenericError", found)
                self.over = True  # what follows cannot be told apart
            else:
                self._request(found)

    def event(self, name: str, data: Any) -> None:
        """There is something to tell the client of; callable from any thread, and the one method that is."""
        if len(self._events) < MOST_EVENTS:
            self._events.append((self._clock(), name, data))
        else:
            self._lost += 1

    def gather(self) -> None:
        """Put into ``out`` what there is to tell and to answer, as far as the client reads it."""
        self._answer()
        while self._events and self._has_room:
            self._tell(*self._events.popleft())
            if not self._events and self._lost:
                lost, self._lost = self._lost, 0
                self._tell(self._clock(), "EVENTS_LOST", {"count": lost})

    def close(self) -> None:
        """The client is gone."""
        self._executor.close()

    def _tell(self, now: float, name: str, data: Any) -> None:
        stamp = {"seconds": int(now), "microseconds": int(now % 1 * 1e6)}
        self._say({"event": name, "data": plain(data), "timestamp": stamp})

    def _request(self, data: bytes) -> None:
        try:
            request = json.loads(data)
        except (ValueError, RecursionError) as why:
            self._fail(None, "GenericError", f"no JSON: {why}")
            return
        identity = {"id": request["id"]} if "id" in request else {}
        name, arguments = request.get("execute"), request.get("arguments", {})
        stray = request.keys() - {"execute", "arguments", "id"}
        if not isinstance(name, str) or not isinstance(arguments, dict) or stray:
            self._fail(identity, "GenericError", "a request has 'execute', and may have 'arguments' and 'id'")
        elif name == "qmp_capabilities":
            self._negotiated = True
            self._say({"return": {}, **identity})
        elif not self._negotiated:
            self._fail(identity, "CommandNotFound", "expecting capabilities negotiation with 'qmp_capabilities'")
        else:
            self._execute(identity, name, arguments)

    def _execute(self, identity: Mapping[str, Any], name: str, arguments: Mapping[str, Any]) -> None:
        try:
            answer = plain(self._executor.execute(name, arguments))
        except UnknownCommandError as error:
            self._fail(identity, "CommandNotFound", str(error))
        except UsageError as error:
            self._fail(identity, "GenericError", str(error))
        except Exception as problem:
            # To look at a machine must not end it; but whoever runs it is told.
            log.error("control: %s failed", name, exc_info=problem)
            self._fail(identity, "InternalError", f"{name} failed: {problem!r}; the log says more")
        else:
            self._say({"return": answer, **identity})

    def _fail(self, identity: Mapping[str, Any] | None, kind: str, text: str) -> None:
        self._say({"error": {"class": kind, "desc": text}, **(identity or {})})

    def _say(self, message: Mapping[str, Any]) -> None:
        self.out += json.dumps(message, separators=(",", ":")).encode() + b"\r\n"


class Objects:
    """Cuts a stream into JSON objects, which need nothing between them."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._at = 0  # up to where it is looked at
        self._depth = 0
        self._quoted = False

    def feed(self, data: bytes) -> Iterator[bytes | str]:
        """Each object that is whole now; a sentence where the stream is none of objects, or one is too large."""
        held = self._held
        held += data
        while self._at < len(held):
            byte = held[self._at]
            if self._quoted:
                if byte == 0x5C:  # backslash: what follows is quoted too
                    if self._at + 1 == len(held):
                        break
                    self._at += 1
                elif byte == 0x22:
                    self._quoted = False
            elif byte == 0x22 and self._depth:
                self._quoted = True
            elif byte == 0x7B:
                self._depth += 1
            elif byte == 0x7D and self._depth:
                self._depth -= 1
            elif not self._depth and byte not in b" \t\r\n":
                yield "a request is a JSON object, which begins with '{'"
                return
            self._at += 1
            if self._depth > DEEPEST or (self._at > MOST_ASKED and self._depth):
                yield f"a request has at most {MOST_ASKED} bytes, and {DEEPEST} objects in one another"
                return
            if not self._depth and not self._quoted:
                whole = bytes(held[: self._at]).strip()
                del held[: self._at]
                self._at = 0
                if whole:
                    yield whole
