"""What spandrel does around a network's forward, as a module: the network then maps RGB to RGB like any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from spandrel import ImageModelDescriptor
from torch import Tensor, nn

from qsci_plugins.errors import UserError

__all__ = ["adapted", "fold_branches", "part_joined"]

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
