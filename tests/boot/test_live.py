# SPDX-License-Identifier: Apache-2.0
"""A guest that a test speaks with while it runs, whoever started its QEMU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pexpect
import pytest

from tests.conftest import need_kernel, need_libvirt
from vhost_iommu.errors import UsageError
from vhost_iommu.guest import kmod
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.live import CommandError, ComplaintError, GuestDiedError, GuestTimeoutError
from vhost_iommu.guest.recording import Difference, Recording, by_operation, name_of
from vhost_iommu.pytest_plugin import Bench
from vhost_iommu.watch import Commanded, Moved, Noted, Value

#: One source, and each who starts QEMU.
BY_BOTH = pytest.mark.parametrize("vi_launcher", ["qemu", "libvirt"], scope="session")


@pytest.fixture(autouse=True)
def _needs(assets: Assets, vi_kernel: str | None, vi_launcher: str | None) -> None:
    need_kernel(assets, vi_kernel or "6.12")
    if vi_launcher == "libvirt":
        need_libvirt()


@BY_BOTH
@pytest.mark.parametrize("vi_kernel", ["6.1", "6.12", "7"], scope="session")
def test_a_disk_read_invalidates_what_it_mapped(vhost_iommu: Bench) -> None:
    with vhost_iommu.boot("smmuv3-linux") as guest:
        with guest.recording() as seen:
            guest.run("dd if=/dev/vda of=/dev/null bs=64k count=4 iflag=direct")
        assert seen.commands("CMD_TLBI_NH_VA")
        assert not seen.events
        with guest.fault("drop-sync", smmu="smmu0", after=3):
            guest.run("dd if=/dev/vda of=/dev/null bs=4k count=4 iflag=direct", check=False)
        assert "CMD_SYNC timeout" in guest.dmesg()


def test_a_disk_at_work_goes_astray_once_and_goes_on(vhost_iommu: Bench) -> None:
    with vhost_iommu.boot("smmuv3-linux", kernel="6.12") as guest:
        read = "dd if=/dev/vda of=/dev/null bs=4k count=8 iflag=direct"
        guest.run(read)
        with guest.recording() as seen, guest.fault("stale-dma", seconds=0.3, may_miss=True) as fault:
            guest.run(f"{read}; sleep 2", check=False)
        assert (fault.struck, seen.events.names) == (1, ["F_TRANSLATION"])
        with guest.recording() as seen:
            guest.run(read, check=False)
        assert not seen.events


@BY_BOTH
def test_a_live_guest_does_what_it_is_asked(vhost_iommu: Bench) -> None:
    with vhost_iommu.boot("smmuv3-linux", kernel="6.12") as guest:
        assert guest.run("echo one; echo two >&2").output == "one\ntwo\n"
        assert guest.run("exit 7", check=False).status == 7
        with pytest.raises(CommandError, match=r"'ls /nowhere' ended with status 1: .*No such file"):
            guest.run("ls /nowhere")
        with pytest.raises(GuestTimeoutError, match="did not end within 2 s"):
            guest.run("echo begun; sleep 1000", timeout=2)
        # What the kernel says meanwhile is on the console, and not in a command's output.
        assert guest.run("echo '<4>torn apart?' >/dev/kmsg; printf 'no new line'").output == "no new line"
        assert "torn apart?" in guest.console
        data = os.urandom(100_000)
        guest.put(data, "/tmp/a file")
        assert guest.get("/tmp/a file") == data
        with pytest.raises(CommandError, match="nowhere"):
            guest.put(data, "/nowhere/x")
        guest.send("echo $((6 * 7))")
        guest.expect(r"\n42\r")
        guest.run("echo first >/tmp/here")
        guest.reset()
        assert guest.run("test -e /tmp/here", check=False).status == 1
        guest.power_off()
        with pytest.raises(GuestDiedError, match="guest-shutdown"):
            guest.run("true")


def test_a_recording_has_both_sides_in_order_and_commands_by_operation(vhost_iommu: Bench) -> None:
    with vhost_iommu.boot("smmuv3-linux", kernel="6.12") as guest:
        with guest.recording() as seen:
            guest.run("dd if=/dev/vda of=/dev/null bs=4k count=8 iflag=direct; echo '<4>the end' >/dev/kmsg")
        assert len(seen.kernel("unmap")) == len(seen.operations) >= 8
        for each in seen.operations:
            assert each.kinds == {"CMD_TLBI_NH_VA": 1, "CMD_SYNC": 1}
        assert any("the end" in line for line in seen.said)
        assert sum(each.size for each in seen.dma if each.write) > 8 * 4096
        # A page is mapped before DMA goes there, unmapped afterwards, and then invalidated.
        page = seen.kernel("map")[0]
        names = [name_of(each) for each in seen if touches(each, int(page.fields["iova"]))]
        assert names[0] == "map"
        assert names[1] == "Moved"
        assert names[-2:] == ["unmap", "CMD_TLBI_NH_VA"]
        assert not seen.gaps
        with guest.recording() as nothing:
            pass
        assert list(nothing.commands()) == []


def test_two_kernels_are_held_against_each_other_by_operation(vhost_iommu: Bench, assets: Assets) -> None:
    def recorded(kernel: str) -> Recording:
        need_kernel(assets, kernel)
        with vhost_iommu.boot("smmuv3-linux", kernel=kernel) as guest, guest.recording() as seen:
            guest.run("dd if=/dev/vda of=/dev/null bs=64k count=4 iflag=direct")
        assert not seen.events
        return seen

    kernels = ("6.1", "6.12", "7")
    every = {kernel: recorded(kernel) for kernel in kernels}
    for seen in every.values():
        rows = {size: row for (name, size), row in by_operation(seen).items() if name == "unmap"}
        assert sum(size * row.count for size, row in rows.items()) >= 4 * 0x10000
        # How many pages are one mapping is a kernel's own; each that ends is waited for once.
        assert [row.commands["CMD_SYNC"] for row in rows.values()] == [row.count for row in rows.values()]
    for one, other in pairwise(kernels):
        found = Difference(every[one], every[other], (one, other))
        assert bool(found) == (by_operation(every[one]) != by_operation(every[other]))
        for name, line in zip((one, other), found.lines()[-2:], strict=False):
            assert line.startswith(f"{name:>10}: CMD_SYNC {len(every[name].commands('CMD_SYNC'))}, CMD_TLBI_NH_VA ")
    assert not Difference(every["7"], every["7"])


def touches(it: Value, page: int) -> bool:
    """Whether it is a mapping's, a transfer's or a command's of the page."""
    match it:
        case Noted(topic="iommu"):
            return it.fields["iova"] == page
        case Moved():
            return it.iova & ~0xFFF == page
        case Commanded():
            return it.command.values().get("Address") == page
    return False


@BY_BOTH
def test_a_module_of_the_hosts_is_inserted_and_what_it_does_is_recorded(vhost_iommu: Bench, assets: Assets) -> None:
    module = kmod.Modules(assets, assets.headers("6.12")).module(kmod.ENGINE)
    with vhost_iommu.boot("smmuv3-pasid", kernel="6.12") as guest:
        device = guest.run("ls /sys/bus/platform/devices | grep smmute").output.strip()
        with guest.recording() as seen:
            guest.insmod(module, f"device={device}", "tests=copies_coherent_memory")
        assert "ok 1 copies_coherent_memory" in guest.dmesg()
        assert [each.write for each in seen.dma if each.who == "engine0"].count(True) > 0
        assert seen.commands("CMD_CFGI_CD")
        with pytest.raises(UsageError, match="is not a kernel module"):
            guest.insmod(__file__)


def test_what_a_kernel_complains_of_fails_unless_it_was_asked_for(vhost_iommu: Bench) -> None:
    def complains(text: str, *allowed: str) -> None:
        with vhost_iommu.boot("smmuv3-linux", kernel="6.12", allow=allowed) as guest:
            guest.run(f"echo '<4>{text}' >/dev/kmsg")

    complains("WARNING: CPU: 0 at will", "at will$")
    with pytest.raises(ComplaintError, match=r"nobody asked for: .*WARNING: CPU: 0 at nowhere"):
        complains("WARNING: CPU: 0 at nowhere")


def test_an_event_fails_unless_it_was_asked_for(vhost_iommu: Bench) -> None:
    reads = "(dd if=/dev/vda of=/dev/null bs=64k count=4 iflag=direct >/dev/null 2>&1 &); "
    told = "until dmesg | grep -q 'event 0x10 received'; do sleep 0.1; done"

    def strays(*allowed: str) -> None:
        wrong = ["wrong-address after=60"]
        with vhost_iommu.boot("smmuv3-linux", kernel="6.12", faults=wrong, allow=allowed) as guest:
            guest.run(reads + told)

    strays("F_TRANSLATION")
    with pytest.raises(ComplaintError, match="nobody asked for: 1 event F_TRANSLATION; see "):
        strays()


@BY_BOTH
def test_a_guest_that_is_paused_at_its_begin_can_be_prepared_and_watched(vhost_iommu: Bench) -> None:
    with vhost_iommu.boot("smmuv3-linux", kernel="6.12", paused=True) as guest:
        with guest.recording() as seen, guest.fault("drop-cfgi", count=1):
            guest.resume()
        assert seen.commands().names[:2] == ["CMD_CFGI_STE_RANGE", "CMD_SYNC"]
        # What the driver made of the stream, decoded.
        context = guest.inside.query_context(stream=0x100)
        assert context is not None


@BY_BOTH
def test_a_guest_that_panics_is_told_of_in_a_sentence(vhost_iommu: Bench) -> None:
    with (
        pytest.raises(GuestDiedError, match=r"the guest died: .*sysrq triggered crash"),
        vhost_iommu.boot("smmuv3-linux", kernel="6.12") as guest,
    ):
        guest.run("echo c >/proc/sysrq-trigger")


@BY_BOTH
def test_a_guest_that_the_test_kills_died_of_that(vhost_iommu: Bench) -> None:
    with vhost_iommu.boot("smmuv3-linux", kernel="6.12", paused=True) as guest:
        guest.kill()
        with pytest.raises(GuestDiedError, match="the guest is no more; the test has killed it"):
            guest.run("true")


@BY_BOTH
def test_arguments_that_qemu_does_not_know_are_the_tests_mistake(vhost_iommu: Bench) -> None:
    with (
        pytest.raises(UsageError, match=r"not start.*-no-such-option: invalid option.*; correct .* arguments$"),
        vhost_iommu.boot("smmuv3-linux", kernel="6.12", qemu_args=["-no-such-option"]),
    ):
        pass


# -- the command line ------------------------------------------------------------------------------------------------


PROGRAM = str(Path(sys.executable).with_name("vhost-iommu"))


def command(*arguments: str, typed: str = "", launcher: str | None = None) -> subprocess.CompletedProcess[str]:
    line = [PROGRAM, "run", "smmuv3-linux", "--launcher", launcher or "qemu", *arguments]
    return subprocess.run(line, input=typed, capture_output=True, text=True, timeout=280, check=False)


@BY_BOTH
def test_a_command_in_a_guest_has_its_output_and_its_exit_code(vi_launcher: str) -> None:
    done = command("--exec", "echo said; echo more >&2; exit 7", launcher=vi_launcher)
    assert (done.returncode, done.stdout) == (7, "said\nmore\n"), done.stderr


def test_a_guest_that_dies_of_a_command_is_told_of_with_its_folder() -> None:
    done = command("--exec", "echo c >/proc/sysrq-trigger")
    assert done.returncode == 3
    assert re.search(r"the guest died: .*sysrq triggered crash\nthe console and all else is in ", done.stderr)


def test_what_is_typed_at_a_shell_goes_to_the_guest_which_ends_with_it() -> None:
    done = command("--shell", typed="echo $((6 * 7))\n")
    assert done.returncode == 0, done.stderr
    assert "\n42\n" in done.stdout.replace("\r", "")
    assert "Power down" in done.stdout


@BY_BOTH
def test_a_terminal_is_the_guests_until_it_is_left(vi_launcher: str) -> None:
    line = [PROGRAM, "run", "smmuv3-linux", "--shell", "--launcher", vi_launcher]
    shell = pexpect.spawn(line[0], line[1:], timeout=60, encoding="utf-8", dimensions=(31, 99))
    shell.expect("guest# ")
    shell.send("echo begun; sleep 1000\r")
    shell.expect("\nbegun")
    shell.send("\x03")  # Ctrl-C is the guest's
    shell.expect("guest# ")
    shell.send("stty size\r")
    shell.expect(r"31 99\r")
    shell.send("\x1d")
    shell.expect(pexpect.EOF)
    shell.close()
    assert shell.exitstatus == 0
