"""A trained quantized network as a plain one that computes in integers; nothing of scheme or backend is left in it."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.openvino.attention import Operand, lower_attention
from qsci_plugins.openvino.grids import (
    FACTORS,
    Grid,
    layer_input,
    read_choices,
    read_grid,
    read_qparams,
    read_weight,
    varies,
)
from qsci_plugins.openvino.layers import (
    DynamicLayer,
    FloatWeight,
    IntegerWeight,
    SkippedBlock,
    StaticLayer,
    pads_with_zeros,
)
from qsci_plugins.schemes.attention import AttentionQuantizers, attach_attention
from qsci_plugins.schemes.bit_width import record_bits
from qsci_plugins.schemes.block_skip import LOWEST_FACTOR
from qsci_plugins.schemes.content import InputModule
from qsci_plugins.schemes.placement import copy_folded
from qsci_plugins.schemes.quantizer import Quantizer
from qsci_plugins.schemes.rounding import int8_bounds
from qsci_plugins.schemes.scheme import LayerQuantizers, QuantizedNetwork
from qsci_plugins.schemes.weight import highest_level, largest_pair_sums, saturating

__all__ = [
    "ContentNetwork",
    "check_exportable",
    "grid_reach",
    "is_exact_everywhere",
    "layer_bits",
    "limit_pairs",
    "lower",
]

#: of classes that backends leave in a network; NNCF wraps the very network that it is given
_HOSTS = ("nncf.", "brevitas.", "qsci_plugins.nncf.", "qsci_plugins.brevitas.")


def lower(
    stock: nn.Module | None, network: QuantizedNetwork, image_factor: int | None = 0, *, report_bits: bool = False
) -> nn.Module:
    """A copy of the float network `stock` with the quantized network's tensors and its layers in integers.

    With an image factor -1, 0 or 1 everything is a constant: the network for images of that factor (any factor, where
    bits do not depend on the image). With None the bits are chosen inside the network, for every sample of a batch;
    so are, with any factor, those that depend on a layer's input itself (CADyQ's).
    With `report_bits` such a network also returns the feature average bit-width that it chose for every sample, (N,).
    `stock` None, or one that a backend has put quantizers into, stands for the network's own float form.
    Maps what `stock` maps, and agrees with the quantized network up to rounding flips. Raises UserError before
    calibration, and for what cannot run in integers.
    """
    check_exportable(network)
    if image_factor is None and network.skipped:
        raise UserError(
            "one graph for all images holds every block, and scheme.skip_share leaves blocks out of one route; set"
            " export.openvino.mode: routed"
        )
    lowered = _float_copy(stock, network).cpu().eval().requires_grad_(False)
    _copy_trained(lowered, network)
    adaptive = False
    counted: list[nn.Module] = []
    for name, quantizers in network.layers.items():
        layer = lowered.get_submodule(name)
        dynamic = _input_dependent(quantizers)
        dynamic |= image_factor is None and varies(quantizers.activation, layer_input(layer))
        adaptive |= dynamic
        parent, _, leaf = name.rpartition(".")
        output = _output(layer, quantizers, image_factor, name)
        if dynamic:
            new = _dynamic(layer, quantizers, name, output)
        else:
            new = _static(layer, quantizers, image_factor or 0, name, output)
        setattr(lowered.get_submodule(parent), leaf, new)
        if report_bits and quantizers.counted and quantizers.activation is not None:
            counted.append(new)
    for name, attention in network.attentions.items():
        attach_attention(lowered.get_submodule(name), lower_attention(attention, image_factor, name))
    for name in network.skipped if image_factor == LOWEST_FACTOR else ():
        parent, _, leaf = name.rpartition(".")
        setattr(lowered.get_submodule(parent), leaf, SkippedBlock())
    if not adaptive:
        return lowered
    input_module = None if network.input_module is None else copy.deepcopy(network.input_module).cpu()
    return ContentNetwork(input_module, lowered, counted).eval().requires_grad_(False)


def check_exportable(network: QuantizedNetwork) -> None:
    """Raises UserError where calibration has not happened or the scheme quantizes more than layers."""
    missing = [name for name, layer in network.layers.items() if not all(bool(q.calibrated) for q in layer)]
    if missing:
        raise UserError(f"{missing[0]} is not calibrated; calibrate the network before exporting it")
    if isinstance(network.input_module, InputModule) and not network.input_module.is_calibrated():
        raise UserError("the image thresholds are not calibrated; calibrate the network before exporting it")
    if network.foreign:
        raise UserError(
            f"{', '.join(network.foreign)}: quantized by another algorithm than ours, whose quantizers the export would"
            " drop; give these layers to the scheme as well (eight_bit=[...]), or leave them in float"
        )
    for name in network.blocks:
        raise UserError(
            f"{name}: the quantized input of a residual block cannot be exported; set scheme.quantize_skip: false"
        )
    for name, attention in network.attentions.items():
        if not all(bool(quantizer.calibrated) for quantizer in attention):
            raise UserError(f"{name} is not calibrated; calibrate the network before exporting it")
    for name, layer in network.layers.items():
        if layer.output is not None and layer.output.input_dependent:
            raise UserError(
                f"{name}: bits of a layer's output that depend on the output itself cannot be exported; set"
                " export.openvino.mode: none"
            )


def layer_bits(network: QuantizedNetwork, factor: int) -> dict[str, float]:
    """Activation bits of every layer that has an activation quantizer, for images of one factor; 0 in blocks they skip.

    Where the bits depend on the layer's input, nobody knows them before an image is seen: it is the widest candidate
    then, an upper bound of what any image takes.
    """
    bits = {}
    skipped = tuple(f"{name}." for name in network.skipped) if factor == LOWEST_FACTOR else ()
    for name, quantizers in network.layers.items():
        if quantizers.activation is not None and name.startswith(skipped):
            bits[name] = 0.0
        elif quantizers.activation is not None:
            x = layer_input(network.model.get_submodule(name))
            if quantizers.activation.input_dependent:
                bits[name] = read_choices(quantizers.activation, x).bit_width.max().item()
            else:
                bits[name] = read_qparams(quantizers.activation, x, factor).bit_width.float().mean().item()
    return bits


def _float_copy(stock: nn.Module | None, network: QuantizedNetwork) -> nn.Module:
    if stock is not None and not any(type(m).__module__.startswith(_HOSTS) for m in stock.modules()):
        return copy_folded(stock)
    if network.float_form is None:
        raise UserError("the stock network is quantized itself; give the float network that it was made from")
    return network.float_form()


def _input_dependent(quantizers: LayerQuantizers) -> bool:
    return quantizers.activation is not None and quantizers.activation.input_dependent


def _output(layer: nn.Module, quantizers: LayerQuantizers, factor: int | None, name: str) -> Grid | None:
    """The constant grid of what a layer returns."""
    if quantizers.output is None:
        return None
    if factor is None and varies(quantizers.output, layer_input(layer)):
        raise UserError(f"{name}: the bits of its output depend on the image; export it routed")
    grid = read_grid(quantizers.output, layer_input(layer), factor or 0, name, padded=pads_with_zeros(layer))
    if grid.parts > 1 or grid.offset is not None:
        raise UserError(
            f"{name}: the levels of its output do not fit INT8; use 8 bits or less and scheme.form: integer"
        )
    return grid


def _static(layer: nn.Module, quantizers: LayerQuantizers, factor: int, name: str, output: Grid | None) -> nn.Module:
    grid = None
    if quantizers.activation is not None:
        grid = read_grid(quantizers.activation, layer_input(layer), factor, name, padded=pads_with_zeros(layer))
    weight = _weight(layer, quantizers, name)
    if grid is not None:
        weight = limit_pairs(weight, grid_reach(grid))
    return StaticLayer(layer, weight, layer.bias, grid, output)  # type: ignore[arg-type]


def _dynamic(layer: nn.Module, quantizers: LayerQuantizers, name: str, output: Grid | None) -> nn.Module:
    assert quantizers.activation is not None
    if quantizers.activation.input_dependent:
        bounds = _bounds_of_choices(quantizers.activation, layer, name)
    else:
        bounds = _bounds_of_factors(quantizers.activation, layer, name)
    quantizer = copy.deepcopy(quantizers.activation).cpu()
    reach = highest_level(quantizers.activation, layer_input(layer).to(layer.weight.device))  # type: ignore[arg-type]
    weight = limit_pairs(_weight(layer, quantizers, name), reach)
    return DynamicLayer(layer, weight, layer.bias, quantizer, bounds, output)  # type: ignore[arg-type]


def _bounds_of_factors(quantizer: Quantizer, layer: nn.Module, name: str) -> tuple[int, int]:
    """The 256 levels that hold those of every image factor."""
    x, padded = layer_input(layer), pads_with_zeros(layer)
    grids = [read_grid(quantizer, x, factor, name, padded=padded) for factor in FACTORS]
    if any(grid.parts > 1 or grid.offset is not None for grid in grids):
        raise UserError(f"{name}: its levels do not fit INT8 at every bit-width; export it routed")
    bounds = int8_bounds(min(grid.low for grid in grids), max(grid.high for grid in grids))
    if bounds is None:
        raise UserError(f"{name}: no 256 levels hold those of every bit-width; export it routed")
    return bounds


def _bounds_of_choices(quantizer: Quantizer, layer: nn.Module, name: str) -> tuple[int, int]:
    """The 256 levels that hold those of every candidate."""
    p = read_choices(quantizer, layer_input(layer))
    if p.offset is not None or not torch.equal(p.low, p.low.round()) or not torch.equal(p.high, p.high.round()):
        raise UserError(f"{name}: a real zero point cannot run in integers; set scheme.form: integer")
    low, high = p.low.min().item(), p.high.max().item()
    bounds = int8_bounds(low, high)
    if bounds is None:
        raise UserError(f"{name}: levels {low:.0f}..{high:.0f} fit no INT8; use 8 bits or less")
    return bounds


def _weight(layer: nn.Module, quantizers: LayerQuantizers, name: str) -> nn.Module:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if quantizers.weight is None:
        return FloatWeight(weight.detach().clone())
    return IntegerWeight(*read_weight(copy.deepcopy(quantizers.weight).cpu(), weight.detach(), name))


@torch.no_grad()
def _copy_trained(lowered: nn.Module, network: QuantizedNetwork) -> None:
    """Fine-tuning has moved tensors; a backend keeps them under the stock network's names."""
    trained = network.model.state_dict()
    for name, tensor in lowered.state_dict().items():
        if name in trained and trained[name].shape == tensor.shape:
            tensor.copy_(trained[name])
    for name in network.layers:
        layer, source = lowered.get_submodule(name), network.model.get_submodule(name)
        for key in ("weight", "bias"):
            value = getattr(source, key)
            if isinstance(value, Tensor):
                getattr(layer, key).copy_(value)


class ContentNetwork(nn.Module):
    """A network behind the module that reads its input's content.

    Returns the network's output, and its feature average bit-width (N,) over `counted` layers where there are any.
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


def grid_reach(grid: Grid) -> float:
    """The largest level of a grid's INT8 parts, as u8."""
    least, greatest = grid.bounds
    return float(min(grid.high, greatest) - least)


def limit_pairs(weight: nn.Module, reach: float) -> nn.Module:
    """The weight; output channels whose pairs would saturate with activations up to `reach` at half the resolution.

    Schemes see to that in calibration. What is left are networks saved before they did, and the few channels that
    training moved.
    """
    if not isinstance(weight, IntegerWeight):
        return weight
    integers = weight.integers.float()
    over = saturating(integers, reach).reshape(-1, *[1] * (integers.dim() - 1))
    if not bool(over.any()):
        return weight
    halved = torch.where(over, (integers / 2).round(), integers).to(torch.int8)
    return IntegerWeight(halved, torch.where(over, 2 * weight.step, weight.step))


def is_exact_everywhere(lowered: nn.Module) -> bool:
    """Whether no layer and no attention product can saturate."""
    for module in lowered.modules():
        if isinstance(module, StaticLayer | DynamicLayer) and not _layer_is_exact(module):
            return False
        if isinstance(module, AttentionQuantizers) and not _attention_is_exact(module):
            return False
    return True


def _layer_is_exact(layer: StaticLayer | DynamicLayer) -> bool:
    if not isinstance(layer.weight, IntegerWeight):
        return True
    integers = layer.weight.integers.float()
    if isinstance(layer, DynamicLayer):
        unsigned = layer.bounds[0] == 0
        reach: Tensor | float = highest_level(layer.quantizer, torch.zeros(1, *[8] * (integers.dim() - 1)))
    elif layer.grid is None:
        return True
    else:
        unsigned = layer.grid.bounds[0] == 0
        reach = torch.full(integers.shape[1:2], grid_reach(layer.grid))
        if layer.ones:
            reach[-layer.ones :] = 1.0 - layer.grid.bounds[0]
        reach = reach.reshape(-1, *[1] * (integers.dim() - 2))
    if isinstance(layer.layer, nn.Conv3d) and layer.layer.groups > 1 and not unsigned:
        return False  # its kernel for i8 activations halves the weights, and loses their last bit
    return not bool((largest_pair_sums(integers * reach) > 32767).any())


def _attention_is_exact(attention: AttentionQuantizers) -> bool:
    products = ((attention.query.quantizer, attention.key.quantizer), (attention.map, attention.value))
    for left, right in products:
        if not isinstance(left, Operand) or not isinstance(right, Operand):
            return False
        largest = max(abs(right.grid.low), abs(right.grid.high))
        if 2 * largest * grid_reach(left.grid) > 32767:
            return False
    return True
