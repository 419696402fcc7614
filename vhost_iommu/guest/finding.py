# SPDX-License-Identifier: Apache-2.0
"""Finds what is to be looked at: the control socket of a machine that runs, by its name, or a dump's file.

Law: one sentence where there is none, or more than one; a socket that nobody has any more is removed.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from vhost_iommu.bench import inspection_of
from vhost_iommu.errors import UsageError
from vhost_iommu.guest.folder import controls
from vhost_iommu.lab import dump
from vhost_iommu.lab.control import Queries
from vhost_iommu.lab.plain import plain

#: Seconds for an answer.
TIMEOUT = 60.0


class Asked(Protocol):
    """Who answers commands."""

    def execute(self, name: str, **arguments: Any) -> Any:
        """What a command answers, as JSON has it; UsageError."""

    def events(self) -> Iterator[dict[str, Any]]:
        """What is told unasked, as it comes, to the end of the machine."""

    def close(self) -> None: ...


class Running:
    """A machine at work, at its control socket."""

    def __init__(self, path: Path) -> None:
        """ConnectionError, FileNotFoundError: nobody is there."""
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT)
        try:
            self._socket.connect(str(path))
            self._file = self._socket.makefile("rb")
            self._next("QMP")
            self._say("qmp_capabilities", {})
        except BaseException:
            self._socket.close()
            raise

    def execute(self, name: str, **arguments: Any) -> Any:
        try:
            return self._say(name, {key: value for key, value in arguments.items() if value is not None})
        except OSError as error:
            raise UsageError(f"{self.path}: {error or 'no answer'}; the machine has ended") from error

    def _say(self, name: str, arguments: Mapping[str, Any]) -> Any:
        request = {"execute": name, "arguments": arguments}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        answer = self._next("return", "error")
        if "error" in answer:
            raise UsageError(answer["error"]["desc"])
        return answer["return"]

    def events(self) -> Iterator[dict[str, Any]]:
        """What is told unasked, until the machine ends."""
        self._socket.settimeout(None)
        while True:
            try:
                yield self._next("event")
            except (OSError, ValueError):
                return

    def _next(self, *keys: str) -> dict[str, Any]:
        """The next message that is no event."""
        while True:
            line = self._file.readline()
            if not line:
                raise ConnectionResetError("it has hung up")
            message: dict[str, Any] = json.loads(line)
            if not message.keys().isdisjoint(keys):
                return message

    def close(self) -> None:
        self._socket.close()


class Kept:
    """A dump."""

    def __init__(self, path: Path) -> None:
        self._queries = Queries(dump.Offline(dump.read(path), inspection_of))

    def execute(self, name: str, **arguments: Any) -> Any:
        given = {key: value for key, value in arguments.items() if value is not None}
        return json.loads(json.dumps(plain(self._queries.execute(name, given))))

    def events(self) -> Iterator[dict[str, Any]]:
        return iter(())

    def close(self) -> None:
        pass


def find(what: str | None) -> Asked:
    """By the name of a machine that runs, its process's number, the path of its socket, or that of a dump; None: the
    one that runs. UsageError.
    """
    if what is not None and ("/" in what or Path(what).is_file() or Path(what).is_socket() or _of_run(what).is_file()):
        return _at(Path(what))
    found: list[Path] = []
    for path in sorted(controls().iterdir()):
        name, pid = path.name.removesuffix(".sock").rsplit(".", 1)
        if what in (None, name, pid, path.stem) and _lives(path):
            found.append(path)
    if len(found) == 1:
        return Running(found[0])
    named = f"no machine {what!r}" if what is not None else "no machine"
    if not found:
        raise UsageError(f"{named} runs; start one with 'vhost-iommu serve' or 'run', or name a dump's file")
    raise UsageError(f"{len(found)} machines run; name one: {', '.join(path.stem for path in found)}")


def _of_run(folder: str | Path) -> Path:
    """The dump in a run's folder."""
    return Path(folder) / "dump"


def _at(path: Path) -> Asked:
    if path.is_dir():
        path = _of_run(path)
    if path.is_socket():
        try:
            return Running(path)
        except OSError as error:
            raise UsageError(
                f"{path}: {error.strerror or error}; name the control socket of a machine that runs"
            ) from error
    return Kept(path)


def _lives(path: Path) -> bool:
    """Whether somebody listens there; a socket that is left over is removed."""
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
        return False
    except OSError:
        return path.is_socket()
    return True
