"""Everything that a quantization recipe needs, loaded and tried out before the long work begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qsci_plugins.architectures.network import Network
from qsci_plugins.data.folders import find_images
from qsci_plugins.data.photos import builtin_photos, calibration_patches
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.benchmark import BenchmarkSet, find_set
from qsci_plugins.openvino.tiling import smallest_tile
from qsci_plugins.pipeline.image_training import check_training
from qsci_plugins.pipeline.networks import load_recipe_network
from qsci_plugins.recipes.reading import expand
from qsci_plugins.recipes.schema import BUILTIN_PHOTOS, Benchmark, Calibration, Recipe
from qsci_plugins.schemes.placement import Placement, Precision, place
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import Scheme
from qsci_plugins.training.settings import CADyQTraining, FineTuning

__all__ = ["STANDARD_SETS", "Prepared", "find_sets", "prepare", "resolved", "tile_overlap"]


@dataclass(frozen=True)
class Prepared:
    """A recipe whose every part was found and fits together.

    `patches` are (count,3,patch,patch) low-resolution inputs in 0..value_range.
    """

    recipe: Recipe
    network: Network
    scheme: Scheme
    placement: Placement
    precisions: dict[str, Precision]
    patches: Tensor
    sets: list[BenchmarkSet]
    #: context around the tiles of the exported network, in its input pixels
    overlap: int

    @property
    def batches(self) -> list[Tensor]:
        """The patches in calibration batches."""
        return list(self.patches.split(self.recipe.calibrate.batch))


def prepare(recipe: Recipe, data: Path | None = None, only: Sequence[str] | None = None) -> Prepared:
    """Loads the network and the images, finds the sets, and runs the network once on a small input.

    Raises UserError for whatever does not fit: weights, layers that `place` names, folders, sets, sizes.
    """
    network = load_recipe_network(recipe.model, recipe.seed)
    if network.task != "sr":
        raise UserError(
            f"model: {network.architecture} reconstructs video, and this recipe calibrates on images; give one with"
            " `clips`, such as efficientsci_t_qsci_w4a4"
        )
    scheme = make_scheme(recipe.scheme)
    placement = Placement(tuple(recipe.place.targets), tuple(recipe.place.eight_bit), tuple(recipe.place.float_))
    precisions = place(network.module, placement)
    if isinstance(recipe.train, CADyQTraining):
        check_training(recipe.train, network, scheme)
    sets = find_sets(recipe.evaluate, data, network.scale, only)
    _check_sizes(recipe, network)
    overlap = tile_overlap(recipe, network)
    _try_out(network)
    patches = _patches(recipe.calibrate, network.scale) * (network.value_range / 255)
    return Prepared(recipe, network, scheme, placement, precisions, patches, sets, overlap)


def resolved(recipe: Recipe) -> Recipe:
    """The same recipe with absolute paths, which means the same from any working folder."""
    model, calibrate = recipe.model, recipe.calibrate
    if model.weights is not None and not model.weights.startswith("builtin:"):
        model = model.model_copy(update={"weights": _absolute(model.weights, "model.weights")})
    images = [one if one == BUILTIN_PHOTOS else _absolute(one, "calibrate.images") for one in calibrate.images]
    evaluate = [
        one if one.folder is None else one.model_copy(update={"folder": _absolute(one.folder, "evaluate.folder")})
        for one in recipe.evaluate
    ]
    calibrate = calibrate.model_copy(update={"images": images})
    update = {"model": model, "calibrate": calibrate, "evaluate": evaluate, "train": _resolved_training(recipe)}
    return recipe.model_copy(update=update)


def _resolved_training(recipe: Recipe) -> FineTuning | CADyQTraining | None:
    if not isinstance(recipe.train, CADyQTraining):
        return recipe.train
    data = [
        one.model_copy(update={"path": _absolute(one.path, f"train.data.{index}.path")})
        for index, one in enumerate(recipe.train.data)
    ]
    return recipe.train.model_copy(update={"data": data})


def _absolute(path: str, key: str) -> str:
    return str(expand(path, key).absolute())


def _check_sizes(recipe: Recipe, network: Network) -> None:
    multiple = network.size_multiple
    sizes = {"calibrate.patch": [recipe.calibrate.patch], "export.openvino.tile": recipe.export.openvino.tile}
    if recipe.inference is not None:
        sizes["inference.patch"] = [recipe.inference.patch]
    for key, sides in sizes.items():
        if any(side % multiple for side in sides):
            raise UserError(f"{key} is {sides}, but {network.architecture} needs multiples of {multiple}")


def tile_overlap(recipe: Recipe, network: Network) -> int:
    """Context around the tiles of the exported network, in its input pixels.

    Wide enough that tiles agree, where that does not leave a tile without a middle of its own.
    """
    settings = recipe.export.openvino
    if settings.overlap is not None:
        smallest = smallest_tile(settings.overlap)
        if min(settings.tile) < smallest:
            raise UserError(
                f"export.openvino.overlap is {settings.overlap}, which needs tiles of {smallest} pixels or more, "
                f"not {settings.tile}"
            )
        return settings.overlap
    limit = min(settings.tile) // 4
    return limit if network.receptive_radius is None else min(network.receptive_radius, limit)


@torch.no_grad()
def _try_out(network: Network) -> None:
    side = -(-16 // network.size_multiple) * network.size_multiple
    name = network.architecture
    try:
        output = network.module(torch.full((1, network.channels, side, side), network.value_range / 2))
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"model: {name} fails on a {side}x{side} image: {reason}") from error
    expected = (1, network.channels, side * network.scale, side * network.scale)
    if not isinstance(output, Tensor) or tuple(output.shape) != expected:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f"model: {name} makes {got} of a {side}x{side} image, not {expected}; is model.scale right?")
    if not torch.isfinite(output).all():
        raise UserError(f"model: {name} makes NaN or infinite pixels; its weights are damaged")


def _patches(calibrate: Calibration, scale: int) -> Tensor:
    photos: list[np.ndarray | Path]
    if calibrate.images == [BUILTIN_PHOTOS]:
        photos = [photo for _, photo in builtin_photos("calibration")]
    else:
        folders = [expand(one, "calibrate.images") for one in calibrate.images]
        try:
            photos = [file for folder in folders for file in find_images(folder)]
        except UserError as error:
            raise UserError(f"calibrate.images: {error}") from None
    chosen = (calibrate.count, calibrate.patch, scale, calibrate.seed)
    try:
        return torch.from_numpy(calibration_patches(photos, *chosen, degrade=calibrate.degrade)).float()
    except UserError as error:
        raise UserError(f"calibrate: {error}") from None


#: what is measured besides the recipe's own sets where the data folder has it
STANDARD_SETS = ("Set5", "Set14", "B100", "Urban100")


def find_sets(
    benchmarks: Sequence[Benchmark], data: Path | None, scale: int, only: Sequence[str] | None = None
) -> list[BenchmarkSet]:
    """The named sets, then the standard ones that `data` holds; with `only`, exactly those of `only`.

    Raises UserError for a set that is named and not there, and for one of another scale than the network's.
    """
    if data is not None and not data.is_dir():
        raise UserError(f"the data folder {data} does not exist")
    if only is not None:
        return [find_set(data, name, scale) for name in only]
    found: dict[str, BenchmarkSet] = {}
    for index, benchmark in enumerate(benchmarks):
        key = f"evaluate.{index}"
        if benchmark.scale not in (None, scale):
            raise UserError(f"{key}.scale is {benchmark.scale}, but the network's scale is {scale}; make them agree")
        folder = data if benchmark.folder is None else expand(benchmark.folder, f"{key}.folder")
        try:
            found[benchmark.name] = find_set(folder, benchmark.name, scale)
        except UserError as error:
            hint = "; give --data DIR" if folder is None else ""
            raise UserError(f"{key}: {error}{hint}") from None
    if data is not None:
        for name in STANDARD_SETS:
            if name not in found and any((data / place / name).is_dir() for place in ("", "benchmark", "sr/benchmark")):
                found[name] = find_set(data, name, scale)
    return list(found.values())
