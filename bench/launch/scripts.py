"""What is run on a node, as text: the scripts of an array and of the job that collects after it.

Also the command of one cell, for any other scheduler.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.config.spec import RunSpec
from bench.config.suite import SUITES
from bench.launch import sbatch
from bench.launch.submitted import COMMENT
from bench.paths import PROJECT, REFERENCE
from bench.store.tables import LATER_COLUMNS, TABLES, read_csv

SAVE_SECONDS = 60  # before the time limit, to save
PAUSES = "0 1 5 10 20"  # seconds before each try to requeue, which takes ten more to fail
SPARE = 1.5  # memory asked for, of the peak that was measured
# Settings that change how much memory a cell takes, by how their names begin or end.
OF_MEMORY = ("backbone.", "train.batch_size", "train.precision")
INHERITED = (
    *("BENCH_DATA", "BENCH_WEIGHTS", "BENCH_CACHE", "BENCH_CACHE_LIMIT", "BENCH_OFFLINE"),
    # Where weights are looked for, and whether they are fetched. HF_TOKEN is for no file.
    *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "XDG_CACHE_HOME"),
)
SCRIPT = """#!/bin/bash
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@{seconds}
{defaults}
{exports}
cd {folder} || exit 2
again=
trap 'again=yes; kill -TERM $grid' USR1  # the time limit is near
trap : TERM  # Slurm has told the grid too: wait for it to save
{command} "$SLURM_ARRAY_TASK_ID" & grid=$!
wait $grid; code=$?
while kill -0 $grid 2>/dev/null; do wait $grid; code=$?; done
wait $grid 2>/dev/null; last=$?
case $last in
    127 | -1) ;;  # it was waited for above; -1: while bash itself was told, which it then forgets
    *) code=$last ;;
esac
# 143: stopped with something new saved. This element alone: one of them has the array's own id.
if [ -n "$again" ] && [ $code -eq 143 ]; then
    scontrol={scontrol}
    [ -x "$scontrol" ] || scontrol=scontrol  # where the launcher has it, or on this node's PATH
    for pause in {pauses}; do  # the controller may not answer
        sleep $pause
        "$scontrol" requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID" && exit 0
    done
    echo "error: not requeued: launch the suite again" >&2
fi
exit $code
"""


def command_of(cell: RunSpec, args: argparse.Namespace) -> str:
    """The `bench.run` command of one cell for a shell that may stand in any folder."""
    options = {
        "--method": cell.method,
        "--benchmark": cell.benchmark,
        "--order-seed": cell.order_seed,
        "--seed": cell.seed,
        "--results": args.results,
        "--name": cell.suite,
        "--device": args.device,
    }
    words = [sys.executable, "-m", "bench.run", args.suite]
    words += [str(word) for option in options.items() for word in option]
    variables = [f"{name}={value}" for name, value in _environment(args.scratch).items()]
    place = shlex.join(["cd", str(Path.cwd())])
    words += [*_keep_stale(args), *_settings(args)]
    return f"{place} && {shlex.join(['env', *variables, *words])}"


def _keep_stale(args: argparse.Namespace) -> list[str]:
    return ["--keep-stale"] if args.keep_stale else []


def _settings(args: argparse.Namespace) -> list[str]:
    if not args.overrides:
        return []
    return ["--set", *(f"{key}={value}" for key, value in args.overrides.items())]


def of_array(
    args: argparse.Namespace,
    cells: Sequence[RunSpec],
    file: Path,
    cpus: int,
    options: sbatch.Options,
) -> str:
    """The script of an array's elements, whose shares are in this file."""
    memory = memory_mib(args, options)
    defaults = [f"--job-name={COMMENT}-{cells[0].suite}"]
    defaults += [] if options.cpus else [f"--cpus-per-task={cpus}"]
    defaults += [f"--mem={memory}M"] if memory else []
    words = [*_grid(args, cells[0].suite), "--device", device_of(args, options)]
    words += ["--jobs", str(jobs(args, options)), "--quiet", *_keep_stale(args)]
    words += ["--time-limit", str(args.time_limit)] if args.time_limit else []
    words += ["--track", args.track] if args.track else []
    return SCRIPT.format(
        seconds=SAVE_SECONDS,
        defaults="\n".join(f"#SBATCH {word}" for word in defaults),
        exports=_exports(args.scratch),
        folder=shlex.quote(str(Path.cwd())),
        command=shlex.join([*words, "--share", str(file)]),
        scontrol=shlex.quote(shutil.which("scontrol") or "scontrol"),
        pauses=PAUSES,
    )


def device_of(args: argparse.Namespace, options: sbatch.Options) -> str:
    """Where the elements train: what this machine has says nothing about the nodes."""
    if args.device != "auto":
        return str(args.device)
    return "cuda" if options.gpus else "cpu"


def jobs(args: argparse.Namespace, options: sbatch.Options) -> int:
    """Cells that an element runs side by side: one on each GPU where the user does not say it."""
    on_gpus = device_of(args, options) == "cuda"
    return args.jobs or (max(1, options.gpus) if on_gpus else 1)


def memory_mib(args: argparse.Namespace, options: sbatch.Options) -> int:
    """What an element is given where the user does not say it; 0 where nobody has measured it."""
    other = any(key.startswith(OF_MEMORY) or key.endswith(OF_MEMORY) for key in args.overrides)
    peak = 0.0 if options.memory or other else _peak_mib(args.suite)
    return int(SPARE * peak) * jobs(args, options)


def of_collecting(args: argparse.Namespace, suite: str) -> str:
    """The script of the job that writes the tables."""
    words = [*_grid(args, suite), "--collect", *_keep_stale(args), *_selection(args)]
    words += ["--report", str(args.report.absolute())] if args.report else []
    words += ["--archive"] if args.archive else []
    folder = shlex.quote(str(Path.cwd()))
    return f"#!/bin/bash\n{_exports('')}\ncd {folder} || exit 2\nexec {shlex.join(words)}\n"


def _grid(args: argparse.Namespace, name: str) -> list[str]:
    """The grid of this suite, by an interpreter and paths that are the same on every node."""
    suite = args.suite
    if suite.endswith(".py"):
        suite = str(Path(suite).expanduser().absolute())
    words = [sys.executable, "-m", "bench.grid", suite, "--name", name, "--results"]
    if args.published:
        words += [str(args.results.parent.absolute()), "--reference"]
    else:
        words += [str(args.results.absolute())]
    return words + _settings(args)


def _selection(args: argparse.Namespace) -> list[str]:
    """The options that say which cells: tables and report speak of these."""
    words = ["--keep"] if args.keep else []
    for name in ("methods", "benchmarks", "order_seeds", "seeds"):
        if given := getattr(args, name):
            words += [f"--{name.replace('_', '-')}", *map(str, given)]
    return [*words, "--shard", "/".join(map(str, args.shard))]


def _environment(scratch: str) -> dict[str, str]:
    """What a grid reads, written down: a site may pass nothing on (--export=NONE)."""
    # The working directory comes last, and only where this process has it too: another copy of
    # this project may lie there.
    here = "" if sys.flags.safe_path else str(Path.cwd())
    path = filter(None, (str(PROJECT), os.environ.get("PYTHONPATH", ""), here))
    found = {"PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}
    names = (*INHERITED, "SLURM_CONF")
    found |= {name: os.environ[name] for name in names if name in os.environ}
    return found | ({"BENCH_CACHE": scratch} if scratch else {})


def _exports(scratch: str) -> str:
    found = _environment(scratch)
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in found.items())


def _peak_mib(suite: str) -> float:
    """The largest memory that a cell of the published suite took, MiB; 0 where nobody knows."""
    path = Path(suite).expanduser().resolve()
    if (
        path.suffix == ".py" and path.parent != SUITES.resolve()
    ):  # of one's own, whatever it is called
        return 0.0
    file = PROJECT / "results" / REFERENCE / Path(suite).stem / "timing.csv"
    if not file.is_file():
        return 0.0
    return max(
        float(row["peak_memory_mib"] or 0)
        for row in read_csv(file, TABLES["timing"], LATER_COLUMNS["timing"])
    )
