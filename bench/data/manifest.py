"""A split as a file: ROOT/split-NAME.csv with path (relative, /), sha256, label (class name) and part (train or test).

It is what makes two users' splits the same: whoever has it can check that every file is there with the same bytes. The
order of its lines means nothing; it is written sorted, once, and never over another one.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath

from bench.data.parallel import in_threads
from bench.errors import UsageError
from bench.store.files import sha256_of, write_text

PARTS = ("train", "test")
FIRST = 3  # names that are shown of many


@dataclass(frozen=True, order=True)
class Row:
    """One image."""

    path: str
    sha256: str
    label: str
    part: str


@dataclass(frozen=True)
class Difference:
    """Files of a manifest that a folder lacks, and those whose bytes are others."""

    missing: list[str]
    altered: list[str]

    def lines(self) -> list[str]:
        """One line per kind, none where nothing differs."""
        kinds = (("missing", self.missing), ("altered", self.altered))
        return [f"{kind}: {len(names)} files ({shown(names)})" for kind, names in kinds if names]


def shown(names: list[str]) -> str:
    """The first few."""
    return ", ".join(names[:FIRST]) + (", ..." if len(names) > FIRST else "")


def path_of(root: Path, split: str) -> Path:
    """Raises UsageError for a name that is no file name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", split):
        raise UsageError(f"data.split: '{split}' is no usable name (letters, digits and . _ - are)")
    return root / f"split-{split}.csv"


def splits_in(root: Path) -> list[str]:
    """Names of the splits that were prepared there."""
    return sorted(file.stem.removeprefix("split-") for file in root.glob("split-*.csv"))


def find(root: Path, split: str) -> Path:
    """The manifest of a split. Raises UsageError with the names of those that are there."""
    if (file := path_of(root, split)).is_file():
        return file
    there = ", ".join(splits_in(root)) or "none"
    how = f"python -m bench.data prepare {root.name} --split {split}"
    raise UsageError(f"data.split={split}: not prepared in {root} (there: {there}; {how})")


def read(file: Path) -> list[Row]:
    """The rows, sorted. Raises UsageError naming the line that is not as described above."""
    try:
        lines = list(
            csv.reader(io.StringIO(file.read_text(encoding="utf-8"), newline=""), strict=True)
        )
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
    """The same rows, sorted. Raises UsageError for what is no split: a path that leaves the folder or comes twice, ..."""
    rows = sorted(rows)
    if not rows:
        raise UsageError(f"{where}: no images are listed")
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        path = PurePosixPath(row.path)
        if (
            not path.parts
            or path.is_absolute()
            or ".." in path.parts
            or "\\" in row.path
            or str(path) != row.path
        ):
            raise UsageError(
                f"{where}: path {row.path!a}: a relative one with / and without .. is expected"
            )
        if following is not None and following.path == row.path:
            raise UsageError(f"{where}: path '{row.path}' is there twice")
        if row.part not in PARTS:
            raise UsageError(
                f"{where}: '{row.path}': part '{row.part}' (accepted: {', '.join(PARTS)})"
            )
        if not row.label or not (row.label + row.path).isprintable():
            raise UsageError(f"{where}: {row.path!a}: path and label must be printable")
    train, test = ({row.label for row in rows if row.part == part} for part in PARTS)
    if alone := sorted(train ^ test):
        raise UsageError(
            f"{where}: class '{alone[0]}' is in {'train' if alone[0] in train else 'test'} only"
        )
    if len(train) < 2:
        raise UsageError(f"{where}: at least two classes are expected, found {len(train)}")
    return rows


def text_of(rows: list[Row]) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(field.name for field in fields(Row))
    writer.writerows((row.path, row.sha256, row.label, row.part) for row in sorted(rows))
    return stream.getvalue()


def digest_of(rows: list[Row]) -> str:
    """sha256 of the manifest as it is written, whatever the order of its lines was."""
    return hashlib.sha256(text_of(rows).encode()).hexdigest()


def write(file: Path, rows: list[Row]) -> bool:
    """Write it once: True where it is new. Raises UsageError where another one is there, saying how it differs."""
    if file.exists():
        old = read(file)
        if old == sorted(rows):
            return False
        before, now = {row.path: row for row in old}, {row.path: row for row in rows}
        others = sorted(
            path for path in before.keys() | now.keys() if before.get(path) != now.get(path)
        )
        raise UsageError(
            f"{file}: another split is there ({len(others)} files differ: {shown(others)}); remove it to replace it"
        )
    write_text(file, text_of(rows))
    return True


def hashed(root: Path, files: list[tuple[str, str, str]], progress: bool = True) -> list[Row]:
    """Rows of (path, label, part). Raises UsageError for unreadable files and, before any is read, for what is no split."""

    def row(entry: Row) -> Row:
        try:
            return replace(entry, sha256=sha256_of(root / entry.path))
        except OSError as error:
            raise UsageError(f"{root / entry.path}: cannot be read ({error.strerror})") from error

    named = checked((Row(path, "", label, part) for path, label, part in files), str(root))
    return in_threads(row, named, "sha256" if progress else "")


def compare(root: Path, rows: list[Row], progress: bool = True) -> Difference:
    """What of the rows is not in the folder."""

    def digest(row: Row) -> str:
        try:
            return (
                sha256_of(root / row.path) if (root / row.path).is_file() else ""
            )  # a pipe would be waited for
        except OSError:
            return ""

    found = in_threads(digest, rows, "sha256" if progress else "")
    pairs = list(zip(rows, found, strict=True))
    return Difference(
        [row.path for row, sha in pairs if not sha],
        [row.path for row, sha in pairs if sha and sha != row.sha256],
    )
