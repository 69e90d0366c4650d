"""Unpacking archives of others.

No file is written outside the folder. A stopped extraction is finished, or done again.
"""

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

DAMAGE_ERRORS = (  # of a damaged archive
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
)

# Error numbers of a name that is a file and a folder, or is too long.
BAD_NAME_ERRORS = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)


def pending(archive: Path) -> bool:
    """True if an extraction was stopped after unpacking. unpack finishes it without the archive."""
    return _unpacked_folder(archive).is_dir()


def unpack(archive: Path, inner: str) -> None:
    """Put the content of the archive's folder `inner` ("": of the archive) beside the archive.

    Files that are there already stay. The archive is unpacked into a temporary folder, which is
    renamed once it is complete; then each entry is renamed into its final folder. Raises
    UsageError, before anything is written, for a member with an absolute name or '..', a link or a
    device; and for a damaged archive, or one larger than the free space.
    """
    root, done = archive.parent, _unpacked_folder(archive)
    if not done.is_dir():
        temporary = root / f".unpacking-{archive.name}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            _extract(archive, temporary)
            if not (temporary / inner).is_dir():
                raise UsageError(f"{archive}: no folder '{inner}' in it")
            temporary.rename(done)
        except DAMAGE_ERRORS as error:
            raise UsageError(
                f"{archive}: not a readable archive ({error}); remove it and fetch it again"
            ) from error
        except OSError as error:
            if error.errno in BAD_NAME_ERRORS:
                name = Path(error.filename).name
                raise UsageError(
                    f"{archive}: member {name!a} cannot be unpacked here ({error.strerror})"
                ) from error
            # The error of a full disk names no file.
            error.filename = error.filename or str(temporary)
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    for entry in sorted((done / inner).iterdir()):
        if not (root / entry.name).exists():
            entry.rename(root / entry.name)
    shutil.rmtree(done)


def _unpacked_folder(archive: Path) -> Path:
    return archive.with_name(f".unpacked-{archive.name}")


def _extract(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        _extract_zip(archive, folder)
    else:
        _extract_tar(archive, folder)


def _extract_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        entries = packed.infolist()
        for entry in entries:
            # The mode is 0 if the archive was made on a system without such modes.
            kind = stat.S_IFMT(entry.external_attr >> 16)
            _check_member(archive, entry.filename, kind not in (0, stat.S_IFREG, stat.S_IFDIR))
        _check_space(archive, folder, sum(entry.file_size for entry in entries))
        for entry in tqdm(entries, desc=archive.name, unit="file", disable=None):
            packed.extract(entry, folder)


def _extract_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
        for member in members:
            _check_member(archive, member.name, not (member.isreg() or member.isdir()))
        _check_space(archive, folder, sum(member.size for member in members))
        bar = tqdm(members, desc=archive.name, unit="file", disable=None)
        if hasattr(tarfile, "data_filter"):
            tar.extractall(folder, bar, filter="data")
            return
        # Python before 3.11.4 has no filter: the archive must not set owner and mode.
        for member in members:
            member.uid, member.gid, member.uname, member.gname = os.getuid(), os.getgid(), "", ""
            member.mode = 0o755 if member.isdir() else 0o644
        tar.extractall(folder, bar)


def _check_member(archive: Path, name: str, special: bool) -> None:
    """Raises UsageError for a name that leaves the folder, and for what is special."""
    path, windows = PurePosixPath(name), PureWindowsPath(name)
    if path.is_absolute() or windows.drive or windows.root or ".." in (*path.parts, *windows.parts):
        raise UsageError(f"{archive}: member {name!a} would leave the folder; nothing was unpacked")
    if special:
        raise UsageError(f"{archive}: member {name!a} is a link or a device; nothing was unpacked")


def _check_space(archive: Path, folder: Path, needed: int) -> None:
    """Raises UsageError if fewer bytes are free than needed."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(
            f"{archive}: {needed / 1e9:.1f} GB when unpacked, "
            f"{free / 1e9:.1f} GB are free in {folder.parent}"
        )
