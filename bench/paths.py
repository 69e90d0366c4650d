"""Where things are looked for: data and weights by name under the user's folders, caches out of the way."""

from __future__ import annotations

import os
from pathlib import Path

from bench.errors import UsageError

HUB_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def _find(field: str, name: str, variable: str, default: str) -> Path:
    """A path as given, or under $variable, or under ./default; UsageError naming all three if it is nowhere."""
    folders = [
        Path(),
        *(Path(f) for f in os.environ.get(variable, "").split(os.pathsep) if f),
        Path(default),
    ]
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    looked = ", ".join(str(folder / name) for folder in folders)
    raise UsageError(
        f"{field}: '{name}' not found (looked at {looked}; ${variable} names further folders)"
    )


def find_weights(name: str) -> Path:
    """A checkpoint file: a path, or a name under $BENCH_WEIGHTS or ./weights."""
    path = _find("backbone.checkpoint", name, "BENCH_WEIGHTS", "weights")
    if not path.is_file():
        raise UsageError(f"backbone.checkpoint: '{path}' is not a file")
    return path


def offline(asked: bool = False) -> bool:
    """True where the network must not be touched: --offline, or BENCH_OFFLINE other than 0."""
    return asked or os.environ.get("BENCH_OFFLINE", "0") not in ("", "0")


def find_pretrained(repository: str, name: str | None = None) -> Path | None:
    """A file of a repository (OWNER/NAME), by default its weights, in Hugging Face's cache; None where it is not there."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [
            try_to_load_from_cache(repository, name) for name in ([name] if name else HUB_WEIGHTS)
        ]
    except HFValidationError:  # no name of a repository
        return None
    return next((Path(file) for file in found if isinstance(file, str)), None)


def not_cached(tag: str, repository: str, name: str | None = None) -> UsageError:
    """What is said of a timm tag's weights that are in nobody's reach."""
    return UsageError(
        f"backbone.name={tag}: its weights are not in the cache of Hugging Face and the network is off: fetch "
        f"https://huggingface.co/{repository} ({name or 'model.safetensors'}) and give backbone.checkpoint=FILE"
    )


def hub_offline() -> bool:
    """The same for Hugging Face, which has a switch of its own: HF_HUB_OFFLINE."""
    from huggingface_hub import constants

    return offline() or constants.HF_HUB_OFFLINE


def find_data(name: str) -> Path:
    """A dataset folder: a path, or a name under $BENCH_DATA or ./data."""
    path = _find("data.root", name, "BENCH_DATA", "data")
    if not path.is_dir():
        raise UsageError(f"data.root: '{path}' is not a folder")
    return path


def data_place(name: str) -> Path:
    """The folder of a known dataset: where it is, else where it is to be: under the first of $BENCH_DATA, or ./data."""
    folders = [
        *(Path(f) for f in os.environ.get("BENCH_DATA", "").split(os.pathsep) if f),
        Path("data"),
    ]
    return next(
        (folder / name for folder in folders if (folder / name).is_dir()), folders[0] / name
    )


def cache_dir() -> Path:
    """Decoded images and frozen features, shared by all runs: $BENCH_CACHE, else ~/.cache/hlgp-bench."""
    base = os.environ.get("BENCH_CACHE")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hlgp-bench"
