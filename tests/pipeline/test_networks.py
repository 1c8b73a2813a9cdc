from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qsci_plugins.data.snapshots import mask_sum, measure, random_mask
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.torch_networks import TorchReconstructor
from qsci_plugins.pipeline.networks import load_recipe_network, load_video_network
from qsci_plugins.recipes.reading import read_recipe
from qsci_plugins.recipes.schema import Recipe
from qsci_plugins.schemes.backend import load_backend
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork

RECIPE = """version: 1
model: {architecture: efficientsci, settings: {in_ch: 8, units: 1, group_num: 1}}
backend: BACKEND
scheme: {name: qsci, weight_bits: 4, activation_bits: 4}
"""


def snapshot() -> tuple[np.ndarray, np.ndarray]:
    """A measurement and its mask."""
    mask = random_mask(2, 16, 16)
    return measure(np.random.default_rng(0).random((2, 16, 16), np.float32), mask), mask


def quantized(recipe: Recipe) -> tuple[nn.Module, QuantizedNetwork, tuple[Tensor, ...]]:
    """The stock network of a recipe, quantized and calibrated, and what it was calibrated on."""
    module = load_recipe_network(recipe.model, recipe.seed).module
    measurement, mask = snapshot()
    batch = tuple(torch.from_numpy(part)[None] for part in (measurement, mask, mask_sum(mask)))
    scheme = make_scheme(dict(recipe.scheme))
    return module, load_backend(recipe.backend).quantize(module, scheme, Placement(), [batch], 1.0), batch


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A quantized network's file by backend."""
    files = {}
    for name in ("nncf", "brevitas"):
        folder = tmp_path_factory.mktemp(name)
        (folder / "recipe.yaml").write_text(RECIPE.replace("BACKEND", name))
        recipe = read_recipe(folder / "recipe.yaml")
        assert isinstance(recipe, Recipe)
        files[name] = folder / "checkpoint.pt"
        load_backend(name).save(quantized(recipe)[1], files[name])
    return files


@pytest.mark.parametrize("name", ["nncf", "brevitas"])
def test_a_quantized_run_comes_back_quantized(tmp_path: Path, name: str) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("BACKEND", name))
    recipe = read_recipe(tmp_path / "recipe.yaml")
    assert isinstance(recipe, Recipe)
    stock, network, batch = quantized(recipe)
    with pytest.raises(UserError, match=r"neither weights\.safetensors nor checkpoint\.pt"):
        load_video_network(tmp_path)
    load_backend(name).save(network, tmp_path / "checkpoint.pt")
    loaded = load_video_network(tmp_path)
    assert loaded.size_multiple == 2
    with torch.no_grad():
        expected = network.model.eval()(*batch)[0].numpy()
        float_ = stock(*batch)[0].numpy()
    measurement, mask = snapshot()
    result = TorchReconstructor(loaded.module, mask, 2).reconstruct(measurement)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert not np.allclose(result, float_, atol=1e-3)
    with pytest.raises(UserError, match="whose recipe names the architecture"):
        load_video_network(tmp_path, "efficientsci")


@pytest.mark.parametrize("name", ["nncf", "brevitas"])
@pytest.mark.parametrize("other", ["in_ch: 16, units: 1", "in_ch: 8, units: 2", "in_ch: 8, units: 1, color_ch: 3"])
def test_a_checkpoint_of_another_configuration_is_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, other: str, checkpoints: dict[str, Path]
) -> None:
    run = tmp_path_factory.mktemp("run")
    text = RECIPE.replace("BACKEND", name)
    (run / "recipe.yaml").write_text(text.replace("in_ch: 8, units: 1", other))
    (run / "checkpoint.pt").write_bytes(checkpoints[name].read_bytes())
    with pytest.raises(UserError, match=r"checkpoint\.pt"):
        load_video_network(run)
    (run / "recipe.yaml").write_text(text)
    load_video_network(run)
    (run / "checkpoint.pt").write_bytes(checkpoints[name].read_bytes()[:-500])
    with pytest.raises(UserError, match=r"checkpoint\.pt"):
        load_video_network(run)
