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

    def add(self, quantizer: nn.Module, bit_width: Tensor) -> None:
        """Notes the bits of one call: a scalar, or any shape with one value per sample."""
        bits = bit_width.reshape(-1) if bit_width.numel() > 1 else bit_width.reshape(())
        self._bits.setdefault(id(quantizer), []).append(bits)

    def of(self, quantizer: nn.Module) -> Tensor | None:
        """The bits of a quantizer's last call, None where it did not run."""
        calls = self._bits.get(id(quantizer))
        return calls[-1] if calls else None

    def mean(self, quantizers: Iterable[nn.Module]) -> Tensor:
        """Feature average bit-width (FAB) over the quantizers: (N,), or a scalar where no bits depend on the input."""
        bits = [calls[-1] for q in quantizers if (calls := self._bits.get(id(q)))]
        if not bits:
            return torch.tensor(32.0)
        return torch.stack(torch.broadcast_tensors(*bits)).mean(0)


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
