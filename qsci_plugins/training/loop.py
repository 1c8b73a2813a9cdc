"""A training loop on Accelerate that can be killed at any step and resumed to the same weights."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.files import replacing
from qsci_plugins.machine import choose_device, cpu_flags
from qsci_plugins.training.average import WeightAverage
from qsci_plugins.training.captured import CapturedStep, repeatable_algorithms
from qsci_plugins.training.checkpoint import restore
from qsci_plugins.training.draws import DrawnAhead, killed_worker, suitable_workers
from qsci_plugins.training.settings import LoopSettings

__all__ = ["Interruption", "TrainResult", "train_network", "uses_bf16"]

#: draws the part of a step's global batch that belongs to (step, rank, world)
Draw = Callable[[int, int, int], Any]
#: computes the loss of a batch, and scalars to log, tensors of one number
Loss = Callable[[nn.Module, Any], tuple[Tensor, dict[str, Tensor]]]

#: steps whose scalars a GPU hands over at once: asking for them waits until it has done all that it was given
_READ_EVERY = 10


@dataclass(frozen=True)
class TrainResult:
    """The trained weights (averaged where `ema` asks for it), the steps done and the seconds of this call."""

    weights: dict[str, Tensor]
    steps: int
    seconds: float
    finished: bool


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
    checkpoint_settings: Mapping[str, Any] | None = None,
    rate_keys: str = "train.learning_rate",
    on_step: Callable[[int, dict[str, float]], None] = lambda step, scalars: None,
    note: Callable[[str], None] = lambda text: None,
) -> TrainResult:
    """Trains `model` with Adam from `checkpoint` (where it exists) up to `settings.steps`.

    `parameters` are those to train, or optimizer groups whose `lr` multiplies the rate; default: all that want a gradient.
    `rate_at` gives the rate of a 0-based step, instead of those of `settings`. `choose` is called ahead of each step and may
    say by requires_grad which parameters it moves; False leaves the step out. `checkpoint_settings` are plain values that a
    checkpoint must agree in, and `rate_keys` what an error advises to lower. Started by `accelerate launch`, all
    processes train one network, each on its part of the global batch, and the first one writes. What `draw` gives may
    depend on its arguments alone: other processes draw ahead. A GPU's scalars reach `on_step` ten steps at a time.

    A training gives the same weights again, whatever draws its batches: on a CPU with as many threads, on a GPU of the same
    kind but for the operations that torch lists as not deterministic. `note` is called where `compile` cannot be had or
    `precision` is slow.
    Ctrl-C or SIGTERM saves the state after the step under way and returns with `finished=False`; the next call goes on
    with the same batches, moments, averages and random numbers, so that it ends with the weights of a run that nobody
    stopped. Raises UserError for a checkpoint of another network or of other `checkpoint_settings`, for a loss that is not
    finite, which no checkpoint is saved with, and where a process that draws was killed.
    """
    started = time.perf_counter()
    accelerator = _accelerator(settings)
    device, on_gpu = accelerator.device, accelerator.device.type == "cuda"
    if accelerator.mixed_precision == "bf16" and not uses_bf16("auto", device):
        note(f"{device.type} emulates bf16, and takes many times as long as with train.precision: auto")
    if settings.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for buffer in model.buffers():
            # several processes send a lone buffer as its flat view, which must have the same strides
            buffer.data = buffer.clone(memory_format=torch.contiguous_format)
    model.to(device)
    # on a CPU the fused update computes other last bits
    optimizer = torch.optim.Adam(
        parameters or [p for p in model.parameters() if p.requires_grad], lr=1.0, fused=True if on_gpu else None
    )
    ratios = [group["lr"] for group in optimizer.param_groups]
    plain, forward = model, vars(model).get("forward")
    model, optimizer = accelerator.prepare(model, optimizer)
    average = WeightAverage(plain) if settings.ema else None
    averaged = {} if average is None else average.tensors
    found = None if checkpoint is None or not checkpoint.is_file() else checkpoint
    begin = step = 0 if found is None else restore(found, plain, optimizer, averaged, accelerator, checkpoint_settings)
    readings = _Readings(on_step, rate_keys)

    def save() -> None:
        readings.read()
        if checkpoint is not None and accelerator.is_main_process:
            state = {
                "model": plain.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": averaged,
                "step": step,
                "random": torch.get_rng_state(),
                "scaler": None if accelerator.scaler is None else accelerator.scaler.state_dict(),
            }
            state["settings"] = asdict(settings) if checkpoint_settings is None else dict(checkpoint_settings)
            with replacing(checkpoint) as temporary:
                torch.save(state, temporary)

    def run(batch: Any) -> Tensor:
        with accelerator.autocast():
            value, scalars = loss(model, batch)
        accelerator.backward(value)
        return readings.row(value, scalars)

    def drawn(step: int) -> Any:
        return draw(step, accelerator.process_index, accelerator.num_processes)

    if settings.compile and on_gpu and accelerator.num_processes == 1:
        run = CapturedStep(plain, optimizer.param_groups, run, note)  # type: ignore[assignment]
    workers = 0 if settings.workers == 0 else suitable_workers(settings.workers, settings.steps - step, on_gpu)
    ahead = DrawnAhead(drawn, step, settings.steps, workers, pinned=on_gpu) if workers else None
    model.train(not settings.keep_statistics)
    finished = True
    try:
        with Interruption() as interruption, repeatable_algorithms() if on_gpu else nullcontext():
            while step < settings.steps and finished:
                if not choose(step):
                    step += 1
                    continue
                rate = (rate_at or settings.rate_at)(step)
                for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
                    group["lr"] = rate * ratio
                batch = drawn(step) if ahead is None else ahead.take(step)
                row = run(_to(batch, device, settings.channels_last))
                if not on_gpu:
                    readings.check(row, step)
                if settings.clip:
                    accelerator.clip_grad_norm_(model.parameters(), settings.clip)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if average is not None:
                    average.update(min(settings.ema, (1 + step) / (10 + step)))
                step += 1
                readings.add(step, rate, row)
                if not on_gpu or step % _READ_EVERY == 0:
                    readings.read()
                    finished = step == settings.steps or not _asked(accelerator, interruption)
                if finished and step % settings.checkpoint_every == 0 and step < settings.steps:
                    save()
        readings.read()
    except KeyboardInterrupt:
        finished = False
    except torch.OutOfMemoryError:
        if step > begin:  # the steps done are whole, and may go on with less at once or on another device
            save()
        raise
    except RuntimeError as error:
        if ahead is not None and (killed := killed_worker(error)):
            raise killed from None
        raise
    finally:
        if ahead is not None:
            ahead.close()
        _restore_forward(plain, forward)
    save()
    accelerator.wait_for_everyone()
    weights = plain.state_dict() if average is None else average.tensors
    return TrainResult(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()},
        step,
        time.perf_counter() - started,
        finished,
    )


def _accelerator(settings: LoopSettings) -> Accelerator:
    """Knows the processes, each one's device, and the precision."""
    name = choose_device(settings.device)
    # an earlier training of this Python session may have had another precision, or another device
    AcceleratorState._reset_state(reset_partial_state=False)
    state = PartialState(cpu=name == "cpu")
    if state.num_processes == 1:
        state.device = torch.device(name)
    half = "bf16" if uses_bf16(settings.precision, state.device) else "no"
    # a quantizer has parameters that its form does not use
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    mixed = "fp16" if settings.precision == "fp16" else half
    return Accelerator(mixed_precision=mixed, kwargs_handlers=[unused])


class _Readings:
    """Scalars of steps, which stay on the device until many are read at once."""

    def __init__(self, on_step: Callable[[int, dict[str, float]], None], rate_keys: str) -> None:
        self._on_step, self._rate_keys = on_step, rate_keys
        self._names: list[str] = []
        self._rows: list[tuple[int, float, list[str], Tensor]] = []

    def row(self, value: Tensor, scalars: dict[str, Tensor]) -> Tensor:
        """The loss and `scalars` in one tensor."""
        self._names = list(scalars)
        return torch.stack([t.detach().to(value.device, value.dtype) for t in (value, *scalars.values())])

    def check(self, row: Tensor, step: int) -> None:
        """Raises UserError where the loss of a 0-based step is not finite."""
        value = float(row[0])
        if not math.isfinite(value):
            raise UserError(f"the loss became {value} at step {step}; lower {self._rate_keys}")

    def add(self, step: int, rate: float, row: Tensor) -> None:
        self._rows.append((step, rate, self._names, row))

    def read(self) -> None:
        """Hands over what was added. Raises UserError for a loss that is not finite."""
        rows, self._rows = self._rows, []
        values = [] if not rows else torch.stack([row for *_, row in rows]).cpu()
        for (step, rate, names, _), row in zip(rows, values, strict=True):
            self.check(row, step - 1)
            loss, *scalars = row.tolist()
            self._on_step(step, {"loss": loss, "rate": rate, **dict(zip(names, scalars, strict=True))})


def _restore_forward(model: nn.Module, forward: Any) -> None:
    """Removes the forward that Accelerate leaves behind, which computes in the precision of the training."""
    vars(model).pop("_original_forward", None)
    vars(model).pop("forward", None)
    if forward is not None:
        vars(model)["forward"] = forward


def _asked(accelerator: Accelerator, interruption: Interruption) -> bool:
    """Whether any process was asked to stop; all of them stop after the same step."""
    if accelerator.num_processes == 1:
        return interruption.requested
    if interruption.requested:
        accelerator.set_trigger()
    return bool(accelerator.check_trigger())


def _to(batch: Any, device: torch.device, channels_last: bool) -> Any:
    if isinstance(batch, Tensor):
        # pinned memory is copied as it lies, and laid out on the GPU
        moved = batch.to(device, non_blocking=batch.is_pinned()) if device.type == "cuda" else batch.to(device)
        return moved.contiguous(memory_format=torch.channels_last) if channels_last and batch.dim() == 4 else moved
    return tuple(_to(item, device, channels_last) for item in batch) if isinstance(batch, tuple | list) else batch


def uses_bf16(precision: str, device: torch.device) -> bool:
    """`precision` is "float32", "bf16", or "auto": bf16 where `device` computes in it natively."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and "avx512_bf16" in cpu_flags()


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
