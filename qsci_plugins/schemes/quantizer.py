"""The contract of every quantizer: it answers `qparams(x)`, and all of them round the same way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from qsci_plugins.schemes.bit_width import current_ledger
from qsci_plugins.schemes.fused.choice import fused_functions, unless_triton_fails
from qsci_plugins.schemes.rounding import fake_quantize, to_integers

__all__ = ["BoundedMoves", "Mode", "ObservingQuantizer", "QParams", "Quantizer", "per_sample", "scalars"]


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
    is bounded where it is used next, or saved: `before - 0.05 size .. before + 0.05 size`. Nothing waits for a device, and
    every step runs the same operations, so that a CUDA graph can hold a step.
    """

    #: by name, the parameter's version at the last backward pass, until its move was bounded
    _marks: dict[str, int]
    #: by name, the least and the greatest value of the next move, at the same place in memory for good
    _limits: dict[str, tuple[Tensor, Tensor]]
    #: by device and names, what `bounds` answers where a move is bounded, and where none is
    _joined: dict[tuple[Any, ...], tuple[Tensor, Tensor]]

    def __init__(self) -> None:
        super().__init__()
        self._marks, self._limits, self._joined = {}, {}, {}

    def tracked(self, name: str, size: Callable[[], Tensor] | None = None) -> Tensor:
        """The parameter `name`, its last move bounded; `size` > 0 broadcasts to it, default the value itself."""
        self._bound(name)
        parameter: Tensor = getattr(self, name)
        plain = torch.jit.is_tracing() or torch.compiler.is_compiling()
        if plain or not (torch.is_grad_enabled() and parameter.requires_grad):
            return parameter
        value = parameter.view_as(parameter)
        value.register_hook(lambda _: self._mark(name, size))
        return value

    def bounds(self, *names: str) -> Tensor:
        """(2, values): the least and greatest values of these parameters, one behind the other, for a kernel to apply."""
        limits, infinite = self._joint(names)
        due = [name for name in names if name in self._marks]
        for name in names if due else ():
            if name not in due:
                self._limits[name][0].fill_(-torch.inf)
                self._limits[name][1].fill_(torch.inf)
            self._settle(name)
        return limits if due else infinite

    def next_bounds(self, *names: str, asked: bool) -> Tensor:
        """Where a backward kernel writes what `bounds` answers next; a place that nobody reads where not `asked`."""
        limits, infinite = self._joint(names)
        versions = [getattr(self, name)._version for name in names]
        held = zip(names, versions, strict=True)
        if not asked or any(self._marks.get(name, version) != version for name, version in held):
            return torch.empty_like(infinite)
        self._marks.update(zip(names, versions, strict=True))
        return limits

    def _joint(self, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        parameters = [getattr(self, name) for name in names]
        key = (parameters[0].device, *names)
        if key not in self._joined:
            counts = [parameter.numel() for parameter in parameters]
            infinite = torch.full((2, sum(counts)), torch.inf, device=parameters[0].device)
            infinite[0].neg_()
            limits = infinite.clone()
            parts = zip(names, parameters, limits.split(counts, 1), strict=True)
            for name, parameter, part in parts:
                if name in self._limits:  # from another device, or from plain operations
                    part.copy_(torch.stack([bound.flatten() for bound in self._limits[name]]))
                self._limits[name] = part[0].view_as(parameter), part[1].view_as(parameter)
            self._joined[key] = limits, infinite
        return self._joined[key]

    def _mark(self, name: str, size: Callable[[], Tensor] | None) -> None:
        parameter: Tensor = getattr(self, name)
        version = parameter._version
        if self._marks.get(name, version) != version:
            return  # moved already
        with torch.no_grad():
            value = parameter.detach()
            share = (value if size is None else size().detach()).abs() * _SHARE
            if name in self._limits and self._limits[name][0].device == value.device:
                least, greatest = self._limits[name]
                torch.sub(value, share, out=least)
                torch.add(value, share, out=greatest)
            else:
                self._limits[name] = value - share, value + share
        self._marks[name] = version

    def _bound(self, name: str) -> None:
        if name not in self._marks:
            return
        parameter: Tensor = getattr(self, name)
        least, greatest = self._limits[name]
        if least.device != parameter.device:
            least, greatest = self._limits[name] = least.to(parameter.device), greatest.to(parameter.device)
        # behind autograd's back: a layer that runs twice bounds a value that it has used already, to the same
        parameter.data.clamp_(least, greatest)
        self._settle(name)

    def _settle(self, name: str) -> None:
        """A move was bounded; what changes the parameter from here on is none."""
        if self._marks.get(name) not in (None, getattr(self, name)._version):
            del self._marks[name]

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
        """Everything that `qparams(x)` may answer, one entry each; only an input-dependent one has several."""
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
        if torch.compiler.is_exporting():
            from qsci_plugins.schemes.traced import as_exported_fake_quantize

            exported = as_exported_fake_quantize(x, self.qparams, self.fits_int8(), weight=self.of_weight)
            if exported is not None:
                return exported
        functions = fused_functions(x) if x.is_cuda else None
        fused = None if functions is None else unless_triton_fails(self.fused, x, functions)
        if fused is not None:
            return self._noted(*fused)
        p = self.qparams(x)
        return self._noted(fake_quantize(x, p.scale, p.offset, p.low, p.high), p.bit_width)

    def fits_int8(self) -> bool:
        """Whether its levels are integers of u8 or i8 whatever was learned, which `torch.export` cannot look up."""
        return self.of_weight or bool(getattr(self, "integer", False))

    def fused(self, x: Tensor, functions: Any) -> tuple[Tensor, Tensor] | None:
        """x quantized, and its bits, by one of the `functions` of `fused`; None where they do not do what qparams does."""
        return None

    def _noted(self, quantized: Tensor, bit_width: Tensor) -> Tensor:
        if (ledger := current_ledger()) is not None:
            ledger.add(self, bit_width)
        return quantized

    def known(self, name: str) -> bool:
        """The truth of the buffer `name`, read again only where it changed: a device is not waited for in every step."""
        buffer: Tensor = getattr(self, name)
        held = self._known.get(name)
        if held is not None and torch.compiler.is_exporting():
            return held[2]  # no value can be read there
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
        #: how many batches, one after the other, have as many images as one should have; a fit may take them together
        self.batches_together = 1

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


#: by type, device and values
_SCALARS: dict[tuple[Any, ...], tuple[Tensor, ...]] = {}


def scalars(like: Tensor, *values: float) -> tuple[Tensor, ...]:
    """Numbers as tensors () of the type and device of `like`, the same ones every time; not to be written to."""
    held = _SCALARS.get(key := (like.dtype, like.device, values))
    if held is None:
        # filled where they are: a copy from the CPU would wait for the device, and cannot be captured in a CUDA graph
        held = tuple(like.new_full((), value) for value in values)
        followed = torch.jit.is_tracing() or torch.compiler.is_compiling() or torch.is_inference_mode_enabled()
        captured = like.is_cuda and type(held[0]) is Tensor and torch.cuda.is_current_stream_capturing()
        if type(held[0]) is Tensor and not followed and not captured:
            _SCALARS[key] = held
    return held


#: of its size, that one update may move a value by; a rate that suits the size stays far below
_SHARE = 0.05
