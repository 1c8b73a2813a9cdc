from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qsci_plugins.architectures.registry import load_network
from qsci_plugins.errors import UserError

_CODE = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
    def forward(self, x):
        return x + self.conv(x)

class Net(nn.Module):
    def __init__(self, depth=2):
        super().__init__()
        self.head = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Sequential(*(Block() for _ in range(depth)))
        self.tail = nn.Sequential(nn.Conv2d(4, 12, 3, padding=1), nn.PixelShuffle(2))
    def forward(self, x):
        return self.tail(self.body(self.head(x)))

def described():
    net = Net(1)
    net.scale, net.value_range, net.blocks, net.size_multiple, net.receptive_radius = 2, 255.0, ["body.0"], 2, 4
    return net

def confusing():
    net = Net(1)
    net.scale, net.blocks = nn.Parameter(torch.ones(1)), nn.ModuleList()
    return net

def not_a_module():
    return "net"

constant = 3
"""


@pytest.fixture(autouse=True)
def _in_a_folder_with_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_net.py").write_text(_CODE)
    (tmp_path / "my_broken_net.py").write_text("raise ValueError('half written')")
    monkeypatch.chdir(tmp_path)


def test_a_factory_in_the_working_folder_is_found_and_described_by_settings() -> None:
    network = load_network("python:my_own_net:Net", None, scale=2, depth=3, value_range=255.0)
    assert (network.scale, network.value_range, network.task) == (2, 255.0, "sr")
    assert network.blocks == ["body.0", "body.1", "body.2"]
    assert network.settings == {"depth": 3}
    assert network.receptive_radius is None
    assert network.module(torch.zeros(1, 3, 4, 4)).shape == (1, 3, 8, 8)
    assert not network.module.training


def test_the_modules_own_attributes_describe_it() -> None:
    network = load_network("python:my_own_net:described", None)
    assert (network.scale, network.value_range, network.blocks) == (2, 255.0, ["body.0"])
    assert (network.size_multiple, network.receptive_radius) == (2, 4)


def test_attributes_that_mean_something_else_are_passed_over() -> None:
    network = load_network("python:my_own_net:confusing", None, scale=2)
    assert (network.scale, network.value_range, network.blocks) == (2, 1.0, [])


def test_weights_are_loaded_and_checked(tmp_path: Path) -> None:
    source = load_network("python:my_own_net:Net", None, scale=2, seed=4)
    torch.save({"model": source.module.state_dict()}, tmp_path / "it.pth")
    network = load_network("python:my_own_net:Net", tmp_path / "it.pth", scale=2, seed=5)
    assert torch.equal(network.module.head.weight, source.module.head.weight)
    with pytest.raises(UserError, match=r"does not fit python:my_own_net:Net: missing body\.2\.conv\.weight"):
        load_network("python:my_own_net:Net", tmp_path / "it.pth", scale=2, depth=3)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("python:my_own_net", "must read python:package.module:Factory"),
        ("python::Net", "must read python:package.module:Factory"),
        ("python:no_such_module:Net", "importing no_such_module failed: ModuleNotFoundError"),
        ("python:my_broken_net:Net", "importing my_broken_net failed: ValueError: half written"),
        ("python:my_own_net:Nett", "my_own_net has no callable Nett"),
        ("python:my_own_net:constant", "my_own_net has no callable constant"),
        ("python:my_own_net:not_a_module", r"returned str; it must return a torch\.nn\.Module"),
        ("python:my_own_net:Block", r"has no attribute `scale`; give model\.scale"),
    ],
)
def test_what_is_wrong_with_a_factory_is_said(architecture: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_network(architecture, None)


def test_wrong_arguments_and_descriptions_are_said() -> None:
    with pytest.raises(UserError, match=r"Net failed: TypeError: .*widht"):
        load_network("python:my_own_net:Net", None, scale=2, widht=3)
    with pytest.raises(UserError, match=r"model\.value_range cannot be '255'"):
        load_network("python:my_own_net:Net", None, scale=2, value_range="255")
    with pytest.raises(UserError, match=r"upscales by 2, but model\.scale is 3"):
        load_network("python:my_own_net:described", None, scale=3)
