"""What stands behind a number besides its spec: machine and packages, version and commit.

torch is imported inside the function that needs it.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from typing import TYPE_CHECKING, Any

from bench import __version__
from bench.hardware import device_name, processor_name
from bench.paths import PROJECT

if TYPE_CHECKING:
    import torch

SOURCE_PATHS = ("bench", "methods", "run_all.sh", "constraints.txt")  # of the code, not of results


def environment(device: torch.device) -> dict[str, Any]:
    """A row of environments.csv without its env_sha. "" where there is no such thing."""
    import numpy
    import torch

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": importlib.metadata.version("timm"),
        "numpy": numpy.__version__,
        "machine": platform.machine(),
        "processor": processor_name(),
        "instructions": _instructions(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": _system(),
        "device": device_name(device),
        "driver": _driver(device),
    }


def _system() -> str:
    """The operating system, with its kernel's version."""
    kernel = ".".join(platform.release().split(".")[:2])
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):  # not Linux, or a Linux that does not say it
        return f"{platform.system()} {kernel}"
    return f"{name}, {platform.system()} {kernel}"


def _instructions() -> str:
    """What torch's kernels use of the processor, and whether it multiplies bf16 itself."""
    import torch

    has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    bf16 = [name for name in ("avx512_bf16", "amx_bf16", "bf16") if has.get(name)]
    return " ".join([torch.backends.cpu.get_cpu_capability(), *bf16])


def _driver(device: torch.device) -> str:
    """CUDA or ROCm as torch was built for it, and the driver of the GPU."""
    import torch

    if device.type == "cpu":
        return ""
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        found = []
    return ", driver ".join([built, *found[:1]])


@functools.cache
def origin() -> dict[str, str]:
    """Columns `version` and `commit` of runs.csv; "" without a git checkout.

    `+changed` behind the commit: files of the code were not as committed.
    """
    return {"version": __version__, "commit": _commit()}


def _commit() -> str:
    if not (PROJECT / ".git").exists():
        return ""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--", *SOURCE_PATHS)
    except (OSError, subprocess.CalledProcessError):  # no git, or another user's checkout
        return ""
    return commit + ("+changed" if changed else "")


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(PROJECT), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
