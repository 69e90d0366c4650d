"""One Slurm job array, one cell per element; and the command of a cell, which any other launcher can run."""

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
    """The `bench.run` command of one cell, for other launchers."""
    words = [sys.executable, "-m", "bench.run", args.suite, "--method", cell.method, "--benchmark", cell.benchmark,
             "--order-seed", str(cell.order_seed), "--seed", str(cell.seed), "--results", str(args.results),
             "--name", cell.suite, "--device", args.device]  # fmt: skip
    if args.overrides:
        words += ["--set", *(f"{key}={value}" for key, value in args.overrides.items())]
    return shlex.join(words)


def submit_slurm(cells: list[RunSpec], args: argparse.Namespace, folder: Path) -> None:
    """One Slurm job array with one cell per element; sbatch must be on the PATH."""
    script = folder / "slurm.sh"
    lines = [
        "#!/bin/bash",
        f"#SBATCH --array=0-{len(cells) - 1}",
        f"#SBATCH --output={folder}/slurm-%a.log",
        "commands=(",
    ]
    lines += [shlex.quote(command_of(cell, args)) for cell in cells]
    lines += [")", 'eval "${commands[$SLURM_ARRAY_TASK_ID]}"']
    write_text(script, "\n".join(lines) + "\n")
    try:
        subprocess.run(["sbatch", str(script)], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UsageError(
            f"--launcher slurm: sbatch failed ({error}); the script is {script}"
        ) from error
