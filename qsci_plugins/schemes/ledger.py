"""The bit-widths that a forward used, written down by the quantizers as they run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

__all__ = ["BitLedger", "current_ledger", "record_bits"]


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
        self._bits.setdefault(id(quantizer), []).append(bits)
        if expected is not None:
            self._expected[id(quantizer)] = expected.detach()

    def of(self, quantizer: nn.Module) -> Tensor | None:
        """The bits of a quantizer's last call, None where it did not run."""
        calls = self._bits.get(id(quantizer))
        return calls[-1] if calls else None

    def mean(self, quantizers: Iterable[nn.Module]) -> Tensor:
        """Feature average bit-width (FAB) over the quantizers: (N,), or a scalar where no bits depend on the input."""
        bits = _aligned([calls[-1] for q in quantizers if (calls := self._bits.get(id(q)))])
        return torch.stack(bits).mean(0) if bits else torch.tensor(32.0)

    def total(self, quantizers: Iterable[nn.Module]) -> Tensor:
        """The sum over the quantizers of their bits: (N,), or a scalar where no bits depend on the input."""
        bits = _aligned([calls[-1] for q in quantizers if (calls := self._bits.get(id(q)))])
        return torch.stack(bits).sum(0) if bits else torch.zeros(())

    def weighted_total(self, quantizers: Iterable[nn.Module]) -> Tensor:
        """The sum over bit selectors of bits / expected bits, (N,): CADyQ's bit loss is its mean over samples."""
        ratios = [self._bits[id(q)][-1] / self._expected[id(q)] for q in quantizers if id(q) in self._expected]
        return torch.stack(ratios).sum(0) if ratios else torch.zeros(())


def _aligned(bits: list[Tensor]) -> list[Tensor]:
    """The same shape for all: a layer that folds places into its first axis repeats each sample's bits."""
    samples = min((b.numel() for b in bits if b.numel() > 1), default=1)
    folded = [b[:: b.numel() // samples] if b.numel() > samples else b for b in bits]
    return list(torch.broadcast_tensors(*folded)) if folded else []


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
