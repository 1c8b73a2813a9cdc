"""Everything that a recipe for video needs, loaded and tried out before the long work begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qsci_plugins.architectures.network import Network
from qsci_plugins.data.clips import SnapshotClips
from qsci_plugins.data.scenes import synthetic_scene
from qsci_plugins.data.sequences import read_sequence, sequences
from qsci_plugins.data.snapshot_files import read_mask
from qsci_plugins.data.snapshot_sources import (
    BUILTIN_SCENE,
    SnapshotSource,
    measured_through,
    open_source,
    source_paths,
)
from qsci_plugins.data.snapshots import SensorNoise, mixed_masks, random_mask, shifting_mask
from qsci_plugins.errors import UserError
from qsci_plugins.openvino.tiling import video_period
from qsci_plugins.pipeline.networks import load_recipe_video_network
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
from qsci_plugins.pipeline.video_forms import Scene
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.reading import expand
from qsci_plugins.recipes.schema import (
    BUILTIN_SCENES,
    DRAWN_MASKS,
    Clips,
    FloatVideoRecipe,
    VideoCalibration,
    VideoRecipe,
    VideoSet,
    VideoTraining,
)
from qsci_plugins.schemes.placement import Placement, place
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.shortcuts import SHORTCUTS, WithShortcut, add_shortcuts

__all__ = ["find_scenes", "load_networks", "open_scenes", "prepare", "prepare_training", "resolve"]


def load_networks(recipe: VideoRecipe | FloatVideoRecipe) -> Loaded:
    """The network of a recipe, with its shortcuts; UserError for one that enlarges images, and for a mask that is not there."""
    return _loaded(recipe, _clip_masks(recipe.clips).shape[1])


def prepare(recipe: VideoRecipe, data: Path | None, progress: Progress) -> Prepared:
    """Loads the network, the clips and the scenes, adds the shortcuts and runs the network once on a small measurement.

    Raises UserError for whatever does not fit: weights, layers that `shortcuts` and `place` name, folders, masks, sizes.
    """
    masks = _clip_masks(recipe.clips)
    loaded = _loaded(recipe, masks.shape[1])
    network = loaded.float_network
    scheme = make_scheme(recipe.scheme)
    eight_bit = (*recipe.place.eight_bit, *((SHORTCUTS,) if recipe.shortcuts else ()))
    placement = Placement(tuple(recipe.place.targets), eight_bit, tuple(recipe.place.float_))
    place(loaded.network.module, placement)
    tile = recipe.export.openvino.tile
    check_sizes({"calibrate.patch": [recipe.calibrate.patch], "export.openvino.tile": tile}, network)
    if recipe.train is not None:
        _check_training(recipe.train, network)
        if recipe.train.gradient_checkpointing and recipe.backend == "nncf":
            raise UserError(
                "train.gradient_checkpointing does not see NNCF's hooks; use backend: brevitas, or leave it out"
            )
    overlap = tile_overlap(recipe.export.openvino, network, video_period((tile[0], tile[1])))
    source = _ClipSource(recipe.clips, masks, loaded.channels == 3, progress)
    batches = _calibration_inputs(source, recipe.calibrate)
    _try_out(loaded.network, batches[0])
    return Prepared(
        recipe,
        network,
        loaded.network,
        loaded.frames,
        sets=find_scenes(recipe.evaluate, masks.shape[1], loaded.channels == 3, data),
        examples=None if recipe.train is None else source.of_phases(recipe.train),
        scheme=scheme,
        placement=placement,
        batches=batches,
        overlap=overlap,
    )


def prepare_training(recipe: FloatVideoRecipe, data: Path | None, progress: Progress) -> Trainable:
    """Loads the network and the clips, and finds the scenes. Raises UserError for whatever does not fit."""
    masks = _clip_masks(recipe.clips)
    loaded = _loaded(recipe, masks.shape[1])
    network, color = loaded.network, loaded.channels == 3
    _check_training(recipe.train, network)
    clips = _ClipSource(recipe.clips, masks, color, progress).of_phases(recipe.train)
    scenes = find_scenes(recipe.evaluate, masks.shape[1], color, data)
    return Trainable(recipe, network, network, loaded.frames, sets=scenes, examples=clips)


def resolve(recipe: VideoRecipe) -> VideoRecipe:
    """The same recipe with absolute paths, which means the same from any working folder."""
    clips = recipe.clips
    folders = [path if path == BUILTIN_SCENES else absolute(path, "clips.folders") for path in clips.folders]
    sets = [
        item if item.mask is None else item.model_copy(update={"mask": _absolute_mask(item.mask, "evaluate.mask")})
        for item in absolute_sets(recipe.evaluate)
    ]
    update = {
        "model": absolute_model(recipe.model),
        "clips": clips.model_copy(update={"folders": folders, "mask": _absolute_mask(clips.mask, "clips.mask")}),
        "evaluate": sets,
    }
    return recipe.model_copy(update=update)


def _absolute_mask(mask: str, key: str) -> str:
    return mask if mask in DRAWN_MASKS else absolute(mask, key)


def _loaded(recipe: VideoRecipe | FloatVideoRecipe, frames: int) -> Loaded:
    network = load_recipe_video_network(recipe.model, recipe.seed)
    shortened = _with_shortcuts(network, recipe) if isinstance(recipe, VideoRecipe) else network
    return Loaded(recipe, network, shortened, frames)


def _with_shortcuts(network: Network, recipe: VideoRecipe) -> Network:
    if not recipe.shortcuts:
        return network
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(recipe.seed)
        module = add_shortcuts(network.module, recipe.shortcuts).eval()
        for part in module.modules():
            if isinstance(part, WithShortcut):
                for parameter in part.shortcut.parameters():
                    parameter.mul_(recipe.shortcut_start)
    return replace(network, module=module)


def _check_training(settings: VideoTraining, network: Network) -> None:
    for index, phase in enumerate(settings.phases):
        check_crop(f"train.phases.{index}.crop", phase.crop, network)
    check_batch(settings.batch)


def _try_out(network: Network, inputs: tuple[Tensor, ...]) -> None:
    side = -(-16 // network.size_multiple) * network.size_multiple
    small = [part[:1, ..., :side, :side] for part in inputs]
    mask = small[1]
    expected = tuple(mask.shape) if network.channels == 1 else (1, 3, *mask.shape[1:])
    try_out(network, small, expected, f"a measurement through a mask {tuple(mask.shape)}")


#: the built-in scenes: how many, and how long, high and wide they are
_SCENES, _LENGTH, _SIDE = 12, 16, 192


class _ClipSource:
    """The sequences of a recipe's `clips`, in memory, and its masks (K,T,H,W); `clips` cuts training clips out of them.

    Raises UserError where a folder or a sequence long enough is missing.
    """

    def __init__(self, settings: Clips, masks: np.ndarray, color: bool, progress: Progress) -> None:
        self._settings = settings
        self._masks = masks
        self._sequences = _sequences(settings, color, masks.shape[1], progress)

    def clips(self, patch: int, key: str, frames: int | None = None) -> SnapshotClips:
        """Random clips of `patch` pixels, of the first `frames` frames of the mask; `key` is what an error names."""
        settings = self._settings
        noisy = settings.gaussian or settings.photons is not None
        noise = SensorNoise(settings.photons, settings.gaussian) if noisy else None
        if frames is not None and frames > self._masks.shape[1]:
            raise UserError(f"{key}: the mask has {self._masks.shape[1]} frames, not {frames}")
        try:
            return SnapshotClips(
                self._sequences,
                self._masks[:, :frames],
                patch,
                resize=settings.resize,
                noise=noise,
                exposure=settings.exposure,
            )
        except UserError as error:
            raise UserError(f"{key}: {error}") from None

    def of_phases(self, settings: VideoTraining) -> list[SnapshotClips]:
        """The clips of every phase of a training."""
        return [
            self.clips(phase.crop, f"train.phases.{index}", phase.frames) for index, phase in enumerate(settings.phases)
        ]


def _calibration_inputs(source: _ClipSource, settings: VideoCalibration) -> list[tuple[Tensor, ...]]:
    """Batches (measurement, mask, mask_sum) for the quantizers to look at."""
    drawn = source.clips(settings.patch, "calibrate.patch").draw(settings.seed, 0, settings.count)
    return list(zip(*(part.split(settings.batch) for part in drawn[:3]), strict=True))


def find_scenes(
    sets: Sequence[VideoSet], frames: int, color: bool, data: Path | None = None, only: Sequence[str] | None = None
) -> list[PieceSet]:
    """The scenes of every set, then those below `data` as a set of the folder's name; with `only`, exactly those named.

    `only` names sets of the recipe, builtin, folders in `data`, and paths of folders. Scenes made here or of video files go
    through a random mask of `frames` frames. Raises UserError for a folder that is not there or holds nothing, for a scene
    without true frames to measure by, and for one in `data` of another number of frames in a measurement.
    """
    if data is not None and not data.is_dir():
        raise UserError(f"the data folder {data} does not exist")
    named = {item.name: (index, item) for index, item in enumerate(sets)}
    found: dict[str, PieceSet] = {}
    for name in named if only is None else only:
        if name not in named:
            pieces = _chosen_set(name, frames, color, data)
            found[pieces.name] = pieces
            continue
        index, item = named[name]
        try:
            folder = name if item.folder is None else expand(item.folder, f"evaluate.{index}.folder")
            sources = open_scenes(folder, frames, color)
            if item.mask is not None:
                sources = [other for source in sources for other in _behind_others(source, item.mask)]
            scenes = [Scene(source, item.measurements) for source in sources]
        except UserError as error:
            raise UserError(f"evaluate.{index}: {error}") from None
        found[name] = PieceSet(name, scenes)
    if only is None and data is not None and data.name not in found:
        found[data.name] = _fitting_set(data.name, data, frames, color)
    return list(found.values())


def _chosen_set(name: str, frames: int, color: bool, data: Path | None) -> PieceSet:
    """The built-in scene, a folder in `data`, or one that is named by its path."""
    if name == BUILTIN_SCENE:
        return _fitting_set(name, name, frames, color)
    if (own := Path(name).expanduser()).name != name and own.is_dir():
        return _fitting_set(own.resolve().name, own, frames, color)
    if data is not None and (data / name).is_dir():
        return _fitting_set(name, data / name, frames, color)
    there = [] if data is None else sorted(path.name for path in data.iterdir() if path.is_dir())
    known = f"; there are {', '.join([*there, BUILTIN_SCENE])}"
    raise UserError(f"there is no set {name!r} in the recipe's evaluate or in the folder of --data{known}")


def _fitting_set(name: str, place: str | Path, frames: int, color: bool) -> PieceSet:
    scenes = open_scenes(place, frames, color)
    for scene in scenes:
        if len(scene.mask) != frames:
            raise UserError(
                f"{scene.name} has {len(scene.mask)} frames in one measurement, the network {frames}; give --data a"
                " folder of scenes with as many"
            )
    return PieceSet(name, [Scene(scene) for scene in scenes])


def open_scenes(place: str | Path, frames: int, color: bool) -> list[SnapshotSource]:
    """The built-in scene, or those in a folder, as `find_scenes` has them."""
    scenes = [open_source(path, frames=frames, color=color) for path in source_paths([place])]
    for scene in scenes:
        first = next(iter(scene.pairs()), None)
        if first is None or first[1] is None:
            raise UserError(f"{scene.name} has no true frames to measure by; a .mat file has them as `orig`")
    return scenes


#: the seed of masks that are drawn to measure behind, which no training draws
_UNSEEN = 1000


def _behind_others(source: SnapshotSource, mask: str) -> list[SnapshotSource]:
    """The scene behind the mask of a set; behind each of several, numbered from 1."""
    masks = _masks(mask, "mask", source.mask.shape, _UNSEEN)
    names = [source.name] if len(masks) == 1 else [f"{source.name}_{number + 1}" for number in range(len(masks))]
    return [measured_through(chosen, source, name) for chosen, name in zip(masks, names, strict=True)]


def _clip_masks(settings: Clips) -> np.ndarray:
    return _masks(settings.mask, "clips.mask", (settings.frames, settings.size, settings.size))


def _masks(mask: str, key: str, shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """The masks (K,T,H,W) that `mask` under `key` of a recipe stands for, drawn of `shape` (T,H,W) or read."""
    count, height, width = shape
    if draw := {"random": random_mask, "shifting": shifting_mask, "mixed": mixed_masks}.get(mask):
        return draw(count, height, width, seed).reshape(-1, count, height, width)
    file = expand(mask, key)
    try:
        return read_mask(file)[None]
    except UserError as error:
        raise UserError(f"{key}: {error}") from None


def _sequences(settings: Clips, color: bool, frames: int, progress: Progress) -> list[np.ndarray]:
    if settings.folders == [BUILTIN_SCENES]:
        length = max(_LENGTH, 2 * frames)
        with progress.stage("making scenes", _SCENES) as advance:
            scenes = []
            for seed in range(_SCENES):
                scenes.append(synthetic_scene(length, _SIDE, _SIDE, seed, color=color, part="calibration"))
                advance(seed + 1)
        return scenes
    paths = [path for folder in settings.folders for path in _found(folder)]
    with progress.stage("reading sequences", len(paths)) as advance:
        read = []
        for number, path in enumerate(paths, 1):
            read.append(read_sequence(path, color=color, downsize=settings.downsize))
            advance(number)
    return read


def _found(folder: str) -> list[Path]:
    path = expand(folder, "clips.folders")
    try:
        return sequences(path)
    except UserError as error:
        raise UserError(f"clips.folders: {error}") from None
