"""A lowered network whose bits depend on its input: behind the module that measures it, and telling what was chosen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qsci_plugins.schemes.ledger import record_bits

__all__ = ["Measured"]


class Measured(nn.Module):
    """Returns what the network returns, and its feature average bit-width (N,) over `counted` layers, where there are.

    `input_module` sees the first of several inputs. Layers note their bits in the ledger.
    """

    def __init__(self, input_module: nn.Module | None, network: nn.Module, counted: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.input_module = nn.Identity() if input_module is None else input_module
        self.network = network
        # in a list, as they are modules of the network already
        self.counted = list(counted)

    def forward(self, x: Tensor, *others: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        with record_bits() as ledger:
            result: Tensor = self.network(self.input_module(x), *others)
        if not self.counted:
            return result
        # as a sum with zeros of the batch's size: one value for every sample, also where all take the same
        return result, ledger.mean(self.counted) + torch.zeros_like(x.flatten(1)[:, 0])
