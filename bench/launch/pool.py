"""Cells on this machine, side by side: worker processes that run one cell at a time.

There are as many workers as cores, or one on each GPU. A worker that dies fails one cell and not
the grid: the next cell gets a new worker.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tqdm import tqdm

from bench.config.spec import RunSpec, plain
from bench.errors import Busy, UsageError
from bench.hardware import cores
from bench.store.collect import TableRows
from bench.store.rundir import RunDir, refuse_other

BUSY_SECONDS = 0.5  # before a cell that another grid is running is tried again


class Worker:
    """A `bench.launch.worker` process; it is started when needed, and again if it died."""

    def __init__(self, results: Path, device: str) -> None:
        self.results, self.device = results, device
        self.process: subprocess.Popen[str] | None = None

    def ask(
        self, do: str, spec: RunSpec, progress: Any = None, limit: float | None = None
    ) -> dict[str, Any]:
        """Send a request (see worker.py) and return its answer.

        limit: minutes, after which the cell is stopped as by a signal. Raises UsageError if the
        cell cannot be run at all, and Busy while another process runs it.
        """
        process = self._started(spec.train.threads)
        request = {
            "do": do,
            "spec": plain(spec),
            "results": str(self.results),
            "device": self.device,
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
            answer = self._answer(process, progress)
        finally:
            timer.cancel()
        return answer or _ended(process.wait(), limit)

    def _started(self, threads: int) -> subprocess.Popen[str]:
        if self.process is None or self.process.poll() is not None:
            self.close()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bench.launch.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ
                | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)),
            )
        return self.process

    @staticmethod
    def _answer(process: subprocess.Popen[str], progress: Any) -> dict[str, Any] | None:
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
            if progress:
                progress(reply["text"])
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


def check_cells(cells: Iterable[RunSpec], worker: Worker, kept: Mapping[str, TableRows]) -> None:
    """Build each different combination once, so that a mistake is found before any training.

    kept: cells that only the suite's tables list as done, by run_id. Raises UsageError for a wrong
    name, folder, file or value, and for a cell that was begun or finished with other images,
    weights or precision.
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
        if cell.run_id in kept:
            where = f"{worker.results / cell.suite}/runs.csv: {cell.run_id}"
            cure = "give --name, or leave out --keep"
            refuse_other(where, kept[cell.run_id].state, identity, cure)
        else:
            RunDir.of(worker.results, cell).refuse_other(identity)


@dataclass
class Pool:
    """The waiting cells and the failed ones, shared by the threads that talk to the workers."""

    results: Path
    waiting: queue.Queue[RunSpec]
    bar: tqdm
    limit: float | None  # minutes for each cell
    failed: dict[str, str] = field(default_factory=dict)  # reason, by run_id
    stopping: threading.Event = field(default_factory=threading.Event)

    def work(self, worker: Worker) -> None:
        """Have one worker run cells until none waits, or until the grid is stopped."""
        while not self.stopping.is_set():
            try:
                cell = self.waiting.get_nowait()
            except queue.Empty:
                return
            try:
                answer = worker.ask("run", cell, functools.partial(self.show, cell), self.limit)
                status, reason = answer["status"], answer["reason"]
            except Busy:
                self.waiting.put(cell)
                self.stopping.wait(BUSY_SECONDS)
                continue
            except UsageError as error:
                status, reason = "error", str(error)
            if status != "done" and not self.stopping.is_set():
                self.fail(cell, status, reason)
            self.bar.update()

    def show(self, cell: RunSpec, text: str) -> None:
        self.bar.set_postfix_str(f"{cell.method} {cell.benchmark} {text}")

    def fail(self, cell: RunSpec, status: str, reason: str) -> None:
        """Note why a cell is not done, also in its run directory if it could not do that itself."""
        self.failed[cell.run_id] = f"{status}: {reason}"
        run = RunDir.of(self.results, cell)
        state = run.state()
        if state["status"] in ("running", "missing", status):
            with contextlib.suppress(OSError, UsageError):  # on a full disk the line below remains
                run.give_up(state | {"status": status, "reason": reason})
        tqdm.write(f"{cell.run_id}: {self.failed[cell.run_id]}", file=sys.stderr)


def further_workers(first: Worker, cells: list[RunSpec], jobs: int | None) -> list[Worker]:
    """The workers beside the first, dealt to the GPUs in turn.

    jobs: how many in all; None = one for each core or GPU. There are never more than cells.
    """
    devices = first.ask("devices", cells[0]).get("devices", [first.device])
    usual = cores() if devices == ["cpu"] else len(devices)
    count = min(jobs or usual, len(cells))
    print(f"{count} side by side on {', '.join(devices)}", file=sys.stderr)
    first.device = devices[0]
    return [Worker(first.results, devices[number % len(devices)]) for number in range(1, count)]


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
    cells: list[RunSpec],
    results: Path,
    jobs: int | None,
    device: str,
    *,
    finished: Iterable[RunSpec] = (),
    limit: float | None = None,
    kept: Mapping[str, TableRows] = MappingProxyType({}),
) -> dict[str, str]:
    """Run cells on local workers; returns the reason of each cell that is not done, by run_id.

    jobs: cells side by side; None = one for each core or GPU. finished: cells that are done. Those
    that read the user's own files are checked again, since the files may have changed. limit:
    minutes for each cell. kept: finished cells that have rows in the suite's tables and no run.
    A cell that another grid is running is waited for.
    """
    bar = tqdm(total=len(cells), unit="cell", disable=not sys.stderr.isatty())
    pool = Pool(results, queue.Queue(), bar, limit)
    for cell in cells:
        pool.waiting.put(cell)
    workers = [Worker(results, device)]
    threads: list[threading.Thread] = []
    try:
        again = [
            cell
            for cell in finished
            if cell.data.root or cell.backbone.checkpoint or cell.run_id in kept
        ]
        check_cells([*cells, *again], workers[0], kept)
        if cells:
            workers += further_workers(workers[0], cells, jobs)
        threads += [threading.Thread(target=pool.work, args=(worker,)) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        pool.stopping.set()
        try:
            end(workers, threads)
        finally:
            bar.close()
    return pool.failed
