"""What `python -m bench.data` does: list, prepare, adopt and verify splits of the papers' datasets.

Nothing is printed here: each step returns an Outcome.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bench.data import manifest
from bench.data.catalogue import CATALOGUE, Archive, Entry, Split
from bench.data.folder import decode_image, parts_of
from bench.data.manifest import Row
from bench.data.orders import class_order
from bench.data.parallel import in_threads
from bench.data.prepare import splits
from bench.data.prepare.obtain import Access, is_present, obtain_archives
from bench.errors import UsageError
from bench.paths import dataset_folder
from bench.store.files import write_text

MAX_LISTED_FILES = 3  # more missing archives than this are counted, not named
CODA_TRIALS = 5  # the CODA-Prompt repository has so many trials, each with a class order
CHECK_SIDE = 8  # pixels to which `verify` decodes an image: small, since only errors matter


@dataclass
class Outcome:
    """What a step says, line by line, and how many of the lines are problems."""

    lines: list[str] = field(default_factory=list)
    problems: int = 0


def entry_of(name: str) -> Entry:
    """A dataset of the catalogue. Raises UsageError with the nearest name."""
    if name not in CATALOGUE:
        raise UsageError.unknown("dataset", name, CATALOGUE)
    return CATALOGUE[name]


def split_of(entry: Entry, name: str) -> Split:
    """A split by name; "" is the first. Raises UsageError with the nearest name."""
    for split in entry.splits:
        if name in ("", split.name):
            return split
    raise UsageError.unknown(
        f"--split of {entry.name}", name, [split.name for split in entry.splits]
    )


# --- prepare ----------------------------------------------------------------------------------


def prepare(entry: Entry, split: Split, access: Access, partial: bool = False) -> Outcome:
    """Download, unpack, build the split and write its manifest.

    partial: accept other counts than the catalogue's. Raises UsageError for what only the user can
    do.
    """
    root = dataset_folder(entry.name)
    _provide(entry, split, root, access)
    if entry.files:
        return _verify_files(entry, root)
    found = splits.READERS[split.how](root)
    wrong = _wrong_counts(split, [(label, part) for _, label, part in found.images])
    if wrong and not partial:
        refused = f"{entry.name}: not written; a part of the dataset is accepted with --partial"
        return Outcome([*wrong, refused], len(wrong))
    rows = manifest.hashed(root, found.images)
    written = _write_manifest(root, split.name, rows)
    _write_orders(root, split.name, found.published_order())
    usage = f"use it with: data.name=folder data.root={entry.name} data.split={split.name}"
    return Outcome([written, usage])


def adopt(entry: Entry, name: str, given: Path, access: Access) -> Outcome:
    """Take another user's split, if every file that it names is here with the same bytes.

    Nothing is written if a file differs.
    """
    rows = manifest.read(given)
    root = dataset_folder(entry.name)
    name = name or given.stem.removeprefix("split-")
    manifest.path_of(root, name)  # a bad name is refused before anything is downloaded
    known = next((split for split in entry.splits if split.name == name), None)
    downloadable = known is None or known.download
    if downloadable and not all((root / row.path).exists() for row in rows):
        # Published lists that are placed by hand are not needed: the manifest is the list.
        obtain_archives(entry, root, access)
    difference = manifest.compare(root, rows).lines()
    if difference:
        lines = [f"{entry.name}: {line}" for line in difference]
        return Outcome([*lines, f"{given}: {len(rows)} files; not adopted"], len(difference))
    return Outcome([_write_manifest(root, name, rows)])


def _provide(entry: Entry, split: Split, root: Path, access: Access) -> None:
    """Raises UsageError of three lines for files that the user must place by hand."""
    if missing := _missing_by_hand(root, split):
        raise UsageError(
            f"{entry.name}: split '{split.name}' needs what has no direct download "
            f"(missing: {', '.join(missing)})\n"
            f"fetch: {split.fetch}\nput: {split.put} into {root}; then the same command again"
        )
    if split.download:
        obtain_archives(entry, root, access)


def _missing_by_hand(root: Path, split: Split) -> list[str]:
    return [need for need in split.needs if not any(root.glob(need))]


def _write_manifest(root: Path, split: str, rows: list[Row]) -> str:
    """The line that says it."""
    file = manifest.path_of(root, split)
    new = manifest.write(file, rows)
    return f"{file}: {'written' if new else 'there already, the same'}; {_summary(rows)}"


def _write_orders(root: Path, split: str, published: list[int]) -> None:
    """order-SPLIT-R.txt for --set data.class_order=FILE: the class order of trial R.

    The trials are those of the CODA-Prompt repository; `published` holds our labels in its
    numbering. Nothing is written if the two agree.
    """
    if not published or published == sorted(published):
        return
    for trial in range(CODA_TRIALS):
        order = [published[number] for number in class_order("coda", trial, len(published))]
        write_text(root / f"order-{split}-{trial}.txt", ",".join(map(str, order)) + "\n")


# --- verify -----------------------------------------------------------------------------------


def verify(entry: Entry, name: str, partial: bool = False) -> Outcome:
    """Check counts, digests and decodability of one prepared split ("": of all)."""
    root = dataset_folder(entry.name)
    if entry.files:
        if not any((root / file).parent.is_dir() for file in entry.files):
            raise _unprepared(entry, root)
        return _verify_files(entry, root)
    if name:
        manifest.find(root, name)
    names = [name] if name else manifest.splits_in(root)
    if not names:
        raise _unprepared(entry, root)
    outcome = Outcome()
    for each in names:
        rows = manifest.read(manifest.path_of(root, each))
        known = [split for split in entry.splits if split.name == each and not partial]
        problems = _split_problems(root, known, rows)
        outcome.problems += len(problems)
        said = problems or [f"fine; {_summary(rows)}"]
        outcome.lines += [f"{entry.name} {each}: {line}" for line in said]
    return outcome


def verify_folder(root: Path) -> Outcome:
    """Check any folder of images, as data.root takes it: classes, counts, whether all decode."""
    parts = dict(zip(manifest.PARTS, parts_of(root), strict=True))
    files = [file for part in parts.values() for images in part.values() for file in images]
    problems = _undecodable(root, [str(file.relative_to(root)) for file in files])
    counts = ", ".join(
        f"{sum(map(len, part.values()))} {name} images" for name, part in parts.items()
    )
    said = problems or [f"fine; {len(parts['train'])} classes, {counts}"]
    return Outcome([f"{root}: {line}" for line in said], len(problems))


def _split_problems(root: Path, known: Iterable[Split], rows: list[Row]) -> list[str]:
    """One line per kind of problem."""
    pairs = [(row.label, row.part) for row in rows]
    counts = [line for split in known for line in _wrong_counts(split, pairs)]
    difference = manifest.compare(root, rows)
    missing = {*difference.missing}
    present = [row.path for row in rows if row.path not in missing]
    return [*counts, *difference.lines(), *_undecodable(root, present)]


def _unprepared(entry: Entry, root: Path) -> UsageError:
    return UsageError(
        f"{root}: no split is prepared there (python -m bench.data prepare {entry.name})"
    )


def _wrong_counts(split: Split, found: list[tuple[str, str]]) -> list[str]:
    """A line for each count of (label, part) pairs that is not the catalogue's."""
    parts = Counter(part for _, part in found)
    counts = (
        ("classes", split.classes, len({label for label, _ in found})),
        ("train", split.train, parts["train"]),
        ("test", split.test, parts["test"]),
        ("images", split.images, len(found)),
    )
    return [
        f"counts: {what} {here} instead of {expected}"
        for what, expected, here in counts
        if expected not in (None, here)
    ]


def _summary(rows: list[Row]) -> str:
    parts = Counter(row.part for row in rows)
    classes = len({row.label for row in rows})
    digest = manifest.digest_of(rows)[:12]
    return f"{classes} classes, train {parts['train']}, test {parts['test']}, sha256 {digest}"


def _undecodable(root: Path, paths: list[str]) -> list[str]:
    def fails(path: str) -> bool:
        try:
            decode_image(root / path, CHECK_SIDE)
        except UsageError:
            return True
        return False

    failed = in_threads(fails, paths, "decode")
    broken = [path for path, bad in zip(paths, failed, strict=True) if bad]
    return [f"not decodable: {len(broken)} files ({manifest.shown(broken)})"] if broken else []


def _verify_files(entry: Entry, root: Path) -> Outcome:
    """Check a dataset whose split is its own files, by their md5."""
    problems = []
    for name, md5 in entry.files.items():
        file = root / name
        if not file.is_file():
            problems.append(f"missing: {file}")
        elif hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() != md5:
            problems.append(f"altered: {file}")
    split = entry.splits[0]
    counts = f"{split.classes} classes, train {split.train}, test {split.test}"
    said = problems or [f"fine; {counts}, in {root}"]
    return Outcome([f"{entry.name}: {line}" for line in said], len(problems))


# --- list -------------------------------------------------------------------------------------


def describe(entry: Entry) -> list[str]:
    """What `list` says of one dataset."""
    root = dataset_folder(entry.name)
    prepared = manifest.splits_in(root)
    if entry.files and all((root / file).is_file() for file in entry.files):
        prepared = [entry.splits[0].name]
    here = f"splits {', '.join(prepared)}" if prepared else "no split prepared"
    lines = [
        f"{entry.name}: {entry.title}",
        f"  licence  {entry.licence or 'unknown'}",
        f"  size     {entry.size or ', '.join(map(_size, entry.archives)) or 'unknown'}",
        f"  from     {entry.page}",
        f"  here     {root}: {here}",
    ]
    for split in entry.splits:
        if split.name not in prepared:
            lines.append(f"  {split.name:8} {split.about}: {_state(entry, split, root)}")
    return lines


def _size(archive: Archive) -> str:
    size = f"{archive.bytes / 1e6:,.0f} MB" if archive.bytes else "of unknown size"
    return f"{archive.name} {size}"


def _state(entry: Entry, split: Split, root: Path) -> str:
    missing = [f"{need} (by hand)" for need in _missing_by_hand(root, split)]
    absent = [archive.name for archive in entry.archives if not is_present(archive, root)]
    if split.download and absent:
        many = len(absent) > MAX_LISTED_FILES
        missing.append(f"{f'{len(absent)} files' if many else ', '.join(absent)} (download)")
    return f"missing {', '.join(missing)}" if missing else "ready to prepare"
