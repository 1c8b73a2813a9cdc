from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from qsci_plugins.data.snapshots import mask_sum, measure, random_mask
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.reconstruction import TorchReconstructor
from qsci_plugins.recipes.float_training import load_recipe_network
from qsci_plugins.recipes.reading import read_recipe
from qsci_plugins.recipes.steps import backend
from qsci_plugins.recipes.video_models import load_video_network
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme

RECIPE = """version: 1
model: {architecture: efficientsci, settings: {in_ch: 8, units: 1, group_num: 1}}
backend: BACKEND
scheme: {name: qsci, weight_bits: 4, activation_bits: 4}
"""


@pytest.mark.parametrize("name", ["nncf", "brevitas"])
def test_a_quantized_run_comes_back_quantized(tmp_path: Path, name: str) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("BACKEND", name))
    recipe = read_recipe(tmp_path / "recipe.yaml")
    network = load_recipe_network(recipe.model, recipe.seed)
    mask = random_mask(2, 16, 16)
    frames = np.random.default_rng(0).random((2, 16, 16), np.float32)
    batch = tuple(torch.from_numpy(part)[None] for part in (measure(frames, mask), mask, mask_sum(mask)))
    scheme = make_scheme(dict(recipe.scheme))
    quantized = backend(name).quantize(network.module, scheme, Placement(), [batch], 1.0)
    with pytest.raises(UserError, match=r"neither weights\.safetensors nor checkpoint\.pt"):
        load_video_network(tmp_path)
    backend(name).save(quantized, tmp_path / "checkpoint.pt")
    loaded = load_video_network(tmp_path)
    assert loaded.size_multiple == 2
    with torch.no_grad():
        expected = quantized.model.eval()(*batch)[0].numpy()
        float_ = network.module(*batch)[0].numpy()
    result = TorchReconstructor(loaded.module, mask, 2).reconstruct(measure(frames, mask))
    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert not np.allclose(result, float_, atol=1e-3)
    with pytest.raises(UserError, match="whose recipe names the architecture"):
        load_video_network(tmp_path, "efficientsci")
