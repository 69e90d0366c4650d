"""A process that runs cells for the grid: one JSON request per line in, one JSON answer per line out.

It stays alive from cell to cell, because importing torch takes longer than a small cell. Requests are
{"do": "devices" | "check" | "run", "spec": {...}, "results": "...", "device": "..."}; answers are
{"kind": "progress" | "usage" | "busy" | "state", ...}.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from bench import stopping
from bench.config.spec import spec_from_json
from bench.errors import Busy, UsageError
from bench.hardware import choose_device, devices


def serve() -> None:
    """Answer requests until standard input ends."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is the grid's to handle: it ends its workers
    stopping.on_signals(
        signal.SIGTERM, again=False
    )  # to a process group it comes twice: from outside, and from the grid
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # anything that prints must not disturb the answers

    def answer(**content: Any) -> None:
        try:
            answers.write(json.dumps(content) + "\n")
            answers.flush()
        except BrokenPipeError:  # the grid is gone: as if it had asked to stop
            os.dup2(os.open(os.devnull, os.O_WRONLY), answers.fileno())
            raise SystemExit(128 + signal.SIGTERM) from None

    for line in sys.stdin:
        from bench.engine import run as engine

        request = json.loads(line)
        try:
            if request["do"] == "devices":
                answer(kind="state", status="ok", reason="", devices=devices(request["device"]))
                continue
            spec = spec_from_json(json.dumps(request["spec"]))
            device = choose_device(request["device"])
            if request["do"] == "check":
                identity = engine.identity_of(engine.build_cell(spec, device))
                answer(kind="state", status="ok", reason="", identity=identity)
            else:
                state = engine.run_cell(
                    spec,
                    Path(request["results"]),
                    device,
                    lambda text: answer(kind="progress", text=text),
                )
                answer(kind="state", status=state["status"], reason=state["reason"])
        except UsageError as error:
            answer(kind="usage", reason=str(error))
        except Busy as error:
            answer(kind="busy", reason=str(error))
        except Exception as error:  # while building the cell, or the disk is full and not even the state could be written
            answer(kind="state", **engine.failure(error))
        stopping.check()  # asked while the last answer was on its way: not the next cell's


if __name__ == "__main__":
    serve()
