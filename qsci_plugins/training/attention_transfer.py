"""Attention maps of a network's features, by which CADyQ's student follows its teacher."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.schemes.placement import first_argument
from qsci_plugins.schemes.sites import find_sites

__all__ = ["FeatureMaps", "FeatureSites", "attention_distance", "attention_map", "feature_sites"]


def attention_map(feature: Tensor) -> Tensor:
    """normalize(mean_c x^2): where a feature (N,C,H,W) is strong, (N,H*W), of unit length."""
    return F.normalize(feature.float().square().mean(1).flatten(1), dim=1)


def attention_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of two attention maps."""
    return (student - teacher).square().mean()


class FeatureSites:
    """Which features are compared: of `blocks` what they add to their input where that is True, else their output.

    `upsampler` is the module whose input is the last feature; None: the network has none.
    """

    def __init__(self, blocks: Mapping[str, bool], upsampler: str | None) -> None:
        self.blocks = dict(blocks)
        self.upsampler = upsampler


@torch.no_grad()
def feature_sites(model: nn.Module, blocks: Collection[str], layers: Collection[str], example: Tensor) -> FeatureSites:
    """The sites of a float network: `blocks` and quantized `layers` by name, `example` (N,C,H,W) an input.

    The published code compares what the last layer of a residual block makes, before the skip is added.
    """
    residual = find_sites(model, example, layers).blocks
    return FeatureSites({name: name in residual for name in blocks}, _upsampler(model, example))


def _upsampler(model: nn.Module, example: Tensor) -> str | None:
    """The outermost module that enlarges something else than the image itself."""
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            given = first_argument(args, kwargs)
            if given is example or not isinstance(given, Tensor) or not isinstance(output, Tensor):
                return
            if given.dim() == output.dim() == 4 and output.shape[-1] > given.shape[-1]:
                found.append(name)

        return hook

    handles = [
        module.register_forward_hook(look(name), with_kwargs=True) for name, module in model.named_modules() if name
    ]
    try:
        model(example)
    finally:
        for handle in handles:
            handle.remove()
    return min(found, key=lambda name: name.count("."), default=None)


class FeatureMaps:
    """Collects the attention maps of a network at `sites` while it runs: the last feature's, then the blocks'."""

    def __init__(self, model: nn.Module, sites: FeatureSites) -> None:
        self._kept: list[tuple[Tensor, Tensor | None]] = []
        self._last: Tensor | None = None
        self._handles = [
            model.get_submodule(name).register_forward_hook(
                self._keep_block if residual else self._keep_output, with_kwargs=True
            )
            for name, residual in sites.blocks.items()
        ]
        if sites.upsampler is not None:
            upsampler = model.get_submodule(sites.upsampler)
            self._handles.append(upsampler.register_forward_pre_hook(self._keep_last, with_kwargs=True))

    def _keep_block(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        self._kept.append((output, first_argument(args, kwargs)))

    def _keep_output(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        self._kept.append((output, None))

    def _keep_last(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._last = first_argument(args, kwargs)

    def take(self) -> tuple[Tensor | None, list[Tensor]]:
        """(last feature's map or None, blocks' maps) since the last call."""
        last = None if self._last is None else attention_map(self._last)
        maps = [attention_map(y if x is None else y.float() - x.float()) for y, x in self._kept]
        self._kept, self._last = [], None
        return last, maps

    def close(self) -> None:
        """Leaves the network as it was."""
        for handle in self._handles:
            handle.remove()
