"""Run one cell of a suite: `python -m bench.run SUITE --method M --benchmark B --order-seed O --seed S`."""

from __future__ import annotations

import argparse
import signal
import sys

from bench import cli, stopping
from bench.config.suite import add_suite_arguments, load_suite
from bench.errors import Busy, UsageError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    add_suite_arguments(parser)
    parser.add_argument("--method", required=True, help="row of the suite, e.g. hlgp")
    parser.add_argument("--benchmark", help="needed where the suite has several")
    parser.add_argument("--order-seed", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto")
    args = parser.parse_args()
    suite = load_suite(args.suite, args.overrides, args.name)

    def some(value: object) -> list:
        return [] if value is None else [value]

    cells = suite.select(
        [args.method], some(args.benchmark), some(args.order_seed), some(args.seed)
    )
    if args.benchmark is None and len({cell.benchmark for cell in cells}) > 1:
        raise UsageError(
            f"--benchmark: one of {', '.join(sorted({cell.benchmark for cell in cells}))} is needed"
        )
    cell = cells[0]  # the suite's first order and seed, unless named

    from bench.engine.run import run_cell  # torch is imported only once the command line is right
    from bench.hardware import choose_device

    stopping.on_signals(signal.SIGINT, signal.SIGTERM)
    try:
        state = run_cell(
            cell,
            args.results,
            choose_device(args.device),
            lambda text: print(text, file=sys.stderr),
        )
    except Busy as error:
        print(f"error: {error}", file=sys.stderr)
        return cli.UNFINISHED
    print(f"{cell.run_id}: {state['status']} {state['reason']}".rstrip())
    print(args.results / cell.suite / "runs" / cell.run_id)
    return cli.FINE if state["status"] == "done" else cli.UNFINISHED


if __name__ == "__main__":
    cli.run(main)
