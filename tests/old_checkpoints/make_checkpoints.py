"""Makes what lies here, by an old version of qsci_plugins: `PYTHONPATH=OLD_VERSION python make_checkpoints.py`.

The files are those of the version before modules moved into the rooms that they are in now; they are not to be
made again by a later one, as they show that what it wrote is still read.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qsci_plugins.architectures.sr.edsr import EDSR
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme

__all__ = ["BACKENDS", "CASES", "example", "stock"]

HERE = Path(__file__).parent

BACKENDS = ("brevitas", "nncf")

CASES: dict[str, dict[str, Any]] = {
    "adabm": {"name": "adabm", "weight_bits": 4, "activation_bits": 4},
    "adabm_faithful": {"name": "adabm", "form": "faithful"},
    "cadyq": {"name": "cadyq"},
    "cadyq_faithful": {"name": "cadyq", "form": "faithful"},
    "qsci": {"name": "qsci"},
    "qsci_faithful": {"name": "qsci", "form": "faithful", "weight_bits": 8, "activation_bits": 8},
}


class Attention(nn.Module):
    """softmax(q k^T) v of tokens (N,T,4)."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.matmul(self.query(x), self.key(x).transpose(-2, -1))
        return torch.matmul(scores.softmax(-1), self.value(x))


class Transformer(nn.Module):
    """One attention between two linear layers; tokens (N,T,4) to (N,T,4)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.attention, self.last = nn.Linear(4, 4), Attention(), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x + self.attention(x))


def stock(case: str, seed: int) -> nn.Module:
    """The float network of a case, with random weights."""
    torch.manual_seed(seed)
    return Transformer().eval() if case.startswith("qsci") else EDSR(blocks=1, width=4, scale=2).eval()


def example(case: str) -> Tensor:
    """Its input: tokens in -1..1, or two images in 0..255 of which the second has less contrast."""
    if case.startswith("qsci"):
        return (torch.arange(48.0) * 0.37).sin().reshape(2, 6, 4)
    image = (torch.arange(3 * 8 * 8.0) * 0.61).sin().reshape(1, 3, 8, 8) * 127 + 128
    return torch.cat([image, 0.2 * image])


def main() -> None:
    """Writes every case in both backends, and what the quantized networks answer."""
    outputs: dict[str, Tensor] = {}
    for case, settings in CASES.items():
        placement = Placement(("*",)) if case.startswith("qsci") else Placement(("body.?.body.*",))
        value_range = 1.0 if case.startswith("qsci") else 255.0
        for name in BACKENDS:
            backend = import_module(f"qsci_plugins.{name}.backend")
            scheme = make_scheme(settings)
            quantized = backend.quantize(stock(case, 0), scheme, placement, [example(case)], value_range)
            with torch.no_grad():
                outputs[f"{case}.{name}"] = quantized.model(example(case))
            backend.save(quantized, HERE / f"{case}.{name}.pt")
    torch.save(outputs, HERE / "outputs.pt")


if __name__ == "__main__":
    main()
