"""Weights rounded so that the errors of one layer cancel on real inputs, instead of each to its nearest level."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.errors import UserError
from qsci_plugins.schemes.placement import first_argument
from qsci_plugins.schemes.scheme import LayerQuantizers
from qsci_plugins.schemes.weight import ChannelWeight

__all__ = ["reconstruct_weights"]

#: places of the output that the normal equations of a layer are summed over
_PLACES = 20_000

#: columns of a weight between two updates of all that follow
_BLOCK = 128


class _Captured(Exception):  # noqa: N818 (it ends a forward early and is no error)
    pass


@torch.no_grad()
def reconstruct_weights(
    model: nn.Module,
    layers: Mapping[str, LayerQuantizers],
    run: Callable[[], Any],
    *,
    rounding: bool = True,
    bias: bool = True,
    damping: float = 0.01,
    on_layer: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Replaces weight and bias of each quantized layer, in order, by ones on the integer grid with less output error.

    `run()` is one forward of the quantized model over calibration inputs. For a layer with quantized inputs X, weights
    change one column after the other, the error of each spread over those still to come (GPTQ, Frantar et al., ICLR 2023,
    arXiv 2210.17323, with H = X^T X around the mean of X); without `rounding` each goes to its nearest level. With `bias`
    the bias takes up what is left of the mean output.
    Layers with grouped channels or an unusual padding, and those whose weights are not `ChannelWeight`, keep their rounding.
    `on_layer(done, total)` is called before each layer and behind the last.
    Returns the names of the layers that changed. Raises UserError where the inputs of one are beyond all arithmetic.
    """
    changed = []
    for done, (name, quantizers) in enumerate(layers.items()):
        on_layer(done, len(layers))
        module = model.get_submodule(name)
        weight = quantizers.weight
        if not isinstance(weight, ChannelWeight) or not _supported(module):
            continue
        x = _input_of(module, quantizers, run)
        columns = None if x is None else _columns(module, x)
        if columns is None:
            continue
        flat = module.weight.detach().flatten(1)  # type: ignore[operator, union-attr]
        p = weight.qparams(module.weight)  # type: ignore[arg-type]
        mean = columns.mean(0)
        centred = columns - mean
        step, bound = (value.reshape(-1, 1).double() for value in (p.scale, p.high))
        if rounding:
            try:
                hessian, inputs = (centred.T @ centred).double(), module.weight.shape[1]  # type: ignore[union-attr, index]
                rounded = _round_columns(flat.double(), hessian, step, bound, damping, inputs, weight.largest_pair())
            except torch.linalg.LinAlgError:
                raise UserError(
                    f"{name}: its inputs of up to {columns.abs().max():.3g} are too large to fit its weights to; look"
                    " whether the network's weights are damaged, or set scheme.reconstruct_weights: false"
                ) from None
        else:
            rounded = (flat.double() / step).round().clamp(min=-bound, max=bound) * step
        rounded = rounded.to(flat.dtype)
        if bias and module.bias is not None:
            module.bias += ((flat - rounded) @ mean).reshape(module.bias.shape)  # type: ignore[operator]
        if rounding:
            module.weight.copy_(rounded.reshape(module.weight.shape))  # type: ignore[operator, union-attr]
        changed.append(name)
    on_layer(len(layers), len(layers))
    return changed


def _supported(module: nn.Module) -> bool:
    if isinstance(module, nn.Linear):
        return True
    return (
        isinstance(module, nn.Conv2d | nn.Conv3d)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and set(module.dilation) == {1}
    )


def _input_of(module: nn.Module, quantizers: LayerQuantizers, run: Callable[[], Any]) -> Tensor | None:
    """The quantized input of the module's first call in a run; None where there was none."""
    captured: list[Tensor] = []

    def keep(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        x = first_argument(arguments, named)
        captured.append(x if quantizers.activation is None else quantizers.activation(x))
        raise _Captured

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        run()
    except _Captured:
        pass
    finally:
        handle.remove()
    return captured[0] if captured else None


def _columns(module: nn.Module, x: Tensor) -> Tensor | None:
    """What the rows of the layer's weight are multiplied with, at random places: (places, inputs)."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(module, nn.Linear):
        rows = x.reshape(-1, x.shape[-1])
        return rows[_random(len(rows), min(len(rows), _PLACES), generator).to(x.device)]
    assert isinstance(module, nn.Conv2d | nn.Conv3d)
    x = F.pad(x, [side for amount in reversed(module.padding) for side in (int(amount), int(amount))])
    for axis, (size, stride) in enumerate(zip(module.kernel_size, module.stride, strict=True), 2):
        if x.shape[axis] < size:
            return None
        x = x.unfold(axis, size, stride)
    # (N,C,places...,kernel...): one random index for each axis but C and the kernel's
    spatial = len(module.kernel_size)
    axes = [0, *range(2, 2 + spatial)]
    count = min(_PLACES, math.prod(x.shape[a] for a in axes))
    index = [_random(x.shape[a], count, generator).to(x.device) for a in axes]
    moved = x.movedim(1, 1 + spatial)
    return moved[tuple(index)].reshape(count, -1)


def _random(below: int, count: int, generator: torch.Generator) -> Tensor:
    """Indices, the same on every device."""
    return torch.randint(below, (count,), generator=generator, device="cpu")


def _paired_before(inputs: int, order: Tensor) -> list[int | None]:
    """For each column of a flat weight, in their `order`: where in it the other of its pair stands, if before it.

    Of an odd number of channels any two may be a pair (`largest_pair_sums`): none is known.
    """
    if inputs % 2:
        return [None] * len(order)
    order = order.cpu()
    other = torch.arange(len(order)).reshape(inputs // 2, 2, -1).flip(1).flatten()
    before = torch.argsort(order)[other[order]].tolist()
    return [at if at < here else None for here, at in enumerate(before)]


def _round_columns(
    weight: Tensor,
    hessian: Tensor,
    step: Tensor,
    bound: Tensor,
    damping: float,
    inputs: int = 1,
    most: float = math.inf,
) -> Tensor:
    """GPTQ: the columns with the most energy first, each one's rounding error compensated by the rest.

    Two levels of one sign of a pair of the `inputs` channels end at `most` together.

    Columns after a block feel its errors at once, in one matrix product, which gives the same levels in a tenth of the
    time.
    """
    mean = hessian.diagonal().mean().clamp_min(1e-12)
    order = torch.argsort(hessian.diagonal(), descending=True, stable=True)
    hessian = hessian[order][:, order]
    hessian.diagonal().add_(damping * mean)
    # the upper factor R with H = R R^T, from the reversed matrix's lower one: R^-1 is the upper factor of H^-1
    reverse = torch.linalg.cholesky(hessian.flip(0, 1)).flip(0, 1)
    upper = torch.linalg.solve_triangular(
        reverse, torch.eye(len(reverse), dtype=reverse.dtype, device=reverse.device), upper=True
    )
    least, rest = -bound, weight[:, order].clone()
    before = [None] * len(order) if most == math.inf else _paired_before(inputs, order)
    rounded = torch.zeros_like(rest)
    for first in range(0, rest.shape[1], _BLOCK):
        last = min(first + _BLOCK, rest.shape[1])
        block, factor = rest[:, first:last], upper[first:last, first:last]
        errors = torch.zeros_like(block)
        for j in range(last - first):
            column, error = block[:, j : j + 1], errors[:, j : j + 1]
            nearest = rounded[:, first + j : first + j + 1]
            # in place, as this runs for every input of every layer, and a GPU takes as long for each small operation
            levels = (column / step).round_().clamp_(min=least, max=bound)
            at = before[first + j]
            if at is not None:
                other = (rounded[:, at : at + 1] / step).round_()
                levels = levels.clamp(-most - other.clamp(max=0), most - other.clamp(min=0))
            torch.mul(levels, step, out=nearest)
            torch.sub(column, nearest, out=error).div_(factor[j, j])
            block[:, j + 1 :] -= error * factor[j : j + 1, j + 1 :]
        rest[:, last:] -= errors @ upper[first:last, last:]
    return rounded[:, torch.argsort(order)]
