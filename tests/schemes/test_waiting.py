"""A training step neither waits for a device nor looks at values, so that a GPU runs ahead and a graph can hold it."""

from __future__ import annotations

import warnings
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from qsci_plugins.comparing.cost import quantized_reference, random_images, reference
from qsci_plugins.schemes.fused import choice

#: what reads a value back, or copies one from the CPU
WAITING = ("_local_scalar_dense", "equal", "is_nonzero", "nonzero", "lift_fresh")


class Calls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("backend", ["brevitas", "nncf"])
@pytest.mark.parametrize("scheme", ["adabm", "qsci", "cadyq"])
def test_a_training_step_waits_for_nothing(scheme: str, backend: str) -> None:
    images = random_images(2, 12)
    network = quantized_reference(reference(blocks=1, width=8), scheme, backend)
    quantized = network.model.train()
    optimizer = torch.optim.SGD(quantized.parameters(), lr=1e-6)

    def step() -> None:
        quantized(images).abs().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    step()
    with Calls() as calls:
        step()
    assert {name: calls.names[name] for name in WAITING if calls.names[name]} == {}


def test_where_kernels_fail_plain_operations_take_over_and_say_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(x: Tensor) -> Tensor:
        raise RuntimeError("no ptxas\nat all")

    x = torch.zeros(1)
    monkeypatch.setattr(choice, "_functions", SimpleNamespace(given=fails))
    assert choice.fused_functions(x) is not None
    with pytest.warns(UserWarning, match="plain operations.*RuntimeError: no ptxas$"):
        assert choice.unless_triton_fails(choice.fused_functions(x).given, x) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choice.fused_functions(x) is None
    monkeypatch.setattr(choice, "_functions", None)
    monkeypatch.setenv("QSCI_PLUGINS_FUSED", "0")
    assert choice.fused_functions(x) is None


def test_running_out_of_memory_is_no_reason_to_change_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(choice, "_functions", SimpleNamespace(given=full))
    with pytest.raises(torch.OutOfMemoryError):
        choice.unless_triton_fails(full, torch.zeros(1))
    assert choice.fused_functions(torch.zeros(1)) is not None
