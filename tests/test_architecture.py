"""The picture of the house in docs/ARCHITECTURE.md, held against the imports of the code."""

import ast
import functools
import re
from pathlib import Path

import pytest
from conftest import ROOT

FILES = [*ROOT.glob("bench/**/*.py"), *ROOT.glob("methods/*.py")]
FILES = [file for file in FILES if "suites" not in file.parts]


def name_of(file: Path) -> str:
    """bench/store/files.py is bench.store.files, a package goes by the name of its folder."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(file): file for file in FILES}


@functools.cache
def imports(module: str, lazy: bool) -> frozenset[str]:
    """Modules that a file imports; lazy: also those inside functions. Type checks do not count."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(MODULES[module].read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in inner}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting += node.orelse
        elif lazy or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return frozenset(found - {module})


def reached(module: str) -> set[str]:
    """All that importing a module imports, packages above it included."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        parents = {name.rsplit(".", end)[0] for end in range(name.count(".") + 1)}
        new = parents - found
        found |= new
        for each in new & MODULES.keys():
            waiting += imports(each, lazy=False)
    return found - {module}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of a graph, [] where there is none."""
    left = {name: set(targets) & graph.keys() for name, targets in graph.items()}
    while ends := [name for name, targets in left.items() if not targets]:
        left = {name: targets - {*ends} for name, targets in left.items() if name not in ends}
    return sorted(left)


def test_no_import_runs_in_a_circle():
    graph = {name: set(imports(name, lazy=True)) for name in MODULES}
    assert circle(graph) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["a", "b", "c"], "the test can fail"


def test_no_room_looks_back():
    """A room is a folder of bench/; its files count together."""

    def room(name: str) -> str:
        words = name.split(".")
        is_room = len(words) > 2 or (ROOT / "bench" / words[-1]).is_dir()
        return ".".join(words[:2]) if is_room and words[0] == "bench" else name

    graph: dict[str, set[str]] = {}
    for name in MODULES:
        targets = {room(target) for target in imports(name, lazy=True) if target in MODULES}
        graph.setdefault(room(name), set()).update(targets - {room(name)})
    assert circle(graph) == []


def rooms() -> list[tuple[str, str]]:
    """(room, forbidden name) pairs of the table in docs/ARCHITECTURE.md."""
    lines = (ROOT / "docs" / "ARCHITECTURE.md").read_text().splitlines()
    start = lines.index("| room | job | never imports |")
    found = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        room, _, never = (re.findall(r"`([^`]+)`", cell) for cell in line.split(" | "))
        found += [(where, name) for where in room for name in never]
    return found


@pytest.mark.parametrize(("room", "never"), rooms())
def test_what_a_room_never_imports(room, never):
    files = [file for file in FILES if str(file.relative_to(ROOT)).startswith(room)]
    if room.endswith("data/"):  # its inner room has a line of its own
        files = [file for file in files if "prepare" not in file.parts]
    assert files, f"no room {room}"
    for file in files:
        names = {n for n in reached(name_of(file)) if n == never or n.startswith(f"{never}.")}
        assert not names, f"{file.relative_to(ROOT)} imports {sorted(names)}"


def test_the_files_that_the_page_names_exist():
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    named = re.findall(r"`((?:bench|methods|tests)/[\w/]+(?:\.py|/))`", text)
    assert len(named) > 30
    assert [name for name in named if not (ROOT / name).exists()] == []
    rooms_with_code = {file.parent for file in FILES if file.parent.parent == ROOT / "bench"}
    missing = [room for room in rooms_with_code if f"`bench/{room.name}/`" not in text]
    assert missing == [], "a room that the page does not name"
