"""What spandrel does around a network's forward, as a module: the network then maps RGB to RGB like any other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import torch
import torch.nn.functional as F
from spandrel import ImageModelDescriptor
from torch import Tensor, nn

from qsci_plugins.errors import UserError

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


@torch.no_grad()
def equalise_channels(model: nn.Module) -> None:
    """Brings the channels that convolutions read nearer to one range, in place; the network computes the same.

    One step serves all channels of a tensor, so that those of small values get few levels. Half of the difference (the
    square root of each channel's share of the largest value, as in SmoothQuant, Xiao et al., ICML 2023, arXiv 2211.10438)
    goes into the weights. Where nothing but a PReLU or ReLU lies between two convolutions (Compact) the first one's
    outputs are scaled (Nagel et al., ICCV 2019, arXiv 1906.04721); in SPAN a `ChannelScale` precedes the convolution.
    The ranges are those of synthetic pictures.
    """
    kind = type(model).__name__
    if kind not in ("SPAN", "SRVGGNetCompact"):
        return
    convolutions = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    channels = next(iter(convolutions.values())).in_channels
    ranges = _channel_ranges(model, convolutions.values(), channels)
    previous: nn.Conv2d | None = None
    for name, layer in convolutions.items():
        if previous is not None and layer in ranges:
            share = ranges[layer] / ranges[layer].max().clamp_min(1e-12)
            factors = share.clamp_min(1e-3).sqrt()
            layer.weight *= factors.reshape(1, -1, 1, 1)
            if kind == "SPAN":
                parent, _, leaf = name.rpartition(".")
                scaled = nn.Sequential(ChannelScale(1 / factors), layer).train(layer.training)
                setattr(model.get_submodule(parent), leaf, scaled)
            else:
                previous.weight /= factors.reshape(-1, 1, 1, 1)
                if previous.bias is not None:
                    previous.bias /= factors
        previous = layer


def _channel_ranges(model: nn.Module, layers: Iterable[nn.Module], channels: int) -> dict[nn.Module, Tensor]:
    """The largest magnitude (C,) of every channel that each of `layers` reads, of pictures with as many channels."""
    found: dict[nn.Module, Tensor] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        found[layer] = inputs[0].abs().amax((0, 2, 3))

    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        model(_dead_leaves(channels))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _dead_leaves(channels: int, count: int = 8, leaves: int = 400, side: int = 64) -> Tensor:
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
