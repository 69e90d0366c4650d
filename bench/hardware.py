"""Facts about the machine: devices, processor, precision, threads, memory.

torch is imported inside the functions that need it: commands without training start faster.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import UsageError

if TYPE_CHECKING:
    import torch

# --- devices ----------------------------------------------------------------------------------


def choose_device(wanted: str) -> str:
    """'auto' becomes cuda where there is one. Raises UsageError for a device that is not there."""
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.split(":")[0] not in ("cpu", "cuda"):
        raise UsageError.unknown("--device", wanted, ["auto", "cpu", "cuda"])
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(
            f"--device {wanted}: this machine has no usable GPU (accepted here: auto, cpu)"
        )
    return wanted


def devices(wanted: str) -> list[str]:
    """The devices on which cells may run side by side: every GPU that is seen, or 'cpu' alone."""
    import torch

    chosen = choose_device(wanted)
    if chosen != "cuda":
        return [chosen]
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def device_name(device: torch.device) -> str:
    """'cpu', or the model of the GPU: the last bits of a result differ between two models."""
    import torch

    return "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)


def free_bytes(device: torch.device) -> int:
    """Free memory of a GPU."""
    import torch

    return torch.cuda.mem_get_info(device)[0]


# --- the processor ----------------------------------------------------------------------------


def cores() -> int:
    """How many cores this process may use. macOS has no affinity: there all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_name() -> str:
    """The model of the processor: speed differs between models, and so do last bits."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return _processor_of_macos() or platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _processor_of_macos() -> str:
    words = ["sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def peak_memory_mib() -> int:
    """The most memory this process has taken so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 2**20 if sys.platform == "darwin" else peak // 2**10  # macOS counts bytes


# --- arithmetic -------------------------------------------------------------------------------


def set_arithmetic(threads: int) -> None:
    """Make this process compute repeatably, with so many threads, and fp32 as real fp32."""
    import torch

    # cuBLAS reads this when it starts. It is deterministic only with such a workspace.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # Nothing here reads uninitialised memory, and filling it would cost 3% of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # By default torch lets a GPU's convolutions round their fp32 inputs to 10 bits.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def resolve_precision(wanted: str, device: torch.device) -> str:
    """'auto' becomes bf16 where the device multiplies bf16 in hardware, else fp32.

    Without such instructions bf16 is emulated: 10 to 100 times slower than fp32 (measured on an
    AVX2 processor).
    """
    import torch

    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
    else:  # the oldest torch that we run on does not have get_capabilities
        has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        supported = any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return "bf16" if supported else "fp32"


def not_repeatable(device: torch.device) -> str:
    """Why runs of one spec may differ on this device in spite of determinism; "" = no reason.

    Any other operation without a deterministic form raises. The text goes into runs.csv as the
    reason of a finished cell.
    """
    import torch

    if device.type == "cuda" and torch.version.hip:
        issue = "pytorch/pytorch#197771"
        what = "memory-efficient attention on AMD GPUs may ignore determinism"
        return f"not repeatable: {what} ({issue})"
    return ""
