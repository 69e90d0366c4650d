"""What `python -m bench.data list, prepare, verify` do: from the web or a user's own copy to a checked split."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bench.cli import CHECK_FAILED, FINE
from bench.data import manifest
from bench.data.catalogue import CATALOGUE, CIFAR_FILES, Archive, Entry, Split
from bench.data.folder import decode_image
from bench.data.manifest import Row
from bench.data.parallel import in_threads
from bench.data.prepare import archives, download, splits
from bench.errors import UsageError
from bench.paths import data_place, offline
from bench.store.files import write_text

FEW = 3  # names of files that are shown, not counted
ORDERS = 5  # trials of the CODA line, whose class orders are written beside a split with a numbering of its own


@dataclass(frozen=True)
class Options:
    """Of the command line: base address instead of the source's, no network, counts other than the catalogue's."""

    mirror: str = ""
    offline: bool = False
    partial: bool = False


def entry_of(name: str) -> Entry:
    if name not in CATALOGUE:
        raise UsageError.unknown("dataset", name, CATALOGUE)
    return CATALOGUE[name]


def split_of(entry: Entry, name: str) -> Split:
    """A split by name, the first for ""."""
    for split in entry.splits:
        if name in ("", split.name):
            return split
    raise UsageError.unknown(
        f"--split of {entry.name}", name, [split.name for split in entry.splits]
    )


def prepare(entry: Entry, split: Split, options: Options) -> int:
    """Fetch, unpack, build the split, write its manifest. Raises UsageError for what only the user can do."""
    root = data_place(entry.name)
    _provide(entry, split, root, options)
    if not split.how:
        return _verify_cifar(root)
    found = splits.HOW[split.how](root)
    wrong = _counts(split, [(label, part) for _, label, part in found.images])
    if wrong and not options.partial:
        print("\n".join(wrong))
        print(f"{entry.name}: not written; a part of the dataset is accepted with --partial")
        return CHECK_FAILED
    rows = manifest.hashed(root, found.images)
    file = manifest.path_of(root, split.name)
    new = manifest.write(file, rows)
    _write_orders(root, split.name, found.published_order())
    print(f"{file}: {'written' if new else 'there already, the same'}; {_summary(rows)}")
    print(f"use it with: data.name=folder data.root={entry.name} data.split={split.name}")
    return FINE


def adopt(entry: Entry, name: str, given: Path, options: Options) -> int:
    """Another user's split: every file it names must be here with those bytes; else say what differs and write nothing."""
    rows = manifest.read(given)
    root = data_place(entry.name)
    name = name or given.stem.removeprefix("split-")
    file = manifest.path_of(root, name)
    known = next((split for split in entry.splits if split.name == name), None)
    if (known is None or known.download) and not all((root / row.path).exists() for row in rows):
        obtain(
            entry, root, options
        )  # lists that are placed by hand are not needed: the manifest is the list
    difference = manifest.compare(root, rows).lines()
    if difference:
        print("\n".join(f"{entry.name}: {line}" for line in difference))
        print(f"{given}: {len(rows)} files; not adopted")
        return CHECK_FAILED
    new = manifest.write(file, rows)
    print(f"{file}: {'written' if new else 'there already, the same'}; {_summary(rows)}")
    return FINE


def verify(entry: Entry, name: str, options: Options) -> int:
    """Counts, digests and decodability of the prepared splits; one line per kind of problem."""
    root = data_place(entry.name)
    if entry.name == "cifar100":
        if not (root / "cifar-100-python").is_dir():
            raise _unprepared(entry, root)
        return _verify_cifar(root)
    if name:
        manifest.find(root, name)
    names = [name] if name else manifest.splits_in(root)
    if not names:
        raise _unprepared(entry, root)
    problems = 0
    for each in names:
        rows = manifest.read(manifest.path_of(root, each))
        known = [split for split in entry.splits if split.name == each and not options.partial]
        lines = [
            line
            for split in known
            for line in _counts(split, [(row.label, row.part) for row in rows])
        ]
        difference = manifest.compare(root, rows)
        gone = {*difference.missing}
        lines += [
            *difference.lines(),
            *_undecodable(root, [row.path for row in rows if row.path not in gone]),
        ]
        problems += len(lines)
        print(
            "\n".join(
                f"{entry.name} {each}: {line}" for line in lines or [f"fine; {_summary(rows)}"]
            )
        )
    return CHECK_FAILED if problems else FINE


def _unprepared(entry: Entry, root: Path) -> UsageError:
    return UsageError(
        f"{root}: no split is prepared there (python -m bench.data prepare {entry.name})"
    )


def _provide(entry: Entry, split: Split, root: Path, options: Options) -> None:
    """Archives downloaded and unpacked where the split needs them; UsageError of three lines for what is placed by hand."""
    if missing := _missing(root, split):
        raise UsageError(
            f"{entry.name}: split '{split.name}' needs what has no direct download (missing: {', '.join(missing)})\n"
            f"fetch: {split.fetch}\nput: {split.put} into {root}; then the same command again"
        )
    if split.download:
        obtain(entry, root, options)


def obtain(entry: Entry, root: Path, options: Options) -> None:
    """The archives of a dataset, unpacked, as far as they are not there. Raises UsageError where that cannot be."""
    absent = [archive for archive in entry.archives if not _is_there(archive, root)]
    if absent and offline(options.offline):
        fetch = "".join(
            f"\nfetch: {download.mirrored(archive.url, options.mirror)}" for archive in absent
        )
        many, them = (
            (f"{len(absent)} files are", "them")
            if len(absent) > 1
            else (f"{absent[0].name} is", "it")
        )
        raise UsageError(f"{many} not there and the network is off{fetch}\nput: {them} into {root}")
    for archive in entry.archives:
        _obtain_one(archive, root, options)


def _missing(root: Path, split: Split) -> list[str]:
    return [need for need in split.needs if not any(root.glob(need))]


def _obtain_one(archive: Archive, root: Path, options: Options) -> None:
    file = root / archive.name
    if archive.makes and archives.pending(file):
        archives.unpack(file, archive.inner)
    if archive.makes and any(root.glob(archive.makes)):
        return
    if not file.exists():
        download.fetch(
            download.mirrored(archive.url, options.mirror), file, archive.bytes, archive.md5
        )
    elif archive.makes and (wrong := download.differs(file, archive.bytes, archive.md5)):
        raise UsageError(
            f"{file}: not the published file ({wrong}); remove it to download it again"
        )
    if archive.makes:
        archives.unpack(file, archive.inner)


def _counts(split: Split, found: list[tuple[str, str]]) -> list[str]:
    """A line for each count that is not the catalogue's."""
    parts = Counter(part for _, part in found)
    pairs = (
        ("classes", split.classes, len({label for label, _ in found})), ("train", split.train, parts["train"]),
        ("test", split.test, parts["test"]), ("images", split.images, len(found)),
    )  # fmt: skip
    return [
        f"counts: {what} {here} instead of {expected}"
        for what, expected, here in pairs
        if expected not in (None, here)
    ]


def _summary(rows: list[Row]) -> str:
    parts = Counter(row.part for row in rows)
    digest = manifest.digest_of(rows)[:12]
    return f"{len({row.label for row in rows})} classes, train {parts['train']}, test {parts['test']}, sha256 {digest}"


def _undecodable(root: Path, paths: list[str]) -> list[str]:
    def says(path: str) -> str:
        try:
            decode_image(root / path, 8)
        except UsageError as error:
            return str(error)
        return ""

    broken = [
        path for path, said in zip(paths, in_threads(says, paths, "decode"), strict=True) if said
    ]
    return [f"not decodable: {len(broken)} files ({manifest.shown(broken)})"] if broken else []


def _verify_cifar(root: Path) -> int:
    """Its three files are what the split is: md5 of each."""
    lines = []
    for name, md5 in CIFAR_FILES.items():
        file = root / "cifar-100-python" / name
        if not file.is_file():
            lines.append(f"missing: {file}")
        elif hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() != md5:
            lines.append(f"altered: {file}")
    print(
        "\n".join(
            f"cifar100: {line}"
            for line in lines or [f"fine; 100 classes, train 50000, test 10000, in {root}"]
        )
    )
    return CHECK_FAILED if lines else FINE


def _write_orders(root: Path, split: str, published: list[int]) -> None:
    """order-SPLIT-R.txt for --set data.class_order=FILE: the order of trial R of the CODA line in its own numbering."""
    if not published or published == sorted(published):
        return
    from bench.data.orders import class_order  # torch, which nothing else here needs

    for trial in range(ORDERS):
        order = [published[number] for number in class_order("coda", trial, len(published))]
        write_text(root / f"order-{split}-{trial}.txt", ",".join(map(str, order)) + "\n")


def describe(entry: Entry) -> list[str]:
    """What `list` says of one dataset."""
    root = data_place(entry.name)
    sizes = [
        f"{archive.name} {f'{archive.bytes / 1e6:,.0f} MB' if archive.bytes else 'of unknown size'}"
        for archive in entry.archives
    ]
    there = manifest.splits_in(root)
    if entry.name == "cifar100" and (root / "cifar-100-python" / "train").is_file():
        there = ["official"]
    size = entry.size or ", ".join(sizes) or "unknown"
    lines = [
        f"{entry.name}: {entry.title}",
        f"  licence  {entry.licence or 'unknown'}",
        f"  size     {size}",
        f"  from     {entry.page}",
        f"  here     {root}: {'splits ' + ', '.join(there) if there else 'no split prepared'}",
    ]
    for split in entry.splits:
        if split.name not in there:
            lines.append(f"  {split.name:8} {split.about}: {_state(entry, split, root)}")
    return lines


def _state(entry: Entry, split: Split, root: Path) -> str:
    absent = [
        archive.name
        for archive in entry.archives
        if split.download and not _is_there(archive, root)
    ]
    loads = [f"{len(absent)} files" if len(absent) > FEW else ", ".join(absent)] if absent else []
    missing = [f"{need} (by hand)" for need in _missing(root, split)] + [
        f"{names} (download)" for names in loads
    ]
    return f"missing {', '.join(missing)}" if missing else "ready to prepare"


def _is_there(archive: Archive, root: Path) -> bool:
    file = root / archive.name
    return file.exists() or (
        archive.makes != "" and (archives.pending(file) or any(root.glob(archive.makes)))
    )
