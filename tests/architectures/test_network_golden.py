from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import golden_files, load

from qsci_plugins.architectures.registry import load_network

_IMAGES = [*golden_files("float_carn*"), *golden_files("float_idn*"), *golden_files("float_rdn*")]
_IMAGES += golden_files("float_srresnet*")
_VIDEOS = [*golden_files("float_efficientsci*"), *golden_files("float_stformer*")]


def _saved_state(arrays: dict[str, np.ndarray], prefix: str, folder: Path) -> Path:
    state = {
        name.removeprefix(prefix): torch.from_numpy(np.asarray(value))
        for name, value in arrays.items()
        if name.startswith(prefix)
    }
    torch.save(state, folder / "published.pth")
    return folder / "published.pth"


def _assert_equal(output: torch.Tensor, expected: np.ndarray) -> None:
    assert tuple(output.shape) == expected.shape
    assert np.abs(output.numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("file", _IMAGES)
def test_golden_upscaler_has_the_published_output(file: Path, tmp_path: Path) -> None:
    arrays = load(file)
    path, scale = _saved_state(arrays, "state/", tmp_path), int(arrays["scale"])
    network = load_network(None, path, scale=scale, value_range=float(arrays["rgb_range"]))
    assert file.stem.startswith(f"float_{network.architecture}")
    assert network.scale == scale
    with torch.no_grad():
        _assert_equal(network.module(torch.from_numpy(arrays["lr"])), arrays["output"])


@pytest.mark.parametrize("file", _VIDEOS)
def test_golden_video_network_has_the_published_output(file: Path, tmp_path: Path) -> None:
    arrays = load(file)
    network = load_network(None, _saved_state(arrays, "state/", tmp_path))
    assert file.stem.startswith(f"float_{network.architecture}")
    for name in network.settings.keys() & arrays.keys():
        assert network.settings[name] == int(arrays[name])
    inputs = (torch.from_numpy(arrays[name]) for name in ("measurement", "mask", "mask_sum"))
    with torch.no_grad():
        _assert_equal(network.module(*inputs), arrays["output"])


@pytest.mark.parametrize("file", golden_files("adabm_edsr_*"))
def test_golden_edsr_has_the_published_output(file: Path, tmp_path: Path) -> None:
    arrays = load(file)
    network = load_network("edsr", _saved_state(arrays, "fp/", tmp_path))
    assert network.settings["width"] == int(arrays["n_feats"])
    assert len(network.blocks) == int(arrays["n_resblocks"])
    assert network.value_range == 255.0
    batches = [name for name in arrays if name.startswith("calibration_batch_")]
    last = max(batches, key=lambda name: int(name.rsplit("_", 1)[1]))
    with torch.no_grad():
        _assert_equal(network.module(torch.from_numpy(arrays[last]).float()), arrays["fp_output_last_batch"])


@pytest.mark.parametrize("file", golden_files("cadyq_edsr*"))
def test_golden_edsr_of_cadyq_is_recognised(file: Path, tmp_path: Path) -> None:
    arrays: dict[str, Any] = load(file)
    network = load_network(None, _saved_state(arrays, "fp/", tmp_path))
    assert network.architecture == "edsr"
    assert network.settings["width"] == int(arrays["n_feats"])
    assert len(network.blocks) == int(arrays["n_resblocks"])
