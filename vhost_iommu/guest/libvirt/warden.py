# SPDX-License-Identifier: Apache-2.0
"""The watch over a server whose domains its user starts: when it has ended, however it did, they are destroyed.

Law: libvirt knows nothing of vfio-user, and a guest whose server is gone hangs. A domain is the server's if it names a
socket of the server's; a process beside the server, which holds one end of a socket, sees the server's end.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from vhost_iommu.errors import UsageError
from vhost_iommu.guest.libvirt.domain import QEMU
from vhost_iommu.guest.libvirt.session import module_here

#: Seconds in which libvirt answers, and in which it ends QEMU, gently and then not.
PATIENCE = 60.0


@contextlib.contextmanager
def watched(uri: str, sockets: Sequence[Path]) -> Iterator[list[str]]:
    """Until the end of this process, or of the ``with``, domains of ``sockets`` live; yields the names of those that a
    server of before left behind. UsageError: nobody answers at ``uri``.
    """
    if not module_here():
        raise UsageError("libvirt's Python module is not here; pip install 'vhost-iommu[libvirt]'")
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, uri, *map(os.path.realpath, sockets)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # the terminal's Ctrl-C is for us alone
            )
        try:
            said: dict[str, Any] = {}
            ours.settimeout(PATIENCE)
            with contextlib.suppress(OSError), ours.makefile() as told:
                said = json.loads(told.readline() or "{}")
            if "left" not in said:
                raise UsageError(f"{uri} does not answer: {said.get('error', 'nothing')}; name another with --libvirt")
            yield said["left"]
        finally:
            ours.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)


def names(description: str, sockets: Sequence[str]) -> bool:
    """Whether a domain's XML has one of ``sockets`` among QEMU's own arguments."""
    arguments = [each.get("value", "") for each in ElementTree.fromstring(description).iter(f"{{{QEMU}}}arg")]
    words = {word for each in arguments for word in re.split('[",=]', each)}
    return not {os.path.realpath(word) for word in words if word.startswith("/")}.isdisjoint(sockets)


def _destroy(libvirt: Any, uri: str, sockets: Sequence[str]) -> list[str]:
    """End the domains of ``sockets``; their names."""
    connection = libvirt.open(uri)
    ended = []
    for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        # It may end by itself at any time.
        with contextlib.suppress(libvirt.libvirtError):
            if names(domain.XMLDesc(), sockets):
                domain.destroy()
                ended.append(domain.name())
    connection.close()
    return ended


def main() -> int:
    """Arguments: libvirt's URI, and the paths of the sockets."""
    import libvirt

    uri, *sockets = sys.argv[1:]
    libvirt.registerErrorHandler(lambda *_: None, None)
    with socket.socket(fileno=os.dup(0)) as server:
        try:
            said = {"left": _destroy(libvirt, uri, sockets)}
        except libvirt.libvirtError as why:
            server.sendall(json.dumps({"error": str(why)}).encode() + b"\n")
            return 1
        with contextlib.suppress(OSError):
            server.sendall(json.dumps(said).encode() + b"\n")
            server.recv(1)
    try:
        for name in _destroy(libvirt, uri, sockets):
            print(f"vhost-iommu: the server of the domain {name} has ended; the domain was destroyed", file=sys.stderr)
    except libvirt.libvirtError as why:
        print(f"vhost-iommu: a domain of {uri} may hang, for its server has ended, and {why}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
