"""The contract of every quantizer: it answers `qparams(x)`, and all of them round the same way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from qsci_plugins.schemes.bit_width import current_ledger
from qsci_plugins.schemes.rounding import fake_quantize, to_integers

__all__ = ["BoundedMoves", "Mode", "ObservingQuantizer", "QParams", "Quantizer", "per_sample", "with_samples"]


class QParams(NamedTuple):
    """How x becomes integers: z = round(clamp((x - offset) / scale, low, high)), and back: x ~ z * scale + offset.

    Every field broadcasts to x: a scalar, or one value per sample (N,1,...), or per channel where a paper's code does
    so. `offset` None is the integer form: z = 0 stands for 0, and an integer zero point is part of `low` and `high`
    (low = -zero_point). A real offset is -zero_point * scale. `bit_width` is what FAB and BitOPs count.
    """

    scale: Tensor
    offset: Tensor | None
    low: Tensor
    high: Tensor
    bit_width: Tensor


class Mode(Enum):
    """What a quantizer does with a tensor that passes through it."""

    OFF = "off"  # nothing: the float network
    OBSERVE = "observe"  # nothing, but remember its statistics
    REFINE = "refine"  # fit the range to this very tensor (bit-aware clipping), then quantize
    ON = "on"


class BoundedMoves(nn.Module):
    """Adam moves a parameter by its rate whatever the gradient: at 1e-3 a step of 1e-4 would leave its size behind at once.

    The values stay plain parameters, with their exact gradients and names. What has moved since the last backward pass
    is bounded where it is used next, or saved: `before - 0.05 size .. before + 0.05 size`.
    """

    #: value by value at the last backward pass, with the size that its moves relate to
    _marks: dict[str, tuple[Tensor, Tensor]]

    def __init__(self) -> None:
        super().__init__()
        self._marks = {}

    def tracked(self, name: str, size: Tensor | None = None) -> Tensor:
        """The parameter `name`, its last move bounded; `size` > 0 broadcasts to it, default the value itself."""
        self._bound(name)
        parameter: Tensor = getattr(self, name)
        plain = torch.jit.is_tracing() or torch.compiler.is_compiling()
        if plain or not (torch.is_grad_enabled() and parameter.requires_grad):
            return parameter
        value = parameter.view_as(parameter)
        value.register_hook(lambda _: self._mark(name, size))
        return value

    @torch.no_grad()
    def _mark(self, name: str, size: Tensor | None) -> None:
        value: Tensor = getattr(self, name).detach().clone()
        if name not in self._marks:
            self._marks[name] = value, value.abs() if size is None else size.detach().abs().expand_as(value).clone()

    @torch.no_grad()
    def _bound(self, name: str) -> None:
        if not self._marks:
            return
        parameter: Tensor = getattr(self, name)
        before, size = self._marks.get(name, (parameter, parameter))
        if before is parameter or torch.equal(before, parameter):
            return  # no update yet
        del self._marks[name]
        share = _SHARE * size.to(parameter.device)
        before = before.to(parameter.device)
        bounded = torch.minimum(torch.maximum(parameter, before - share), before + share)
        if not torch.equal(bounded, parameter):
            parameter.copy_(bounded)

    def _save_to_state_dict(self, *args: Any) -> None:
        for name in list(self._marks):
            self._bound(name)
        super()._save_to_state_dict(*args)

    def _load_from_state_dict(self, *args: Any) -> None:
        self._marks.clear()  # what is loaded is no move
        super()._load_from_state_dict(*args)


class Quantizer(BoundedMoves, ABC):
    """Fake-quantizes a tensor whose first axis is the sample (activations) or the output channel (weights).

    Its mode starts as ON; `calibrated` (a buffer, so that it is saved) tells whether its parameters were ever set.
    """

    calibrated: Tensor

    #: whether qparams depend on x itself, so that no constants can stand for them, whatever image is given
    input_dependent: ClassVar[bool] = False

    #: whether it quantizes weights, whose first axis is the output channel
    of_weight: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.mode = Mode.ON
        self._known: dict[str, tuple[Tensor, int, bool]] = {}
        self.register_buffer("calibrated", torch.zeros((), dtype=torch.bool))

    @abstractmethod
    def qparams(self, x: Tensor) -> QParams:
        """The parameters that quantize x."""

    def choices(self, x: Tensor) -> QParams:
        """Everything that `qparams(x)` may answer, one entry for each; only an input-dependent one has several."""
        return self.qparams(x)

    def integers(self, x: Tensor) -> Tensor:
        """The integers z of x, as floats, the same shape."""
        p = self.qparams(x)
        return to_integers(x, p.scale, p.offset, p.low, p.high)

    def forward(self, x: Tensor) -> Tensor:
        if self.mode is Mode.OFF:
            return x
        if self.mode is Mode.OBSERVE:
            with torch.no_grad():
                self.update(self.reduce(x.detach()))
            return x
        if self.mode is Mode.REFINE:
            with torch.no_grad():
                self.refine(x.detach())
        return self.simulate(x)

    def simulate(self, x: Tensor) -> Tensor:
        """x quantized and dequantized, with gradients; notes the bits in the ledger."""
        if torch.jit.is_tracing():
            # imported here, as it needs QParams
            from qsci_plugins.schemes.traced import as_fake_quantize

            traced = as_fake_quantize(x, self.qparams, weight=self.of_weight)
            if traced is not None:
                return traced
        p = self.qparams(x)
        ledger = current_ledger()
        if ledger is not None:
            ledger.add(self, p.bit_width)
        return fake_quantize(x, p.scale, p.offset, p.low, p.high)

    def known(self, name: str) -> bool:
        """The truth of the buffer `name`, read again only where it changed: a device is not waited for in every step."""
        buffer: Tensor = getattr(self, name)
        held = self._known.get(name)
        if held is None or held[0] is not buffer or held[1] != buffer._version:
            held = self._known[name] = buffer, buffer._version, bool(buffer)
        return held[2]

    def reduce(self, x: Tensor) -> Tensor:
        """The statistics of one batch, one vector: what NNCF's collectors gather for `update`."""
        return torch.stack([x.amin(), x.amax()])

    def update(self, statistics: Tensor) -> None:
        """Takes in the statistics of the next batch."""

    def initialise(self) -> None:
        """Sets the parameters from the statistics seen, once all batches went by."""
        self.calibrated.fill_(True)

    def refine(self, x: Tensor) -> None:
        """Fits the parameters to x."""


class ObservingQuantizer(Quantizer):
    """One that fits itself to the statistics of all calibration batches together."""

    def __init__(self) -> None:
        super().__init__()
        self._batches: list[Tensor] = []

    @abstractmethod
    def fit(self, batches: Tensor) -> None:
        """Sets the parameters from the statistics of every batch (count, length), as `reduce` gave them."""

    def update(self, statistics: Tensor) -> None:
        self._batches.append(statistics.detach())

    @torch.no_grad()
    def initialise(self) -> None:
        if not self._batches:
            return
        batches, self._batches = torch.stack(self._batches), []
        self.fit(batches)
        super().initialise()


def with_samples(summary: Tensor, x: Tensor, count: int = 4096) -> Tensor:
    """A batch's statistics (n,) with `count` values of x behind them, always from the same places."""
    picks = torch.randint(x.numel(), (count,), generator=torch.Generator().manual_seed(0)).to(x.device)
    return torch.cat([summary, x.flatten()[picks]])


def per_sample(value: Tensor, x: Tensor) -> Tensor:
    """Shapes (N,) for broadcasting against x (N,...); leaves scalars.

    Where x has N * m rows (windows or places of an image folded into its first axis, image by image), each value goes
    to its m rows.
    """
    if value.dim() != 1:
        return value
    if 1 < value.shape[0] < x.shape[0]:
        value = value.repeat_interleave(x.shape[0] // value.shape[0])
    return value.reshape(-1, *[1] * (x.dim() - 1))


#: of its size, that one update may move a value by; a rate that suits the size stays far below
_SHARE = 0.05
