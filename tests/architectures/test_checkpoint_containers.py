"""What training programs put around the weights of a network, and which weights are taken where there are several."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from spandrel.architectures.ESRGAN import ESRGAN
from spandrel.architectures.RealCUGAN import UpCunet2x
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from qsci_plugins.architectures.checkpoint import open_checkpoint
from qsci_plugins.architectures.registry import load_network, recognise


def known(state: dict[str, Tensor]) -> bool:
    return recognise(state) is not None


@pytest.fixture
def state() -> dict[str, Tensor]:
    return load_network("edsr", None, 2, blocks=1, width=4).module.state_dict()


def _below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def _zeros(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


AVERAGED: dict[str, tuple[Any, str]] = {
    "params-ema": (lambda s: {"params": _zeros(s), "params-ema": s}, "params-ema"),
    "ema": (lambda s: {"model": _zeros(s), "ema": {"module": s}}, "ema.module"),
    "model_ema": (lambda s: {"model": _zeros(s), "model_ema": _below("module.", s)}, "model_ema"),
    "generator_ema": (
        lambda s: {"state_dict": {**_below("generator.", _zeros(s)), **_below("generator_ema.", s)}},
        "state_dict.generator_ema",
    ),
    "swa_utils": (lambda s: {**_below("module.", s), "n_averaged": torch.tensor(7)}, "(averaged)"),
}


@pytest.mark.parametrize("name", AVERAGED)
def test_averaged_weights_win_and_are_named(name: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    wrap, origin = AVERAGED[name]
    torch.save(wrap(state), tmp_path / "it.pth")
    read = open_checkpoint(tmp_path / "it.pth", known)
    assert read.tensors.keys() == state.keys()
    assert torch.equal(read.tensors["head.0.weight"], state["head.0.weight"])
    assert read.origin == origin
    assert load_network(None, tmp_path / "it.pth").origin == origin


PROGRAMS: dict[str, Any] = {
    "Lightning": lambda s: {"state_dict": {**_below("net_g.", s), "loss.weight": torch.ones(3)}, "epoch": 3},
    "thop": lambda s: {**s, "total_ops": torch.zeros(1), "head.0.total_params": torch.zeros(1)},
    "numpy": lambda s: {"params": s, "best": np.float64(31.5), "step": np.int64(3)},
    "defaultdict": lambda s: {"net": s, "log": defaultdict(list, {"psnr": [1.0]})},
    "one key": lambda s: {"anything": s},
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_programs_add_is_left_out(name: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(PROGRAMS[name](state), tmp_path / "it.pth")
    read = open_checkpoint(tmp_path / "it.pth", known).tensors
    assert read.keys() == state.keys()
    assert torch.equal(read["head.0.weight"], state["head.0.weight"])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_under_the_name_of_another_kind(suffix: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / f"it{suffix}"
    (torch.save if suffix == ".safetensors" else save_file)(dict(state), file)
    assert open_checkpoint(file, known).tensors.keys() == state.keys()


class _Normed(nn.Module):
    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.conv = norm(nn.Conv2d(3, 4, 3))
        self.up = norm(nn.ConvTranspose2d(4, 5, 3))
        self.plain = nn.Linear(2, 2)


@pytest.mark.parametrize(
    "norm",
    [weight_norm, spectral_norm, parametrizations.weight_norm, parametrizations.spectral_norm],
    ids=["weight", "spectral", "new weight", "new spectral"],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_norms_are_folded_into_the_weights(norm: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = _Normed(norm)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.7)
    module.conv(torch.zeros(1, 3, 8, 8)), module.up(torch.zeros(1, 4, 8, 8))  # spectral norm moves on in training
    module.eval()
    torch.save(module.state_dict(), tmp_path / "it.pth")
    read = open_checkpoint(tmp_path / "it.pth").tensors
    assert set(read) == {f"{layer}.{kind}" for layer in ("conv", "up", "plain") for kind in ("weight", "bias")}
    module.conv(torch.zeros(1, 3, 8, 8)), module.up(torch.zeros(1, 4, 8, 8))  # a hook sets the weight in a forward
    for layer in ("conv", "up"):
        assert torch.allclose(read[f"{layer}.weight"], getattr(module, layer).weight, atol=1e-6)


def test_names_of_a_file_are_tried_before_prefixes_are_stripped(tmp_path: Path) -> None:
    torch.save(ESRGAN(num_filters=8, num_blocks=1, scale=4).state_dict(), tmp_path / "old_names.pth")
    network = load_network(None, tmp_path / "old_names.pth")
    assert (network.architecture, network.scale) == ("ESRGAN", 4)


def test_the_number_that_makes_a_real_cugan_another_network_is_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = UpCunet2x().state_dict()
    torch.save(state, tmp_path / "plain.pth")
    torch.save({**state, "pro": 1}, tmp_path / "pro.pth")
    x = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        plain, pro = (load_network(None, tmp_path / f"{name}.pth") for name in ("plain", "pro"))
        assert "pro" in pro.settings["tags"]
        assert not torch.allclose(plain.module(x), pro.module(x), atol=1e-3)
