"""Where things are looked for: data, weights and results by name, and the cache."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from bench.errors import UsageError

PROJECT = Path(__file__).resolve().parent.parent
SAME_CODE = "same_code.csv"
REFERENCE = "reference"  # results/reference and reports/reference: what the project publishes
WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")  # in a repository of Hugging Face
EXPECTED = Path(__file__).parent / "check" / "expected"  # values with margins, SUITE.csv
DATA, WEIGHTS = "BENCH_DATA", "BENCH_WEIGHTS"


# --- results ----------------------------------------------------------------------------------


def reference_folders(results: Path, suite: str) -> list[Path]:
    """Where published results of a suite may lie: in this folder of results, or the project's."""
    folders = [results / REFERENCE / suite, PROJECT / "results" / REFERENCE / suite]
    return [folder for folder in folders if (folder / "runs.csv").is_file()]


def find_results(results: Path, suite: str) -> Path:
    """The folder of a suite's tables: the user's own run where there is one, else the reference.

    Raises UsageError for a suite without results, with the names of those that have some.
    """
    folders = [results / suite, *reference_folders(results, suite)]
    for folder in folders:
        if (folder / "runs.csv").is_file():
            return folder
    if (results / suite).is_dir():
        return results / suite  # begun: whoever reads it says what is missing
    raise UsageError.unknown(f"results in {results}", suite, results_names(results))


def same_code_files(results: Path) -> list[Path]:
    """Files that say which codes give the same bytes: beside these results, and the project's."""
    roots = [results, results / REFERENCE, PROJECT / "results" / REFERENCE]
    files = dict.fromkeys((root / SAME_CODE).resolve() for root in roots)
    return [file for file in files if file.is_file()]


def results_names(results: Path) -> list[str]:
    """Suites with results, the user's own first."""
    own = [folder.parent.name for folder in sorted(results.glob("*/runs.csv"))]
    published = [
        folder.parent.name
        for root in (results, PROJECT / "results")
        for folder in sorted((root / REFERENCE).glob("*/runs.csv"))
    ]
    return list(dict.fromkeys([*own, *published]))


# --- data and weights -------------------------------------------------------------------------


def _folders(variable: str, default: str) -> list[Path]:
    """The folders that an environment variable names, then ./default."""
    named = [Path(folder) for folder in os.environ.get(variable, "").split(os.pathsep) if folder]
    return [*named, Path(default)]


def exists(path: Path) -> bool:
    """False where nothing is there. Raises UsageError where that cannot be known."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:  # a folder on the way that may not be searched, a name too long
        raise UsageError(f"{path}: {error.strerror}") from error
    return True


def _find(field: str, name: str, variable: str, default: str) -> Path:
    """A path as given, or under a folder of $variable, or under ./default. Raises UsageError."""
    given = Path(name).expanduser()
    paths = dict.fromkeys([given, *(folder / given for folder in _folders(variable, default))])
    looked_at = []
    for path in paths:
        try:
            if exists(path):
                return path
            looked_at.append(str(path))
        except UsageError as error:  # perhaps another folder has it
            looked_at.append(f"{path}: {str(error).rpartition(': ')[2]}")
    looked = ", ".join(looked_at)
    raise UsageError(
        f"{field}: '{name}' not found (looked at {looked}; ${variable} names further folders)"
    )


def find_weights(name: str) -> Path:
    """A checkpoint file: a path, or a name under $BENCH_WEIGHTS or ./weights."""
    path = _find("backbone.checkpoint", name, WEIGHTS, "weights")
    if not path.is_file():
        raise UsageError(f"backbone.checkpoint: '{path}' is not a file")
    return path


def find_data(name: str) -> Path:
    """A dataset folder: a path, or a name under $BENCH_DATA or ./data."""
    path = _find("data.root", name, DATA, "data")
    if not path.is_dir():
        raise UsageError(f"data.root: '{path}' is not a folder")
    return path


def dataset_folder(name: str) -> Path:
    """The folder of a known dataset: the one that exists, else the one to be made.

    That is one under the first folder of $BENCH_DATA that may be searched, or under ./data.
    """
    folders = _folders(DATA, "data")
    existing = (folder / name for folder in folders if os.path.isdir(folder / name))
    usable = (
        folder for folder in folders if not os.path.isdir(folder) or os.access(folder, os.X_OK)
    )
    return next(existing, next(usable, folders[0]) / name)


def cache_dir() -> Path:
    """Decoded images and query features of all runs: $BENCH_CACHE, else ~/.cache/hlgp-bench.

    Entries are sealed with digests, so what others leave in a shared folder is not misread. $NAME
    in it is read here, so a cluster's node can have a folder of its own. Raises UsageError for one
    that is not set.
    """
    if chosen := os.environ.get("BENCH_CACHE"):
        path = os.path.expandvars(chosen)
        if unset := re.findall(r"\$(\w+|{\w+})", path):
            where = f"BENCH_CACHE={chosen} (as --scratch sets it)"
            raise UsageError(f"{where}: ${unset[0]} is not set on this machine")
        return Path(path)
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(chosen) / "hlgp-bench"
    try:
        return Path.home() / ".cache" / "hlgp-bench"
    except RuntimeError:  # a user without a home folder
        return Path(tempfile.gettempdir()) / f"hlgp-bench-{os.getuid()}"


def what_it_is(path: Path) -> str:
    """What stands in a file instead of what its name says; "" where it is unremarkable."""
    with path.open("rb") as stream:
        start = stream.read(200).lstrip().lower()
    if not start:
        return "an empty file"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself (git lfs pull)"
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page, so perhaps a download that failed"
    return ""


# --- the network ------------------------------------------------------------------------------


def offline(asked: bool = False) -> bool:
    """True where the network must not be used: --offline, or BENCH_OFFLINE other than 0."""
    return asked or os.environ.get("BENCH_OFFLINE", "0") not in ("", "0")


def hub_offline() -> bool:
    """True where Hugging Face must not be asked: offline, or its own switch HF_HUB_OFFLINE."""
    from huggingface_hub import constants

    return offline() or constants.HF_HUB_OFFLINE


def find_pretrained(repository: str, name: str | None = None) -> Path | None:
    """A file of a repository (OWNER/NAME) in Hugging Face's cache; None where it is not there.

    name: the file; None = its weights.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    names = [name] if name else WEIGHTS_FILES
    try:
        found = [try_to_load_from_cache(repository, each) for each in names]
    except HFValidationError:  # not the name of a repository
        return None
    return next((Path(file) for file in found if isinstance(file, str)), None)


def not_cached(tag: str, repository: str, name: str | None = None) -> UsageError:
    """The error for weights of a timm tag that are not in the cache while the network is off."""
    return UsageError(
        f"backbone.name={tag}: its weights are not in the cache of Hugging Face and the network is "
        f"off: fetch https://huggingface.co/{repository} ({name or 'model.safetensors'}) and give "
        "backbone.checkpoint=FILE"
    )
