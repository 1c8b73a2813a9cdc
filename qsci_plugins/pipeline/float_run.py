"""Float training from a recipe: resumable, and free of NNCF and Brevitas, so that it runs wherever torch does."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.architectures.network import Network
from qsci_plugins.data.patches import PatchPairs
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.benchmark import BenchmarkSet, ImageResult, evaluate
from qsci_plugins.evaluation.torch_networks import torch_upscaler
from qsci_plugins.files import write_bytes, write_text
from qsci_plugins.machine import describe_machine
from qsci_plugins.pipeline.image_prepare import find_sets
from qsci_plugins.pipeline.networks import load_recipe_network
from qsci_plugins.pipeline.output import WEIGHTS_FILE, check_output, work_folder
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.reading import expand, recipe_text
from qsci_plugins.recipes.schema import FloatRecipe
from qsci_plugins.training.loop import TrainResult, train

__all__ = ["train_recipe"]


def train_recipe(
    recipe: FloatRecipe,
    output: str | Path,
    *,
    data: str | Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Trains with L1 on random patches, measures, and leaves weights.safetensors, metrics.json and recipe.yaml.

    Ctrl-C saves the state beside the output and raises KeyboardInterrupt; the same call goes on from there, to the same
    weights. `data` is a folder of benchmark sets to measure on besides the recipe's own.
    Raises UserError, before any training, for a network, folders, sets or settings that do not fit.
    """
    progress = progress or Progress()
    output = Path(output)
    check_output(output, force)
    network = load_recipe_network(recipe.model, recipe.seed)
    if network.task != "sr":
        raise UserError(
            f"model: {network.architecture} reconstructs video, and a recipe with `data` trains on images; give one with"
            " `clips`, such as efficientsci_small"
        )
    if recipe.train.patch % network.size_multiple:
        raise UserError(
            f"train.patch is {recipe.train.patch}; {network.architecture} needs a multiple of {network.size_multiple}"
        )
    sets = find_sets(recipe.evaluate, None if data is None else Path(data), network.scale)
    folders = [(expand(one.path, f"data.{index}.path"), one.stride) for index, one in enumerate(recipe.data)]
    with work_folder(output, recipe_text(recipe), force) as work:
        pairs = _read(folders, network.scale, recipe.train.patch, progress)
        result = _train(recipe, network, pairs, work, progress)
        if not result.finished:
            raise KeyboardInterrupt(f"stopped after step {result.steps}; the same command goes on from there")
        network.module.load_state_dict(result.weights)
        network.module.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
        write_bytes(work / WEIGHTS_FILE, save(result.weights, {"format": "pt"}))
        metrics = {
            "version": 1,
            "machine": describe_machine(),
            "photos": len(pairs),
            "steps": result.steps,
            "seconds_of_last_call": round(result.seconds, 1),
            "sets": _measure(network, sets, progress),
        }
        write_text(work / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    return output


def _read(folders: list[tuple[Path, int]], scale: int, patch: int, progress: Progress) -> PatchPairs:
    with progress.stage("reading photos", 1) as advance:
        return PatchPairs.from_folders(folders, scale, patch, on_file=lambda done, total: advance(done, total=total))


def _train(recipe: FloatRecipe, network: Network, pairs: PatchPairs, work: Path, progress: Progress) -> TrainResult:
    gain = network.value_range / 255

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, float]]:
        low, high = batch
        return F.l1_loss(model(low * gain).float() / gain, high), {}

    def draw(step: int, rank: int, world: int) -> tuple[Tensor, Tensor]:
        return pairs.draw(recipe.seed, step, recipe.train.batch, rank, world)

    with progress.stage("training", recipe.train.steps) as advance:
        return train(
            network.module,
            loss,
            draw,
            recipe.train.loop(),
            work / "training.state",
            on_step=lambda step, scalars: advance(step, f"L1 {scalars['loss']:.3f}"),
        )


def _measure(network: Network, sets: list[BenchmarkSet], progress: Progress) -> dict[str, Any]:
    upscale = torch_upscaler(network.module, network.value_range, network.scale, network.size_multiple)
    results = {}
    for benchmark in sets:
        with progress.stage(f"measuring on {benchmark.name}", len(benchmark.images)) as advance:

            def on_image(done: int, total: int, result: ImageResult, advance: Any = advance) -> None:
                advance(done, f"{result.psnr_y:.2f} dB")

            result = evaluate(upscale, benchmark, on_image)
        progress.note(f"{benchmark.name} x{network.scale}: {result.psnr_y:.2f} dB, SSIM {result.ssim:.4f}")
        results[benchmark.name] = asdict(result)
    return results
