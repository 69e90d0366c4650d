"""Cells on this machine: worker processes, side by side, one cell each at a time.

As many as there are cores, or one on each GPU. A worker that dies is one cell's failure, not the grid's: the next cell gets
a new one.
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
from bench.store.collect import Kept
from bench.store.rundir import RunDir, refuse_other


class Worker:
    """A `bench.worker` process; started when first needed, started again if it died."""

    def __init__(self, results: Path, device: str) -> None:
        self.results, self.device = results, device
        self.process: subprocess.Popen[str] | None = None

    def ask(
        self, do: str, spec: RunSpec, progress: Any = None, limit: float | None = None
    ) -> dict[str, Any]:
        """Status, reason and identity (digests) of a cell; after `limit` minutes it is stopped as by a signal.

        Raises UsageError if the cell cannot be run at all, Busy while another process runs it.
        """
        if self.process is None or self.process.poll() is not None:
            self.close()
            threads = str(spec.train.threads)
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bench.launch.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = {
            "do": do,
            "spec": plain(spec),
            "results": str(self.results),
            "device": self.device,
        }
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass  # it died or was stopped: the empty answer below says so
        watch = threading.Timer(60 * (limit or 0), self.process.terminate)
        if limit:
            watch.start()
        try:
            for line in self.process.stdout:
                reply = json.loads(line)
                if reply["kind"] == "usage":
                    raise UsageError(reply["reason"])
                if reply["kind"] == "busy":
                    raise Busy(reply["reason"])
                if reply["kind"] == "state":
                    return reply
                if progress:
                    progress(reply["text"])
        finally:
            watch.cancel()
        code = self.process.wait()
        if limit and code in (128 + signal.SIGTERM, -signal.SIGTERM):
            return {"status": "interrupted", "reason": f"past its limit of {limit:g} minutes"}
        status = (
            "oom" if code == -9 else "error"
        )  # the kernel's answer to memory running out is SIGKILL
        ended = (
            f"the process ended with {'signal ' + str(-code) if code < 0 else 'code ' + str(code)}"
        )
        return {"status": status, "reason": ended}

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
        """After it ended, and after whoever reads its answers has seen their end."""
        if self.process is not None:
            with contextlib.suppress(BrokenPipeError), self.process:  # closes the pipes
                pass


def check_cells(cells: Iterable[RunSpec], worker: Worker, kept: Mapping[str, Kept]) -> None:
    """Build each different combination once, so that a wrong name, folder, file or value is found before training.

    Raises UsageError for it, and for a cell that was begun or finished with other images, weights or precision. kept: cells
    that are done by the suite's tables alone, by run_id.
    """
    built: dict[str, dict[str, Any]] = {}
    for cell in cells:
        kind = (
            replace(cell, order_seed=0, seed=0).canonical()
            + cell.data.root
            + cell.backbone.checkpoint
        )
        if kind not in built:
            built[kind] = worker.ask("check", cell)
            if built[kind]["status"] != "ok":
                raise UsageError(
                    f"{cell.method} on {cell.benchmark}: cannot be built ({built[kind]['reason']})"
                )
        if cell.run_id in kept:
            where = f"{worker.results / cell.suite}/runs.csv: {cell.run_id}"
            refuse_other(
                where,
                kept[cell.run_id].state,
                built[kind]["identity"],
                "give --name, or leave out --keep",
            )
        else:
            RunDir.of(worker.results, cell).refuse_other(built[kind]["identity"])


@dataclass
class Pool:
    """Cells that wait for a worker, and what became of those that had one: shared by the threads that talk to the workers."""

    results: Path
    waiting: queue.Queue[RunSpec]
    bar: tqdm
    limit: float | None  # minutes for each cell
    failed: dict[str, str] = field(default_factory=dict)  # why a cell is not done, by run_id
    stopping: threading.Event = field(default_factory=threading.Event)

    def work(self, worker: Worker) -> None:
        """Have one worker run cells until none waits, or the grid is stopped."""
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
                self.stopping.wait(0.5)
                continue
            except UsageError as error:
                status, reason = "error", str(error)
            if status != "done" and not self.stopping.is_set():
                self.fail(cell, status, reason)
            self.bar.update()

    def show(self, cell: RunSpec, text: str) -> None:
        self.bar.set_postfix_str(f"{cell.method} {cell.benchmark} {text}")

    def fail(self, cell: RunSpec, status: str, reason: str) -> None:
        self.failed[cell.run_id] = f"{status}: {reason}"
        run = RunDir.of(self.results, cell)
        state = run.state()
        if state["status"] in (
            "running",
            "missing",
            status,
        ):  # it died or refused before it could say so, or why
            with contextlib.suppress(
                OSError, UsageError
            ):  # a full disk: what can be said is said below
                run.give_up({**state, "status": status, "reason": reason})
        tqdm.write(f"{cell.run_id}: {self.failed[cell.run_id]}", file=sys.stderr)


def further_workers(first: Worker, cells: list[RunSpec], jobs: int | None) -> list[Worker]:
    """The workers beside the first: as many as jobs, cores or GPUs ask for and cells need, dealt to the GPUs in turn."""
    places = first.ask("devices", cells[0]).get("devices", [first.device])
    beside = min(jobs or (cores() if places == ["cpu"] else len(places)), len(cells))
    print(f"{beside} side by side on {', '.join(places)}", file=sys.stderr)
    first.device = places[0]
    return [Worker(first.results, places[number % len(places)]) for number in range(1, beside)]


def end(workers: list[Worker], threads: list[threading.Thread]) -> None:
    """Workers stop at their next step; asked a second time, at once."""
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
    finished: Iterable[RunSpec] = (),
    limit: float | None = None,
    kept: Mapping[str, Kept] = MappingProxyType({}),
) -> dict[str, str]:
    """Run cells on local workers, each for at most `limit` minutes; returns the reason of each that is not done, by run_id.

    Of finished cells those that read files of the user's are checked too: are the files still the same? A cell that
    another grid is running is waited for. jobs: cells side by side, which share the GPUs evenly; None: as many as there are
    cores, or GPUs. kept: those of the finished cells that have rows in the suite's tables and no run.
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
