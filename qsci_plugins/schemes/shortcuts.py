"""Q-SCI's high-quality feature extraction (FEM) and precise reconstruction (VRM): an 8-bit branch beside a low-bit layer."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.errors import UserError
from qsci_plugins.schemes.lsq import LearnedStepWeight
from qsci_plugins.schemes.scheme import QuantizedNetwork

__all__ = ["SHORTCUTS", "WithShortcut", "add_shortcuts", "widen_shortcuts"]

#: what to give as `Placement.eight_bit`, so that the branches get 8 bits
SHORTCUTS = "*.shortcut"

_ACTIVATIONS = (nn.LeakyReLU, nn.ReLU, nn.PReLU, nn.GELU, nn.SiLU)


class WithShortcut(nn.Module):
    """y = act(layer(x)) + act(shortcut(x)), the shortcut a convolution of one tap, each branch with its own activation.

    Where the layer strides by s, the shortcut reads the s x s places side by side in the channels. Maps (N,C,H,W) or
    (N,C,T,H,W) as the layer does, also sizes that s does not divide. The shortcut starts as torch starts a convolution.
    """

    def __init__(self, layer: nn.Conv2d | nn.Conv3d, activation: nn.Module | None = None) -> None:
        super().__init__()
        *other, height, width = layer.stride
        if height != width or any(stride != 1 for stride in other):
            raise UserError(f"a shortcut needs one stride for height and width and none in time, got {layer.stride}")
        self.stride = height
        self.layer = layer
        self.activation = activation
        self.shortcut = type(layer)(layer.in_channels * height**2, layer.out_channels, 1).to(layer.weight)
        self.shortcut_activation = copy.deepcopy(activation)

    def forward(self, x: Tensor) -> Tensor:
        main, branch = self.layer(x), self.shortcut(self._side_by_side(x))
        if self.activation is None or self.shortcut_activation is None:
            return main + branch
        return self.activation(main) + self.shortcut_activation(branch)

    def _side_by_side(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            return x
        bottom, right = (-size % self.stride for size in x.shape[-2:])
        x = F.pad(x, (0, right, 0, bottom)) if bottom or right else x
        if x.dim() == 4:
            return F.pixel_unshuffle(x, self.stride)
        batch, channels, frames, height, width = x.shape
        # frame by frame, as exporters know no unshuffling of videos
        images = x.transpose(1, 2).reshape(batch * frames, channels, height, width)
        images = F.pixel_unshuffle(images, self.stride)
        return images.reshape(batch, frames, *images.shape[1:]).transpose(1, 2)


def add_shortcuts(model: nn.Module, layers: Sequence[str]) -> nn.Module:
    """A copy of a float network with a shortcut beside every convolution that the name patterns match.

    An activation that follows the convolution in its nn.Sequential goes into the branches. Where the network had layer
    `fem.0`, it now has `fem.0.layer` and `fem.0.shortcut`; quantize it with `eight_bit=(SHORTCUTS,)`. Raises UserError for
    a pattern that matches no 2-d or 3-d convolution.
    """
    model = copy.deepcopy(model)
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Conv3d)]
    for pattern in layers:
        if not any(fnmatchcase(name, pattern) for name in names):
            near = difflib.get_close_matches(pattern.replace("*", ""), names, 3, 0.0)
            raise UserError(f"shortcuts: no convolution is named {pattern!r}; the nearest are {', '.join(near)}")
    for name in names:
        if any(fnmatchcase(name, pattern) for pattern in layers):
            _replace(model, name)
    return model


@torch.no_grad()
def widen_shortcuts(network: QuantizedNetwork, factor: float) -> None:
    """Multiplies the learned weight steps of all shortcuts.

    Shortcuts that start small have to grow in training; a step fitted to their first weights would clip them long before
    it is learned. At 8 bits a step that is ten times too large still costs next to nothing.
    """
    for name, quantizers in network.layers.items():
        if fnmatchcase(name, SHORTCUTS) and isinstance(quantizers.weight, LearnedStepWeight):
            quantizers.weight.step *= factor


def _replace(model: nn.Module, name: str) -> None:
    parent_name, _, leaf = name.rpartition(".")
    parent = model.get_submodule(parent_name)
    layer, activation = getattr(parent, leaf), None
    if isinstance(parent, nn.Sequential):
        children = list(parent.named_children())
        position = [key for key, _ in children].index(leaf)
        following = children[position + 1 : position + 2]
        if following and isinstance(following[0][1], _ACTIVATIONS):
            activation = following[0][1]
            setattr(parent, following[0][0], nn.Identity())
    setattr(parent, leaf, WithShortcut(layer, activation))
