"""All that a suite lacks, before anything of it starts: torch is not needed to see it, nor more than a second."""

from __future__ import annotations

from collections.abc import Iterable

from bench.config.spec import DataSpec, RunSpec
from bench.data import manifest
from bench.errors import UsageError
from bench.paths import find_data, find_pretrained, find_weights, hub_offline, not_cached


def require_files(cells: Iterable[RunSpec]) -> None:
    """Raises one UsageError that lists all data and weights that these cells name and that are not there.

    Data that a loader would download itself (CIFAR-100 without data.root) and weights that timm fetches are not asked for,
    the weights only if the network may be used.
    """
    wanted: dict[tuple[str, ...], list[str]] = {}
    for cell in cells:
        data, backbone = cell.data, cell.backbone
        for need in (
            ("data", data.name, data.root, data.split),
            ("weights", backbone.checkpoint, backbone.name),
        ):
            wanted.setdefault(need, [])
            if cell.benchmark not in wanted[need]:
                wanted[need].append(cell.benchmark)
    lacking: list[str] = []
    for (kind, *names), benchmarks in sorted(
        wanted.items(), key=lambda item: item[0][0] == "weights"
    ):
        try:
            if kind == "weights" and names[0] not in ("", "random"):
                find_weights(names[0])
            elif kind == "weights" and not names[0]:
                _require_pretrained(names[1], sure=not lacking)
            elif kind == "data" and names[1]:
                _require_data(DataSpec(name=names[0], root=names[1], split=names[2]))
        except UsageError as error:
            split = (
                f"split {names[2]}, "
                if kind == "data" and names[2] and names[2] not in str(error)
                else ""
            )
            lacking.append(f"{error} [{split}for {', '.join(benchmarks)}]")
    if len(lacking) == 1:
        raise UsageError(lacking[0])
    if lacking:
        listed = "".join(f"\n  {line}" for line in lacking)
        raise UsageError(
            f"{len(lacking)} things are missing (python -m bench.data list says where each comes from):{listed}"
        )


def _require_pretrained(tag: str, sure: bool) -> None:
    """With the network off: weights in the cache of Hugging Face, for what has a tag as timm's have, behind a dot.

    sure: ask timm, which takes seconds, before a no, since some tags have a repository of another name; else say the usual.
    """
    if "." not in tag or not hub_offline() or find_pretrained(f"timm/{tag}"):
        return
    if not sure:
        raise not_cached(tag, f"timm/{tag}")
    from bench.backbone.vit import pretrained_file

    pretrained_file(tag)


def _require_data(data: DataSpec) -> None:
    """A folder, in it what the dataset cannot be without: the split's manifest and its images, CIFAR-100's training file."""
    root = find_data(data.root)
    if data.split:
        file = manifest.find(root, data.split)
        gone = [row.path for row in manifest.read(file) if not (root / row.path).is_file()]
        if gone:
            raise UsageError(
                f"{file}: {len(gone)} of its images are not there ({manifest.shown(gone)})"
            )
    if data.name == "cifar100" and not any(
        (root / part / "train").is_file() for part in ("", "cifar-100-python")
    ):
        raise UsageError(
            f"data.root: {root} has no cifar-100-python/train (the official python archive, unpacked)"
        )
