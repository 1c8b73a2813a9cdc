"""A training loop on Accelerate that can be killed at any step and resumed to the same weights."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.files import replacing
from qsci_plugins.safe_load import first_line, load_without_code
from qsci_plugins.training.settings import LoopSettings

__all__ = ["Interruption", "TrainResult", "learning_rate_at", "train_network", "uses_bf16"]

#: draws the part of a step's global batch that belongs to (step, rank, world)
Draw = Callable[[int, int, int], Any]
#: computes the loss of a batch, and scalars to log
Loss = Callable[[nn.Module, Any], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True)
class TrainResult:
    """The trained weights (averaged where `ema` asks for it), the steps done and the seconds of this call."""

    weights: dict[str, Tensor]
    steps: int
    seconds: float
    finished: bool


def learning_rate_at(settings: LoopSettings, step: int) -> float:
    """The rate of a 0-based step."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    if settings.halve_every:
        return settings.learning_rate * 0.5 ** (step // settings.halve_every)
    progress = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return settings.learning_rate * (settings.final_fraction + (1 - settings.final_fraction) * cosine)


def train_network(
    model: nn.Module,
    loss: Loss,
    draw: Draw,
    settings: LoopSettings,
    checkpoint: Path | None = None,
    *,
    parameters: Iterable[nn.Parameter] | list[dict[str, Any]] | None = None,
    rate_at: Callable[[int], float] | None = None,
    choose: Callable[[int], bool] = lambda step: True,
    made_with: Mapping[str, Any] | None = None,
    rate_keys: str = "train.learning_rate",
    on_step: Callable[[int, dict[str, float]], None] = lambda step, scalars: None,
) -> TrainResult:
    """Trains `model` with Adam from `checkpoint` (where it exists) up to `settings.steps`.

    `parameters` are those to train, or optimizer groups whose `lr` multiplies the rate; default: all that want a gradient.
    `rate_at` gives the rate of a 0-based step, instead of `learning_rate_at`. `choose` is called ahead of each step and may
    say by requires_grad which parameters it moves; False leaves the step out. `made_with` are plain values that a
    checkpoint must agree in, and `rate_keys` what a user is told to lower. Started by `accelerate launch`, all
    processes train one network, each on its part of the global batch, and the first one writes.
    Ctrl-C or SIGTERM saves the state after the step under way and returns with `finished=False`; the next call goes on
    with the same batches, moments, averages and random numbers, so that it ends with the weights of a run that nobody
    stopped. Raises UserError for a checkpoint of another network or of other `made_with`, and for a loss that is not finite.
    """
    started = time.perf_counter()
    # an earlier training of this Python session may have had another precision
    AcceleratorState._reset_state(reset_partial_state=False)
    # a quantizer has parameters that its form does not use
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    mixed = "no" if settings.precision == "float32" else settings.precision
    accelerator = Accelerator(mixed_precision=mixed, cpu=settings.cpu, kwargs_handlers=[unused])
    if settings.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for buffer in model.buffers():
            # several processes send a lone buffer as its flat view, which must have the same strides
            buffer.data = buffer.clone(memory_format=torch.contiguous_format)
    optimizer = torch.optim.Adam(parameters or [p for p in model.parameters() if p.requires_grad], lr=1.0)
    ratios = [group["lr"] for group in optimizer.param_groups]
    plain, forward = model, vars(model).get("forward")
    model, optimizer = accelerator.prepare(model, optimizer)
    averaged = plain.state_dict() if settings.ema else {}
    average = {name: tensor.detach().clone() for name, tensor in averaged.items()}
    step = 0
    if checkpoint is not None and checkpoint.is_file():
        step = _restore(checkpoint, plain, optimizer, average, accelerator, made_with)

    def save() -> None:
        if checkpoint is not None and accelerator.is_main_process:
            state = {
                "model": plain.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average,
                "step": step,
                "random": torch.get_rng_state(),
                "scaler": None if accelerator.scaler is None else accelerator.scaler.state_dict(),
            }
            state["settings"] = asdict(settings) if made_with is None else dict(made_with)
            with replacing(checkpoint) as temporary:
                torch.save(state, temporary)

    model.train(not settings.keep_statistics)
    finished, begin = True, step
    try:
        with Interruption() as interruption:
            while step < settings.steps and finished:
                if not choose(step):
                    step += 1
                    continue
                rate = (rate_at or _scheduled(settings))(step)
                for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
                    group["lr"] = rate * ratio
                batch = draw(step, accelerator.process_index, accelerator.num_processes)
                with accelerator.autocast():
                    value, scalars = loss(model, _to(batch, accelerator.device, settings.channels_last))
                if not torch.isfinite(value):
                    raise UserError(f"the loss became {value.item()} at step {step}; lower {rate_keys}")
                accelerator.backward(value)
                if settings.clip:
                    accelerator.clip_grad_norm_(model.parameters(), settings.clip)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if settings.ema:
                    _update_average(average, plain, min(settings.ema, (1 + step) / (10 + step)))
                step += 1
                on_step(step, {"loss": value.item(), "rate": rate, **scalars})
                if step % settings.checkpoint_every == 0 and step < settings.steps:
                    save()
                finished = step == settings.steps or not _asked(accelerator, interruption)
    except KeyboardInterrupt:
        finished = False
    except torch.OutOfMemoryError:
        if step > begin:  # the steps done are whole, and may go on with less at once or on another device
            save()
        raise
    finally:
        _restore_forward(plain, forward)
    save()
    accelerator.wait_for_everyone()
    weights = average if settings.ema else plain.state_dict()
    return TrainResult(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()},
        step,
        time.perf_counter() - started,
        finished,
    )


def _restore_forward(model: nn.Module, forward: Any) -> None:
    """Removes the forward that Accelerate leaves behind, which computes in the precision of the training."""
    vars(model).pop("_original_forward", None)
    vars(model).pop("forward", None)
    if forward is not None:
        vars(model)["forward"] = forward


def _scheduled(settings: LoopSettings) -> Callable[[int], float]:
    return lambda step: learning_rate_at(settings, step)


def _asked(accelerator: Accelerator, interruption: Interruption) -> bool:
    """Whether any process was asked to stop; all of them stop after the same step."""
    if accelerator.num_processes == 1:
        return interruption.requested
    if interruption.requested:
        accelerator.set_trigger()
    return bool(accelerator.check_trigger())


def _restore(
    file: Path,
    model: nn.Module,
    optimizer: Any,
    average: dict[str, Tensor],
    accelerator: Accelerator,
    made_with: Mapping[str, Any] | None,
) -> int:
    device = accelerator.device
    try:
        # several processes without a GPU name their device cpu:0, which torch.load does not know
        state = load_without_code(file)
        if made_with is not None and state["settings"] != dict(made_with):
            raise ValueError("it was made with other settings")
        if average:
            kept = {name: state["average"][name].to(device) for name in average}
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (UserError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file} does not continue this run ({first_line(error)}); remove it, or use another output folder"
        ) from error
    if average:
        average.update(kept)
    if "random" in state:
        torch.set_rng_state(state["random"].cpu())
    if accelerator.scaler is not None and state.get("scaler"):
        accelerator.scaler.load_state_dict(state["scaler"])
    return int(state["step"])


def _to(batch: Any, device: torch.device, channels_last: bool) -> Any:
    if isinstance(batch, Tensor):
        layout = torch.channels_last if channels_last and batch.dim() == 4 else torch.preserve_format
        return batch.to(device, memory_format=layout)
    return tuple(_to(item, device, channels_last) for item in batch)


@torch.no_grad()
def _update_average(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            average[name].lerp_(tensor, 1 - decay)
        else:
            average[name].copy_(tensor)


def uses_bf16(precision: str) -> bool:
    """`precision` is "float32", "bf16", or "auto": bf16 where the CPU computes in it natively."""
    if precision == "auto":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and "avx512_bf16" in _cpu_flags()
    return precision == "bf16"


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


class Interruption:
    """Inside the block `requested` tells whether SIGINT or SIGTERM came; a second one ends the process at once,
    without another save.

    Outside the main thread, where Python lets nobody take signals, it is never requested.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise SystemExit(128 + number)
        self.requested = True
