"""What quantization costs in torch, beside the same network in float: training, evaluation, fine-tuning and memory."""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from qsci_plugins.architectures.registry import load_network
from qsci_plugins.comparing.processes import torch_threads
from qsci_plugins.comparing.settings import CostSettings
from qsci_plugins.evaluation.memory import held_mebibytes, in_new_process
from qsci_plugins.machine import choose_device, describe_device
from qsci_plugins.progress import Progress, quiet
from qsci_plugins.schemes.backend import load_backend
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme, scheme_class, scheme_names
from qsci_plugins.schemes.scheme import QuantizedNetwork
from qsci_plugins.training.finetune import finetune
from qsci_plugins.training.settings import FineTuning

__all__ = [
    "Pairs",
    "measure_cost",
    "measure_memory",
    "quantized_reference",
    "random_images",
    "reference",
    "training_step",
]

#: what NNCF and Brevitas users have in common: every convolution quantized, head and tail at 8 bits
_PLACEMENT = Placement(("body.*",), ("head.*", "tail.*"))

#: (batch, side of the patches) of a training or evaluation step, and of a fine-tuning step
STEP = (16, 48)
FINE_TUNING = (2, 96)

_WARM_UP = 2


def reference(blocks: int = 8, width: int = 64) -> nn.Module:
    """The float network that is measured: EDSR x2 with random weights, of 0..255."""
    return load_network("edsr", None, 2, blocks=blocks, width=width).module


def random_images(batch: int, side: int) -> Tensor:
    """(batch,3,side,side) in 0..255, always the same."""
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(0)) * 255


def quantized_reference(model: nn.Module, scheme: str, backend_name: str, form: str = "integer") -> QuantizedNetwork:
    """`model` quantized by a scheme's defaults, calibrated on hardly anything: what it costs does not depend on that."""
    known = scheme_class(scheme).Config.model_fields
    settings = {key: value for key, value in {"form": form, "attention": []}.items() if key in known}
    images = random_images(2, 16).to(_device(model))
    with quiet():
        quantized = load_backend(backend_name).quantize(
            model, make_scheme({"name": scheme, **settings}), _PLACEMENT, [images], 255.0
        )
    return quantized


def training_step(model: nn.Module, images: Tensor) -> None:
    """Forward, L1 loss and backward."""
    model(images).abs().mean().backward()
    model.zero_grad(set_to_none=True)


class Pairs:
    """Seconds of two things, measured in turns, so that whatever else the machine does falls on both."""

    def __init__(self) -> None:
        self._pairs: list[tuple[float, float]] = []

    def __len__(self) -> int:
        return len(self._pairs)

    def add(self, plain: float, quantized: float) -> None:
        """One turn of each."""
        self._pairs.append((plain, quantized))

    def measure(self, plain: Callable[[], None], quantized: Callable[[], None], count: int) -> Pairs:
        """`count` turns after a warm-up; who goes first alternates."""
        for turn in range(-_WARM_UP, count):
            order = (plain, quantized) if turn % 2 else (quantized, plain)
            seconds = {step: _seconds(step) for step in order}
            if turn >= 0:
                self.add(seconds[plain], seconds[quantized])
        return self

    def summary(self) -> dict[str, float]:
        """Median milliseconds of both, and the median over turns of their ratio."""
        plain, quantized = zip(*self._pairs, strict=True)
        return {
            "float_ms": round(1000 * median(plain), 2),
            "quantized_ms": round(1000 * median(quantized), 2),
            "ratio": round(median(b / a for a, b in self._pairs), 3),
        }


def measure_cost(settings: CostSettings, progress: Progress | None = None) -> dict[str, Any]:
    """A row for every scheme and backend, each with `training`, `evaluation`, `fine_tuning` and `memory`.

    The network is EDSR x2 with random weights. Training (forward and backward) and evaluation (under
    no_grad) take a batch of 16 patches of 48x48; fine-tuning's step, with its optimizer and without the teacher, takes 2
    of 96x96 and stands beside a float forward and backward of the same. Raises UserError for an unknown scheme.
    """
    progress, form = progress or Progress(), settings.form
    device = choose_device(settings.device or "auto")
    schemes = settings.schemes or scheme_names()
    for scheme in schemes:
        scheme_class(scheme)  # an unknown name is refused before any work
    combined = [(scheme, name) for scheme in schemes for name in settings.backends]
    rows = []
    with torch_threads(settings.threads), progress.stage("cost", 4 * len(combined)) as advance:
        for number, (scheme, name) in enumerate(combined):
            model = reference(settings.blocks, settings.width).to(device)
            network = quantized_reference(model, scheme, name, form)
            row: dict[str, Any] = {"scheme": scheme, "backend": name, "form": form}
            for part, (key, measured) in enumerate(_PARTS.items()):
                advance(4 * number + part, f"{scheme} in {name}: {key.replace('_', '-')}")
                row[key] = measured(model, network, settings.pairs).summary()
            advance(4 * number + 3, f"{scheme} in {name}: memory")
            row["memory"] = measure_memory(
                scheme, name, form, settings.threads, settings.blocks, settings.width, device
            )
            rows.append(row)
            advance(4 * (number + 1))
    return {
        "network": {"architecture": "edsr", "scale": 2, "blocks": settings.blocks, "width": settings.width},
        "threads": settings.threads,
        "device": describe_device(device),
        "pairs": settings.pairs,
        "rows": rows,
    }


def _training(model: nn.Module, network: QuantizedNetwork, count: int) -> Pairs:
    images = random_images(*STEP).to(_device(model))
    model.train()
    network.model.train()
    return Pairs().measure(lambda: training_step(model, images), lambda: training_step(network.model, images), count)


@torch.no_grad()
def _evaluation(model: nn.Module, network: QuantizedNetwork, count: int) -> Pairs:
    images = random_images(*STEP).to(_device(model))
    model.eval()
    network.model.eval()
    return Pairs().measure(lambda: model(images), lambda: network.model(images), count)


def _fine_tuning(model: nn.Module, network: QuantizedNetwork, count: int) -> Pairs:
    """Between two of its steps the float network has its turn."""
    batch, side = FINE_TUNING
    patches = random_images(batch, side).to(_device(model))
    plain = copy.deepcopy(model).train()
    pairs = Pairs()
    resumed = time.perf_counter()

    def on_step(step: int, scalars: dict[str, float]) -> None:
        nonlocal resumed
        _wait()
        seconds = time.perf_counter() - resumed
        beside = _seconds(lambda: training_step(plain, patches))
        if step > _WARM_UP:  # the first one asks the teacher
            pairs.add(beside, seconds)
        resumed = time.perf_counter()

    finetune(network, model, patches, FineTuning(steps=count + _WARM_UP, batch=batch), on_step=on_step)
    return pairs


_PARTS: dict[str, Callable[[nn.Module, QuantizedNetwork, int], Pairs]] = {
    "training": _training,
    "evaluation": _evaluation,
    "fine_tuning": _fine_tuning,
}


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _wait() -> None:
    """For what a GPU was given to do."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _seconds(step: Callable[[], object]) -> float:
    _wait()
    started = time.perf_counter()
    step()
    _wait()
    return time.perf_counter() - started


_STEPS = 4

#: glibc gives large tensors back to the system as soon as they are freed, so that a peak is what is needed at once and
#: not what its heap happened to keep
_GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}


def measure_memory(
    scheme: str, backend: str, form: str, threads: int, blocks: int, width: int, device: str = "cpu"
) -> dict[str, float] | None:
    """MiB that a float step and a fine-tuning step add to what the process held before, their ratio, and whole peaks.

    A fine-tuning step is all of it: the teacher's outputs and the optimizer too. On a GPU it is the memory that torch takes
    there. None where the system does not tell (it needs Linux' /proc).
    """
    network: dict[str, Any] = {"scheme": scheme, "backend": backend, "form": form, "blocks": blocks, "width": width}
    network["device"] = device
    plain, quantized = (
        in_new_process("qsci_plugins.comparing.cost", {**network, "threads": threads, "quantized": step}, _GIVE_BACK)
        for step in (False, True)
    )
    if plain is None or quantized is None:
        return None
    return {
        "float_mib": round(plain["added"], 1),
        "quantized_mib": round(quantized["added"], 1),
        "ratio": round(quantized["added"] / plain["added"], 3),
        "float_process_mib": round(plain["peak"], 1),
        "quantized_process_mib": round(quantized["peak"], 1),
    }


def _measured(case: dict[str, Any]) -> dict[str, float]:
    """Runs a case in this process."""
    torch.set_num_threads(case["threads"])
    model = reference(case["blocks"], case["width"]).to(case["device"])
    batch, side = FINE_TUNING
    patches = random_images(batch, side).to(case["device"])
    # for the float step too, so that both start with the same in memory
    network = quantized_reference(model, case["scheme"], case["backend"], case["form"])
    before = _begin_peak(case["device"])
    if case["quantized"]:
        finetune(network, model, patches, FineTuning(steps=_STEPS, batch=batch))
    else:
        for _ in range(_STEPS):
            training_step(model.train(), patches)
    peak = (
        held_mebibytes("VmHWM") if case["device"] == "cpu" else torch.cuda.max_memory_allocated(case["device"]) / 2**20
    )
    return {"added": peak - before, "peak": peak}


def _begin_peak(device: str) -> float:
    """Forgets the peak of memory so far; MiB that are held now."""
    if device == "cpu":
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        return held_mebibytes("VmRSS")
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device) / 2**20


if __name__ == "__main__":
    print(json.dumps(_measured(json.loads(sys.argv[1]))))
