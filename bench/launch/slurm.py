"""The command of one cell, which any launcher can run, and a Slurm job array of such commands."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from bench.config.spec import RunSpec
from bench.errors import UsageError
from bench.store.files import write_text


def command_of(cell: RunSpec, args: argparse.Namespace) -> str:
    """The `bench.run` command of one cell, quoted for a shell."""
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
    if args.overrides:
        words += ["--set", *(f"{key}={value}" for key, value in args.overrides.items())]
    return shlex.join(words)


def submit_slurm(cells: list[RunSpec], args: argparse.Namespace, folder: Path) -> None:
    """Submit a job array with one cell per element. Raises UsageError where sbatch fails."""
    script = folder / "slurm.sh"
    lines = [
        "#!/bin/bash",
        f"#SBATCH --array=0-{len(cells) - 1}",
        "commands=(",
    ]
    lines += [shlex.quote(command_of(cell, args)) for cell in cells]
    lines += [")", 'eval "${commands[$SLURM_ARRAY_TASK_ID]}"']
    write_text(script, "\n".join(lines) + "\n")
    try:
        # Not in the script, where a blank would end the path.
        log = str(folder).replace("%", "%%") + "/slurm-%a.log"
        subprocess.run(["sbatch", f"--output={log}", str(script)], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UsageError(
            f"--launcher slurm: sbatch failed ({error}); the script is {script}"
        ) from error
