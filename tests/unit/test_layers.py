# SPDX-License-Identifier: Apache-2.0
"""Who may import whom, what models never touch, and what no file may hold: ARCHITECTURE.md as a test."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
PACKAGE = TOP / "vhost_iommu"

#: What each part may import of ours, besides itself. A part is a package or a module of vhost_iommu; one within
#: another, such as a programming model's, is none of the outer one's.
PARTS: dict[str, set[str]] = {
    "_core": set(),
    "layout": set(),
    "errors": set(),
    "version": set(),
    "sealed": {"errors"},
    "terminal": set(),
    "watch": {"sealed", "layout"},
    "trace": {"layout", "watch"},
    "shared": {"_core", "errors"},
    "memory": {"sealed", "errors", "layout", "shared", "trace"},
    "mmio": {"layout"},
    "register_file": {"sealed", "layout", "mmio"},
    "smmu": {"sealed", "_core", "errors", "layout", "memory", "mmio", "register_file", "watch"},
    "smmu.msm": {"sealed", "_core", "errors", "layout", "memory", "mmio", "register_file", "smmu", "watch"},
    "smmu.v2": {"sealed", "_core", "errors", "layout", "memory", "mmio", "register_file", "smmu", "watch"},
    "smmu.v3": {"sealed", "_core", "errors", "layout", "memory", "mmio", "register_file", "smmu", "watch"},
    "masters": {
        "sealed",
        "errors",
        "layout",
        "memory",
        "mmio",
        "register_file",
        "smmu.ats",
        "smmu.seams",
        "smmu.transaction",
        "watch",
    },
    "lab": {"sealed", "errors", "layout", "smmu.context", "smmu.inspection", "smmu.seams", "smmu.transaction", "watch"},
    "bench": {"errors", "lab", "machine", "memory", "models", "smmu.inspection", "watch"},
    "models": {"smmu", "smmu.msm", "smmu.v2", "smmu.v3"},
    "config": {"errors", "lab", "models", "smmu.model"},
    "vfio": {"errors", "memory", "mmio", "shared", "trace"},
    "machine": {
        "sealed",
        "_core",
        "config",
        "errors",
        "lab",
        "masters",
        "memory",
        "mmio",
        "models",
        "smmu",
        "vfio",
        "watch",
    },
    "server": {"_core", "errors", "mmio", "trace", "vfio", "watch"},
    "daemon": {
        "_core",
        "bench",
        "config",
        "errors",
        "lab",
        "machine",
        "memory",
        "server",
        "trace",
        "version",
        "vfio",
        "watch",
    },
    "decode": {"errors", "layout", "models", "smmu"},
    "decode.logs": {"decode", "layout", "smmu.v2", "smmu.v3", "terminal"},
    "header": {"layout", "masters", "models", "smmu"},
    "reference": {"errors", "lab", "layout", "masters", "models", "smmu"},
    "guest": {
        "bench",
        "_core",
        "config",
        "daemon",
        "errors",
        "lab",
        "layout",
        "machine",
        "masters",
        "memory",
        "models",
        "server",
        "smmu",
        "terminal",
        "trace",
        "vfio",
        "watch",
    },
    "demo": {"config", "guest", "terminal"},
    "pytest_plugin": {"config", "errors", "guest"},
    "cli": {
        "_core",
        "config",
        "daemon",
        "decode",
        "decode.logs",
        "demo",
        "errors",
        "guest",
        "lab",
        "server",
        "terminal",
        "trace",
        "version",
    },
}

#: Modules of the standard library that a part's law keeps out of it.
DEVICE_BANS = {"socket", "threading", "multiprocessing", "asyncio", "selectors", "select", "time", "mmap", "subprocess"}
BANS: dict[str, set[str]] = {
    "layout": DEVICE_BANS | {"os"},
    "smmu": DEVICE_BANS | {"os", "random"},
    "masters": DEVICE_BANS,
    "machine": DEVICE_BANS | {"os"},
    # Locks are needed where two threads meet; threads are started elsewhere.
    "vfio": DEVICE_BANS - {"threading", "select"},
    "shared": DEVICE_BANS - {"mmap"},
    "memory": DEVICE_BANS,
}
#: The only modules that may import these at all.
ONLY = {
    "mmap": {"shared"},
    "asyncio": set[str](),
    "select": {"server", "trace", "vfio"},
    "subprocess": {"guest"},
    "socket": {"server", "guest"},
}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    """Dotted, within the package: "smmu.v3.registers"; the package itself is ""."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """The innermost part that has the module; else its package, which then has no place."""
    outer, _, inner = module.partition(".")
    nested = f"{outer}.{inner.partition('.')[0]}"
    return nested if nested in PARTS else outer


def imports(path: Path) -> Iterator[tuple[int, str, bool]]:
    """(line, module, whether it is ours) of each import, those inside of functions too."""
    package = ["vhost_iommu", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            # "from . import x" may name a module or a name.
            names = [f"{stem}.{alias.name}" if is_module(f"{stem}.{alias.name}") else stem for alias in node.names]
        else:
            continue
        for name in names:
            ours = name == "vhost_iommu" or name.startswith("vhost_iommu.")
            yield node.lineno, name.removeprefix("vhost_iommu").removeprefix(".") if ours else name, ours


def is_module(name: str) -> bool:
    path = TOP.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def may_import(part: str, module: str) -> bool:
    allowed = PARTS[part]
    return (
        part_of(module) in (part, *allowed)
        or any(module == each or module.startswith(f"{each}.") for each in allowed if "." in each)
        or (not module and "" in allowed)
    )


def test_every_part_of_the_package_has_its_place() -> None:
    assert {part_of(module_of(path)) for path in sources()} - {""} <= set(PARTS)


def test_imports_follow_the_arrows() -> None:
    wrong = [
        f"{path.relative_to(TOP)}:{line}: {part_of(module_of(path))} imports {module or 'the package'}"
        for path in sources()
        if module_of(path)
        for line, module, ours in imports(path)
        if ours and not may_import(part_of(module_of(path)), module)
    ]
    assert wrong == []


def test_the_arrows_have_no_circle() -> None:
    done: set[str] = set()
    left = {part: {part_of(each) for each in allowed if each} - {part} for part, allowed in PARTS.items()}
    while ready := {part for part, needs in left.items() if part not in done and needs <= done}:
        done |= ready
    assert done == set(PARTS)


def test_no_module_imports_itself_by_a_detour() -> None:
    """Imports for types alone count: a circle of them is one room with two names."""
    known = {module_of(path): {name for _, name, ours in imports(path) if ours} for path in sources()}
    left = {module: (needs & set(known)) - {module} for module, needs in known.items()}
    while leaves := {module for module, needs in left.items() if not needs}:
        left = {module: needs - leaves for module, needs in left.items() if module not in leaves}
    assert left == {}


def test_an_instance_wires_its_parts() -> None:
    for model in ("v2", "v3"):
        lines = (PACKAGE / "smmu" / model / "instance.py").read_text().splitlines()
        assert len(lines) <= 350


def test_models_know_no_socket_thread_or_clock() -> None:
    wrong = [
        f"{path.relative_to(TOP)}:{line}: {name}"
        for path in sources()
        for line, name, ours in imports(path)
        if not ours and name.partition(".")[0] in BANS.get(part_of(module_of(path)), set())
    ]
    assert wrong == []


@pytest.mark.parametrize("banned", sorted(ONLY))
def test_what_only_some_modules_may_use_is_used_by_no_other(banned: str) -> None:
    users = {
        part_of(module_of(path))
        for path in sources()
        for _, name, ours in imports(path)
        if not ours and name.partition(".")[0] == banned
    }
    assert users <= ONLY[banned]


def test_only_the_server_starts_threads() -> None:
    starters = {
        module_of(path)
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if (
            isinstance(node, ast.Attribute)
            and node.attr in {"Thread", "Timer", "start_new_thread", "ThreadPoolExecutor"}
        )
        or (isinstance(node, ast.ImportFrom) and node.module in {"threading", "concurrent.futures", "_thread"})
    }
    assert starters == {"server"}


# -- state ---------------------------------------------------------------------------------------------------------

_MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
_MAKERS = {"list", "dict", "set", "bytearray", "defaultdict", "deque", "OrderedDict", "Counter", "count"}


def mutable(value: ast.expr | None) -> bool:
    if isinstance(value, _MUTABLE):
        return True
    if isinstance(value, ast.Call):
        called = value.func
        name = called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
        return name in _MAKERS
    return False


def constant(name: str) -> bool:
    return name.isupper() or name == "__all__"


def test_no_module_holds_state() -> None:
    """A table named as a constant is one; any other mutable value of a module, or a ``global``, is state."""
    wrong = []
    for path in sources():
        tree = ast.parse(path.read_text())
        for node in tree.body:
            targets = (
                node.targets
                if isinstance(node, ast.Assign)
                else [node.target]
                if isinstance(node, ast.AnnAssign)
                else []
            )
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
            if mutable(value) and not all(constant(name) for name in names):
                wrong.append(f"{path.relative_to(TOP)}:{node.lineno}: {', '.join(names)}")
        wrong += [
            f"{path.relative_to(TOP)}:{node.lineno}: global {', '.join(node.names)}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Global)
        ]
    assert wrong == []


def test_no_table_of_a_module_is_changed() -> None:
    """Constants are not written to inside of functions, where two instances would share what is written."""
    methods = {"append", "extend", "add", "update", "setdefault", "pop", "popitem", "clear", "remove", "insert"}
    wrong = []
    for path in sources():
        tree = ast.parse(path.read_text())
        tables = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign) and mutable(node.value)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            for node in ast.walk(function):
                written: ast.expr | None = None
                if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
                    written = node.value
                elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in methods:
                    written = node.func.value
                if isinstance(written, ast.Name) and written.id in tables:
                    wrong.append(f"{path.relative_to(TOP)}:{written.lineno}: {written.id}")
    assert wrong == []


# -- what files hold -----------------------------------------------------------------------------------------------

#: Files that cannot hold the line, or whose text is not ours to change.
NO_SPDX = {"LICENSE", "README.md", "vhost_iommu/py.typed", "guest/kmod/LICENSE"}
#: A kernel module's folder has the kernel's licence, and no other has.
GPL = Path("guest/kmod")
NOT_OURS = {"build", "dist", "__pycache__"}
#: Homes, mounts and mirrors of one machine or other; assembled so that this file does not hold them.
_PLACES = "|".join(("home", "root", "Users", "work", "mnt"))
MACHINE_PATH = re.compile(rf"(?<![\w.$}}/\-])/(?:{_PLACES})/[\w.]")


def files() -> list[Path]:
    """All that is ours, in a git checkout or not; what is cached begins with a dot."""
    found = []
    for folder, folders, names in os.walk(TOP):
        folders[:] = [name for name in folders if name not in NOT_OURS and (name[0] != "." or name == ".ci")]
        found += [Path(folder, name) for name in names if not name.endswith((".pyc", ".so"))]
    return sorted(found)


def licence(path: Path) -> str:
    return "GPL-2.0" if GPL in path.relative_to(TOP).parents else "Apache-2.0"


def test_every_file_names_its_licence() -> None:
    wrong = [
        str(path.relative_to(TOP))
        for path in files()
        if str(path.relative_to(TOP)) not in NO_SPDX
        and not any(
            f"SPDX-License-Identifier: {licence(path)}" in line
            for line in path.read_text(errors="replace").splitlines()[:5]
        )
    ]
    assert wrong == []


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    wrong = [
        f"{path.relative_to(TOP)}:{number}: {line.strip()}"
        for path in files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert wrong == []


def test_the_search_for_paths_finds_one() -> None:
    assert MACHINE_PATH.search("see " + "/".join(("", "home", "someone", "x")))
    assert not MACHINE_PATH.search("vhost_iommu/root/x and ${HOME}/root/x")


def test_every_module_says_what_it_is_in_at_most_five_lines() -> None:
    wrong = []
    for path in sources():
        text = path.read_text()
        if path.name == "__init__.py" and len(text.splitlines()) <= 1:
            continue
        said = ast.get_docstring(ast.parse(text))
        if not said or len(said.splitlines()) > 5:
            wrong.append(str(path.relative_to(TOP)))
    assert wrong == []
