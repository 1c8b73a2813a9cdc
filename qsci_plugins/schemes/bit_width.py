"""Bit-widths: where those of a layer come from, and the ledger in which a forward pass notes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from qsci_plugins.schemes.content import (
    Content,
    InputModule,
    current_content,
    image_gradient,
    matching_quantiles,
    set_content,
)

__all__ = [
    "BitLedger",
    "BitWidth",
    "ImageToBit",
    "MappedBitWidth",
    "StaticBitWidth",
    "current_ledger",
    "levels",
    "record_bits",
    "skipped_samples",
]


class BitWidth(nn.Module, ABC):
    """Answers with a scalar bit-width, or one per sample (N,)."""

    @abstractmethod
    def forward(self) -> Tensor: ...

    def neutral(self) -> Tensor:
        """The bits for an average image, a scalar."""
        return self()


class StaticBitWidth(BitWidth):
    """The same bits for every input."""

    bits: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.register_buffer("bits", torch.tensor(float(bits)))

    def forward(self) -> Tensor:
        return self.bits


class ImageToBit(InputModule):
    """AdaBM's image factor: -1 below the threshold l, +1 above u, else 0, for the mean gradient g of each image.

    Backward goes through tanh((g - (u+l)/2) * 2/(u-l)). Calling it on the network's input (N,C,H,W) sets the content that
    the layers' quantizers read; it returns the input itself. `skipped` names the blocks that images of factor -1 skip.
    """

    def __init__(
        self, value_range: float, percentile: float = 10.0, momentum: float = 0.9, skipped: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.value_range = value_range
        self.percentile = percentile
        self.momentum = momentum
        self.skipped = tuple(skipped)
        self.observing = False
        self.lower = nn.Parameter(torch.zeros(1))
        self.upper = nn.Parameter(torch.ones(1))
        self.calibrated: Tensor
        self.register_buffer("calibrated", torch.zeros((), dtype=torch.bool))

    def forward(self, image: Tensor) -> Tensor:
        gradient, gradient_xy = image_gradient(image, self.value_range)
        if self.observing:
            self.update(gradient)
        set_content(Content(gradient, gradient_xy, self.factor(gradient)))
        return image

    def thresholds(self) -> tuple[float, float]:
        return self.lower.item(), self.upper.item()

    def is_calibrated(self) -> bool:
        return bool(self.calibrated)

    @torch.no_grad()
    def follow_size(self, patches: Tensor, tiles: Tensor) -> None:
        for threshold in (self.lower, self.upper):
            threshold.copy_(matching_quantiles(threshold, patches.to(threshold), tiles.to(threshold)))

    def reduce(self, image: Tensor) -> Tensor:
        """The statistics of one batch, which `update` takes in: the gradient of each image, (N,)."""
        return image_gradient(image, self.value_range)[0]

    def factor(self, gradient: Tensor) -> Tensor:
        """The factor (N,) of gradients (N,)."""
        hard = (gradient > self.upper).to(gradient.dtype) - (gradient < self.lower).to(gradient.dtype)
        if not torch.is_grad_enabled():
            return hard
        soft = torch.tanh((gradient - (self.upper + self.lower) / 2) * 2 / (self.upper - self.lower))
        return soft + (hard - soft).detach()

    @torch.no_grad()
    def update(self, gradient: Tensor) -> None:
        """Moves the thresholds towards the percentiles of a batch's gradients (N,)."""
        ends = gradient.new_tensor([self.percentile / 100, 1 - self.percentile / 100])
        lower, upper = torch.quantile(gradient, ends)
        keep = self.momentum if bool(self.calibrated) else 0.0
        self.lower.mul_(keep).add_(lower, alpha=1 - keep)
        self.upper.mul_(keep).add_(upper, alpha=1 - keep)
        self.calibrated.fill_(True)


class MappedBitWidth(BitWidth):
    """AdaBM's bits of a layer for an image: base + image factor + layer factor.

    The layer factor is round(clamp(m,-1,1)), with tanh(m) backward. `limits` clamps the sum where integer hardware asks
    for it. Without `image_mapping` the image factor, where there is one, changes no bits.
    """

    base: Tensor

    def __init__(self, base: int, limits: tuple[int, int] | None = None, image_mapping: bool = True) -> None:
        super().__init__()
        self.register_buffer("base", torch.tensor(float(base)))
        self.limits = limits
        self.image_mapping = image_mapping
        self.measure = nn.Parameter(torch.zeros(1))

    def layer_factor(self) -> Tensor:
        """A scalar in {-1,0,1}."""
        hard = self.measure.clamp(-1, 1).round()
        if torch.is_grad_enabled():
            soft = torch.tanh(self.measure)
            hard = soft + (hard - soft).detach()
        return hard.squeeze(0)

    def neutral(self) -> Tensor:
        """The bits for an image with factor 0, a scalar."""
        return self._limit(self.base + self.layer_factor())

    def forward(self) -> Tensor:
        bits = self.base + self.layer_factor()
        factor = self.image_factor()
        return self._limit(bits if factor is None else bits + factor)

    def image_factor(self) -> Tensor | None:
        """The image factor (N,) of the forward under way; None where it changes no bits."""
        content = current_content() if self.image_mapping else None
        return None if content is None else content.image_factor

    def _limit(self, bits: Tensor) -> Tensor:
        if self.limits is None:
            return bits
        clamped = bits.clamp(*self.limits)
        return bits + (clamped - bits).detach() if torch.is_grad_enabled() else clamped


def levels(bits: Tensor) -> Tensor:
    """2^bits - 1, with its gradient (OpenVINO knows pow, not exp2)."""
    return torch.pow(torch.full_like(bits, 2.0), bits) - 1


class BitLedger:
    """Bit-widths by quantizer, in call order; tensors keep their gradient, for bit losses.

    Held by the forward's caller and not by the modules, so that a model stays picklable and can be copied.
    """

    def __init__(self) -> None:
        self._bits: dict[int, list[Tensor]] = {}
        self._expected: dict[int, Tensor] = {}

    def add(self, quantizer: nn.Module, bit_width: Tensor, expected: Tensor | None = None) -> None:
        """Notes the bits of one call: a scalar, or any shape with one value per sample.

        `expected` (N,) are the bits that a selector expected before it chose, without gradient.
        """
        bits = bit_width.reshape(-1) if bit_width.numel() > 1 else bit_width.reshape(())
        skipped = skipped_samples.get()
        if skipped is not None and not getattr(quantizer, "of_weight", False):
            repeats = max(1, bits.numel() // skipped.numel())
            bits = torch.where(skipped.repeat_interleave(repeats), 0.0, bits)
        self._bits.setdefault(id(quantizer), []).append(bits)
        if expected is not None:
            self._expected[id(quantizer)] = expected.detach()

    def of(self, quantizer: nn.Module) -> Tensor | None:
        """The bits of a quantizer's last call, None where it did not run."""
        calls = self._bits.get(id(quantizer))
        return calls[-1] if calls else None

    def mean(self, quantizers: Iterable[nn.Module]) -> Tensor:
        """Feature average bit-width (FAB) over the quantizers: (N,), or a scalar where no bits depend on the input."""
        quantizers = list(quantizers)
        bits = _aligned([calls[-1] for q in quantizers if (calls := self._bits.get(id(q)))])
        return torch.stack(bits).mean(0) if bits else _beside(quantizers, 32.0)

    def total(self, quantizers: Iterable[nn.Module]) -> Tensor:
        """The sum over the quantizers of their bits: (N,), or a scalar where no bits depend on the input."""
        quantizers = list(quantizers)
        bits = _aligned([calls[-1] for q in quantizers if (calls := self._bits.get(id(q)))])
        return torch.stack(bits).sum(0) if bits else _beside(quantizers, 0.0)

    def weighted_total(self, quantizers: Iterable[nn.Module]) -> Tensor:
        """The sum over bit selectors of bits / expected bits, (N,): CADyQ's bit loss is its mean over samples."""
        quantizers = list(quantizers)
        ratios = [self._bits[id(q)][-1] / self._expected[id(q)] for q in quantizers if id(q) in self._expected]
        return torch.stack(ratios).sum(0) if ratios else _beside(quantizers, 0.0)


def _beside(quantizers: list[nn.Module], value: float) -> Tensor:
    """A scalar on the quantizers' device, the CPU where there are none."""
    return torch.full((), value, device=next((tensor.device for q in quantizers for tensor in q.buffers()), None))


def _aligned(bits: list[Tensor]) -> list[Tensor]:
    """The same shape for all: a layer that folds places into its first axis repeats each sample's bits."""
    samples = min((b.numel() for b in bits if b.numel() > 1), default=1)
    folded = [b[:: b.numel() // samples] if b.numel() > samples else b for b in bits]
    return list(torch.broadcast_tensors(*folded)) if folded else []


#: which samples (N,) of the forward under way skip the block that is running; None outside such blocks
skipped_samples: ContextVar[Tensor | None] = ContextVar("qsci_skipped_samples", default=None)


_LEDGER: ContextVar[BitLedger | None] = ContextVar("qsci_ledger", default=None)


def current_ledger() -> BitLedger | None:
    """The ledger of the forward under way."""
    return _LEDGER.get()


@contextmanager
def record_bits() -> Iterator[BitLedger]:
    """Collects the bit-widths of every forward inside the block."""
    ledger = BitLedger()
    token = _LEDGER.set(ledger)
    try:
        yield ledger
    finally:
        _LEDGER.reset(token)
