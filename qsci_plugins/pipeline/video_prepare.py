"""Everything that a quantization recipe for video needs, loaded and tried out before the long work begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qsci_plugins.architectures.network import Network
from qsci_plugins.data.clips import SnapshotClips
from qsci_plugins.data.scenes import synthetic_scene
from qsci_plugins.data.sequences import read_sequence, sequences
from qsci_plugins.data.snapshot_files import read_mask
from qsci_plugins.data.snapshot_sources import SnapshotSource, open_source, source_paths
from qsci_plugins.data.snapshots import SensorNoise, random_mask
from qsci_plugins.errors import UserError
from qsci_plugins.openvino.tiling import smallest_tile, video_period
from qsci_plugins.pipeline.networks import load_recipe_video_network
from qsci_plugins.pipeline.output import process_count
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.reading import expand
from qsci_plugins.recipes.schema import BUILTIN_SCENES, Clips, VideoCalibration, VideoRecipe, VideoSet, VideoTraining
from qsci_plugins.schemes.placement import Placement, place
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import Scheme
from qsci_plugins.schemes.shortcuts import SHORTCUTS, WithShortcut, add_shortcuts

__all__ = [
    "ClipSource",
    "VideoPrepared",
    "calibration_inputs",
    "check_crops",
    "find_scenes",
    "open_scenes",
    "phase_clips",
    "prepare_video",
    "resolved_video",
]


@dataclass(frozen=True)
class VideoPrepared:
    """A recipe whose every part was found and fits together.

    `network` is `float_network` with the recipe's shortcuts; `batches` are (measurement, mask, mask_sum) to calibrate on;
    `clips` those of every training phase.
    """

    recipe: VideoRecipe
    float_network: Network
    network: Network
    scheme: Scheme
    placement: Placement
    batches: list[tuple[Tensor, ...]]
    clips: list[SnapshotClips]
    scenes: dict[str, list[SnapshotSource]]
    #: frames in a measurement
    frames: int
    #: context around the tiles of the exported network
    overlap: int


def prepare_video(recipe: VideoRecipe, progress: Progress) -> VideoPrepared:
    """Loads the network, the clips and the scenes, adds the shortcuts and runs the network once on a small measurement.

    Raises UserError for whatever does not fit: weights, layers that `shortcuts` and `place` name, folders, masks, sizes.
    """
    plain = load_recipe_video_network(recipe.model, recipe.seed)
    network = _with_shortcuts(plain, recipe)
    scheme = make_scheme(recipe.scheme)
    eight_bit = (*recipe.place.eight_bit, *((SHORTCUTS,) if recipe.shortcuts else ()))
    placement = Placement(tuple(recipe.place.targets), eight_bit, tuple(recipe.place.float_))
    place(network.module, placement)
    _check(recipe, plain)
    color = plain.channels == 3
    source = ClipSource(recipe.clips, color, progress)
    batches = calibration_inputs(source, recipe.calibrate)
    _try_out(network, batches[0])
    clips = [] if recipe.train is None else phase_clips(recipe.train, source)
    scenes = find_scenes(recipe.evaluate, len(source.mask), color)
    overlap = _overlap(recipe, plain)
    return VideoPrepared(recipe, plain, network, scheme, placement, batches, clips, scenes, len(source.mask), overlap)


def resolved_video(recipe: VideoRecipe) -> VideoRecipe:
    """The same recipe with absolute paths, which means the same from any working folder."""
    model, clips = recipe.model, recipe.clips
    if model.weights is not None and not model.weights.startswith("builtin:"):
        model = model.model_copy(update={"weights": _absolute(model.weights, "model.weights")})
    folders = [one if one == BUILTIN_SCENES else _absolute(one, "clips.folders") for one in clips.folders]
    mask = clips.mask if clips.mask == "random" else _absolute(clips.mask, "clips.mask")
    evaluate = [
        one if one.folder is None else one.model_copy(update={"folder": _absolute(one.folder, "evaluate.folder")})
        for one in recipe.evaluate
    ]
    clips = clips.model_copy(update={"folders": folders, "mask": mask})
    return recipe.model_copy(update={"model": model, "clips": clips, "evaluate": evaluate})


def _absolute(path: str, key: str) -> str:
    return str(expand(path, key).absolute())


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


def _check(recipe: VideoRecipe, network: Network) -> None:
    multiple = network.size_multiple
    sizes = {"calibrate.patch": [recipe.calibrate.patch], "export.openvino.tile": recipe.export.openvino.tile}
    for key, sides in sizes.items():
        if any(side % multiple for side in sides):
            raise UserError(f"{key} is {sides}, but {network.architecture} needs multiples of {multiple}")
    if recipe.train is None:
        return
    check_crops(recipe.train, network)
    if recipe.train.gradient_checkpointing and recipe.backend == "nncf":
        raise UserError(
            "train.gradient_checkpointing does not see NNCF's hooks; use backend: brevitas, or leave it out"
        )


def _overlap(recipe: VideoRecipe, network: Network) -> int:
    """Context around the tiles of the exported network, which must leave them a middle of their own."""
    settings = recipe.export.openvino
    height, width = settings.tile
    room = smallest_tile(0, multiple=video_period((height, width)))
    most = (min(settings.tile) - room) // 2
    if settings.mode != "none" and most < (settings.overlap or 0):
        raise UserError(
            f"export.openvino.overlap is {settings.overlap or 0}, which needs tiles of"
            f" {2 * (settings.overlap or 0) + room} pixels or more, not {settings.tile}"
        )
    if settings.overlap is not None:
        return settings.overlap
    limit = max(0, min(most, min(settings.tile) // 4))
    return limit if network.receptive_radius is None else min(network.receptive_radius, limit)


@torch.no_grad()
def _try_out(network: Network, inputs: tuple[Tensor, ...]) -> None:
    side = -(-16 // network.size_multiple) * network.size_multiple
    small = [one[:1, ..., :side, :side] for one in inputs]
    try:
        output = network.module(*small)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"model: {network.architecture} fails on a measurement: {reason}") from error
    mask = small[1]
    expected = tuple(mask.shape) if network.channels == 1 else (1, 3, *mask.shape[1:])
    if not isinstance(output, Tensor) or tuple(output.shape) != expected:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f"model: {network.architecture} makes {got} of a mask {tuple(mask.shape)}, not {expected}")
    if not torch.isfinite(output).all():
        raise UserError(f"model: {network.architecture} makes NaN or infinite frames; its weights are damaged")


#: the built-in scenes: how many, and how long, high and wide they are
_SCENES, _LENGTH, _SIDE = 12, 16, 192


class ClipSource:
    """The sequences of a recipe's `clips`, in memory, and its mask; `clips` cuts training clips out of them.

    Raises UserError where a folder, the mask or a sequence long enough is missing.
    """

    def __init__(self, settings: Clips, color: bool, progress: Progress) -> None:
        self._settings = settings
        self.mask = _mask(settings)
        self._sequences = _sequences(settings, color, len(self.mask), progress)

    def clips(self, patch: int, key: str, frames: int | None = None) -> SnapshotClips:
        """Random clips of `patch` pixels, of the first `frames` frames of the mask; `key` is what an error names."""
        settings = self._settings
        noisy = settings.gaussian or settings.photons is not None
        noise = SensorNoise(settings.photons, settings.gaussian) if noisy else None
        if frames is not None and frames > len(self.mask):
            raise UserError(f"{key}: the mask has {len(self.mask)} frames, not {frames}")
        try:
            return SnapshotClips(self._sequences, self.mask[:frames], patch, resize=settings.resize, noise=noise)
        except UserError as error:
            raise UserError(f"{key}: {error}") from None


def calibration_inputs(source: ClipSource, settings: VideoCalibration) -> list[tuple[Tensor, ...]]:
    """Batches (measurement, mask, mask_sum) for the quantizers to look at."""
    drawn = source.clips(settings.patch, "calibrate.patch").draw(settings.seed, 0, settings.count)
    return list(zip(*(one.split(settings.batch) for one in drawn[:3]), strict=True))


def find_scenes(sets: Sequence[VideoSet], frames: int, color: bool) -> dict[str, list[SnapshotSource]]:
    """The scenes of every set; those made here or of video files go through a random mask of `frames` frames.

    Raises UserError for a folder that is not there or holds nothing, and for a scene without true frames to measure by.
    """
    found = {}
    for index, one in enumerate(sets):
        key = f"evaluate.{index}"
        try:
            place = one.name if one.folder is None else expand(one.folder, f"{key}.folder")
            found[one.name] = open_scenes(place, frames, color)
        except UserError as error:
            raise UserError(f"{key}: {error}") from None
    return found


def open_scenes(place: str | Path, frames: int, color: bool) -> list[SnapshotSource]:
    """The built-in scene, or those in a folder, as `find_scenes` has them."""
    scenes = [open_source(path, frames=frames, color=color) for path in source_paths([place])]
    for scene in scenes:
        first = next(iter(scene.pairs()), None)
        if first is None or first[1] is None:
            raise UserError(f"{scene.name} has no true frames to measure by; a .mat file has them as `orig`")
    return scenes


def _mask(settings: Clips) -> np.ndarray:
    if settings.mask == "random":
        return random_mask(settings.frames, settings.size, settings.size)
    file = expand(settings.mask, "clips.mask")
    try:
        return read_mask(file)
    except UserError as error:
        raise UserError(f"clips.mask: {error}") from None


def _sequences(settings: Clips, color: bool, frames: int, progress: Progress) -> list[np.ndarray]:
    if settings.folders == [BUILTIN_SCENES]:
        length = max(_LENGTH, 2 * frames)
        with progress.stage("making scenes", _SCENES) as advance:
            made = []
            for seed in range(_SCENES):
                made.append(synthetic_scene(length, _SIDE, _SIDE, seed, color=color, part="calibration"))
                advance(seed + 1)
        return made
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


def check_crops(settings: VideoTraining, network: Network) -> None:
    """Raises UserError for crops that the network cannot take, and batches that processes cannot share."""
    for index, phase in enumerate(settings.phases):
        if phase.crop % network.size_multiple:
            raise UserError(
                f"train.phases.{index}.crop is {phase.crop}; {network.architecture} needs a multiple of"
                f" {network.size_multiple}"
            )
    if settings.batch % process_count():
        raise UserError(
            f"train.batch is {settings.batch}, which {process_count()} processes cannot share equally;"
            " make it a multiple"
        )


def phase_clips(settings: VideoTraining, source: ClipSource) -> list[SnapshotClips]:
    """The clips of every phase."""
    return [
        source.clips(phase.crop, f"train.phases.{index}", phase.frames) for index, phase in enumerate(settings.phases)
    ]
