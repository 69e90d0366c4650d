"""The digest of the code that can change a number of a cell: `code_sha` in the tables.

It is over the method's file, the engine, and every module of the project that they import, directly
or through others. Left out are the modules of CANNOT_CHANGE_A_NUMBER, and loaders of other
datasets. Comments, docstrings and layout do not count, and neither does the version of Python.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator

from bench.paths import PROJECT

PACKAGES = ("bench.", "methods.")  # their __init__.py hold no code
ENGINE = "bench.engine.run"  # it trains and tests a cell of any method
CANNOT_CHANGE_A_NUMBER = {  # a module, or a package with all in it: why not
    "bench.cli": "command lines",
    "bench.code": "this file",
    "bench.config": "what is set is in the spec, whose digest names the run",
    "bench.data.catalogue": "sizes of the papers' datasets; what is read of them is in data_sha",
    "bench.data.manifest": "which files to read; what is read is in data_sha",
    "bench.data.prepare": "downloads; what is read is in data_sha",
    "bench.environment": "describes the machine",
    "bench.errors": "messages",
    "bench.faults": "does nothing outside tests",
    "bench.launch": "starts cells and shows progress",
    "bench.paths": "where files lie; what they hold is in data_sha and weights_sha",
    "bench.stopping": "signals",
    "bench.store": "files: what is read is what was written",
}
SHORT = 8  # hex digits of each half of a code_sha


@functools.cache
def _source(module: str) -> str | None:
    """The text of a module of the project; None for any other, and for a package.

    It is read once, before the module is imported: the process knows the code that it runs,
    whatever is edited later.
    """
    file = PROJECT.joinpath(*module.split(".")).with_suffix(".py")
    return file.read_text("utf-8") if module.startswith(PACKAGES) and file.is_file() else None


@functools.cache
def code_sha(method: str, dataset: str) -> str:
    """ENGINE-METHOD, eight hex digits each, for the code of a cell of methods/METHOD.py.

    ENGINE is the same for all methods on a dataset: rows of one comparison share it. Both are the
    same on every version of Python.
    """
    engine = reached(ENGINE, dataset)
    own = reached(f"methods.{method}", dataset) - engine
    return f"{_digest(engine, dataset)}-{_digest(own, dataset)}"


def _digest(modules: frozenset[str], dataset: str) -> str:
    text = "\n".join(f"{name} {_module(name, dataset)[0]}" for name in sorted(modules))
    return hashlib.sha256(text.encode()).hexdigest()[:SHORT]


@functools.cache
def reached(module: str, dataset: str) -> frozenset[str]:
    """A module and all that it imports, without what cannot change a number."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found and not _left_out(name) and _source(name) is not None:
            found.add(name)
            waiting += _module(name, dataset)[1]
    return frozenset(found)


def _left_out(name: str) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in CANNOT_CHANGE_A_NUMBER)


@functools.cache
def _module(name: str, dataset: str) -> tuple[str, list[str]]:
    """A module as a text of its syntax tree, and the modules of the project that it imports."""
    tree = ast.parse(_source(name) or "")
    tree.body = [node for node in tree.body if not _loads_another(node, dataset)]
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    imported: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            # An import that only the loader of another dataset needed does not count.
            node.names = [one for one in node.names if _bound(one) in used]
            imported += _imported(name, node)
    return "".join(_text(tree)), imported


def _loads_another(node: ast.stmt, dataset: str) -> bool:
    """True for a function with `@dataset("NAME")`, where NAME is another dataset."""
    calls = [call for call in getattr(node, "decorator_list", []) if isinstance(call, ast.Call)]
    names = [
        ast.literal_eval(call.args[0])
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "dataset"
    ]
    return bool(names) and dataset not in names


def _bound(alias: ast.alias) -> str:
    return alias.asname or alias.name.split(".")[0]


def _imported(name: str, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Names that may be modules, of one import statement in the module `name`."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    package = name.split(".")[: -node.level] if node.level else []
    base = ".".join([*package, *([node.module] if node.module else [])])
    for alias in node.names:
        yield base
        yield f"{base}.{alias.name}"


def _text(node: ast.AST) -> Iterator[str]:
    """A syntax tree as text, without docstrings and without what only some Pythons record."""
    if isinstance(node, ast.Import | ast.ImportFrom) and not node.names:
        return
    yield f"({type(node).__name__}"
    for field in node._fields:
        value = getattr(node, field, None)
        if field == "body" and isinstance(value, list) and _has_docstring(node):
            value = value[1:]
        if field in ("ctx", "kind", "type_comment") or value is None or value == []:
            continue
        yield f" {field}="
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.AST):
                yield from _text(item)
            else:
                yield f"<{type(item).__name__} {item!r}>"
    yield ")"


def _has_docstring(node: ast.AST) -> bool:
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None
