"""Unpacking what others packed: nothing leaves the folder, and a stopped extraction is done again or finished."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from tqdm import tqdm

from bench.errors import UsageError

DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
)

IMPOSSIBLE = (
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
)  # a name that is file and folder, or too long


def pending(archive: Path) -> bool:
    """True where an extraction was stopped after unpacking: unpack finishes it without the archive."""
    return _done(archive).is_dir()


def unpack(archive: Path, inner: str) -> None:
    """Put the content of the archive's folder `inner` ("" for all of it) beside the archive; what is there already stays.

    Unpacked into a folder of its own, which is renamed once it is whole; then each entry is renamed into place. Raises
    UsageError, before anything is written, for a member with an absolute name or '..', a link or a device; and for a
    damaged archive, or one larger than the free space.
    """
    root, done = archive.parent, _done(archive)
    if not done.is_dir():
        temporary = root / f".unpacking-{archive.name}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            _extract(archive, temporary)
            if not (temporary / inner).is_dir():
                raise UsageError(f"{archive}: no folder '{inner}' in it")
            temporary.rename(done)
        except DAMAGED as error:
            raise UsageError(
                f"{archive}: not a readable archive ({error}); remove it and fetch it again"
            ) from error
        except OSError as error:
            if error.errno in IMPOSSIBLE:
                name = Path(error.filename).name
                raise UsageError(
                    f"{archive}: member {name!a} cannot be unpacked here ({error.strerror})"
                ) from error
            error.filename = error.filename or str(temporary)  # a full disk does not say where
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    for entry in sorted((done / inner).iterdir()):
        if not (root / entry.name).exists():
            entry.rename(root / entry.name)
    shutil.rmtree(done)


def _done(archive: Path) -> Path:
    return archive.with_name(f".unpacked-{archive.name}")


def _extract(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            entries = packed.infolist()
            for entry in entries:
                kind = stat.S_IFMT(
                    entry.external_attr >> 16
                )  # 0 where it was packed on another system
                _refuse(archive, entry.filename, kind not in (0, stat.S_IFREG, stat.S_IFDIR))
            _fits(archive, folder, sum(entry.file_size for entry in entries))
            for entry in tqdm(entries, desc=archive.name, unit="file", disable=None):
                packed.extract(entry, folder)
        return
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
        for member in members:
            _refuse(archive, member.name, not (member.isreg() or member.isdir()))
        _fits(archive, folder, sum(member.size for member in members))
        bar = tqdm(members, desc=archive.name, unit="file", disable=None)
        if hasattr(tarfile, "data_filter"):
            tar.extractall(folder, bar, filter="data")
            return
        for member in members:  # Python before 3.11.4: owner and mode of what was checked above must not be the archive's
            member.uid, member.gid, member.uname, member.gname = os.getuid(), os.getgid(), "", ""
            member.mode = 0o755 if member.isdir() else 0o644
        tar.extractall(folder, bar)


def _refuse(archive: Path, name: str, special: bool) -> None:
    path, windows = PurePosixPath(name), PureWindowsPath(name)
    if path.is_absolute() or windows.drive or windows.root or ".." in (*path.parts, *windows.parts):
        raise UsageError(f"{archive}: member {name!a} would leave the folder; nothing was unpacked")
    if special:
        raise UsageError(f"{archive}: member {name!a} is a link or a device; nothing was unpacked")


def _fits(archive: Path, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(
            f"{archive}: {needed / 1e9:.1f} GB when unpacked, {free / 1e9:.1f} GB are free in {folder.parent}"
        )
