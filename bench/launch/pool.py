"""Cells on this machine, side by side: worker processes that run one cell at a time.

As many workers as cores, or one on each GPU. One that dies fails its cell and not the grid.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import itertools
import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bench.config.spec import RunSpec, plain
from bench.errors import Busy, UsageError
from bench.hardware import cores
from bench.launch.display import Display, Event, Outcome
from bench.launch.submitted import place
from bench.store.collect import TableRows
from bench.store.rundir import RunDir, refuse_other

BUSY_SECONDS = 0.5  # before a cell that another grid is running is tried again


class Worker:
    """A `bench.launch.worker` process; it is started when needed, and again if it died.

    say: what to do with a line that it writes to stderr.
    """

    command = (sys.executable, "-m", "bench.launch.worker")

    def __init__(
        self, results: Path, device: str, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self.results, self.device, self.say = results, device, say
        self.process: subprocess.Popen[str] | None = None
        self.reader: threading.Thread | None = None  # of its stderr

    def ask(
        self,
        do: str,
        *specs: RunSpec,
        tell: Callable[[Event], None] | None = None,
        limit: float | None = None,
        track: str = "",
    ) -> dict[str, Any]:
        """Send a request (see worker.py) and return its answer.

        tell: called with each event of a run. limit: minutes, after which the cell is stopped as by
        a signal. Raises UsageError if the cell cannot be run at all, and Busy while another process
        runs it.
        """
        process = self._started(specs[0].train.threads)
        request = {
            "do": do,
            "specs": [plain(spec) for spec in specs],
            "results": str(self.results),
            "device": self.device,
            "track": track,
        }
        assert process.stdin is not None
        # A worker that died or was stopped takes no request: its exit code below says so.
        with contextlib.suppress(BrokenPipeError, ValueError):
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        timer = threading.Timer(60 * (limit or 0), process.terminate)
        if limit:
            timer.start()
        try:
            answer = self._answer(process, tell)
        finally:
            timer.cancel()
        return answer or _ended(process.wait(), limit)

    def _started(self, threads: int) -> subprocess.Popen[str]:
        if self.process is None or self.process.poll() is not None:
            self.close()
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=os.environ
                | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)),
            )
            self.reader = threading.Thread(target=self._read_stderr, args=(self.process,))
            self.reader.start()
        return self.process

    def _read_stderr(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.say(line.rstrip())

    @staticmethod
    def _answer(
        process: subprocess.Popen[str], tell: Callable[[Event], None] | None
    ) -> dict[str, Any] | None:
        """The answer to the request, or None if the worker ended without one."""
        assert process.stdout is not None
        for line in process.stdout:
            reply = json.loads(line)
            if reply["kind"] == "usage":
                raise UsageError(reply["reason"])
            if reply["kind"] == "busy":
                raise Busy(reply["reason"])
            if reply["kind"] == "state":
                return reply
            if tell:
                tell(reply["event"])
        return None

    def stop(self) -> None:
        """Ask it to end: at the next step, with everything saved."""
        if self.process is not None and self.process.poll() is None:
            assert self.process.stdin is not None
            self.process.terminate()
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()  # an idle worker ends here

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()

    def close(self) -> None:
        """Close its pipes. To be called after it ended and its last answer was read."""
        if self.process is not None:
            if self.reader is not None:
                self.reader.join()
            with contextlib.suppress(BrokenPipeError), self.process:
                pass


def _ended(code: int, limit: float | None) -> dict[str, Any]:
    """Status and reason of a cell whose worker ended without an answer."""
    if limit and code in (128 + signal.SIGTERM, -signal.SIGTERM):
        return {"status": "interrupted", "reason": f"past its limit of {limit:g} minutes"}
    how = f"signal {-code}" if code < 0 else f"code {code}"
    # The kernel answers with SIGKILL when memory runs out.
    status = "oom" if code == -signal.SIGKILL else "error"
    return {"status": status, "reason": f"the process ended with {how}"}


def check_cells(
    cells: Iterable[RunSpec], worker: Worker, kept: Mapping[str, TableRows], elsewhere: bool = False
) -> None:
    """Build each different combination once, so that a mistake is found before any training.

    kept: cells that only the suite's tables list as done, by run_id. elsewhere: on machines that
    choose a precision "auto" themselves. Raises UsageError for a wrong name, folder, file or value,
    and for a cell that was begun or finished with other images, weights or precision.
    """
    built: dict[str, dict[str, Any]] = {}
    for cell in cells:
        same = replace(cell, order_seed=0, seed=0).canonical()
        combination = same + cell.data.root + cell.backbone.checkpoint
        if combination not in built:
            built[combination] = worker.ask("check", cell)
            if built[combination]["status"] != "ok":
                reason = built[combination]["reason"]
                raise UsageError(f"{cell.method} on {cell.benchmark}: cannot be built ({reason})")
        identity = built[combination]["identity"]
        if elsewhere and cell.train.precision == "auto":
            identity = {key: value for key, value in identity.items() if key != "precision"}
        if cell.run_id in kept:
            where = f"{worker.results / cell.suite}/runs.csv: {cell.run_id}"
            cure = "give --name, or leave out --keep"
            refuse_other(where, kept[cell.run_id].state, identity, cure)
        else:
            RunDir.of(worker.results, cell).refuse_other(identity)


def rounds_of(cells: Iterable[RunSpec]) -> dict[str, int]:
    """The round in which each cell is run, by run_id: one class order after the other, from 0.

    A benchmark with one class order has a round for each seed instead.
    """
    cells = list(cells)
    orders: dict[str, list[int]] = {}
    seeds: dict[str, list[int]] = {}
    for cell in cells:
        for known, value in ((orders, cell.order_seed), (seeds, cell.seed)):
            values = known.setdefault(cell.benchmark, [])
            if value not in values:
                values.append(value)
    return {
        cell.run_id: orders[cell.benchmark].index(cell.order_seed)
        if len(orders[cell.benchmark]) > 1
        else seeds[cell.benchmark].index(cell.seed)
        for cell in cells
    }


@dataclass
class Pool:
    """The waiting cells and the failed ones, shared by the threads that talk to the workers."""

    results: Path
    cells: list[RunSpec]
    display: Display
    limit: float | None = None  # minutes for each cell
    track: str = ""
    round_done: Callable[[int, int], None] = lambda number, count: None
    waiting: queue.Queue[RunSpec] = field(default_factory=queue.Queue)
    rounds: Mapping[str, int] = field(default_factory=dict)  # by run_id; default: rounds_of(cells)
    failed: dict[str, str] = field(default_factory=dict)  # reason, by run_id
    said: set[str] = field(default_factory=set)
    stopping: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.rounds = self.rounds or rounds_of(self.cells)
        # Cells that have not ended, by round.
        self.left = Counter(self.rounds[cell.run_id] for cell in self.cells)
        self.count = max(self.rounds.values(), default=-1) + 1
        self.finished_rounds = self._finished_rounds()
        for cell in sorted(self.cells, key=lambda cell: self.rounds[cell.run_id]):
            self.waiting.put(cell)

    def work(self, worker: Worker, number: int) -> None:
        """Have one worker run cells until none waits, or until the grid is stopped."""
        while not self.stopping.is_set():
            try:
                cell = self.waiting.get_nowait()
            except queue.Empty:
                return
            began = time.monotonic()
            tell = functools.partial(self.tell, number, cell)
            try:
                answer = worker.ask("run", cell, tell=tell, limit=self.limit, track=self.track)
                status, reason = answer["status"], answer["reason"]
            except Busy:
                self.waiting.put(cell)
                self.stopping.wait(BUSY_SECONDS)
                continue
            except UsageError as error:
                status, reason = "error", str(error)
            if status != "done" and self.stopping.is_set():
                return
            self.finish(number, cell, Outcome(status, reason, time.monotonic() - began))

    def tell(self, number: int, cell: RunSpec, event: Event) -> None:
        with self.lock:
            self.display.event(number, cell, event)

    def say(self, line: str) -> None:
        """A line that a worker wrote to stderr; once, where several write the same one."""
        with self.lock:
            if line not in self.said:
                self.said.add(line)
                self.display.warn(line)

    def finish(self, number: int, cell: RunSpec, outcome: Outcome) -> None:
        if outcome.status != "done":
            self.note_failure(cell, outcome.status, outcome.reason)
        with self.lock:
            self.display.finished(number, cell, outcome)
            self.left[self.rounds[cell.run_id]] -= 1
            begun, self.finished_rounds = self.finished_rounds, self._finished_rounds()
            renew = begun < self.finished_rounds < self.count
        if renew:
            self.round_done(self.finished_rounds, self.count)

    def _finished_rounds(self) -> int:
        """How many rounds have ended, of those before the first that has not."""
        return next((number for number in range(self.count) if self.left[number]), self.count)

    def note_failure(self, cell: RunSpec, status: str, reason: str) -> None:
        """Note why a cell is not done, also in its run directory if it could not do that itself."""
        self.failed[cell.run_id] = f"{status}: {reason}"
        run = RunDir.of(self.results, cell)
        state = run.state()
        if state["status"] in ("running", "missing", status):
            with contextlib.suppress(OSError, UsageError):  # on a full disk the display says it
                run.give_up(state | place() | {"status": status, "reason": reason})


def further_workers(first: Worker, cells: list[RunSpec], jobs: int | None) -> list[Worker]:
    """The workers beside the first, dealt to the GPUs in turn.

    jobs: how many in all; None = one for each GPU, or for each core (for as many cores as a cell
    has threads). There are never more than cells. Raises UsageError for cells that do not fit on
    a GPU side by side.
    """
    found = first.ask("devices", cells[0])
    devices = found.get("devices", [first.device])
    threads = max(cell.train.threads for cell in cells)
    usual = max(1, cores() // threads) if devices == ["cpu"] else len(devices)
    count = min(jobs or usual, len(cells))
    first.device = devices[0]
    if devices != ["cpu"] and count > len(devices):
        answer = first.ask("memory", *cells)
        for method, reason in answer["unknown"].items():
            first.say(f"{method}: what it takes of a GPU cannot be predicted ({reason})")
        sizes = list(zip(answer["bytes"], cells, strict=True))
        _refuse_too_many(jobs or count, count, len(devices), min(found["free"]), sizes)
    return [
        Worker(first.results, devices[number % len(devices)], first.say)
        for number in range(1, count)
    ]


def _refuse_too_many(
    jobs: int, count: int, gpus: int, free: int, cells: list[tuple[int, RunSpec]]
) -> None:
    """Raises UsageError where the largest cells do not fit on a GPU side by side.

    jobs: as asked for. count: how many run at once, on all GPUs. free: bytes of each. cells: with
    their bytes.
    """
    cells = sorted(cells, key=lambda pair: pair[0], reverse=True)
    together = list(itertools.accumulate(size for size, _ in cells))
    fit = max(1, bisect.bisect_right(together, free))
    if math.ceil(count / gpus) > fit:
        (size, cell), gib = cells[0], 2**30
        raise UsageError(
            f"--jobs {jobs}: {cell.method} on {cell.benchmark} takes up to {size / gib:.1f} GiB "
            f"of a GPU (predicted), {free / gib:.1f} are free (accepted: at most --jobs "
            f"{fit * gpus})"
        )


def end(workers: list[Worker], threads: list[threading.Thread]) -> None:
    """Stop the workers at their next step; at once if a second signal comes meanwhile."""
    try:
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.join()
        for worker in workers:
            worker.close()
    except (KeyboardInterrupt, SystemExit):
        for worker in workers:
            worker.kill()
        raise


def run_local(
    pool: Pool,
    jobs: int | None,
    device: str,
    *,
    finished: Iterable[RunSpec] = (),
    kept: Mapping[str, TableRows] = MappingProxyType({}),
) -> dict[str, str]:
    """Run the cells of a pool on local workers; returns why a cell is not done, by run_id.

    jobs: cells side by side; None = one for each core or GPU. finished: cells that are done. Those
    that read the user's own files are checked again, since the files may have changed. kept:
    finished cells that have rows in the suite's tables and no run. A cell that another grid is
    running is waited for.
    """
    workers = [Worker(pool.results, device, pool.say)]
    threads: list[threading.Thread] = []
    try:
        again = [
            cell
            for cell in finished
            if cell.data.root or cell.backbone.checkpoint or cell.run_id in kept
        ]
        check_cells([*pool.cells, *again], workers[0], kept)
        if pool.cells:
            workers += further_workers(workers[0], pool.cells, jobs)
            flops = workers[0].ask("work", *pool.cells).get("flops") or [1.0] * len(pool.cells)
            work = dict(zip((cell.run_id for cell in pool.cells), flops, strict=True))
            devices = ", ".join(dict.fromkeys(worker.device for worker in workers))
            pool.display.say(f"{len(workers)} side by side on {devices}")
            pool.display.start(pool.cells, work, len(workers))
        threads += [
            threading.Thread(target=pool.work, args=(worker, number))
            for number, worker in enumerate(workers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        pool.stopping.set()
        try:
            end(workers, threads)
        finally:
            pool.display.close()
    return pool.failed
