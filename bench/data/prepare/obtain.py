"""The archives of a dataset: which are missing, and how they are downloaded and unpacked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.data.catalogue import Archive, Entry
from bench.data.prepare import archives, download
from bench.errors import UsageError
from bench.paths import offline


@dataclass(frozen=True)
class Access:
    """How the network is used. `mirror`: a base address instead of the source's own."""

    mirror: str = ""
    offline: bool = False


def obtain_archives(entry: Entry, root: Path, access: Access) -> None:
    """Download and unpack the archives that are missing in `root`.

    Raises UsageError if the network is off or a file is not the published one.
    """
    absent = [archive for archive in entry.archives if not is_present(archive, root)]
    if absent and offline(access.offline):
        raise _network_is_off(absent, root, access)
    for archive in entry.archives:
        _obtain(archive, root, access)


def is_present(archive: Archive, root: Path) -> bool:
    """True for a file that needs no download: it is in the root, or its content is."""
    file = root / archive.name
    if file.exists():
        return True
    unpacked = archive.makes and (archives.pending(file) or any(root.glob(archive.makes)))
    return bool(unpacked)


def _network_is_off(absent: list[Archive], root: Path, access: Access) -> UsageError:
    urls = [download.mirrored(archive.url, access.mirror) for archive in absent]
    subject, pronoun = f"{absent[0].name} is", "it"
    if len(absent) > 1:
        subject, pronoun = f"{len(absent)} files are", "them"
    fetch = "".join(f"\nfetch: {url}" for url in urls)
    return UsageError(
        f"{subject} not there and the network is off{fetch}\nput: {pronoun} into {root}"
    )


def _obtain(archive: Archive, root: Path, access: Access) -> None:
    file = root / archive.name
    if archive.makes and archives.pending(file):
        archives.unpack(file, archive.inner)
    if archive.makes and any(root.glob(archive.makes)):
        return
    if not file.exists():
        url = download.mirrored(archive.url, access.mirror)
        download.fetch(url, file, archive.bytes, archive.md5)
    elif archive.makes and (wrong := download.differs(file, archive.bytes, archive.md5)):
        raise UsageError(
            f"{file}: not the published file ({wrong}); remove it to download it again"
        )
    if archive.makes:
        archives.unpack(file, archive.inner)
