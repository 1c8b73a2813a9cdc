"""What the rest of the package needs to know about a loaded network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

__all__ = ["Network", "Task", "keep_inputs", "repeated_blocks"]

#: "sr": image super-resolution; "sci": video reconstruction from a snapshot measurement
Task = Literal["sr", "sci"]


@dataclass
class Network:
    """A float network in eval mode, and how to use it.

    `module` maps RGB (N,3,H,W) in 0..`value_range` to (N,3,scale*H,scale*W) in the same range (task "sr"),
    or measurement (N,H,W), mask (N,T,H,W) and mask_sum (N,H,W) to video in 0..1 (task "sci"). Neither
    clamps its output.

    >>> import qsci_plugins
    >>> network = qsci_plugins.load_network("edsr", None, 2, blocks=2, width=8)
    >>> network.architecture, network.scale, network.value_range, network.blocks
    ('edsr', 2, 255.0, ['body.0', 'body.1'])
    """

    module: nn.Module
    architecture: str
    scale: int
    value_range: float
    channels: int = 3
    #: names of the repeated blocks, first to last, whose outputs distillation compares
    blocks: list[str] = field(default_factory=list)
    task: Task = "sr"
    #: the hyper-parameters, read from tensors or given
    settings: dict[str, Any] = field(default_factory=dict)
    #: the input's height and width must be multiples of this,
    size_multiple: int = 1
    #: at least this,
    size_minimum: int = 1
    #: and equal
    square: bool = False
    #: whether an image may be cut into tiles; False where the network's statistics are those of the whole image
    tiling: bool = True
    #: what it removes from images, with which it is then calibrated; "" for nothing that is known
    removes: Literal["", "noise", "jpeg"] = ""
    #: which of several state dicts in its file the weights are, such as "params_ema"; empty where there was but one
    origin: str = ""
    #: whether it takes several images at once
    batches: bool = True
    #: how many input pixels away an output pixel still looks; None where attention or unknown code decides
    receptive_radius: int | None = None

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """The smallest height and width that the network takes and that are no smaller than these, in pixels."""
        multiple = self.size_multiple
        sides = [-(-max(side, self.size_minimum) // multiple) * multiple for side in (height, width)]
        return (max(sides), max(sides)) if self.square else (sides[0], sides[1])

    def grey_image(self, side: int) -> Tensor:
        """A grey image (1,channels,S,S) to try the network on, S being the smallest valid side from `side` on, in pixels."""
        valid, _ = self.valid_size(side, side)
        return torch.full((1, self.channels, valid, valid), self.value_range / 2)

    def sizes(self) -> str:
        """What `valid_size` demands, in words; empty where any size will do."""
        parts = [f"multiples of {self.size_multiple}"] if self.size_multiple > 1 else []
        parts += [f"at least {self.size_minimum}"] if self.size_minimum > self.size_multiple else []
        return " and ".join([*parts, *(["equal sides"] if self.square else [])])


def keep_inputs(module: nn.Module) -> nn.Module:
    """The same module, which from here on gets copies of its inputs: RCAN, for one, scales an image in place."""
    module.register_forward_pre_hook(_copied)
    return module


def _copied(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(given.clone() if isinstance(given, Tensor) else given for given in inputs)


def repeated_blocks(module: nn.Module) -> list[str]:
    """Names of the largest family of like composite submodules under one parent, nearest to the root.

    These are the blocks of a network that nobody described: `layers.0` .. `layers.5` of a SwinIR, `block_1`
    .. `block_6` of a SPAN. Empty where no parent has two of a kind.
    """
    families: list[list[str]] = []
    for parent_name, parent in module.named_modules():
        kinds: dict[type, list[str]] = {}
        for name, child in parent.named_children():
            composite = next(child.children(), None) is not None and next(child.parameters(), None) is not None
            if composite and not isinstance(child, (nn.Sequential, nn.ModuleList)):
                kinds.setdefault(type(child), []).append(f"{parent_name}.{name}" if parent_name else name)
        families += [names for names in kinds.values() if len(names) > 1]
    if not families:
        return []
    shallowest = min(family[0].count(".") for family in families)
    # the children of a list lie one name deeper than attributes of the same parent: both count as equally
    # near
    near = [family for family in families if family[0].count(".") <= shallowest + 1]
    return max(near, key=len)
