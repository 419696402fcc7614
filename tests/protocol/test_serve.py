# SPDX-License-Identifier: Apache-2.0
"""``vhost-iommu serve`` as a process: an inherited socket, a folder of sockets, and how it ends."""

from __future__ import annotations

import json
import resource
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.protocol.client import SocketTransport, TestClient
from vhost_iommu.smmu.v3.registers import IDR5
from vhost_iommu.vfio.wire import Region

COMMAND = [sys.executable, "-c", "import sys; from vhost_iommu.cli import main; sys.exit(main())"]


def test_an_inherited_connection_is_served_until_it_ends_and_the_trace_is_whole(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    ours, theirs = socket.socketpair()
    with theirs:
        argv = [*COMMAND, "serve", "smmuv3-bare", "--fd", str(theirs.fileno()), "--trace", str(trace)]
        process = subprocess.Popen(argv, pass_fds=[theirs.fileno()])
    try:
        with TestClient(SocketTransport(ours)) as client:
            client.version()
            value = client.read_int(Region.BAR0, IDR5.at, 4)
            assert IDR5(value).GRAN4K == 1
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
    events = json.loads(trace.read_text())
    assert (f"read IDR5: {value:#x}", "mmio") in {(event["name"], event.get("cat")) for event in events}


def test_a_folder_gets_a_socket_for_each_smmu_and_none_is_left(tmp_path: Path) -> None:
    argv = [*COMMAND, "serve", "two-smmus", "--socket-dir", str(tmp_path / "s"), "--log-level", "info"]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    process = subprocess.Popen(
        ["prlimit", f"--nofile={min(soft, 512)}:{hard}", *argv], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = shlex.split(process.stdout.readline())
        assert "qemu-system-aarch64" in " ".join(line)
        devices = [json.loads(line[at + 1]) for at, word in enumerate(line) if word == "-device"]
        for name, device in zip(("smmu0", "smmu1"), devices, strict=True):
            path = tmp_path / "s" / f"{name}.sock"
            assert device["socket"]["path"] == str(path)
            with TestClient.connect(path) as client:
                client.version()
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (hard, hard), "what it may have is raised"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert list((tmp_path / "s").iterdir()) == []
    finally:
        process.kill()
        process.wait()


def test_a_killed_daemons_socket_is_replaced_and_a_living_ones_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    argv = [*COMMAND, "serve", "smmuv3-bare", "--socket-dir", str(folder)]
    first, second = (subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2))
    processes = [first, second]
    try:
        # Which of the two came first is theirs to settle.
        lines = [process.stdout.readline() if process.stdout else b"" for process in processes]
        (refused,) = (process for process, line in zip(processes, lines, strict=True) if not line)
        assert refused.wait(60) == 2
        assert refused.stderr is not None
        (sentence,) = refused.stderr.read().decode().splitlines()
        assert "is in use by another process" in sentence
        serving = second if refused is first else first
        serving.kill()
        serving.wait()
        (left,) = folder.iterdir()
        third = subprocess.Popen(argv, stdout=subprocess.PIPE)
        processes.append(third)
        assert third.stdout is not None
        third.stdout.readline()
        with TestClient.connect(left) as client:
            client.version()
        third.terminate()
        assert third.wait(60) == 0
        assert list(folder.iterdir()) == []
    finally:
        for process in processes:
            process.kill()
            process.communicate()
