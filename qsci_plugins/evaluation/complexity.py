"""Multiply-accumulate operations of any network, and the named ways to price them at low bit-widths."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from qsci_plugins.errors import UserError

__all__ = [
    "cadyq_bitops",
    "count_macs",
    "feature_average_bits",
    "ops",
    "qsci_ops",
    "weight_activation_bitops",
]

FLOAT_BITS = 32

#: of every quantized layer (weight bits, activation bits), the latter a mean over images where it adapts
Bits = Mapping[str, tuple[float, float]]


def count_macs(model: nn.Module, *input_shapes: Sequence[int]) -> dict[str, int]:
    """Multiply-accumulates by layer of one forward pass on inputs of `input_shapes`, in order of first use.

    Convolutions of any kind and linear layers come under their module's name; every other product (matmul,
    einsum, attention, functional convolutions) under `<owner>/matmul_<i>` or `<owner>/conv_<i>`, `i` counting
    within one call of the owner. What runs twice counts twice; biases, activations and sums are free, as in
    the papers. The network runs on shapes alone, so any resolution costs milliseconds and no memory. Count
    the float network.
    Raises UserError for a network whose course depends on the values of its input.
    """
    model = copy.deepcopy(model).eval()
    example = next((tensor for tensor in model.parameters() if tensor.is_floating_point()), torch.empty(0))
    counter = _Counter(model)
    device, dtype = example.device, example.dtype
    fastpath = torch.backends.mha.get_fastpath_enabled()
    # fused attention kernels hide their products
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            FakeTensorMode(allow_non_fake_inputs=True),
            counter,
        ):
            model(*(torch.empty(tuple(shape), dtype=dtype, device=device) for shape in input_shapes))
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise UserError(
            f"cannot count the operations of {type(model).__name__}: what it does depends on pixel values ({error})"
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
    return counter.macs


class _Counter(TorchDispatchMode):
    """Adds up every product that reaches the dispatcher under the module whose forward is running."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.macs: dict[str, int] = {}
        self._running: list[_Call] = []
        for name, module in model.named_modules():
            # first in, last out: what the model's own hooks compute belongs to it as well
            module.register_forward_pre_hook(self._enter(name, module), prepend=True)
            module.register_forward_hook(self._leave)

    def _enter(self, name: str, module: nn.Module) -> Callable[..., None]:
        is_layer = isinstance(module, nn.modules.conv._ConvNd | nn.Linear)
        return lambda *_: self._running.append(_Call(name, is_layer))

    def _leave(self, *_: Any) -> None:
        self._running.pop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            kind = "conv" if func.overloadpacket is torch.ops.aten.convolution else "matmul"
            name = self._running[-1].product(kind)
            self.macs[name] = self.macs.get(name, 0) + formula(*args, **(kwargs or {}), out_val=result) // 2
        return result


class _Call:
    """One running forward of a module, which numbers its products."""

    def __init__(self, name: str, is_layer: bool) -> None:
        self.name = name
        self.is_layer = is_layer
        self.seen = {"conv": 0, "matmul": 0}

    def product(self, kind: str) -> str:
        if self.is_layer:
            return self.name or "model"
        index = self.seen[kind]
        self.seen[kind] += 1
        return f"{self.name}/{kind}_{index}" if self.name else f"{kind}_{index}"


def ops(macs: Mapping[str, int], bits: Bits, fab: float | None = None) -> dict[str, float]:
    """All the named measures of this module, with the MACs of all and of the quantized layers, as plain
    numbers."""
    return {
        "macs": float(sum(macs.values())),
        "quantized_macs": float(_split(macs, bits)[0]),
        "cadyq_bitops": cadyq_bitops(macs, bits, fab),
        "qsci_ops": qsci_ops(macs, bits),
        "weight_activation_bitops": weight_activation_bitops(macs, bits),
    }


def feature_average_bits(bits: Bits) -> float:
    """FAB: the plain mean of the activation bits over the quantized layers (CADyQ, section 4.1)."""
    return sum(activation for _, activation in bits.values()) / len(bits) if bits else float(FLOAT_BITS)


def cadyq_bitops(macs: Mapping[str, int], bits: Bits, fab: float | None = None) -> float:
    """MACs(float layers) + (8/32) * (FAB/32) * MACs(quantized layers), the formula of CADyQ's authors.

    It takes every weight as 8 bits. `fab` replaces the mean of `bits` where layers of fixed bits do not count
    in it.
    """
    quantized, rest = _split(macs, bits)
    fab = feature_average_bits(bits) if fab is None else fab
    return rest + 8 / FLOAT_BITS * fab / FLOAT_BITS * quantized


#: what Q-SCI's table charges for a multiply-accumulate of that many bits
_QSCI_FACTORS = ((2.0, 1 / 32), (3.0, 1 / 16), (4.0, 1 / 8), (8.0, 1 / 4), (32.0, 1.0))


def qsci_ops(macs: Mapping[str, int], bits: Bits) -> float:
    """MACs * {8 bits: 1/4, 4: 1/8, 3: 1/16, 2: 1/32} of the quantized layers + MACs(float layers), as in
    Q-SCI.

    The wider of weight and activation counts. Widths that the paper does not have are interpolated linearly.
    """
    total = float(_split(macs, bits)[1])
    for name, layer in bits.items():
        total += macs[name] * _interpolated(max(layer))
    return total


def weight_activation_bitops(macs: Mapping[str, int], bits: Bits) -> float:
    """The sum of MACs * weight bits * activation bits; float layers count with 32 and 32."""
    total = float(_split(macs, bits)[1]) * FLOAT_BITS**2
    return total + sum(macs[name] * weight * activation for name, (weight, activation) in bits.items())


def _interpolated(width: float) -> float:
    (low, price), *points = _QSCI_FACTORS
    if width <= low:
        return price * width / low
    for high, factor in points:
        if width <= high:
            return price + (factor - price) * (width - low) / (high - low)
        low, price = high, factor
    return price


def _split(macs: Mapping[str, int], bits: Bits) -> tuple[int, int]:
    """MACs of the layers in `bits` and of the others."""
    for name in bits:
        if name not in macs:
            near = get_close_matches(name, macs, 1)
            raise ValueError(f"no layer {name!r} among the counted ones{f'; nearest is {near[0]!r}' if near else ''}")
    quantized = sum(macs[name] for name in bits)
    return quantized, sum(macs.values()) - quantized
