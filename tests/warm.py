"""`python -m ...` in a process forked from one that has imported torch and the engine already.

Importing them takes longer than most of what the tests run. Such a process is a real one, with its
own signals, memory and locks; what it shares with the others is that nothing is imported anew.
Commands whose variables Python or a library reads when it starts have a Python of their own.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any
from unittest import mock

ROOT = Path(__file__).parent.parent
forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["warm_server"])
_server: Any = forkserver._forkserver  # type: ignore[attr-defined]
ADDRESS = ("_forkserver_address", "_forkserver_authkey")  # for what is forked from the server
_one_at_a_time = threading.Lock()  # multiprocessing reads the exit code of a process only once
_popen = subprocess.Popen
PIPE = subprocess.PIPE
OPTIONS = {"stdin", "stdout", "stderr", "cwd", "env", "text", "errors"}  # that Warm understands


def _ensure_server() -> None:
    """Start it where it does not run. Python 3.11 looks for what is to be loaded in PYTHONPATH."""
    folders = [str(Path(__file__).parent), str(ROOT), os.environ.get("PYTHONPATH", "")]
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, folders))):
        forkserver.ensure_running()


def process(target: Callable[..., None], *args: Any, **options: Any) -> forks.Process:  # type: ignore
    """A process that calls a function, with everything loaded; it has been started."""
    _ensure_server()
    child = forks.Process(target=target, args=args, kwargs=options)
    child.start()
    return child


class Warm:
    """As subprocess.Popen of [sys.executable, "-m", ...], as far as it is used here."""

    def __init__(
        self,
        words: Sequence[str],
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        cwd: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        text: bool = False,
        errors: str | None = None,
    ) -> None:
        ours: list[IO[Any] | None] = []
        theirs: list[int] = []
        for number, given in enumerate((stdin, stdout, stderr)):
            one = None
            if given == PIPE:
                ends = os.pipe()
                one, other = ends[::-1] if number == 0 else ends
                theirs.append(other)
            else:
                theirs.append(_descriptor(number, given, theirs))
            mode = ("w" if number == 0 else "r") + ("" if text else "b")
            ours.append(None if one is None else open(one, mode, errors=errors))  # noqa: SIM115
        self.stdin, self.stdout, self.stderr = ours
        files = [
            Connection(file, readable=number == 0, writable=number > 0)
            for number, file in enumerate(theirs)
        ]
        environment = dict(os.environ if env is None else env)
        _ensure_server()
        with _one_at_a_time:
            server = {name: vars(_server)[name] for name in ADDRESS if name in vars(_server)}
            given_to_it = (list(words[2:]), str(cwd or Path.cwd()), environment, files, server)
            self.process = forks.Process(target=_run, args=given_to_it)
            self.process.start()
        for file in files:
            file.close()

    @property
    def pid(self) -> int | None:
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        with _one_at_a_time:
            return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Raises TimeoutExpired."""
        wait([self.process.sentinel], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(str(self.process.name), timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[Any, Any]:
        """All that it writes to its pipes, and its end. Raises TimeoutExpired."""
        said: dict[str, Any] = dict.fromkeys(("stdout", "stderr"))

        def read(name: str, pipe: IO[Any]) -> None:
            with pipe:
                said[name] = pipe.read()

        pipes = [(name, getattr(self, name)) for name in said if getattr(self, name)]
        readers = [threading.Thread(target=read, args=pair, daemon=True) for pair in pipes]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        return said["stdout"], said["stderr"]

    def send_signal(self, number: int) -> None:
        if self.poll() is None and self.pid is not None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Warm:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self.stdout, self.stderr, self.stdin):
            if pipe is not None:
                pipe.close()
        self.wait()


def _descriptor(number: int, given: Any, before: list[int]) -> int:
    """A copy of what a process shall have as its file `number`."""
    if given == subprocess.DEVNULL:
        return os.open(os.devnull, os.O_RDWR)
    if given == subprocess.STDOUT:
        return os.dup(before[1])
    return os.dup(number if given is None else given.fileno())


def _run(
    words: list[str],
    folder: str,
    environment: dict[str, str],
    files: list[Connection],
    server: dict[str, Any],
) -> None:
    """Be `python -m WORDS`: what it starts by `python -m ...` is forked too."""
    for number, file in enumerate(files):
        os.dup2(file.fileno(), number)
        file.close()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    vars(_server).update(server)
    _server.ensure_running = forkserver.ensure_running = lambda: None  # it is, but no child of ours
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.path.insert(0, folder)
    sys.argv = words
    subprocess.Popen = Popen  # type: ignore[misc, assignment]
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    finally:
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()


def Popen(words: Any, *args: Any, **options: Any) -> Any:
    """subprocess.Popen, or Warm for a command that it understands."""
    if list(words[:2]) == [sys.executable, "-m"] and not args and options.keys() <= OPTIONS:
        return Warm(words, **options)
    return _popen(words, *args, **options)


def run(
    words: Sequence[str], timeout: float, capture_output: bool, **options: Any
) -> subprocess.CompletedProcess[str]:
    """As subprocess.run, of a command that Warm understands."""
    assert capture_output
    with Warm(words, subprocess.DEVNULL, PIPE, PIPE, **options) as process:
        try:
            said = process.communicate(timeout)
        except BaseException:  # too late, or the test itself has ended
            process.kill()
            raise
    return subprocess.CompletedProcess(list(words), process.wait(), *said)
