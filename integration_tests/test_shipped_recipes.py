"""Every shipped recipe runs, on a tiny network of its architecture and for a step or two."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from qsci_plugins import train
from qsci_plugins.data import write_image
from qsci_plugins.pipeline.run import run_recipe
from qsci_plugins.recipes import FloatRecipe, FloatVideoRecipe, Recipe, ShippedRecipe, read_recipe, shipped_recipes
from qsci_plugins.recipes.reading import AnyRecipe

#: a tiny network of every architecture that a shipped recipe is about, by the first word of the recipe's file name
TINY: dict[str, dict[str, Any]] = {
    "edsr": {"blocks": 1, "width": 4},
    "rdn": {"blocks": 1, "layers": 2, "growth": 4, "width": 4},
    "srresnet": {"blocks": 1, "width": 4, "bias": True, "channel_slopes": True},
    "carn": {"width": 4},
    "idn": {"width": 16, "blocks": 1, "diff": 4, "groups": 2, "kernel": 9},
    "efficientsci": {"in_ch": 4, "units": 1, "group_num": 2},
}

#: cuts of keys that a recipe has
SMALL = {
    "calibrate.count": 2,
    "calibrate.batch": 2,
    "calibrate.patch": 16,
    "train.batch": 1,
    "train.patch": 16,
    "train.precision": "float32",
    "export.openvino.tile": [32, 32],
    "inference": {"patch": 16, "step": 12},
    "clips.size": 32,
    "train.phases": [{"crop": 16, "steps": 2, "rate": 1e-3}],
}

EXPORTED = "w8a8"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos to train on, and the weights of a tiny SwinIR and SPAN."""
    folder = tmp_path_factory.mktemp("tiny")
    blocks = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    (folder / "photos").mkdir()
    write_image(folder / "photos/a.png", blocks.repeat(6, 0).repeat(6, 1))
    from spandrel.architectures.SPAN import SPAN
    from spandrel.architectures.SwinIR import SwinIR

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sizes = {"img_size": 64, "window_size": 8, "depths": [2], "embed_dim": 12, "num_heads": [2], "mlp_ratio": 2}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            networks = {
                "swinir": SwinIR(**sizes, upscale=4, upsampler="pixelshuffledirect", resi_connection="1conv"),
                "span": SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=4),
            }
    for name, network in networks.items():
        tensors = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
        save_file(tensors, folder / f"{name}.safetensors")
    return folder


def overrides(shipped: ShippedRecipe, recipe: AnyRecipe, folder: Path) -> Iterator[str]:
    """What makes a recipe tiny, as a user would write it after --set."""
    written = recipe.model_dump(by_alias=True)
    for key, value in SMALL.items():
        section, _, name = key.partition(".")
        found = written.get(section) or {}
        if found and (not name or name.partition(".")[0] in found):
            yield f"{key}={json.dumps(value)}"
    training = written.get("train") or {}
    yield from (f"train.{name}=2" for name in training if name.endswith("steps"))
    if "data" in training:
        yield f"train.data=[{{path: {folder / 'photos'}}}]"
    if training.get("warm_up"):
        yield "train.warm_up=1"
    if "clips" in written:
        yield from ("clips.folders=builtin:scenes", "clips.mask=random")
    yield "evaluate=[]"
    architecture = Path(shipped.name).name.split("_")[0]
    if (folder / f"{architecture}.safetensors").is_file():
        yield f"model.weights={folder / architecture}.safetensors"
        return
    assert architecture in TINY, f"add a tiny {architecture} to TINY, so that {shipped.name} is run"
    yield from (f"model.architecture={architecture}", "model.weights=null")
    yield f"model.settings={json.dumps(TINY[architecture])}"
    if isinstance(recipe, FloatVideoRecipe):
        yield "train.cpu=true"
    elif isinstance(recipe, FloatRecipe):
        yield from (f"data=[{{path: {folder / 'photos'}}}]", "train.cpu=true")
    elif EXPORTED not in shipped.name:
        yield "export.openvino.mode=none"


@pytest.mark.parametrize("shipped", shipped_recipes(), ids=lambda shipped: Path(shipped.name).stem)
def test_every_shipped_recipe_runs(shipped: ShippedRecipe, folder: Path, tmp_path: Path) -> None:
    recipe = read_recipe(shipped.file, list(overrides(shipped, read_recipe(shipped.file), folder)))
    if isinstance(recipe, (FloatRecipe, FloatVideoRecipe)):
        output = train(recipe, tmp_path / "out")
        assert json.loads((output / "metrics.json").read_text())["training"]["steps"] == 2
        return
    output = run_recipe(recipe, tmp_path / "out", latency=False)
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["scheme"]["name"] == recipe.scheme["name"]
    if "activation_bits" in recipe.scheme and isinstance(recipe, Recipe):
        low = [bits["activation"] for bits in metrics["bits"].values() if bits["activation"] < 8]
        assert bool(low) == (recipe.scheme["activation_bits"] != 8)
    assert (output / "model").is_dir() == (recipe.export.openvino.mode != "none")
    if shipped.name.endswith("span_x4_adabm_w4a4"):
        eight = {name.split(".")[0] for name, bits in metrics["bits"].items() if bits["activation"] == 8}
        assert eight == {"conv_1", "conv_cat", "upsampler"}
        assert all(bits["weight"] == bits["activation"] for bits in metrics["bits"].values())
