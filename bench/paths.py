"""Where things are looked for: data and weights by name under the user's folders, caches out of the way."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from bench.config.spec import DataSpec, RunSpec, UsageError


def _find(field: str, name: str, variable: str, default: str) -> Path:
    """A path as given, or under $variable, or under ./default; UsageError naming all three if it is nowhere."""
    folders = [Path(), *(Path(f) for f in os.environ.get(variable, "").split(os.pathsep) if f), Path(default)]
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    looked = ", ".join(str(folder / name) for folder in folders)
    raise UsageError(f"{field}: '{name}' not found (looked at {looked}; ${variable} names further folders)")


def find_weights(name: str) -> Path:
    """A checkpoint file: a path, or a name under $BENCH_WEIGHTS or ./weights."""
    path = _find("backbone.checkpoint", name, "BENCH_WEIGHTS", "weights")
    if not path.is_file():
        raise UsageError(f"backbone.checkpoint: '{path}' is not a file")
    return path


def find_data(name: str) -> Path:
    """A dataset folder: a path, or a name under $BENCH_DATA or ./data."""
    path = _find("data.root", name, "BENCH_DATA", "data")
    if not path.is_dir():
        raise UsageError(f"data.root: '{path}' is not a folder")
    return path


def data_place(name: str) -> Path:
    """The folder of a known dataset: where it is, else where it is to be: under the first of $BENCH_DATA, or ./data."""
    folders = [*(Path(f) for f in os.environ.get("BENCH_DATA", "").split(os.pathsep) if f), Path("data")]
    return next((folder / name for folder in folders if (folder / name).is_dir()), folders[0] / name)


def cache_dir() -> Path:
    """Decoded images and frozen features, shared by all runs: $BENCH_CACHE, else ~/.cache/hlgp-bench."""
    base = os.environ.get("BENCH_CACHE")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hlgp-bench"


def require_files(cells: Iterable[RunSpec]) -> None:
    """Raises one UsageError that lists all data and weights that these cells name and that are not there.

    Data that a loader would download itself (CIFAR-100 without data.root) and weights that timm fetches are not asked for.
    """
    wanted: dict[tuple[str, ...], list[str]] = {}
    for cell in cells:
        for need in (("data", cell.data.name, cell.data.root, cell.data.split), ("weights", cell.backbone.checkpoint)):
            wanted.setdefault(need, [])
            if cell.benchmark not in wanted[need]:
                wanted[need].append(cell.benchmark)
    lacking = []
    for (kind, *names), benchmarks in wanted.items():
        try:
            if kind == "weights" and names[0] not in ("", "random"):
                find_weights(names[0])
            elif kind == "data" and names[1]:
                _require_data(DataSpec(name=names[0], root=names[1], split=names[2]))
        except UsageError as error:
            split = f"split {names[2]}, " if kind == "data" and names[2] else ""
            lacking.append(f"{error} [{split}for {', '.join(benchmarks)}]")
    if len(lacking) == 1:
        raise UsageError(lacking[0])
    if lacking:
        listed = "".join(f"\n  {line}" for line in lacking)
        raise UsageError(f"{len(lacking)} things are missing (python -m bench.data list says where each comes from):{listed}")


def _require_data(data: DataSpec) -> None:
    """A folder, in it what the dataset cannot be without: the split's manifest, CIFAR-100's training file."""
    root = find_data(data.root)
    if data.split and not (root / f"split-{data.split}.csv").is_file():
        raise UsageError(
            f"data.split={data.split}: no {root}/split-{data.split}.csv (python -m bench.data prepare {root.name})"
        )
    if data.name == "cifar100" and not any((root / part / "train").is_file() for part in ("", "cifar-100-python")):
        raise UsageError(f"data.root: {root} has no cifar-100-python/train (the official python archive, unpacked)")
