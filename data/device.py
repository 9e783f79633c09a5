"""Where a script computes, and at which precision."""

import ctypes
import math
from pathlib import Path

import torch

from data.commandline import BadInput

CPU = torch.device("cpu")
FP32, TF32, BF16 = "fp32", "tf32", "bf16"
EVALUATION_BATCH = {"cpu": 500, "cuda": 2500}  # images: enough to be efficient, on a CPU few enough for its cache


def add_device_argument(parser):
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N, or auto: a GPU where there is one")


def device_of(name):
    """The torch device of --device; `auto` takes the GPU where there is one. Raises BadInput."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BadInput(f"--device {name}: is no device; use cpu, cuda, cuda:N or auto") from None
    if device.type not in EVALUATION_BATCH:
        raise BadInput(
            f"--device {name}: this program computes on CPUs and CUDA GPUs only; use cpu, cuda, cuda:N or auto"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadInput(f"--device {name}: no such CUDA GPU is seen here; use --device cpu")
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)  # streams and graphs are made on the current device
    else:
        keep_freed_memory()
    torch.backends.cudnn.allow_tf32 = False  # PyTorch's default would round convolutions to 10 bits of mantissa
    return device


def keep_freed_memory():
    """Have glibc keep what a training step frees for the next one; it has no effect with another C library.

    Otherwise activations of megabytes go back to the system and come again page by page in every step, which takes
    longer than all of a narrow network's arithmetic.
    """
    trim_threshold, mmap_max = -1, -4  # the names that malloc.h gives to these options
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(mmap_max, 0)  # all memory comes from the heap,
        mallopt(trim_threshold, -1)  # which never shrinks


def require_memory(needed, what, fix, device=CPU):
    """Raise BadInput, with the fix, where something takes more bytes of a device's memory than are free there."""
    free = free_memory(device)
    if needed > free:
        place = "" if device.type == "cpu" else f" of {device}"
        raise BadInput(
            f"{what} takes {needed / 2**30:.1f} GiB of memory{place}, of which {free / 2**30:.1f} GiB are free; {fix}"
        )


def free_memory(device):
    """Bytes that a process can still take on a device; infinite where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(_available_memory(), _memory_of_control_groups())


def _available_memory(meminfo=Path("/proc/meminfo")):
    """Bytes that the machine has left, what it can drop of its caches included."""
    try:
        return 1024 * next(
            int(line.split()[1]) for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:")
        )
    except (OSError, StopIteration):
        return math.inf


def _memory_of_control_groups(groups=Path("/proc/self/cgroup"), root=Path("/sys/fs/cgroup")):
    """Bytes that containers and schedulers let this process and its like have, by control groups (version 2)."""
    limits = [math.inf]
    try:
        own = next(line.strip() for line in groups.read_text().splitlines() if line.startswith("0::"))
        for folder in (place := root / own.removeprefix("0::/"), *place.parents):
            limit = folder / "memory.max"
            if limit.exists() and limit.read_text().strip() != "max":
                limits.append(int(limit.read_text()))
    except (OSError, StopIteration):
        pass
    return min(limits)


def use_precision(precision, device):
    """Have the device's convolutions round as the precision says. Raises BadInput where the device cannot."""
    if precision == TF32 and device.type == "cpu":
        raise BadInput("--precision tf32: only GPUs have it; train in fp32 or bf16, or use --device cuda")
    if precision == BF16 and not _has_bf16(device):
        raise BadInput(
            f"--precision bf16: this {'GPU' if device.type == 'cuda' else 'processor'} has no instructions for it, and "
            "would take many times as long; train in fp32"
        )
    torch.backends.cudnn.allow_tf32 = precision == TF32


def _has_bf16(device):
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
