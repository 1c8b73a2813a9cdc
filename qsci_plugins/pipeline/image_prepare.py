"""Everything that a recipe for images needs, loaded and tried out before the long work begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from qsci_plugins.data.folders import find_images
from qsci_plugins.data.photos import builtin_photos, calibration_patches, calibration_tiles, damaged
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.benchmark import BenchmarkImage, BenchmarkSet, find_set
from qsci_plugins.pipeline.networks import load_recipe_network
from qsci_plugins.pipeline.prepare import (
    absolute,
    absolute_model,
    absolute_sets,
    check_batch,
    check_crop,
    check_sizes,
    tile_overlap,
    try_out,
)
from qsci_plugins.pipeline.task import Loaded, PieceSet, Prepared, Trainable
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.reading import expand
from qsci_plugins.recipes.schema import BUILTIN_PHOTOS, Benchmark, Calibration, FloatRecipe, Recipe
from qsci_plugins.schemes.content import InputModule, image_gradient
from qsci_plugins.schemes.placement import Placement, place
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork
from qsci_plugins.training.settings import Folder, LabelledTraining, Training

if TYPE_CHECKING:
    from qsci_plugins.architectures.network import Network
    from qsci_plugins.data.patches import PatchPairs

__all__ = [
    "STANDARD_SETS",
    "ImagePiece",
    "find_sets",
    "fit_thresholds",
    "load_networks",
    "pieces_of",
    "prepare",
    "prepare_training",
    "resolve",
]


@dataclass(frozen=True)
class ImagePiece:
    """An image and the set that it is of."""

    image: BenchmarkImage
    images: BenchmarkSet


def pieces_of(images: BenchmarkSet) -> PieceSet:
    """A set with its images as pieces."""
    return PieceSet(images.name, [ImagePiece(image, images) for image in images.images])


def load_networks(recipe: Recipe | FloatRecipe) -> Loaded:
    """The network of a recipe; UserError for one that reconstructs video."""
    network = load_recipe_network(recipe.model, recipe.seed)
    if network.task != "sr":
        does = "calibrates" if isinstance(recipe, Recipe) else "trains"
        other = "efficientsci_t_qsci_w4a4" if isinstance(recipe, Recipe) else "efficientsci_small"
        raise UserError(
            f"model: {network.architecture} reconstructs video, and this recipe {does} on images; give one with"
            f" `clips`, such as {other}"
        )
    return Loaded(recipe, network, network)


def _say_origin(network: Network, progress: Progress) -> None:
    if network.origin:
        progress.note(f"weights: {network.origin} of the checkpoint")


def prepare(recipe: Recipe, data: Path | None, progress: Progress) -> Prepared:
    """Loads the network and the images, finds the sets, and runs the network once on a small input.

    Raises UserError for whatever does not fit: weights, layers that `place` names, folders, sets, sizes.
    """
    with progress.stage("preparing", 1) as advance:
        network = load_networks(recipe).network
        _say_origin(network, progress)
        scheme = make_scheme(recipe.scheme)
        placement = Placement(tuple(recipe.place.targets), tuple(recipe.place.eight_bit), tuple(recipe.place.float_))
        place(network.module, placement)
        if scheme.skips_blocks and recipe.export.openvino.mode in ("static", "dynamic"):
            raise UserError(
                f"export.openvino.mode: {recipe.export.openvino.mode} writes one graph for all tiles, and"
                " scheme.skip_share has smooth ones skip blocks; take routed, or none"
            )
        if isinstance(recipe.train, LabelledTraining):
            if recipe.train.trains not in (None, scheme.config.name):
                raise UserError(
                    f"train.schedule: {recipe.train.schedule} trains {recipe.train.trained_parts}; the scheme"
                    f" {scheme.config.name!r} has none; take schedule joint or published"
                )
            check_crop("train.patch", recipe.train.patch, network)
        if recipe.train is not None:
            check_batch(recipe.train.batch)
        sizes = {"calibrate.patch": [recipe.calibrate.patch], "export.openvino.tile": recipe.export.openvino.tile}
        if recipe.inference is not None:
            sizes["inference.patch"] = [recipe.inference.patch]
        check_sizes(sizes, network)
        sets = find_sets(recipe.evaluate, data, network.scale)
        overlap = tile_overlap(recipe.export.openvino, network)  # before any work
        small = network.grey_image(min(recipe.calibrate.patch, _TRIED))
        side = small.shape[-1]
        expected = (1, network.channels, side * network.scale, side * network.scale)
        try_out(network, [small], expected, f"a {side}x{side} image", "; is model.scale right?")
        period = _period(recipe, network, progress)
        if period > 1:
            overlap = tile_overlap(recipe.export.openvino, network, period)
        patches = _patches(recipe.calibrate, network) * (network.value_range / 255)
        advance(1)
    examples = None
    if isinstance(recipe.train, LabelledTraining):
        examples = _pairs(recipe.train.data, "train.data", network.scale, recipe.train.patch, progress)
    return Prepared(
        recipe,
        network,
        network,
        sets=[pieces_of(images) for images in sets],
        examples=examples,
        scheme=scheme,
        placement=placement,
        batches=list(patches.split(recipe.calibrate.batch if network.batches else 1)),
        overlap=overlap,
        period=period,
    )


def _period(recipe: Recipe, network: Network, progress: Progress) -> int:
    """What the places of tiles are multiples of; a network whose receptive radius is known neither strides nor has windows."""
    if network.receptive_radius is not None or recipe.export.openvino.mode == "none":
        return 1
    from qsci_plugins.pipeline.tile_period import find_period

    found = find_period(network, recipe.export.openvino.tile)
    if found.note:
        progress.note(f"tiles: {found.note}")
    return found.period


def prepare_training(recipe: FloatRecipe, data: Path | None, progress: Progress) -> Trainable:
    """Loads the network and the photos, and finds the sets. Raises UserError for whatever does not fit."""
    network = load_networks(recipe).network
    check_crop("train.patch", recipe.train.patch, network)
    check_batch(recipe.train.batch)
    sets = [pieces_of(images) for images in find_sets(recipe.evaluate, data, network.scale)]
    pairs = _pairs(recipe.data, "data", network.scale, recipe.train.patch, progress)
    return Trainable(recipe, network, network, sets=sets, examples=pairs)


def resolve(recipe: Recipe) -> Recipe:
    """The same recipe with absolute paths, which means the same from any working folder."""
    calibrate = recipe.calibrate
    images = [path if path == BUILTIN_PHOTOS else absolute(path, "calibrate.images") for path in calibrate.images]
    update = {
        "model": absolute_model(recipe.model),
        "calibrate": calibrate.model_copy(update={"images": images}),
        "evaluate": absolute_sets(recipe.evaluate),
        "train": _resolved_training(recipe.train),
    }
    return recipe.model_copy(update=update)


def _resolved_training(train: Training | None) -> Training | None:
    if not isinstance(train, LabelledTraining):
        return train
    data = [
        folder.model_copy(update={"path": absolute(folder.path, f"train.data.{index}.path")})
        for index, folder in enumerate(train.data)
    ]
    return train.model_copy(update={"data": data})


def _pairs(folders: Sequence[Folder], key: str, scale: int, patch: int, progress: Progress) -> PatchPairs:
    """Training patches of the folders' photos; `key` is where the folders stand in the recipe."""
    from qsci_plugins.data.patches import PatchPairs

    found = []
    for index, folder in enumerate(folders):
        path = expand(folder.path, f"{key}.{index}.path")
        try:
            find_images(path)
        except UserError as error:
            raise UserError(f"{key}.{index}.path: {error}") from None
        found.append((path, folder.stride))
    with progress.stage("reading photos", 1) as advance:
        return PatchPairs.from_folders(found, scale, patch, on_file=lambda done, total: advance(done, total=total))


#: side of the image that a network is tried on, where patches are not smaller
_TRIED = 64
#: tiles that image thresholds are fitted to
_TILES = 50


def fit_thresholds(prepared: Prepared, quantized: QuantizedNetwork) -> None:
    """Has the image thresholds of calibrated patches follow the size of what is asked about them: tiles, or patches.

    Gradients of the calibration images are taken from patches and from tiles (of images smaller than a tile, the whole).
    """
    recipe, images = prepared.recipe, quantized.input_module
    calibrate, inference = recipe.calibrate, recipe.inference
    if (
        not isinstance(images, InputModule)
        or not quantized.scheme.thresholds_follow_size
        or quantized.thresholds() is None
    ):
        return
    tile = tuple(recipe.export.openvino.tile)
    if recipe.export.openvino.mode == "none" and inference is not None:
        tile = (inference.patch, inference.patch)
    tiles = calibration_tiles(
        _photos(calibrate), _TILES, tile, prepared.scale, calibrate.seed, degrade=calibrate.degrade
    )
    found = [image_gradient(torch.from_numpy(each.transpose(2, 0, 1)[None]).float())[0] for each in tiles]
    patches = [image_gradient(batch, quantized.value_range)[0] for batch in prepared.batches]
    images.follow_size(torch.cat(patches), torch.cat(found))


def _photos(calibrate: Calibration) -> list[np.ndarray | Path]:
    if calibrate.images == [BUILTIN_PHOTOS]:
        return [photo for _, photo in builtin_photos("calibration")]
    paths = [expand(path, "calibrate.images") for path in calibrate.images]
    try:
        return [file for path in paths for file in ([path] if path.is_file() else find_images(path))]
    except UserError as error:
        raise UserError(f"calibrate.images: {error}") from None


def _patches(calibrate: Calibration, network: Network) -> Tensor:
    photos = _photos(calibrate)
    chosen = (calibrate.count, calibrate.patch, network.scale, calibrate.seed)
    try:
        patches = calibration_patches(photos, *chosen, degrade=calibrate.degrade)
    except UserError as error:
        raise UserError(f"calibrate: {error}") from None
    if calibrate.degrade and network.removes:
        patches = damaged(patches, network.removes, calibrate.seed)
    return torch.from_numpy(patches).float()


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
