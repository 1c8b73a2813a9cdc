"""What preparing a recipe asks of images and video alike: paths, sizes, tiles, and a network that works."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from qsci_plugins.architectures.network import Network
from qsci_plugins.errors import UserError
from qsci_plugins.openvino.tiling import smallest_tile
from qsci_plugins.pipeline.output import process_count
from qsci_plugins.pipeline.task import Prepared, Trainable
from qsci_plugins.recipes.reading import expand
from qsci_plugins.recipes.schema import Model
from qsci_plugins.schemes.scheme import inputs_of

__all__ = [
    "absolute",
    "absolute_model",
    "absolute_sets",
    "check_batch",
    "check_crop",
    "check_sizes",
    "fingerprints",
    "tile_overlap",
    "try_out",
]


def absolute(path: str, key: str) -> str:
    """A recipe's path from the root, its $VARIABLES expanded; `key` is what an error names."""
    return str(expand(path, key).absolute())


def absolute_model(model: Model) -> Model:
    """The section with an absolute path to its weights."""
    if model.weights is None or model.weights.startswith("builtin:"):
        return model
    return model.model_copy(update={"weights": absolute(model.weights, "model.weights")})


def absolute_sets(evaluate: Sequence[Any]) -> list[Any]:
    """The `evaluate` of a recipe with absolute folders."""
    return [
        item if item.folder is None else item.model_copy(update={"folder": absolute(item.folder, "evaluate.folder")})
        for item in evaluate
    ]


def check_sizes(sizes: Mapping[str, Sequence[int]], network: Network) -> None:
    """Raises UserError for sides, by the key that they stand under, which the network does not take."""
    for key, sides in sizes.items():
        height, width = network.valid_size(sides[0], sides[-1])
        if (height, width) != (sides[0], sides[-1]):
            nearest = [height, width] if len(sides) > 1 else [height]
            raise UserError(f"{key} is {sides}, but {network.architecture} needs {network.sizes()}, such as {nearest}")


def check_crop(key: str, side: int, network: Network) -> None:
    """Raises UserError for training examples of a size which the network does not take."""
    if network.valid_size(side, side) != (side, side):
        valid = network.valid_size(side, side)[0]
        raise UserError(f"{key} is {side}; {network.architecture} needs {network.sizes()}, such as {valid}")


def check_batch(batch: int) -> None:
    """Raises UserError for a batch of training that the processes of this run cannot share."""
    if batch % process_count():
        raise UserError(
            f"train.batch is {batch}, which {process_count()} processes cannot share equally; make it a multiple"
        )


def tile_overlap(settings: Any, network: Network, period: int = 1) -> int:
    """Context around the tiles of the exported network, in its input pixels, by a recipe's `export.openvino`.

    Wide enough that tiles agree, where that leaves a tile a middle of its own; `period` is what the places of tiles are
    multiples of. Raises UserError where the recipe asks for more, or the tile has no middle at all.
    """
    wanted = settings.overlap or 0
    room = smallest_tile(0, multiple=period)
    most = (min(settings.tile) - room) // 2
    if most < wanted and (settings.overlap is not None or settings.mode != "none"):
        raise UserError(
            f"export.openvino.overlap is {wanted}, which needs tiles of {2 * wanted + room} pixels or more,"
            f" not {settings.tile}"
        )
    if settings.overlap is not None:
        return int(settings.overlap)
    limit = max(0, min(most, min(settings.tile) // 4))
    return limit if network.receptive_radius is None else min(network.receptive_radius, limit)


def fingerprints(trainable: Trainable) -> dict[str, str]:
    """By key of the recipe what a run begins with: the network's tensors, the calibration inputs, the training's folders.

    Of folders the names, sizes and times of their files.
    """
    found = {"model.weights": _digest(trainable.network.module.state_dict().values())}
    if isinstance(trainable, Prepared):
        tensors = [tensor for batch in trainable.batches for tensor in inputs_of(batch)]
        # to a tenth of a grey level, as another processor may round otherwise
        tenth = 2550 / trainable.network.value_range
        found["calibrate.images"] = _digest((tensor * tenth).round().to(torch.int32) for tensor in tensors)
    recipe = trainable.recipe
    if recipe.train is not None:
        data = getattr(recipe, "data", None) or getattr(recipe.train, "data", [])
        folders = [*(item.path for item in data), *getattr(getattr(recipe, "clips", None), "folders", [])]
        paths = [expand(folder, "data") for folder in folders if not folder.startswith("builtin:")]
        files = [file for path in paths for file in sorted(path.rglob("*")) if file.is_file()]
        listing = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        found["train.data"] = hashlib.sha256(json.dumps(listing).encode()).hexdigest()
    return found


def _digest(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


@torch.no_grad()
def try_out(
    network: Network, inputs: Sequence[Tensor], expected: Sequence[int], described: str, hint: str = ""
) -> None:
    """Runs the network once on a small input. Raises UserError where it fails, or makes another shape than `expected`.

    `described` says what it is given, `hint` what may be wrong with another shape.
    """
    name = network.architecture
    try:
        output = network.module(*inputs)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"model: {name} fails on {described}: {reason}") from error
    if not isinstance(output, Tensor) or tuple(output.shape) != tuple(expected):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f"model: {name} makes {got} of {described}, not {tuple(expected)}{hint}")
    if not torch.isfinite(output).all():
        raise UserError(f"model: {name} makes NaN or infinite pixels; its weights are damaged")
