"""One file from the web: resumed, retried, checked. Proxies are those of the environment (urllib reads them)."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from tqdm import tqdm

from bench.errors import UsageError

BLOCK = 1 << 20
AGAIN = (408, 429, 500, 502, 503, 504)  # answers that another try may change
NETWORK = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


class _Broken(Exception):
    """This try failed and another may not: what is there is kept."""


def mirrored(url: str, mirror: str) -> str:
    """The same file name under another base. Raises UsageError for what is no http or https address."""
    if not mirror:
        return url
    try:
        parts = urlsplit(mirror)
        # what cannot be asked for is a ValueError here, and would be one of many kinds in urllib
        host, _, _ = (parts.hostname or "").encode("idna"), parts.port, parts.path.encode("ascii")
    except ValueError:
        host = b""
    if not host or parts.scheme not in ("http", "https"):
        raise UsageError(f"--mirror={mirror}: an http or https address is expected")
    return f"{mirror.rstrip('/')}/{url.rsplit('/', 1)[1]}"


def fetch(
    url: str,
    target: Path,
    size: int | None = None,
    md5: str = "",
    tries: int = 6,
    pause: float = 1.0,
    timeout: float = 60.0,
) -> None:
    """Download url to target through target.part, which a later call continues: without md5 only if target.part.from says
    that it is of the same url and version there, since nothing else would tell if it was not.

    size in bytes and md5 are checked where they are known; pause (seconds) doubles from one try to the next, timeout
    (seconds) is how long a silent server is waited for. Raises UsageError where the server refuses, goes on failing, or
    sends something else; OSError for a disk.
    """
    part = target.with_name(target.name + ".part")
    for left in reversed(range(tries)):
        try:
            _receive(url, part, size, timeout, trusted=bool(md5))
            break
        except _Broken as error:
            if not left:
                kept = part.stat().st_size if part.exists() else 0
                raise UsageError(
                    f"{url}: {error}; {tries} tries, {kept} bytes are kept in {part}: run it again"
                ) from error
            print(f"{url}: {error}; again in {pause:g} s", file=sys.stderr)
        time.sleep(pause)
        pause *= 2
    if wrong := differs(part, size, md5):
        _drop(part)
        raise UsageError(f"{url}: not the published file ({wrong}); nothing is kept of it")
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    os.replace(part, target)
    _origin(part).unlink(missing_ok=True)


def _origin(part: Path) -> Path:
    """Where part is from: url and version (ETag, else Last-Modified) in two lines."""
    return part.with_name(part.name + ".from")


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    _origin(part).unlink(missing_ok=True)


def _version(url: str, part: Path) -> str:
    """Of the server's file that part holds the beginning of, "" where that is unknown or part is of another url."""
    try:
        lines = _origin(part).read_text().split("\n")
    except (OSError, ValueError):
        return ""
    return lines[1] if len(lines) > 1 and lines[0] == url else ""


def differs(file: Path, size: int | None, md5: str) -> str:
    """What about the file is not as expected, "" for nothing; what is not known (None, "") is not checked."""
    found = file.stat().st_size
    if size is not None and found != size:
        return f"{found} bytes instead of {size}"
    if not md5:
        return ""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return "" if digest == md5 else f"md5 {digest} instead of {md5}"


def _receive(url: str, part: Path, size: int | None, timeout: float, trusted: bool) -> None:
    """One try: everything after what part holds, if it is trusted (its digest will be checked) or of the server's present
    version of the file. Raises _Broken for what may pass."""
    version = _version(url, part)
    have = part.stat().st_size if part.exists() and (trusted or version) else 0
    request = urllib.request.Request(
        url, headers={"User-Agent": "hlgp-bench", "Accept-Encoding": "identity"}
    )
    if have:
        request.add_header("Range", f"bytes={have}-")
        if not trusted:
            request.add_header(
                "If-Range", version
            )  # of another version the server sends everything
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            start, total = _extent(answer, have)
            if start:
                _same_version(answer.headers, version, part, trusted)
            if size is not None and total is not None and total != size:
                raise UsageError(
                    f"{url}: not the published file ({total} bytes are offered instead of {size})"
                )
            _write(answer, part, start, total, f"{url}\n{_version_of(answer.headers)}")
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            if error.headers.get("Content-Range") == f"bytes */{have}":
                _same_version(error.headers, version, part, trusted)
                return  # part is whole already
            _drop(part)
            raise _Broken("the server has nothing after what was kept") from error
        if error.code in AGAIN:
            raise _Broken(f"HTTP {error.code}") from error
        raise UsageError(f"{url}: HTTP {error.code} {error.reason}") from error
    except NETWORK as error:
        raise _Broken(str(getattr(error, "reason", "") or error) or type(error).__name__) from error


def _extent(answer: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """First byte of the answer and length of the whole file; a server without ranges starts again at 0."""
    ranged = (
        re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if answer.status == 206
        else None
    )
    if ranged and int(ranged[1]) == have:
        return have, int(ranged[2]) + 1 if ranged[3] == "*" else int(ranged[3])
    if answer.status == 206:
        raise _Broken(f"another range than asked for ({answer.headers.get('Content-Range')})")
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isascii() and length.isdigit() else None


def _version_of(headers: Message) -> str:
    """Strong ETag or Last-Modified, which If-Range accepts, else ""."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _same_version(headers: Message, version: str, part: Path, trusted: bool) -> None:
    """Some servers know ranges and not If-Range. Raises _Broken, with nothing kept, where what part holds is not continued."""
    if not trusted and _version_of(headers) != version:
        _drop(part)
        raise _Broken("another version of the file than what was kept")


def _write(
    answer: http.client.HTTPResponse, part: Path, start: int, total: int | None, origin: str
) -> None:
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        stream = part.open("ab")
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{part.parent}: cannot be written ({error.strerror})") from error
    bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=None)
    try:
        with stream, bar:
            _alone(stream, part, start)
            if not start:
                _origin(part).unlink(
                    missing_ok=True
                )  # before its bytes, and written after they are gone: never of others
                if part.stat().st_size:
                    stream.truncate(0)
                _origin(part).write_text(origin)
            while block := _read(answer):
                stream.write(block)
                bar.update(len(block))
    except OSError as error:
        error.filename = str(part)  # writing does not say which file
        raise
    received = part.stat().st_size
    if total is not None and received != total:
        if received > total:
            _drop(part)
        raise _Broken(f"{received} of {total} bytes came")


def _alone(stream: IO[bytes], part: Path, start: int) -> None:
    """Raises UsageError while another process writes part, _Broken where one has since the bytes from start were asked for."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(f"{part}: another process is downloading it") from error
    except OSError:
        return  # a file system without locks
    if start and part.stat().st_size != start:
        raise _Broken("another process has continued what was kept")


def _read(answer: http.client.HTTPResponse) -> bytes:
    """What has come, so that nothing of it is lost if no more does. Here an OSError is the network's, in _write the disk's."""
    try:
        return answer.read1(BLOCK)
    except OSError as error:
        raise _Broken(str(error) or type(error).__name__) from error
