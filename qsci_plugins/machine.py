"""What a machine has: the device that torch computes on, and what measurements were made on, as seconds alone mean nothing."""

from __future__ import annotations

import os
import platform
import re
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from qsci_plugins.errors import UserError

__all__ = [
    "DEVICES",
    "MAX_MEMORY",
    "choose_device",
    "cpu_flags",
    "describe_device",
    "describe_gpu",
    "describe_machine",
    "memory_error",
    "memory_limit",
    "package_version",
    "usable_threads",
    "yield_waiting_threads",
]

#: names the environment variable of `memory_limit`
MAX_MEMORY = "QSCI_MAX_MEMORY"

#: what a device may be called
DEVICES = r"auto|cpu|cuda(:\d{1,3})?"

_PACKAGES = ("qsci-plugins", "torch", "nncf", "brevitas", "openvino", "numpy")


def describe_machine() -> dict[str, Any]:
    """Processor, usable cores, memory in GiB, system, Python and the versions of the packages that matter."""
    return {
        "processor": _processor(),
        "cores": usable_threads(),
        "memory_gib": _memory(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: found for package in _PACKAGES if (found := package_version(package)) is not None},
    }


def usable_threads() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def yield_waiting_threads() -> None:
    """Has OpenMP's threads sleep while they wait for one another. Without effect where torch was imported before.

    Threads that wait by spinning hold a core from the very thread that they wait for, as soon as another program has one:
    minutes instead of seconds. Who sets OMP_WAIT_POLICY decides.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def choose_device(wanted: str = "auto") -> str:
    """What torch calls the device of a word among `DEVICES`: "cpu" or "cuda:N".

    `auto` is a GPU where there is one, and of several processes (`accelerate launch`) each takes its own.
    Raises UserError for another word, a GPU that is not there, and one GPU for several processes.
    """
    if not re.fullmatch(DEVICES, wanted):
        raise UserError(f"the device should be auto, cpu, cuda or cuda:N, not {wanted!r}")
    if wanted == "cpu":
        return "cpu"
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        if wanted == "auto":
            return "cpu"
        why = "is built for CPUs alone" if torch.version.cuda is None else "finds no GPU here"
        raise UserError(f"device {wanted}: torch {torch.__version__} {why}; use auto or cpu, `qsci doctor` says more")
    processes, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    _, colon, number = wanted.partition(":")
    if colon and processes > 1:
        raise UserError(f"device {wanted}: {processes} processes need a GPU each; use cuda, which shares them out")
    index = int(number) if colon else rank
    if index >= count:
        there = "is 1 GPU, cuda:0" if count == 1 else f"are {count} GPUs, cuda:0 to cuda:{count - 1}"
        ways = "use one of them, or cpu" if colon else f"start at most {count} processes here, or use cpu"
        raise UserError(f"device {wanted}: there {there}, and no cuda:{index}; {ways}")
    return f"cuda:{index}"


def describe_device(device: str) -> str:
    """A device as `choose_device` names it, a GPU with its model."""
    return device if device == "cpu" else f"{device} ({describe_gpu(device)})"


def describe_gpu(device: str) -> str:
    """The model of a GPU "cuda:N"."""
    import torch

    return str(torch.cuda.get_device_name(device))


def memory_error(error: BaseException) -> UserError | None:
    """What to raise for torch's way to say that a GPU has no memory left; None for any other exception."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(error, torch.OutOfMemoryError):
        return None
    said = re.sub(r"^.*?(?=CUDA out of memory)", "", str(error).strip(), flags=re.DOTALL)
    first = re.match(r"[^.\n]*(\.(?! )[^.\n]*)*(\. Tried to allocate [\d.]+ \w+)?", said)
    what = first[0][:200] if first and first[0] else type(error).__name__
    return UserError(
        f"the GPU has not enough memory for this ({what}); use smaller batches and patches (train.batch, calibrate.batch,"
        " inference.patch) or images, or --device cpu"
    )


def memory_limit() -> int:
    """How many bytes of memory one file may ask for: the GiB of the environment variable QSCI_MAX_MEMORY, 4 without it.

    A file of some kilobytes can say that it holds terabytes. Raises UserError for a value that is no number above 0.
    """
    text = os.environ.get(MAX_MEMORY) or "4"
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not 0 < limit < 2**30:
        raise UserError(
            f"{MAX_MEMORY}={text}: give the GiB of memory that one file may ask for, such as {MAX_MEMORY}=16"
        )
    return int(limit * 2**30)


def cpu_flags() -> frozenset[str]:
    """What the system says the processor can do, in Linux' words (avx2, avx512_vnni, amx_int8); empty where it does not."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.partition(":")[2].split())
    return frozenset()


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> float | None:
    with suppress(OSError, ValueError, AttributeError):
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return None


def package_version(package: str) -> str | None:
    """Of an installed package; None where it is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
