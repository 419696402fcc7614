# SPDX-License-Identifier: Apache-2.0
"""QEMU's line, the shim's table, the configuration of a bare program, and folders of runs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from vhost_iommu.errors import UsageError
from vhost_iommu.guest import bare, folder, linux, qemu, shim
from vhost_iommu.guest.platform import GuestMaster, GuestSmmu, Platform
from vhost_iommu.server import MAX_PATH

TOP = Path(__file__).resolve().parents[2]
MACHINE = Platform(
    [GuestSmmu("smmu0"), GuestSmmu("smmu1", wired=("eventq",))],
    [GuestMaster("disk0", "virtio,mmio", "smmu0", (1,)), GuestMaster("disk1", "virtio,mmio", "smmu1", (2, 3))],
)


# -- QEMU's line ---------------------------------------------------------------------------------------------------


def test_guest_memory_is_shared_and_the_machine_uses_it() -> None:
    line = qemu.Hardware(memory=256).arguments()
    assert "memory-backend-memfd,id=ram,size=256M,share=on" in line
    assert "memory-backend=ram" in line[line.index("-M") + 1].split(",")


def test_a_function_is_pinned_to_its_slot() -> None:
    flag, text = qemu.vfio_user(Path("/run/a,b.sock"), 17)
    device = json.loads(text)
    assert flag == "-device"
    assert device["addr"] == "11"
    assert device["socket"] == {"type": "unix", "path": "/run/a,b.sock"}


def test_a_comma_in_a_path_does_not_end_it() -> None:
    assert qemu.loader(Path("/a,b"), 16)[1] == "loader,file=/a,,b,addr=0x10,force-raw=on"


def test_more_memory_than_the_machine_file_gives_is_refused() -> None:
    qemu.refuse(["-s", "-S"])
    with pytest.raises(UsageError, match="'memory' in"):
        qemu.refuse(["-s", "-m", "1G"])


# -- the shim and the configuration ----------------------------------------------------------------------------------


def test_the_shims_table_is_entry_count_and_stores() -> None:
    words = memoryview(shim.table(0x4020_0000, [(0x40_1000_8010, 0x1000_0000)])).cast("Q")
    assert words.tolist() == [0x4020_0000, 1, 0x40_1000_8010, 0x1000_0000]


def test_the_shims_table_is_aligned_behind_its_code() -> None:
    assert len(shim.code()) % 8 == 0
    assert shim.binary(1, [(4, 2)]) == shim.code() + shim.table(1, [(4, 2)])


@pytest.mark.parametrize("write", [(2, 0), (4, 1 << 32)])
def test_the_shim_takes_32_bit_stores_only(write: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no 32-bit store"):
        shim.table(0, [write])


def test_a_bare_programs_configuration_says_what_the_platform_says() -> None:
    data = bare.configuration(MACHINE, "revoke=1")
    assert len(data) == bare.CONFIGURATION_SIZE
    parsed = bare.Configuration.parse(data)
    assert parsed.arguments == "revoke=1"
    assert [(write.address, write.value) for write in parsed.write] == MACHINE.writes()
    assert [smmu.base for smmu in parsed.smmu] == [registers.base for _, registers, _ in MACHINE.smmus]
    assert parsed.smmu[1].intids[0] == MACHINE.intid("smmu1", "eventq")
    assert parsed.master[1].smmu == 1
    assert parsed.master[1].sid[: parsed.master[1].sids] == [2, 3]
    assert parsed.master[1].intid == MACHINE.intid("disk1")


def test_arguments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="shorten"):
        bare.configuration(MACHINE, "x" * 256)


def test_only_cases_that_a_program_has_can_be_chosen() -> None:
    program = bare.Program(Path("dma.elf"), 0, 0, ("a", "b", "c"), None)
    assert program.chosen("revoke=1") == ("a", "b", "c")
    assert program.chosen("revoke=1 cases=c,a") == ("a", "c")
    assert program.chosen("cases=*") == ("a", "b", "c")
    with pytest.raises(UsageError, match="no case 'd'"):
        program.chosen("cases=d")


def test_a_programs_cases_are_chosen_by_its_arguments_and_once() -> None:
    program = bare.Program(Path("dma.elf"), 0, 0, ("a", "b"), config=64)
    assert program.arguments("revoke=1", ()) == "revoke=1"
    assert program.arguments("revoke=1", ("a", "b*")) == "revoke=1 cases=a,b*"
    with pytest.raises(UsageError, match="chosen twice"):
        program.arguments("cases=a", ("b",))
    with pytest.raises(UsageError, match="lists no cases"):
        bare.Program(Path("mine.elf"), 0, 0, (), None).arguments("", ("a",))


# -- cases of Linux ----------------------------------------------------------------------------------------------------


def test_every_smmu_and_disk_has_its_cases_and_warnings_come_last() -> None:
    names = [case.name for case in linux.cases(MACHINE)]
    assert {"smmu0_probes", "smmu1_probes", "disk1_is_behind_smmu1", "disk0_reads_back"} < set(names)
    assert "disks_work_at_once" in names
    assert len(names) == len(set(names))
    assert names[-1] == "no_smmu_warnings"


def with_engine(**properties: int | None) -> Platform:
    return Platform([GuestSmmu("smmu0")], [GuestMaster("engine0", "arm,smmute", "smmu0", (1,), properties=properties)])


def test_faults_on_purpose_come_after_the_case_that_wants_none() -> None:
    names = [case.name for case in linux.cases(with_engine(**{"pasid-num-bits": 8}))]
    quiet = names.index("no_smmu_warnings")
    assert {"engine0_copies_coherent_memory", "engine0_keeps_pasids_apart"} < set(names[:quiet])
    assert {"engine0_strict_loses_what_is_unmapped", "engine0_strict_revokes_pasids"} < set(names[quiet:])
    assert names[-1] == "no_other_warnings"
    assert len(names) == len(set(names))


def test_an_engine_without_pasids_has_no_cases_of_them() -> None:
    assert not [case.name for case in linux.cases(with_engine()) if "pasid" in case.name]


def test_an_engine_that_stalls_for_good_does_nothing_afterwards() -> None:
    names = [case.name for case in linux.cases(with_engine(**{"dma-can-stall": None}))]
    assert names[-2:] == ["engine0_strict_stalls_for_good", "no_other_warnings"]
    assert "engine0_strict_loses_what_is_unmapped" not in names


def test_without_the_module_the_engines_cases_are_there_and_cannot_run() -> None:
    with_module, without = linux.cases(with_engine()), linux.cases(with_engine(), "no module is built for it")
    assert [case.name for case in without] == [case.name for case in with_module if case.name != "no_other_warnings"]
    (case,) = (case for case in without if case.name == "engine0_copies_coherent_memory")
    assert str(case) == "engine0_copies_coherent_memory cannot 'no module is built for it'"


def test_a_chosen_case_brings_those_that_must_precede_it() -> None:
    every = [linux.LOADS, linux.module_case("mine"), *linux.cases(with_engine(**{"pasid-num-bits": 8}))]
    chosen = linux.with_needed(["engine0_lazy_fills_scattered_pages"], every)
    assert [case.name for case in chosen] == [
        "modules_load",
        "module_mine_loads",
        "engine0_copies_coherent_memory",  # binds a driver, without which there is no group
        "engine0_becomes_lazy",
        "engine0_lazy_fills_scattered_pages",
    ]


def test_what_a_case_needs_comes_before_it() -> None:
    every = linux.cases(with_engine(**{"pasid-num-bits": 8}))
    names = [case.name for case in every]
    for index, case in enumerate(every):
        assert not case.needs or case.needs in names[:index]


def test_the_operators_cases_come_before_what_compares_disks_and_wants_no_warning() -> None:
    mine = linux.shell_case("mine=grep -q x=1 /proc/cmdline && true")
    names = [case.name for case in linux.cases(MACHINE, own=[mine])]
    assert names.index("disk0_is_behind_smmu0") < names.index("mine") < names.index("disk0_appears")
    assert names[-2:] == ["disk1_reads_back", "no_smmu_warnings"]
    assert str(mine) == "mine shell 'grep -q x=1 /proc/cmdline && true'"


@pytest.mark.parametrize("text", ["", "mine", "mine=", "=true", "my case=true", "a#b=true", "mine=one\ntwo"])
def test_what_is_no_case_says_how_to_write_one(text: str) -> None:
    with pytest.raises(UsageError, match=r"write (it as|one)"):
        linux.shell_case(text)


def test_every_case_of_linux_says_what_it_is_about() -> None:
    engine = linux.cases(with_engine(**{"pasid-num-bits": 8}))
    stalls = linux.cases(with_engine(**{"dma-can-stall": None}))
    for case in [linux.LOADS, linux.module_case("mine"), *linux.cases(MACHINE), *engine, *stalls]:
        assert case.about.endswith("."), case.name
        assert case.about[0].isupper(), case.name


def test_the_tests_of_the_engines_cases_are_the_modules() -> None:
    source = (TOP / "guest/kmod/vt_engine.c").read_text()
    cases = [case for case in linux.cases(with_engine(**{"pasid-num-bits": 8})) if case.function == "engine"]
    assert cases
    for case in cases:
        assert f"\tTEST({case.arguments[1]})," in source


def test_every_case_calls_a_function_of_the_init_script() -> None:
    script = (TOP / "guest/linux/init").read_text()
    mine = [linux.LOADS, linux.module_case("mine"), linux.shell_case("mine=true")]
    for case in [*mine, *linux.cases(MACHINE), *linux.cases(with_engine()), *linux.cases(with_engine(), "why")]:
        assert f"\n{case.function}() {{" in script


# -- folders -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"vhost-iommu-{os.getuid()}"


def test_a_folder_that_is_too_long_for_sockets_is_told_of(runs: Path) -> None:
    with pytest.raises(UsageError, match=r"bytes too long for a socket; name a shorter folder in \$TMPDIR"):
        folder.control_socket("x" * 100)


def test_machines_that_begin_at_once_in_one_process_have_control_sockets_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = threading.Barrier(2)

    def path(_: int) -> Path:
        both.wait(30)
        return folder.control_socket("m")

    # A test's own folder is too long for sockets where many workers share the tests.
    with tempfile.TemporaryDirectory() as short, ThreadPoolExecutor(2) as pool:
        monkeypatch.setattr(tempfile, "tempdir", short)
        assert len(set(pool.map(path, range(2)))) == 2


def test_a_run_that_went_well_leaves_nothing(runs: Path) -> None:
    run = folder.RunFolder()
    assert run.path.stat().st_mode & 0o077 == 0
    run.file("Image").write_bytes(b"large")
    assert run.close(failed=False) is None
    assert list(runs.iterdir()) == []


def test_a_failed_run_leaves_its_artefacts_and_nothing_else(runs: Path) -> None:
    run = folder.RunFolder()
    for name in ("Image", "console.log"):
        run.file(name).write_text(name)
    kept = run.close(failed=True)
    assert kept is not None
    assert sorted(path.name for path in kept.iterdir()) == ["console.log", "lock"]


def _failed_runs(count: int, newest: float, size: int = 0) -> list[Path]:
    """Folders of failed runs, the newest last, a second apart."""
    made = []
    for n in range(count):
        run = folder.RunFolder()
        run.file("console.log").write_text("said")
        os.truncate(run.file("console.log"), size)
        kept = run.close(failed=True)
        assert kept is not None
        os.utime(kept, (newest - count + n, newest - count + n))
        made.append(kept)
    return made


@pytest.mark.parametrize("failed", [True, False])
def test_a_run_that_ends_takes_nothing_from_under_who_looks_at_all_folders(runs: Path, failed: bool) -> None:
    run = folder.RunFolder()
    run.file("Image").touch()
    ending = threading.Thread(target=run.close, args=(failed,))
    with folder._alone_in(runs):
        ending.start()
        ending.join(0.05)
        assert run.file("Image").exists()
    ending.join()
    assert not run.file("Image").exists()


def test_a_folder_that_a_report_names_is_there_for_a_day_however_many_runs_fail(runs: Path) -> None:
    made = _failed_runs(4 * folder.KEPT, time.time())
    folder.prune(runs)
    assert all(path.exists() for path in made)


def test_of_older_failed_runs_only_the_newest_stay(runs: Path) -> None:
    made = _failed_runs(folder.KEPT + 3, time.time() - folder.DAY)
    folder.prune(runs)
    assert [path.exists() for path in made] == [False] * 3 + [True] * folder.KEPT


def test_failed_runs_that_take_too_much_room_leave_only_the_newest(runs: Path) -> None:
    made = _failed_runs(folder.KEPT + 3, time.time(), size=folder.ROOM // folder.KEPT)
    folder.prune(runs)
    assert [path.exists() for path in made] == [False] * 3 + [True] * folder.KEPT


def test_there_are_never_very_many_folders(runs: Path) -> None:
    runs.mkdir(mode=0o700)
    for n in range(300):
        (runs / str(n)).mkdir()
        (runs / str(n) / "console.log").touch()
    folder.prune(runs)
    assert len(list(runs.iterdir())) == folder.ROOM >> 20


def test_a_killed_run_is_reduced_and_a_running_one_left_alone(runs: Path) -> None:
    run = folder.RunFolder()
    for name in ("Image", "console.log"):
        run.file(name).write_text(name)
    folder.prune(runs)
    assert run.file("Image").exists()
    fcntl.flock(run._lock, fcntl.LOCK_UN)  # as the kernel does for a process that was killed
    folder.prune(runs)
    assert run.file("console.log").exists()
    assert not run.file("Image").exists()


def test_a_run_that_was_killed_before_it_said_anything_leaves_nothing(runs: Path) -> None:
    run = folder.RunFolder()
    run.file("Image").write_bytes(b"large")
    assert run.close(failed=True) == run.path
    folder.prune(runs)
    assert not run.path.exists()


def test_a_dry_runs_files_stay(runs: Path) -> None:
    run = folder.RunFolder()
    run.file("Image").write_bytes(b"large")
    run.leave()
    folder.prune(runs)
    assert run.file("Image").exists()


def test_a_folder_that_is_to_be_kept_serves_one_run_at_a_time(tmp_path: Path) -> None:
    run = folder.RunFolder(tmp_path / "kept")
    with pytest.raises(UsageError, match="in use"):
        folder.RunFolder(tmp_path / "kept")
    assert run.close(failed=False) == tmp_path / "kept"
    assert folder.RunFolder(tmp_path / "kept").close(failed=False) == tmp_path / "kept"


def test_sockets_are_elsewhere_where_a_folder_to_keep_has_too_long_a_path(tmp_path: Path) -> None:
    far = folder.RunFolder(tmp_path / ("x" * 100))
    with contextlib.ExitStack() as stack:
        short = far.for_sockets(stack)
        assert len(str(short / "smmu0.sock")) <= MAX_PATH
        assert short.is_dir()
    assert not short.exists()
    assert far.close(failed=False) == far.path


def test_a_gicv3_has_the_frame_that_our_wires_write_to() -> None:
    machine = qemu.Hardware(gic=3).arguments()[1].split(",")
    assert {"gic-version=3", "msi=gicv2m"} <= set(machine)
    assert "msi=gicv2m" not in qemu.Hardware().arguments()[1]


def test_kvm_is_refused_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(machine: str, accelerator: str = "kvm") -> str:
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
        with pytest.raises(UsageError) as error:
            qemu.Hardware().accelerated(accelerator)
        return str(error.value)

    assert refused("x86_64") == "KVM runs an arm64 guest on an arm64 machine, and this one is x86_64; take TCG"
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    assert refused("aarch64") == "this machine has no /dev/kvm; enable KVM in its kernel, or take TCG"
    monkeypatch.setattr(os.path, "exists", lambda path: True)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert refused("aarch64") == "/dev/kvm is not yours to write; join the group that owns it, or take TCG"
    assert refused("aarch64", "hvf") == "there is no accelerator 'hvf'; take one of tcg, kvm"


def test_by_kvm_the_cpus_are_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="aarch64"))
    monkeypatch.setattr(os.path, "exists", lambda path: True)
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) == "/dev/kvm")
    arguments = qemu.Hardware(gic=3).accelerated("kvm").arguments()
    assert arguments[arguments.index("-cpu") + 1] == "host"
    assert arguments[arguments.index("-accel") + 1] == "kvm"
    assert "-accel" not in qemu.Hardware().arguments()
