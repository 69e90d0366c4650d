"""Data and weights that a suite lacks, found in a second before a cell starts. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from bench.config.spec import DataSpec, RunSpec
from bench.data.datasets import source_of
from bench.errors import UsageError
from bench.paths import find_pretrained, find_weights, hub_offline, not_cached


def require_files(cells: Iterable[RunSpec]) -> None:
    """Raises one UsageError that lists all missing data and weights of these cells.

    Not asked for: data that a loader downloads itself (CIFAR-100 without data.root), and weights
    that timm downloads, unless the network is off.
    """
    cells = list(cells)
    lacking = list(_missing_data(cells))
    lacking += _missing_weights(cells, data_is_missing=bool(lacking))
    if len(lacking) == 1:
        raise UsageError(lacking[0])
    if lacking:
        listed = "".join(f"\n  {line}" for line in lacking)
        raise UsageError(
            f"{len(lacking)} things are missing "
            f"(python -m bench.data list says where each comes from):{listed}"
        )


def _missing_data(cells: list[RunSpec]) -> Iterator[str]:
    for cell in cells:
        source_of(cell.data.name).check_options(cell.data)
    needs = _benchmarks_by(cells, lambda cell: (cell.data.name, cell.data.root, cell.data.split))
    for (name, root, split), benchmarks in needs.items():
        try:
            source_of(name).check_files(DataSpec(name=name, root=root, split=split))
        except UsageError as error:
            named = f"split {split}, " if split and split not in str(error) else ""
            yield f"{error} [{named}for {', '.join(benchmarks)}]"


def _missing_weights(cells: list[RunSpec], data_is_missing: bool) -> Iterator[str]:
    needs = _benchmarks_by(cells, lambda cell: (cell.backbone.checkpoint, cell.backbone.name))
    incomplete = data_is_missing
    for (checkpoint, name), benchmarks in needs.items():
        try:
            if not checkpoint:
                _require_pretrained(name, ask_timm=not incomplete)
            elif checkpoint != "random":
                find_weights(checkpoint)
        except UsageError as error:
            incomplete = True
            yield f"{error} [for {', '.join(benchmarks)}]"


def _benchmarks_by(
    cells: list[RunSpec], need: Callable[[RunSpec], tuple[str, ...]]
) -> dict[tuple[str, ...], list[str]]:
    """The benchmarks that have the same need, in the order of the cells."""
    found: dict[tuple[str, ...], list[str]] = {}
    for cell in cells:
        benchmarks = found.setdefault(need(cell), [])
        if cell.benchmark not in benchmarks:
            benchmarks.append(cell.benchmark)
    return found


def _require_pretrained(tag: str, ask_timm: bool) -> None:
    """With the network off, weights of timm must be in the cache of Hugging Face.

    Names without a dot are not checked: timm's tags have one. Some tags have a repository of
    another name, which only timm knows; it takes seconds, so it is asked only if nothing else is
    missing.
    """
    if "." not in tag or not hub_offline() or find_pretrained(f"timm/{tag}"):
        return
    if not ask_timm:
        raise not_cached(tag, f"timm/{tag}")
    from bench.backbone.vit import pretrained_file  # torch

    pretrained_file(tag)
