"""What spandrel does around a network's forward, as a module: the network then maps RGB to RGB like any other."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from spandrel import ImageModelDescriptor
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.schemes.placement import first_argument

__all__ = ["adapted", "equalise_channels", "fold_branches", "part_joined"]

Call = Callable[[nn.Module, Tensor], Tensor]


class Adapted(nn.Module):
    """`model`, called as spandrel calls it: with its noise map, in its range, its picture taken out of a tuple.

    RGB (N,3,H,W) in 0..1 to (N,3,scale*H,scale*W) in 0..1. A grey network runs on each of the three colours, one for
    RGBA on an opaque image.
    """

    def __init__(self, model: nn.Module, call: Call, channels: int) -> None:
        super().__init__()
        self.model = model
        self._call = call
        self._channels = channels

    def forward(self, image: Tensor) -> Tensor:
        if self._channels == 1:
            single = self._call(self.model, image.reshape(-1, 1, *image.shape[-2:]))
            return single.reshape(-1, 3, *single.shape[-2:])
        if self._channels == 4:
            opaque = torch.ones_like(image[:, :1])
            return self._call(self.model, torch.cat([image, opaque], dim=1))[:, :3]
        return self._call(self.model, image)


def adapted(descriptor: ImageModelDescriptor[nn.Module], weights: str) -> nn.Module:
    """The network of a descriptor, itself where its forward maps RGB to RGB already.

    `weights` names its origin in errors. Raises UserError for other numbers of channels than 1, 3 and 4.
    """
    channels = (descriptor.input_channels, descriptor.output_channels)
    if channels not in ((1, 1), (3, 3), (4, 4)):
        raise UserError(
            f"{weights} holds {descriptor.architecture.id}, which maps {channels[0]} channels to {channels[1]};"
            " images here have as many after as before: 1, 3 or 4"
        )
    call: Call = descriptor._call_fn
    # spandrel keeps no description of a plain call, but it is a function of this very module of its own
    if call.__module__ == ImageModelDescriptor.__module__ and channels == (3, 3):
        return descriptor.model
    if call.__module__.endswith((".DRUNet", ".DnCNN")):
        noisy = str(descriptor.architecture.id) == "DRUNet" or descriptor.model.mode == "FDnCNN"
        call = _with_noise_map if noisy else nn.Module.__call__
    return Adapted(descriptor.model, call, channels[0])


#: of 0..1; the level of noise that spandrel, as the authors' own demonstrations, has such networks remove
_NOISE_LEVEL = 15 / 255


def _with_noise_map(model: nn.Module, image: Tensor) -> Tensor:
    """As spandrel's own call, whose map is for one image, for a batch."""
    return cast(Tensor, model(torch.cat([image, torch.full_like(image[:, :1], _NOISE_LEVEL)], dim=1)))


@torch.no_grad()
def fold_branches(model: nn.Module) -> None:
    """Replaces every convolution that SPAN computes anew from three others in each forward by that one, in place.

    In eval mode the network computes the same. What quantizers, operation counts and exporters see is then one layer, and
    its weight is there to be trained.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            folded, update = getattr(child, "eval_conv", None), getattr(child, "update_params", None)
            if not isinstance(folded, nn.Conv2d) or update is None:
                continue
            update()
            folded.requires_grad_(True)
            activation = nn.LeakyReLU(0.05) if getattr(child, "has_relu", False) else None
            setattr(parent, name, folded if activation is None else nn.Sequential(folded, activation))


class SummedConv(nn.Module):
    """A convolution of several tensors joined along the channels, as the sum of one for each of `count` equal parts.

    What it computes is the same; but the parts, whose ranges may differ hundredfold, each get a quantizer of their own.
    """

    def __init__(self, joined: nn.Conv2d, count: int) -> None:
        super().__init__()
        width = joined.in_channels // count
        self.parts = nn.ModuleList()
        for index in range(count):
            part = nn.Conv2d(
                width, joined.out_channels, joined.kernel_size, joined.stride, joined.padding, bias=index == 0  # type: ignore[arg-type]
            )  # fmt: skip
            part.weight.copy_(joined.weight[:, index * width : (index + 1) * width])
            if part.bias is not None and joined.bias is not None:
                part.bias.copy_(joined.bias)
            self.parts.append(part)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = (part(y) for part, y in zip(self.parts, x.chunk(len(self.parts), 1), strict=True))
        for other in others:
            first = first + other
        return cast(Tensor, first)


@torch.no_grad()
def part_joined(model: nn.Module) -> None:
    """Replaces SPAN's convolution of the first, a middle and the last features, in place, by the sum of one for each.

    As one tensor of 8 bits, the features of the first layer leave the others a few levels, which costs 0.9 dB.
    """
    joined = getattr(model, "conv_cat", None)
    if type(model).__name__ == "SPAN" and isinstance(joined, nn.Conv2d):
        model.conv_cat = SummedConv(joined, 4).train(model.training)


class ChannelScale(nn.Module):
    """Multiplies every channel of (N,C,H,W) by a number of its own."""

    factors: Tensor

    def __init__(self, factors: Tensor) -> None:
        super().__init__()
        self.register_buffer("factors", factors.reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factors


#: more channels than any picture has: what reads as many reads features
_PICTURE_CHANNELS = 4
#: synthetic pictures that ranges come from; fewer for a network that takes a second for each
_PICTURES, _FEW_PICTURES, _MANY_PARAMETERS = 8, 2, 2_000_000


def equalise_channels(module: nn.Module) -> nn.Module:
    """A network of convolutions whose layers read channels that are nearer to one range; it computes the same.

    One step serves all channels of a tensor, so that those of small values get few levels. Half of the difference (the
    square root of each channel's share of the largest value, as in SmoothQuant, Xiao et al., ICML 2023, arXiv 2211.10438)
    goes into the weights. Where nothing but a PReLU or ReLU lies between two convolutions (Compact) the first one's
    outputs are scaled (Nagel et al., ICCV 2019, arXiv 1906.04721); elsewhere a `ChannelScale` precedes the convolution.
    The ranges are those of synthetic pictures. `module` maps RGB (1,3,H,W) in 0..1 to RGB. It is given back as it is
    where it has linear layers, cannot run on such pictures, or would compute something else.
    """
    if any(isinstance(m, nn.Linear | nn.MultiheadAttention) for m in module.modules()):
        return module
    parameters = sum(parameter.numel() for parameter in module.parameters())
    pictures = _dead_leaves(_PICTURES if parameters < _MANY_PARAMETERS else _FEW_PICTURES).split(1)
    try:
        equalised = copy.deepcopy(module)
        ranges, before = _channel_ranges(equalised, _feature_convolutions(equalised), pictures)
        if any(type(m).__name__ == "SRVGGNetCompact" for m in equalised.modules()):
            _scale_outputs(equalised, ranges)
        else:
            _scale_inputs(equalised, ranges)
        with torch.no_grad():
            after = equalised(pictures[0])
    except Exception:  # of a network that needs other pictures, or cannot be copied: it stays what it was
        return module
    return equalised if torch.allclose(after, before, rtol=1e-3, atol=1e-4) else module


def _feature_convolutions(module: nn.Module) -> dict[str, nn.Conv2d]:
    """Convolutions of all channels of a tensor that is no picture, by name; without those that have several names."""
    names = Counter(id(m) for _, m in module.named_modules(remove_duplicate=False))
    return {
        name: m
        for name, m in module.named_modules()
        if type(m) is nn.Conv2d and m.groups == 1 and m.in_channels > _PICTURE_CHANNELS and names[id(m)] == 1
    }


@torch.no_grad()
def _channel_ranges(
    module: nn.Module, layers: dict[str, nn.Conv2d], pictures: Sequence[Tensor]
) -> tuple[dict[str, Tensor], Tensor]:
    """The largest magnitude (C,) of every channel that each of `layers` reads, and what becomes of the first picture."""
    found: dict[str, Tensor] = {}

    def note(name: str, x: Tensor) -> None:
        largest = x.abs().amax((0, 2, 3))
        found[name] = torch.maximum(found[name], largest) if name in found else largest

    handles = [
        layer.register_forward_pre_hook(
            lambda _, args, kwargs, name=name: note(name, first_argument(args, kwargs)), with_kwargs=True
        )
        for name, layer in layers.items()
    ]
    try:
        results = [module(picture) for picture in pictures]
    finally:
        for handle in handles:
            handle.remove()
    return found, results[0]


def _factors(ranges: Tensor) -> Tensor:
    return (ranges / ranges.max().clamp_min(1e-12)).clamp_min(1e-3).sqrt()


@torch.no_grad()
def _scale_inputs(module: nn.Module, ranges: dict[str, Tensor]) -> None:
    for name, largest in ranges.items():
        layer, factors = module.get_submodule(name), _factors(largest)
        assert isinstance(layer, nn.Conv2d)
        layer.weight *= factors.reshape(1, -1, 1, 1)
        parent, _, leaf = name.rpartition(".")
        setattr(
            module.get_submodule(parent), leaf, nn.Sequential(ChannelScale(1 / factors), layer).train(layer.training)
        )


@torch.no_grad()
def _scale_outputs(module: nn.Module, ranges: dict[str, Tensor]) -> None:
    """For convolutions that follow one another."""
    previous: nn.Conv2d | None = None
    for name, layer in module.named_modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        if previous is not None and name in ranges:
            factors = _factors(ranges[name])
            layer.weight *= factors.reshape(1, -1, 1, 1)
            previous.weight /= factors.reshape(-1, 1, 1, 1)
            if previous.bias is not None:
                previous.bias /= factors
        previous = layer


def _dead_leaves(count: int, leaves: int = 400, side: int = 64, channels: int = 3) -> Tensor:
    """Pictures (count,channels,side,side) in 0..1, the same every time: their edges and sizes are those of photos.

    Leaves of random colour fall on one another, sizes by a power law (Lee, Mumford and Huang, IJCV 2001); half are discs.
    """
    generator = torch.Generator().manual_seed(0)
    row, column = torch.meshgrid(torch.arange(side).float(), torch.arange(side).float(), indexing="ij")
    pictures = torch.rand(count, channels, 1, 1, generator=generator).repeat(1, 1, side, side)
    least = (2 / (0.6 * side)) ** 2
    for picture in pictures:
        for _ in range(leaves):
            size, left, top, turn, shape, form, grey, wave = torch.rand(8, generator=generator)
            radius, angle = 2 / (size * (1 - least) + least).sqrt(), turn * torch.pi
            across = (column - left * side) * angle.cos() + (row - top * side) * angle.sin()
            along = (row - top * side) * angle.cos() - (column - left * side) * angle.sin()
            a, b = across.abs() / radius, along.abs() / (radius * (0.3 + 0.7 * shape))
            inside = torch.maximum(a, b) < 1 if form < 0.5 else a.square() + b.square() < 1
            colour = 0.7 * grey + 0.3 * torch.rand(channels, 1, 1, generator=generator)
            texture = 0.15 * form * torch.sin(3 * wave * across)
            picture.copy_(torch.where(inside, colour + texture, picture))
    pictures = pictures.clamp(0, 1)
    return (pictures + F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="reflect"), 3, 1)) / 2
