"""The exported networks in the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qsci_plugins.commands.upscale import upscale
from qsci_plugins.errors import UserError
from qsci_plugins.openvino.builtin import builtin_models, find_model_folder
from qsci_plugins.openvino.manifest import load_manifest


def test_every_built_in_model_is_small_sound_and_in_integers() -> None:
    assert "builtin:edsr_x4" in builtin_models()
    for name in builtin_models():
        folder = find_model_folder(name)
        manifest = load_manifest(folder)
        assert sum(file.stat().st_size for file in folder.iterdir()) <= 2e6
        assert set(manifest.weight_bits.values()) == {8.0}
        assert [file.stem for file in folder.glob("*.yaml")]  # the recipe that makes it


def test_a_picture_by_a_built_in_name(tmp_path: Path) -> None:
    y, x = np.mgrid[:24, :30]
    smooth = np.dstack([5 * y, 4 * x, 2 * (x + y)]).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.png")
    assert upscale("builtin:edsr_x4", [tmp_path / "a.png"], tmp_path / "b.png") == [tmp_path / "b.png"]
    big = Image.open(tmp_path / "b.png")
    assert big.size == (120, 96)
    bicubic = np.asarray(Image.fromarray(smooth).resize(big.size, Image.Resampling.BICUBIC))
    assert np.abs(np.asarray(big).astype(int) - bicubic).mean() < 3


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(UserError, match=r"no built-in model builtin:nothing; .*builtin:edsr_x4"):
        find_model_folder("builtin:nothing")
    with pytest.raises(UserError, match="there is no model folder nowhere"):
        find_model_folder("nowhere")


def test_every_built_in_model_is_exact_on_every_cpu() -> None:
    for name in builtin_models():
        assert load_manifest(find_model_folder(name)).exact_on == "all"
