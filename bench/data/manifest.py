"""A split as a file, ROOT/split-NAME.csv, so that two users have the same split.

Its columns are path (relative, with /), sha256, label (class name) and part (train or test).
With it anybody can check that every file is there with the same bytes. The order of its lines means
nothing. It is written sorted, once, and never over another one.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath

from bench.data.parallel import in_threads
from bench.errors import UsageError
from bench.store.files import sha256_of, write_text

PARTS = ("train", "test")
MAX_SHOWN_NAMES = 5


@dataclass(frozen=True, order=True)
class Row:
    """One image."""

    path: str
    sha256: str
    label: str
    part: str


@dataclass(frozen=True)
class Difference:
    """Files of a manifest that a folder lacks, and files that have other bytes."""

    missing: list[str]
    altered: list[str]

    def lines(self) -> list[str]:
        """One line per kind; none if nothing differs."""
        kinds = (("missing", self.missing), ("altered", self.altered))
        return [f"{kind}: {len(names)} files ({shown(names)})" for kind, names in kinds if names]


def shown(names: list[str]) -> str:
    """The first few names, for messages."""
    more = ", ..." if len(names) > MAX_SHOWN_NAMES else ""
    return ", ".join(names[:MAX_SHOWN_NAMES]) + more


def path_of(root: Path, split: str) -> Path:
    """The manifest of a split. Raises UsageError for a name that is no file name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", split):
        raise UsageError(f"data.split: '{split}' is no usable name (letters, digits and . _ - are)")
    return root / f"split-{split}.csv"


def splits_in(root: Path) -> list[str]:
    """Names of the splits that are prepared in a folder."""
    return sorted(file.stem.removeprefix("split-") for file in root.glob("split-*.csv"))


def find(root: Path, split: str) -> Path:
    """The manifest of a prepared split. Raises UsageError with the names of the prepared ones."""
    if (file := path_of(root, split)).is_file():
        return file
    there = ", ".join(splits_in(root)) or "none"
    how = f"python -m bench.data prepare {root.name} --split {split}"
    raise UsageError(f"data.split={split}: not prepared in {root} (there: {there}; {how})")


def read(file: Path) -> list[Row]:
    """The rows, sorted. Raises UsageError with the first line that is wrong."""
    try:
        stream = io.StringIO(file.read_text(encoding="utf-8"), newline="")
        lines = list(csv.reader(stream, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{file}: not a readable split manifest ({error})") from error
    names = [field.name for field in fields(Row)]
    if not lines or lines[0] != names:
        raise UsageError(f"{file}: the columns {','.join(names)} are expected")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        row = Row(*line) if len(line) == len(names) else None
        if row is None or not re.fullmatch("[0-9a-f]{64}", row.sha256):
            raise UsageError(
                f"{file}: line {number}: path, sha256 (64 hex digits), label, part expected"
            )
        rows.append(row)
    return checked(rows, str(file))


def checked(rows: Iterable[Row], where: str) -> list[Row]:
    """The same rows, sorted. Raises UsageError if they are no split.

    Paths stay in the folder and are different; path and label are printable; both parts have the
    same classes, at least two.
    """
    rows = sorted(rows)
    if not rows:
        raise UsageError(f"{where}: no images are listed")
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        _check_row(row, where)
        if following is not None and following.path == row.path:
            raise UsageError(f"{where}: path '{row.path}' is there twice")
    train, test = ({row.label for row in rows if row.part == part} for part in PARTS)
    if alone := sorted(train ^ test):
        part = "train" if alone[0] in train else "test"
        raise UsageError(f"{where}: class '{alone[0]}' is in {part} only")
    if len(train) < 2:
        raise UsageError(f"{where}: at least two classes are expected, found {len(train)}")
    return rows


def _check_row(row: Row, where: str) -> None:
    path = PurePosixPath(row.path)
    leaves = not path.parts or path.is_absolute() or ".." in path.parts
    if leaves or "\\" in row.path or str(path) != row.path:
        raise UsageError(
            f"{where}: path {row.path!a}: a relative one with / and without .. is expected"
        )
    if row.part not in PARTS:
        raise UsageError(f"{where}: '{row.path}': part '{row.part}' (accepted: {', '.join(PARTS)})")
    if not row.label or not (row.label + row.path).isprintable():
        raise UsageError(f"{where}: {row.path!a}: path and label must be printable")


def text_of(rows: list[Row]) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(field.name for field in fields(Row))
    writer.writerows((row.path, row.sha256, row.label, row.part) for row in sorted(rows))
    return stream.getvalue()


def digest_of(rows: list[Row]) -> str:
    """sha256 of the manifest as it is written; the order of the rows does not matter."""
    return hashlib.sha256(text_of(rows).encode()).hexdigest()


def write(file: Path, rows: list[Row]) -> bool:
    """Write the manifest; True if it is new.

    Raises UsageError if another manifest is there, with the files that differ.
    """
    if file.exists():
        old = read(file)
        if old == sorted(rows):
            return False
        before, now = {row.path: row for row in old}, {row.path: row for row in rows}
        others = sorted(
            path for path in before.keys() | now.keys() if before.get(path) != now.get(path)
        )
        raise UsageError(
            f"{file}: another split is there ({len(others)} files differ: {shown(others)}); "
            "remove it to replace it"
        )
    write_text(file, text_of(rows))
    return True


def hashed(root: Path, files: list[tuple[str, str, str]], progress: bool = True) -> list[Row]:
    """Rows of (path, label, part), with digests.

    Raises UsageError for unreadable files; before any file is read, if the files are no split or
    some are not there.
    """

    def row(entry: Row) -> Row:
        try:
            return replace(entry, sha256=sha256_of(root / entry.path))
        except OSError as error:
            raise UsageError(f"{root / entry.path}: cannot be read ({error.strerror})") from error

    named = checked((Row(path, "", label, part) for path, label, part in files), str(root))
    gone = [entry.path for entry in named if not os.path.exists(root / entry.path)]
    if gone:
        raise UsageError(
            f"{root}: {len(gone)} of {len(named)} images cannot be read: not there ({shown(gone)})"
        )
    return in_threads(row, named, "sha256" if progress else "")


def compare(root: Path, rows: list[Row], progress: bool = True) -> Difference:
    """How the files in a folder differ from the rows."""

    def digest(row: Row) -> str:
        try:
            if (root / row.path).is_file():  # reading a pipe would wait forever
                return sha256_of(root / row.path)
        except OSError:
            pass
        return ""

    found = in_threads(digest, rows, "sha256" if progress else "")
    pairs = list(zip(rows, found, strict=True))
    return Difference(
        [row.path for row, sha in pairs if not sha],
        [row.path for row, sha in pairs if sha and sha != row.sha256],
    )
