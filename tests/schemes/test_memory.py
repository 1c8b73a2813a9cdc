from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from qsci_plugins.schemes.rounding import fake_quantize, quantize_again_in_backward


class Quantized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1) for _ in range(3)])
        self.step = nn.Parameter(torch.tensor(0.1))

    def forward(self, x: Tensor) -> Tensor:
        low, high = torch.tensor(-8.0), torch.tensor(7.0)
        for layer in self.layers:
            x = x + layer(fake_quantize(torch.relu(x), self.step, None, low, high))
        return x


def _gradients(around: AbstractContextManager[None]) -> list[Tensor]:
    model = Quantized()
    with around:
        output = model(torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1)))
    output.square().mean().backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def test_gradients_are_the_same() -> None:
    expected, got = _gradients(nullcontext()), _gradients(quantize_again_in_backward())
    assert len(expected) == 7
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_quantized_tensors_are_let_go() -> None:
    """The inputs of the convolutions are what a forward pass of it no longer keeps."""
    alive: list[int] = []
    model = Quantized()

    def forget(module: nn.Module, arguments: tuple[Tensor]) -> None:
        alive.append(arguments[0].untyped_storage()._weak_ref())  # type: ignore[attr-defined]

    for layer in model.layers:
        layer.register_forward_pre_hook(forget)
    expired = torch.UntypedStorage._expired  # type: ignore[attr-defined]
    x = torch.randn(2, 4, 16, 16)
    output = model(x)
    assert not any(expired(reference) for reference in alive)
    alive.clear()
    with quantize_again_in_backward():
        output = model(x)
    assert all(expired(reference) for reference in alive)
    output.sum().backward()
