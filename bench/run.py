"""Run one cell of a suite: `python -m bench.run SUITE --method M --order-seed O --seed S`."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import Any

from bench import cli, stopping
from bench.code import code_sha
from bench.config.arguments import add_suite_arguments
from bench.config.spec import RunSpec
from bench.config.suite import load_suite
from bench.errors import Busy, UsageError
from bench.launch.display import note_of
from bench.store.codes import Codes
from bench.store.facts import refuse_other_suite
from bench.store.rundir import RunDir


def parse() -> argparse.Namespace:
    parser = cli.Parser(prog="python -m bench.run", description=__doc__)
    add_suite_arguments(parser)
    parser.add_argument("--method", required=True, help="row of the suite, e.g. hlgp")
    parser.add_argument("--benchmark", help="needed where the suite has several")
    parser.add_argument("--order-seed", type=int, help="default: the suite's first")
    parser.add_argument("--seed", type=int, help="default: the suite's first")
    parser.add_argument(
        "--keep-stale", action="store_true", help="leave a finished cell whose code is not today's"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto")
    return parser.parse_args()


def choose_cell(args: argparse.Namespace) -> RunSpec:
    """The one cell that the options name. Raises UsageError where they name none or several."""
    named = [args.benchmark, args.order_seed, args.seed]
    choices = [[] if value is None else [value] for value in named]
    suite = load_suite(args.suite, args.overrides, args.name)
    refuse_other_suite(args.results / suite.name, suite.file)
    cells = suite.select([args.method], *choices)
    benchmarks = sorted({cell.benchmark for cell in cells})
    if args.benchmark is None and len(benchmarks) > 1:
        raise UsageError(f"--benchmark: one of {', '.join(benchmarks)} is needed")
    return cells[0]


def _print_event(event: dict[str, Any]) -> None:
    print(note_of(event), file=sys.stderr, flush=True)


def main() -> int:
    args = parse()
    cell = choose_cell(args)

    from bench.engine.run import run_cell  # torch is imported only for a valid command line
    from bench.hardware import choose_device

    run = RunDir.of(args.results, cell)
    today = code_sha(cell.type, cell.data.name)
    if run.done() and not Codes.of(args.results).same(cell.suite, cell.type, run.code(), today):
        what = f"{cell.run_id}: finished by other code than today's ({run.code()}, now {today})"
        if args.keep_stale:
            print(f"{what}; kept\n{run.path}")
            return cli.FINE
        print(f"{what}; run again (--keep-stale keeps it)", file=sys.stderr)
    stopping.on_signals(signal.SIGINT, signal.SIGTERM)
    device = choose_device(args.device)
    try:
        state = run_cell(cell, args.results, device, _print_event)
    except Busy as error:
        print(f"error: {error}", file=sys.stderr)
        return cli.UNFINISHED
    print(f"{cell.run_id}: {state['status']} {state['reason']}".rstrip())
    print(args.results / cell.suite / "runs" / cell.run_id)
    return cli.FINE if state["status"] == "done" else cli.UNFINISHED


if __name__ == "__main__":
    cli.run(main)
