"""A recipe for a network that has none: quantizers go where the network's own calls show layers."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from qsci_plugins.architectures.network import Network
from qsci_plugins.errors import UserError
from qsci_plugins.recipes.reading import make_recipe
from qsci_plugins.recipes.schema import BUILTIN_PHOTOS, Recipe
from qsci_plugins.schemes.placement import called_layers
from qsci_plugins.schemes.registry import static_settings

__all__ = ["at_bits", "network_recipe", "pattern_name"]

#: calibration pixels: so many patches of so many pixels a side, fewer where the network wants larger ones
_COUNT, _PATCH, _BATCH = 64, 64, 16

#: height and width of the exported tile, where the network takes them
_TILE = (180, 320)

#: the channels of a picture, at most
_COLOURS = 4

#: the side of a tile of a network that takes only squares
_SQUARE = 192


def network_recipe(
    network: Network,
    model: Mapping[str, Any],
    *,
    bits: int = 8,
    backend: str = "nncf",
    images: Sequence[str] = (BUILTIN_PHOTOS,),
    evaluate: Sequence[Mapping[str, Any]] = (),
    seed: int = 0,
) -> Recipe:
    """The recipe of static quantizers, `bits` wide, on every layer that the network calls; its first and last get 8 bits.

    Layers that only scale and shift the channels of a picture stay float, and those that read the same for every picture.

    `model` is the recipe's section that `network` came from. `images` are those to calibrate on: the built-in photos,
    which are made smaller by the network's scale, or files and folders of what the network is given. Raises UserError for
    a network of which no layer can be quantized.
    """
    called = [name for name, reads in called_layers(network.module, network.grey_image(_PATCH)).items() if reads]
    shifts = [name for name in called if _only_scales(network.module.get_submodule(name))]
    layers = [name for name in called if name not in shifts]
    if not layers:
        raise UserError(f"{model.get('weights')}: {network.architecture} calls no convolution or linear layer")
    patch = max(network.valid_size(_PATCH, _PATCH))
    count = max(4, _COUNT * _PATCH**2 // patch**2)
    tile = network.valid_size(_SQUARE, _SQUARE) if network.square else network.valid_size(*_TILE)
    recipe = make_recipe(
        {
            "version": 1,
            "model": dict(model),
            "backend": backend,
            "scheme": static_settings(bits),
            "place": {"targets": ["*"], "eight_bit": _patterns([layers[0], layers[-1]]), "float": _patterns(shifts)},
            "calibrate": {
                "images": list(images),
                "count": count,
                "patch": patch,
                "batch": min(_BATCH, count),
                "seed": seed,
                "degrade": list(images) == [BUILTIN_PHOTOS],
            },
            "evaluate": [dict(entry) for entry in evaluate],
            "export": {"openvino": {"mode": "static", "tile": list(tile)}},
            "seed": seed,
        }
    )
    assert isinstance(recipe, Recipe)
    return recipe


def at_bits(recipe: Recipe, bits: int, raised: Iterable[str] = (), left: Iterable[str] = ()) -> Recipe:
    """The recipe of `network_recipe` at other bits; layers that are `raised` get 8, those that are `left` stay float."""
    place = recipe.place
    update = {
        "eight_bit": _patterns([*map(pattern_name, place.eight_bit), *raised]),
        "float_": _patterns([*map(pattern_name, place.float_), *left]),
    }
    # read anew, as the scheme's defaults depend on its bits
    values = recipe.model_copy(update={"place": place.model_copy(update=update)}).model_dump(by_alias=True)
    changed = make_recipe({**values, "scheme": static_settings(bits)})
    assert isinstance(changed, Recipe)
    return changed


def _patterns(names: Iterable[str]) -> list[str]:
    return [glob.escape(name) for name in dict.fromkeys(names)]


def pattern_name(pattern: str) -> str:
    """The layer that a pattern of these recipes names."""
    return pattern.replace("[[]", "[").replace("[*]", "*").replace("[?]", "?")


def _only_scales(layer: nn.Module) -> bool:
    """Whether a layer keeps the colours of a picture apart, as the one that subtracts the mean of a data set does."""
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    if not isinstance(layer, nn.Conv2d) or weight.shape[0] > _COLOURS or weight.shape[0] != weight[0].numel():
        return False
    square = weight.detach().reshape(weight.shape[0], -1)
    return bool((square == torch.diag(square.diagonal())).all())
