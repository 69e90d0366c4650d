"""A process that runs cells for a grid: one JSON request per line in, one JSON answer per line out.

It stays alive from cell to cell, because importing torch takes longer than a small cell. Requests:
{"do": "devices" | "work" | "memory" | "check" | "run", "specs": [...], "results": "...",
"device": "...", "track": "..."}; check and run take one spec. Answers: {"kind": "event" | "usage" |
"busy" | "state", ...}.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from bench import stopping
from bench.config.spec import RunSpec, spec_from_json
from bench.errors import Busy, UsageError
from bench.hardware import choose_device, devices, free_bytes
from bench.launch.track import Event, Tracker

Tell = Callable[[Event], None]


def serve() -> None:
    """Answer requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the grid, which ends its workers
    # A signal to the process group comes twice: from outside, and from the grid.
    stopping.on_signals(signal.SIGTERM, again=False)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever prints must not disturb the answers

    def answer(**content: Any) -> None:
        _send(answers, content)

    for line in sys.stdin:
        from bench.engine.run import failure

        try:
            _serve_one(json.loads(line), answer)
        except UsageError as error:
            answer(kind="usage", reason=str(error))
        except Busy as error:
            answer(kind="busy", reason=str(error))
        except Exception as error:  # from building the cell, or a disk too full to write the state
            answer(kind="state", **failure(error))
        stopping.check()  # asked while the last answer was sent: it does not concern the next cell


def _send(answers: TextIO, content: dict[str, Any]) -> None:
    try:
        answers.write(json.dumps(content) + "\n")
        answers.flush()
    except BrokenPipeError:  # the grid has gone: as if it had asked to stop
        os.dup2(os.open(os.devnull, os.O_WRONLY), answers.fileno())
        raise SystemExit(128 + signal.SIGTERM) from None


def _serve_one(request: dict[str, Any], answer: Callable[..., None]) -> None:
    import torch

    from bench.cost.suite import cell_work
    from bench.engine import run
    from bench.engine.cell import build_cell

    if request["do"] == "devices":
        found = devices(request["device"])
        free = [free_bytes(torch.device(name)) for name in found if name != "cpu"]
        answer(kind="state", status="ok", reason="", devices=found, free=free)
        return
    specs = [spec_from_json(json.dumps(spec)) for spec in request["specs"]]
    if request["do"] == "work":
        work = [cell_work(spec) for spec in specs]
        flops, known = [one.flops for one in work], all(one.known for one in work)
        answer(kind="state", status="ok", reason="", flops=flops, known=known)
        return
    device = choose_device(request["device"])
    if request["do"] == "memory":
        from bench.cost.memory import predictions

        sizes, unknown = predictions(specs, torch.device(device))
        answer(kind="state", status="ok", reason="", bytes=sizes, unknown=unknown)
        return
    (spec,) = specs
    if request["do"] == "check":
        identity = run.identity_of(build_cell(spec, device))
        answer(kind="state", status="ok", reason="", identity=identity)
        return
    state = _run(request, spec, device, lambda event: answer(kind="event", event=event))
    answer(kind="state", status=state["status"], reason=state["reason"])


def _run(request: dict[str, Any], spec: RunSpec, device: str, tell: Tell) -> dict[str, Any]:
    from bench.engine.run import run_cell

    results = Path(request["results"])
    if not request["track"]:
        return run_cell(spec, results, device, tell)
    with Tracker(request["track"], results, spec) as tracker:

        def tell_both(event: Event) -> None:
            tracker.tell(event)
            tell(event)

        return run_cell(spec, results, device, tell_both)


if __name__ == "__main__":
    serve()
