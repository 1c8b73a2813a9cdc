"""What 8 bits would do to a network, estimated from one photo in seconds; `qsci quantize` measures it."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qsci_plugins.architectures.network import Network
from qsci_plugins.data.degradation import bicubic_down
from qsci_plugins.data.photos import builtin_photos
from qsci_plugins.evaluation.complexity import count_macs
from qsci_plugins.schemes.placement import Placement, called_layers, copy_folded, first_argument, place

__all__ = ["TYPICAL_PSNR", "estimate", "expected_loss"]

#: dB between a good network's output and the truth, where nobody has the truth
TYPICAL_PSNR = 32.0

#: the input's side in pixels, where the network takes it
_SIDE = 96

#: what integer layers take of their time in fp32, with dot products of 8 bits in the CPU and without
_INTEGER_TIME = {True: 0.3, False: 0.6}


def expected_loss(decibels: float, reference: float = TYPICAL_PSNR) -> float:
    """dB that a network `reference` dB from the truth loses, if it moves to `decibels` from its own output.

    Both errors are taken as independent of each other.
    """
    return 10 * math.log10(1 + 10 ** ((reference - decibels) / 10))


@torch.no_grad()
def estimate(network: Network, dot_products: bool) -> dict[str, Any]:
    """By plain ranges (least to greatest value) and 8 bits on one built-in photo, no calibration:

    `layers`: of every layer that is called the share of multiply-accumulates, and the dB of its weight and its input over
    their rounding; `not_called`: layers without a part in the output; `constant`: those that read the same for every
    image; `macs_in_integers`: a share; `psnr`: dB of the quantized output from the float one, and the `loss` that follows
    by `expected_loss`; `latency`: a ratio to fp32, from the share alone; `bytes` of the weights in float32 and in 8 bits.
    """
    image = _photo(network)
    module = copy_folded(network.module).eval()
    every = called_layers(module, image)
    called = [name for name, reads in every.items() if reads]
    names = [name for name in place(module, Placement()) if name not in every]
    found: dict[str, dict[str, float]] = {}
    macs = _macs(network, image, module, called)
    expected = module(image.clone())
    with ExitStack() as stack:
        for name in called:
            layer = module.get_submodule(name)
            weight = layer.weight
            assert isinstance(weight, Tensor)
            rounded = _rounded(weight.flatten(1), 1).view_as(weight)
            found[name] = {"weight_db": _ratio(weight, rounded)}
            weight.copy_(rounded)
            stack.callback(layer.register_forward_pre_hook(_rounding(found[name]), with_kwargs=True).remove)
        output = module(image.clone())
    peak = network.value_range
    decibels = 10 * math.log10(peak**2 / max((output - expected).double().square().mean().item(), 1e-20))
    total = max(1, sum(macs.values()))
    share = sum(macs.get(name, 0) for name in called) / total
    elements = sum(module.get_submodule(name).weight.numel() for name in called)  # type: ignore[operator,union-attr]
    whole = 4 * sum(tensor.numel() for tensor in network.module.parameters())
    return {
        "layers": {name: {"macs": macs.get(name, 0) / total, **found[name]} for name in called},
        "not_called": names,
        "constant": [name for name, reads in every.items() if not reads],
        "products": sorted(name for name in macs if name not in every),
        "macs_in_integers": share,
        "psnr": decibels,
        "loss": expected_loss(decibels),
        "latency": 1 - share * (1 - _INTEGER_TIME[dot_products]),
        "bytes": {"float32": whole, "int8": whole - 3 * elements},
    }


def _rounding(found: dict[str, float]) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
    def enter(
        module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        x = first_argument(inputs, named)
        rounded = _rounded(x.reshape(1, -1), 1).view_as(x)
        found["input_db"] = min(found.get("input_db", math.inf), _ratio(x, rounded))
        return ((rounded, *inputs[1:]), named) if inputs else (inputs, {**named, "input": rounded})

    return enter


def _rounded(values: Tensor, dim: int) -> Tensor:
    """(rows, values) on 255 steps from each row's least to its greatest value, zero among them."""
    low = values.amin(dim, keepdim=True).clamp(max=0)
    step = ((values.amax(dim, keepdim=True).clamp(min=0) - low) / 255).clamp(min=1e-12)
    return (values / step).round() * step


def _ratio(values: Tensor, rounded: Tensor) -> float:
    noise = (values - rounded).double().square().mean().item()
    return 10 * math.log10(max(values.double().square().mean().item(), 1e-20) / max(noise, 1e-20))


def _macs(network: Network, image: Tensor, module: nn.Module, called: list[str]) -> dict[str, int]:
    """As counted on shapes alone; of a network that does not run on them, those of its layers."""
    try:
        return count_macs(network.module, image.shape)
    except Exception:  # whatever the network does with shapes that have no values
        counts: dict[str, int] = {}

        def note(name: str) -> Callable[..., None]:
            def leave(layer: nn.Module, inputs: Any, output: Tensor) -> None:
                weight = layer.weight
                assert isinstance(weight, Tensor)
                places = output.numel() // weight.shape[0]
                counts[name] = counts.get(name, 0) + places * weight.numel()

            return leave

        with ExitStack() as stack:
            for name in called:
                stack.callback(module.get_submodule(name).register_forward_hook(note(name)).remove)
            module(image.clone())
        return counts


def _photo(network: Network) -> Tensor:
    height, width = network.valid_size(_SIDE, _SIDE)
    photo = bicubic_down(builtin_photos("calibration")[0][1], network.scale)
    missing = [(0, max(0, side - length)) for side, length in zip((height, width), photo.shape, strict=False)]
    photo = np.pad(photo, [*missing, (0, 0)], mode="symmetric")[:height, :width]
    return torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1)[None].float() * (network.value_range / 255)
