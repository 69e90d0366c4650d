"""Download one file: resumed, retried, checked. urllib reads proxies from the environment."""

from __future__ import annotations

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
from urllib.parse import urlsplit

from tqdm import tqdm

from bench.errors import Busy, UsageError
from bench.store.locks import locked

BLOCK_BYTES = 1 << 20
RETRIED_STATUS = (408, 429, 500, 502, 503, 504)  # another try may get another answer
NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


class _Broken(Exception):
    """This try failed, the next one may succeed. The bytes that came are kept."""


def mirrored(url: str, mirror: str) -> str:
    """The same file name under another base. Raises UsageError unless it is an http(s) address."""
    if not mirror:
        return url
    try:
        parts = urlsplit(mirror)
        # A bad address raises ValueError here; in urllib it would raise one of many errors.
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
    """Download url to target through target.part, which a later call continues.

    Without md5 it is continued only if target.part.from names the same url and version, since
    nothing else would reveal a wrong file. size (bytes) and md5 are checked if they are known.
    pause (seconds) doubles from one try to the next; timeout (seconds) is the longest wait for a
    silent server. Raises UsageError if the server refuses, fails in every try, or sends another
    file; OSError for a disk.
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
    """The file with the origin of part: url and version (ETag, else Last-Modified) in two lines."""
    return part.with_name(part.name + ".from")


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    _origin(part).unlink(missing_ok=True)


def _version(url: str, part: Path) -> str:
    """The version of the file that part begins; "" if it is unknown or part has another url."""
    try:
        lines = _origin(part).read_text().split("\n")
    except (OSError, ValueError):
        return ""
    return lines[1] if len(lines) > 1 and lines[0] == url else ""


def differs(file: Path, size: int | None, md5: str) -> str:
    """How the file differs from the expected one; "" if it does not.

    An unknown size (None) or md5 ("") is not checked.
    """
    found = file.stat().st_size
    if size is not None and found != size:
        return f"{found} bytes instead of {size}"
    if not md5:
        return ""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return "" if digest == md5 else f"md5 {digest} instead of {md5}"


def _receive(url: str, part: Path, size: int | None, timeout: float, trusted: bool) -> None:
    """One try: append to part what it lacks.

    part is continued if it is trusted (its digest will be checked) or holds the server's present
    version. Raises _Broken for a failure that may pass.
    """
    version = _version(url, part)
    have = part.stat().st_size if part.exists() and (trusted or version) else 0
    request = urllib.request.Request(
        url, headers={"User-Agent": "hlgp-bench", "Accept-Encoding": "identity"}
    )
    if have:
        request.add_header("Range", f"bytes={have}-")
        if not trusted:
            # If the server has another version, it sends all of it.
            request.add_header("If-Range", version)
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
                return  # part is complete
            _drop(part)
            raise _Broken("the server has nothing after what was kept") from error
        if error.code in RETRIED_STATUS:
            raise _Broken(f"HTTP {error.code}") from error
        raise UsageError(f"{url}: HTTP {error.code} {error.reason}") from error
    except NETWORK_ERRORS as error:
        raise _Broken(str(getattr(error, "reason", "") or error) or type(error).__name__) from error


def _extent(answer: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Position of the answer's first byte, and length of the file; None: unknown.

    A server without ranges starts at 0.
    """
    ranged = None
    if answer.status == 206:
        given = answer.headers.get("Content-Range", "")
        ranged = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", given)
    if ranged and int(ranged[1]) == have:
        return have, int(ranged[2]) + 1 if ranged[3] == "*" else int(ranged[3])
    if answer.status == 206:
        raise _Broken(f"another range than asked for ({answer.headers.get('Content-Range')})")
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isascii() and length.isdigit() else None


def _version_of(headers: Message) -> str:
    """A strong ETag or Last-Modified, which If-Range accepts; else ""."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _same_version(headers: Message, version: str, part: Path, trusted: bool) -> None:
    """Raises _Broken and drops part if the answer does not continue it.

    Some servers know ranges but not If-Range.
    """
    if not trusted and _version_of(headers) != version:
        _drop(part)
        raise _Broken("another version of the file than what was kept")


def _write(
    answer: http.client.HTTPResponse, part: Path, start: int, total: int | None, origin: str
) -> None:
    """Append to part what the answer brings. Raises UsageError while another process does so."""
    lock = part.with_name(f".{part.name}.lock")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock, f"{part}: another process is downloading it"):
            _append(answer, part, start, total, origin)
            lock.unlink(missing_ok=True)
    except Busy as error:
        raise UsageError(str(error)) from error
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{part.parent}: cannot be written ({error.strerror})") from error
    received = part.stat().st_size
    if total is not None and received != total:
        if received > total:
            _drop(part)
        raise _Broken(f"{received} of {total} bytes came")


def _append(
    answer: http.client.HTTPResponse, part: Path, start: int, total: int | None, origin: str
) -> None:
    bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=None)
    try:
        with part.open("ab") as stream, bar:
            if start and part.stat().st_size != start:
                raise _Broken("another process has continued what was kept")
            if not start:
                # The origin is removed before the old bytes and written after them, so it never
                # stands beside bytes of another file.
                _origin(part).unlink(missing_ok=True)
                if part.stat().st_size:
                    stream.truncate(0)
                _origin(part).write_text(origin)
            while block := _read(answer):
                stream.write(block)
                bar.update(len(block))
    except OSError as error:
        error.filename = str(part)  # an error of writing names no file
        raise


def _read(answer: http.client.HTTPResponse) -> bytes:
    """The bytes that have come so far, so that none is lost if the connection breaks.

    An OSError here is the network's; in _write it is the disk's.
    """
    try:
        return answer.read1(BLOCK_BYTES)
    except OSError as error:
        raise _Broken(str(error) or type(error).__name__) from error
