# SPDX-License-Identifier: Apache-2.0
"""Where each thing a guest needs is taken from, against a runner that plays the outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from vhost_iommu.errors import UsageError
from vhost_iommu.guest import apt as apt_module
from vhost_iommu.guest import assets as assets_module
from vhost_iommu.guest.apt import Done
from vhost_iommu.guest.assets import Assets, headers_variable, kernel_entry, kernel_variable

TREES = {
    "busybox-static": ["bin/busybox", "usr/share/doc/busybox/copyright"],
    "qemu-system-arm": [
        "usr/bin/qemu-system-aarch64",
        "usr/lib64/ld-linux-x86-64.so.2",
        "usr/lib/x86_64-linux-gnu/libc.so.6",
        "usr/share/qemu/efi-virtio.rom",
    ],
    "gcc-aarch64-linux-gnu": ["usr/bin/aarch64-linux-gnu-gcc", "usr/lib/x86_64-linux-gnu/libmpc.so.3"],
    "binutils-aarch64-linux-gnu": ["usr/bin/aarch64-linux-gnu-objcopy"],
    "linux-image-6.12.95+deb12-arm64": ["boot/vmlinuz-6.12.95", "usr/lib/linux-image-6.12.95/board.dtb"],
    "linux-headers-6.12.95+deb12-arm64": [
        "usr/src/linux-headers-6.12.95+deb12-arm64/Makefile",
        "usr/src/linux-headers-6.12.95+deb12-arm64/vmlinux",
    ],
    "linux-headers-6.12.95+deb12-common": ["usr/src/linux-headers-6.12.95+deb12-common/Makefile"],
    "linux-kbuild-6.12.95+deb12": ["usr/lib/linux-kbuild-6.12.95+deb12/scripts/mod/modpost"],
    "linux-image-6.1.0-50-arm64": ["boot/vmlinuz-6.1.0-50-arm64"],
    "linux-headers-6.1.0-50-arm64": ["usr/src/linux-headers-6.1.0-50-arm64/vmlinux"],
    "linux-headers-6.1.0-50-common": ["usr/src/linux-headers-6.1.0-50-common/Makefile"],
    "linux-kbuild-6.1": ["usr/lib/linux-kbuild-6.1/scripts/mod/modpost"],
    "linux-binary-7.3.4+deb13-arm64-16k": ["boot/vmlinuz-7.3.4+deb13-arm64-16k"],
    "linux-base-7.3.4+deb13-arm64-16k": ["usr/share/base"],
    "linux-modules-7.3.4+deb13-arm64-16k": ["usr/lib/modules/7.3.4+deb13-arm64-16k/modules.builtin"],
    "linux-headers-7.3.4+deb13-arm64-16k": ["usr/src/linux-headers-7.3.4+deb13-arm64-16k/vmlinux"],
    "linux-headers-7.3.4+deb13-common": ["usr/src/linux-headers-7.3.4+deb13-common/Makefile"],
    "linux-kbuild-7.3.4+deb13": ["usr/lib/linux-kbuild-7.3.4+deb13/scripts/mod/modpost"],
    "linux-source-6.12": ["usr/src/linux-source-6.12.tar.xz"],
    "make": ["usr/bin/make"],
    "flex": ["usr/bin/flex"],
    "bison": ["usr/bin/bison"],
    "bc": ["usr/bin/bc"],
    "libc6": ["usr/lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu/libc.so.6"],
}


class Outside:
    """Every command the assets run: apt fetches TREES, and what is on PATH is told by ``path``."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.path: dict[str, str] = {name: f"/bin/{name}" for name in ("apt-get", "apt-cache", "dpkg", "dpkg-deb")}
        self.qemu_version = "11.1.3"
        self.devices = 'name "vfio-user-pci", bus PCI\n'
        self.compiles = True

    def which(self, name: str) -> str | None:
        return self.path.get(name)

    def __call__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        line: Callable[[str], None] | None = None,
    ) -> Done:
        self.calls.append(list(argv))
        program = Path(argv[0]).name
        if program == "apt-cache":
            return Done(0, "\n".join(TREES), "")
        if program == "dpkg":
            return Done(0, "amd64\n", "")
        if program == "dpkg-deb":
            package = Path(argv[2]).name.partition("_")[0]
            for name in TREES[package]:
                file = Path(argv[3]) / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(package)
            return Done(0, "", "")
        if program == "apt-get":
            return self.fetch(argv)
        if program == "make":
            return self.make(argv, Path(argv[2]))
        if "--version" in argv:
            return Done(0, f"QEMU emulator version {self.qemu_version} (Debian)\n", "")
        if "-device" in argv:
            return Done(0, self.devices, "")
        return Done(0, "", "") if self.compiles else Done(1, "", "cc: unknown target")

    def fetch(self, argv: Sequence[str]) -> Done:
        names = [f"{word}_1_any.deb" for word in argv if word in TREES]
        if "--print-uris" in argv:
            extra = ["libc6_1_any.deb"] if "gcc-aarch64-linux-gnu" in argv else []
            return Done(0, "".join(f"'u' {name} 1000 SHA256:0\n" for name in [*names, *extra]), "")
        if "install" in argv:
            for name in [*names, "libc6_1_any.deb"]:
                (Path(argv[-1].partition("=")[2]) / name).write_text("deb")
        return Done(0, "", "")

    def make(self, argv: Sequence[str], folder: Path) -> Done:
        if argv[-1] == "allnoconfig":
            (wishes,) = (word.partition("=")[2] for word in argv if word.startswith("KCONFIG_ALLCONFIG="))
            (folder / ".config").write_text(Path(wishes).read_text())
            return Done(0, "", "")
        for name, text in {"include/config/kernel.release": "6.12.95-small\n", "mm/slub.o": "object"}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return Done(0, "", "")

    @property
    def fetched(self) -> bool:
        return any(Path(call[0]).name == "apt-get" for call in self.calls)


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Outside:
    world = Outside()
    keyring = tmp_path / "keys.gpg"
    keyring.write_text("keys")
    by_flavour = [name(each) for each in assets_module.FLAVOURS for name in (kernel_variable, headers_variable)]
    for variable in ("VI_QEMU", "VI_BUSYBOX", "VI_CROSS", *by_flavour):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("VI_MIRROR", "mirror://here/debian")
    monkeypatch.setattr("shutil.which", world.which)
    monkeypatch.setattr(assets_module, "host_suite", lambda: "bookworm")
    monkeypatch.setattr(apt_module, "KEYRING", keyring)
    return world


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def assets(tmp_path: Path, outside: Outside, said: list[str]) -> Assets:
    return Assets(tmp_path / "cache", said.append, outside)


def test_an_able_qemu_on_path_is_taken(assets: Assets, outside: Outside) -> None:
    outside.path["qemu-system-aarch64"] = "/bin/qemu-system-aarch64"
    outside.qemu_version = "10.1.0"
    qemu = assets.qemu()
    assert (qemu.command, qemu.version) == (("/bin/qemu-system-aarch64",), (10, 1, 0))
    assert not outside.fetched


def test_an_old_qemu_on_path_is_passed_over(assets: Assets, outside: Outside, tmp_path: Path) -> None:
    outside.path["qemu-system-aarch64"] = "/bin/qemu-system-aarch64"
    real = outside.__call__

    def old_on_path(argv: Sequence[str], **rest: object) -> Done:
        if argv[0] == "/bin/qemu-system-aarch64":
            return Done(0, "QEMU emulator version 7.2.1\n", "")
        return real(argv)

    qemu = Assets(tmp_path / "cache", print, old_on_path).qemu()
    assert qemu.version == (11, 1, 3)
    assert qemu.origin == str(tmp_path / "cache/qemu")


def test_a_private_qemu_runs_with_its_own_loader_and_files(assets: Assets, tmp_path: Path) -> None:
    folder = tmp_path / "cache/qemu"
    assert assets.qemu().command == (
        f"{folder}/usr/lib64/ld-linux-x86-64.so.2",
        "--library-path", f"{folder}/usr/lib/x86_64-linux-gnu",
        "--argv0", "qemu-system-aarch64",
        f"{folder}/usr/bin/qemu-system-aarch64",
        "-L", f"{folder}/usr/share/qemu",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("version", "devices", "says"),
    [("9.2.0", "", "is 9.2 and has no vfio-user client"), ("10.2.0", "", "without the device vfio-user-pci")],
)
def test_a_named_qemu_that_is_unable_is_refused(
    assets: Assets, outside: Outside, version: str, devices: str, says: str
) -> None:
    outside.qemu_version, outside.devices = version, devices
    with pytest.raises(UsageError, match=says):
        assets.qemu(Path("/opt/qemu"))
    assert not outside.fetched


def test_the_environment_names_a_qemu(assets: Assets, outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VI_QEMU", "/bin/sh")
    assert assets.qemu().command == ("/bin/sh",)


def test_a_fetched_kernel_is_the_newest_and_without_device_trees(assets: Assets, said: list[str]) -> None:
    folder = assets.kernel()
    assert (folder / "boot/vmlinuz-6.12.95").is_file()
    assert not (folder / "usr/lib/linux-image-6.12.95").exists()
    assert said[-1] == f"kernel 6.12.95+deb12-arm64 is in {folder}"


def test_a_flavour_that_is_unknown_names_the_known(assets: Assets) -> None:
    with pytest.raises(UsageError, match=r"6\.12, 6\.1, 7, 7-16k"):
        assets.kernel("5.4")


def test_the_environment_names_a_kernel_of_one_flavour(
    assets: Assets, outside: Outside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VI_KERNEL_7_16K", str(tmp_path))
    assert assets.kernel("7-16k") == tmp_path
    assert not outside.fetched
    monkeypatch.setenv("VI_KERNEL_7_16K", str(tmp_path / "none"))
    with pytest.raises(UsageError, match=r"correct \$VI_KERNEL_7_16K"):
        assets.kernel("7-16k")


def test_headers_are_of_the_very_kernel_and_build_where_they_are(assets: Assets, tmp_path: Path) -> None:
    build = assets.headers()
    assert build == tmp_path / "cache/headers-6.12.95+deb12-arm64/usr/src/linux-headers-6.12.95+deb12-arm64"
    assert "include $(KBUILD_OUTPUT)/../linux-headers-6.12.95+deb12-common/Makefile" in (build / "Makefile").read_text()
    assert "KERNELRELEASE = 6.12.95+deb12-arm64" in (build / ".kernelvariables").read_text()
    assert not (build / "vmlinux").exists()
    assert (build / "../../lib/linux-kbuild-6.12.95+deb12/scripts/mod/modpost").exists()
    status = (tmp_path / "cache/apt/arm64-bookworm-backports/status").read_text()
    assert "linux-image-6.12.95+deb12-arm64 (= 1)" in status, "the version that dpkg knows"


def test_a_kernel_named_by_hand_needs_its_own_build_folder(
    assets: Assets, outside: Outside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VI_KERNEL_6_12", str(tmp_path))
    with pytest.raises(UsageError, match="VI_HEADERS_6_12"):
        assets.headers()
    (tmp_path / "Module.symvers").write_text("")
    assert assets.headers() == tmp_path
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("VI_HEADERS_6_12", str(other))
    assert assets.headers() == other
    assert not outside.fetched


def test_headers_gone_from_the_mirror_say_what_to_remove(
    assets: Assets, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = assets.kernel()
    monkeypatch.delitem(TREES, "linux-headers-6.12.95+deb12-arm64")
    fetch = outside.fetch
    gone = Done(100, "", "E: Unable to locate package linux-headers-6.12.95+deb12-arm64\n")
    monkeypatch.setattr(outside, "fetch", lambda argv: gone if "install" in argv else fetch(argv))
    with pytest.raises(UsageError, match=f"remove {kernel}"):
        assets.headers()


@pytest.mark.parametrize(
    ("flavour", "version", "common", "kbuild"),
    [
        ("6.1", "6.1.0-50-arm64", "linux-headers-6.1.0-50-common", "linux-kbuild-6.1"),
        ("7-16k", "7.3.4+deb13-arm64-16k", "linux-headers-7.3.4+deb13-common", "linux-kbuild-7.3.4+deb13"),
    ],
)
def test_each_flavour_has_headers_of_its_own(
    assets: Assets, tmp_path: Path, flavour: str, version: str, common: str, kbuild: str
) -> None:
    build = assets.headers(flavour)
    assert build == tmp_path / f"cache/headers-{version}/usr/src/linux-headers-{version}"
    assert f"../{common}/Makefile" in (build / "Makefile").read_text()
    assert (build / f"../{common}/Makefile").exists()
    assert (build / f"../../lib/{kbuild}/scripts/mod/modpost").exists()
    assert (build / "../../lib64/ld-linux-x86-64.so.2").exists(), "of the kernel's own Debian"


def test_a_small_kernel_is_compiled_here_and_is_its_own_build_folder(
    assets: Assets, outside: Outside, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    outside.path |= {name: f"/bin/{name}" for name in ("gcc", "make")}
    monkeypatch.setattr(
        assets_module, "unpack_source", lambda archive, folder: (folder / "Makefile").write_text("all:")
    )
    kernel = assets.kernel("6.12-small")
    assert kernel == tmp_path / "cache" / kernel_entry("6.12-small")
    assert assets.headers("6.12-small") == kernel
    assert assets.facts(kernel.name) == {"version": "6.12.95-small", "packages": "linux-source-6.12_1_any"}
    assert sorted(path.name for path in kernel.iterdir()) == [".config", "Makefile", "include", "stamp.json"]
    assert said[-1] == f"kernel 6.12.95-small is in {kernel}"
    made = [call for call in outside.calls if call[0] == "make"]
    assert [call[-1] for call in made] == ["allnoconfig", "modules"]
    assert f"CROSS_COMPILE={tmp_path}/cache/cross-bookworm/usr/bin/aarch64-linux-gnu-" in made[0]


def test_what_compiles_a_kernel_is_fetched_where_it_is_not_here(
    assets: Assets, outside: Outside, tmp_path: Path
) -> None:
    outside.path["make"] = "/bin/make"
    assert assets.tools("make") == {}
    assert not outside.fetched
    programs = tmp_path / "cache/tools-bookworm/usr/bin"
    found = assets.tools("make", "flex")
    assert found["PATH"].split(":")[0] == str(programs)
    assert found["M4"] == str(programs / "m4")
    assert (programs / "bison").exists()


def test_without_a_compiler_for_this_machine_no_kernel_is_compiled(assets: Assets, outside: Outside) -> None:
    with pytest.raises(UsageError, match=r"\$VI_KERNEL_6_12_SMALL.*takes a gcc for this machine"):
        assets.kernel("6.12-small")
    assert not outside.fetched


def test_busybox_is_a_file_and_its_download_is_gone(assets: Assets, tmp_path: Path) -> None:
    assert assets.busybox().read_text() == "busybox-static"
    assert list((tmp_path / "cache/downloads").iterdir()) == []


def test_a_second_time_runs_nothing(assets: Assets, outside: Outside, tmp_path: Path) -> None:
    assets.busybox()
    assets.kernel()
    outside.calls.clear()
    again = Assets(tmp_path / "cache", print, outside)
    again.busybox()
    again.kernel()
    assert outside.calls == []


def test_a_cross_compiler_on_path_is_taken(assets: Assets, outside: Outside) -> None:
    outside.path |= {name: f"/bin/{name}" for name in ("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-objcopy")}
    cross = assets.cross()
    assert (cross.cc, cross.prefix) == (("aarch64-linux-gnu-gcc",), "aarch64-linux-gnu-")
    assert not outside.fetched


def test_clang_with_lld_serves_as_cross_compiler(assets: Assets, outside: Outside) -> None:
    outside.path |= {name: f"/bin/{name}" for name in ("clang", "ld.lld")}
    cross = assets.cross()
    assert cross.cc == ("clang", "--target=aarch64-linux-gnu", "-fuse-ld=lld")
    assert cross.prefix is None


def test_clang_without_its_linker_is_passed_over_and_that_is_told(assets: Assets, outside: Outside) -> None:
    outside.path["clang"] = "/bin/clang"
    assert assets.cross_here() == "/bin/clang lacks its linker ld.lld, which the package lld has"
    assert assets.cross().prefix is not None


def test_a_fetched_cross_compiler_uses_the_hosts_c_library(assets: Assets, outside: Outside, tmp_path: Path) -> None:
    cross = assets.cross()
    assert cross.prefix == f"{tmp_path}/cache/cross-bookworm/usr/bin/aarch64-linux-gnu-"
    assert cross.env == {"LD_LIBRARY_PATH": f"{tmp_path}/cache/cross-bookworm/usr/lib/x86_64-linux-gnu"}
    assert not any("libc6" in call[2] for call in outside.calls if call[0] == "dpkg-deb")


def test_a_named_cross_compiler_that_is_unable_is_refused(
    assets: Assets, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VI_CROSS", "sparc-")
    outside.compiles = False
    with pytest.raises(UsageError, match=r"VI_CROSS=sparc- does not compile for AArch64 \(cc: unknown target\)"):
        assets.cross()


@pytest.mark.parametrize("tool", ["apt-get", "apt-cache", "dpkg", "dpkg-deb"])
def test_without_a_packages_tool_all_that_is_missing_is_said_at_once(
    assets: Assets, outside: Outside, tool: str
) -> None:
    del outside.path[tool]
    with pytest.raises(UsageError) as told:
        assets.fetch_all()
    for variable in ("$VI_QEMU", "$VI_BUSYBOX", "$VI_CROSS", "$VI_KERNEL_6_12"):
        assert variable in str(told.value)
    assert f"no {tool} " in str(told.value)
    assert "vhost-iommu fetch" not in str(told.value)


def test_what_is_here_is_not_said_to_be_missing(
    assets: Assets, outside: Outside, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    del outside.path["apt-get"]
    (tmp_path / "busybox").touch()
    monkeypatch.setenv("VI_BUSYBOX", str(tmp_path / "busybox"))
    with pytest.raises(UsageError) as told:
        assets.fetch_all()
    assert "$VI_BUSYBOX" not in str(told.value)


def test_without_a_mirror_its_variable_is_named(assets: Assets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt_module, "debian_mirror", lambda: None)
    with pytest.raises(UsageError, match=r"\$VI_BUSYBOX.*; set VI_MIRROR=<a Debian mirror's address>, or "):
        assets.busybox()


def test_without_debians_keyring_the_hosts_own_package_of_it_is_taken(
    assets: Assets, outside: Outside, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(apt_module, "KEYRING", Path("/usr/share/keyrings/no-such.gpg"))

    def host_package(name: str, folder: Path, run: object) -> None:
        keys = folder / "usr/share/keyrings/no-such.gpg"
        keys.parent.mkdir(parents=True)
        keys.write_text(name)

    monkeypatch.setattr(assets_module, "host_package", host_package)
    assets.busybox()
    keys = tmp_path / "cache/keyring/no-such.gpg"
    assert keys.read_text() == "debian-archive-keyring"
    (sources,) = (tmp_path / "cache/apt").glob("*/sources.list")
    assert f"signed-by={keys}" in sources.read_text()


def test_everything_is_fetched_at_once(assets: Assets, said: list[str]) -> None:
    assets.fetch_all()
    assert said[-1] == "ready: QEMU 11.1.3, busybox, a cross compiler, kernel 6.12"


def test_headers_are_left_out_where_no_module_is_built(assets: Assets, tmp_path: Path) -> None:
    assets.fetch_all(modules=False)
    assert not list((tmp_path / "cache").glob("headers-*"))
    assets.fetch_all()
    assert list((tmp_path / "cache").glob("headers-*"))
