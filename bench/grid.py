"""Run all cells of a suite that are not done: `python -m bench.grid SUITE`.

As many one-thread cells run side by side as there are cores, or one on each GPU. What cannot work is found before anything
is trained: each different benchmark, backbone and method is built once first.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import queue
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tqdm import tqdm

from bench import cli
from bench.config.spec import RunSpec, UsageError, plain
from bench.config.suite import add_suite_arguments, load_suite
from bench.data.missing import require_files
from bench.paths import cache_dir
from bench.store.files import write_text
from bench.store.rundir import Busy, Kept, RunDir, collect, refuse_other, tabled


class Worker:
    """A `bench.worker` process; started when first needed, started again if it died."""

    def __init__(self, results: Path, device: str) -> None:
        self.results, self.device = results, device
        self.process: subprocess.Popen[str] | None = None

    def ask(self, do: str, spec: RunSpec, progress: Any = None, limit: float | None = None) -> dict[str, Any]:
        """Status, reason and identity (digests) of a cell; after `limit` minutes it is stopped as by a signal.

        Raises UsageError if the cell cannot be run at all, Busy while another process runs it.
        """
        if self.process is None or self.process.poll() is not None:
            self.close()
            threads = str(spec.train.threads)
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bench.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = {"do": do, "spec": plain(spec), "results": str(self.results), "device": self.device}
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
        status = "oom" if code == -9 else "error"  # the kernel's answer to memory running out is SIGKILL
        ended = f"the process ended with {'signal ' + str(-code) if code < 0 else 'code ' + str(code)}"
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
        kind = replace(cell, order_seed=0, seed=0).canonical() + cell.data.root + cell.backbone.checkpoint
        if kind not in built:
            built[kind] = worker.ask("check", cell)
            if built[kind]["status"] != "ok":
                raise UsageError(f"{cell.method} on {cell.benchmark}: cannot be built ({built[kind]['reason']})")
        if cell.run_id in kept:
            where = f"{worker.results / cell.suite}/runs.csv: {cell.run_id}"
            refuse_other(where, kept[cell.run_id].state, built[kind]["identity"], "give --name, or leave out --keep")
        else:
            RunDir.of(worker.results, cell).refuse_other(built[kind]["identity"])


def _show(bar: tqdm, cell: RunSpec, text: str) -> None:
    bar.set_postfix_str(f"{cell.method} {cell.benchmark} {text}")


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
    waiting: queue.Queue[RunSpec] = queue.Queue()
    for cell in cells:
        waiting.put(cell)
    failed: dict[str, str] = {}
    workers = [Worker(results, device)]
    threads: list[threading.Thread] = []
    bar = tqdm(total=len(cells), unit="cell", disable=not sys.stderr.isatty())
    stopping = threading.Event()

    def work(worker: Worker) -> None:
        while not stopping.is_set():
            try:
                cell = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                answer = worker.ask("run", cell, functools.partial(_show, bar, cell), limit)
                status, reason = answer["status"], answer["reason"]
            except Busy:
                waiting.put(cell)
                stopping.wait(0.5)
                continue
            except UsageError as error:
                status, reason = "error", str(error)
            if status != "done" and not stopping.is_set():
                failed[cell.run_id] = f"{status}: {reason}"
                state = RunDir.of(results, cell).state()
                if state["status"] in ("running", "missing", status):  # it died or refused before it could say so, or why
                    with contextlib.suppress(OSError, UsageError):  # a full disk: what can be said is said below
                        RunDir.of(results, cell).give_up({**state, "status": status, "reason": reason})
                tqdm.write(f"{cell.run_id}: {failed[cell.run_id]}", file=sys.stderr)
            bar.update()

    try:
        again = [cell for cell in finished if cell.data.root or cell.backbone.checkpoint or cell.run_id in kept]
        check_cells([*cells, *again], workers[0], kept)
        if cells:
            places: list[str] = workers[0].ask("places", cells[0]).get("places", [device])
            beside = jobs or (len(os.sched_getaffinity(0)) if places == ["cpu"] else len(places))
            print(f"{min(beside, len(cells))} side by side on {', '.join(places)}", file=sys.stderr)
            workers[0].device = places[0]
            workers += [Worker(results, places[number % len(places)]) for number in range(1, min(beside, len(cells)))]
        threads += [threading.Thread(target=work, args=(worker,)) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        stopping.set()
        try:
            for worker in workers:
                worker.stop()
            for thread in threads:
                thread.join()
            for worker in workers:
                worker.close()
        except (KeyboardInterrupt, SystemExit):  # asked a second time
            for worker in workers:
                worker.kill()
            raise
        finally:
            bar.close()
    return failed


def command_of(cell: RunSpec, args: argparse.Namespace) -> str:
    """The `bench.run` command of one cell, for other launchers."""
    words = [sys.executable, "-m", "bench.run", args.suite, "--method", cell.method, "--benchmark", cell.benchmark,
             "--order-seed", str(cell.order_seed), "--seed", str(cell.seed), "--results", str(args.results),
             "--name", cell.suite, "--device", args.device]  # fmt: skip
    if args.overrides:
        words += ["--set", *(f"{key}={value}" for key, value in args.overrides.items())]
    return shlex.join(words)


def plan(chosen: list[RunSpec], left: list[RunSpec], args: argparse.Namespace) -> str:
    """Each cell with its state, and what those that are left cost."""
    states = [(RunDir.of(args.results, cell).state()["status"] if cell in left else "done", cell.run_id) for cell in chosen]
    lines = [f"{state:12} {run_id}" for state, run_id in states]
    if left:
        from bench import budget  # torch: only here

        lines += ["", f"left to run: {len(left)} of {len(chosen)} cells", budget.table(left, args.rate, args.jobs or 1)]
    return "\n".join(lines)


def submit_slurm(cells: list[RunSpec], args: argparse.Namespace, folder: Path) -> None:
    """One Slurm job array with one cell per element; sbatch must be on the PATH."""
    script = folder / "slurm.sh"
    lines = ["#!/bin/bash", f"#SBATCH --array=0-{len(cells) - 1}", f"#SBATCH --output={folder}/slurm-%a.log", "commands=("]
    lines += [shlex.quote(command_of(cell, args)) for cell in cells]
    lines += [")", 'eval "${commands[$SLURM_ARRAY_TASK_ID]}"']
    write_text(script, "\n".join(lines) + "\n")
    try:
        subprocess.run(["sbatch", str(script)], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UsageError(f"--launcher slurm: sbatch failed ({error}); the script is {script}") from error


def _shard(text: str) -> tuple[int, int]:
    try:
        index, count = (int(part) for part in text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}': i/n is expected, e.g. 1/4") from None
    if not 1 <= index <= count:
        raise argparse.ArgumentTypeError(f"'{text}': 1/{count} to {count}/{count} are expected")
    return index, count


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.grid", description=__doc__.split("\n\n")[0])
    add_suite_arguments(parser)
    parser.add_argument("--methods", nargs="+", default=[])
    parser.add_argument("--benchmarks", nargs="+", default=[])
    parser.add_argument("--order-seeds", nargs="+", type=int, default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=[])
    parser.add_argument("--jobs", type=cli.positive, help="cells side by side (default: one a core, or one a GPU)")
    parser.add_argument("--launcher", choices=("local", "slurm", "print"), default="local")
    parser.add_argument("--shard", type=_shard, default=(1, 1), metavar="i/n", help="run the i-th of n parts")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto")
    parser.add_argument("--keep", action="store_true",
                        help="cells that are done by the suite's tables (a fresh clone has no runs) keep their rows and are "
                        "not run again")  # fmt: skip
    parser.add_argument("--time-limit", type=cli.above_zero, metavar="MINUTES",
                        help="local: a cell that takes longer is stopped, resumable")  # fmt: skip
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="list the cells, their state and what is left costs (images, forward passes, FLOPs); run nothing",
    )
    parser.add_argument("--rate", type=cli.above_zero, metavar="TFLOPS",
                        help="dry run: hours too, at so many 10^12 FLOP/s (bench.speed: images_per_second x gflops_per_image "
                        "/ 1000), divided by --jobs where that is given")  # fmt: skip
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="local: draw the report there at the end (bench.report --out)"
    )
    return parser.parse_args()


def main() -> int:
    args = parse()
    suite = load_suite(args.suite, args.overrides, args.name)
    if args.rate and not args.dry_run:
        raise UsageError("--rate: for --dry-run, which says what a suite costs")
    chosen = suite.select(args.methods, args.benchmarks, args.order_seeds, args.seeds)
    chosen = chosen[args.shard[0] - 1 :: args.shard[1]]
    left = [cell for cell in chosen if not RunDir.of(args.results, cell).done()]
    kept = tabled(args.results / suite.name, left) if args.keep else {}
    left = [cell for cell in left if cell.run_id not in kept]
    if args.dry_run:
        print(plan(chosen, left, args))
        return cli.FINE
    if args.launcher == "print":
        for cell in left:
            print(command_of(cell, args))
        return cli.FINE
    require_files(chosen)
    folder = args.results / suite.name
    runs = folder / "runs" if (folder / "runs").is_dir() else folder
    drawn_in = [args.report / suite.name] if args.report and args.launcher == "local" else []
    for place in (folder, runs, cache_dir(), *drawn_in):  # an unwritable folder is found now, not after the first cell
        write_text(place / ".writable", "")
        (place / ".writable").unlink(missing_ok=True)  # another grid may have
    if args.launcher == "slurm":
        if left:
            submit_slurm(left, args, folder)
        return cli.FINE
    print(f"suite {suite.name}: {len(chosen)} cells, {len(chosen) - len(left)} done before", file=sys.stderr)
    finished = [cell for cell in chosen if cell not in left]
    failed = run_local(left, args.results, args.jobs, args.device, finished, args.time_limit, kept)
    counts = collect(args.results, suite.cells, args.keep)
    print(f"{folder}/metrics.csv: " + ", ".join(f"{count} {status}" for status, count in sorted(counts.items())), flush=True)
    drawn = cli.FINE
    if args.report:
        words = ["-m", "bench.report", suite.name, "--results", str(args.results), "--out", str(args.report)]
        drawn = subprocess.call([sys.executable, *words])
    return cli.UNFINISHED if failed else drawn


if __name__ == "__main__":
    cli.run(main)
