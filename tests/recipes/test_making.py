"""The recipe of a network that has none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from spandrel.architectures.SPAN import SPAN
from torch import nn

from qsci_plugins.architectures.network import Network
from qsci_plugins.architectures.registry import load_network
from qsci_plugins.errors import UserError
from qsci_plugins.recipes.making import at_bits, network_recipe
from qsci_plugins.recipes.reading import check_paths, make_recipe
from qsci_plugins.schemes.placement import Placement, place


@pytest.fixture
def span(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2).state_dict(), tmp_path / "span.pth")
    return tmp_path / "span.pth"


def test_the_first_and_the_last_layer_that_are_called_get_eight_bits(span: Path) -> None:
    network = load_network(None, span)
    recipe = network_recipe(network, {"weights": str(span)}, bits=4)
    assert recipe.place.eight_bit == ["conv_1", "upsampler.0.1"]
    assert (recipe.scheme["weight_bits"], recipe.scheme["activation_bits"], recipe.scheme["mean_bits"]) == (4, 4, 4.0)
    assert (recipe.export.openvino.mode, recipe.export.openvino.tile) == ("static", [180, 320])
    assert (recipe.calibrate.images, recipe.calibrate.degrade) == (["builtin:photos"], True)
    chosen = place(network.module, Placement(("*",), tuple(recipe.place.eight_bit)))
    assert [name for name, kind in chosen.items() if kind == "eight_bit"] == ["conv_1", "upsampler.0.1"]


def test_order_is_that_of_the_calls_and_not_of_the_definitions() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.unused, self.first = (nn.Conv2d(3, 3, 1) for _ in range(3))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(image))  # type: ignore[no-any-return]

    recipe = network_recipe(Network(Backwards(), "backwards", 1, 1.0), {"architecture": "python:a.b:C"})
    assert recipe.place.eight_bit == ["first", "last"]


def test_what_only_shifts_the_mean_stays_float() -> None:
    recipe = network_recipe(load_network("edsr", None, 2, blocks=1, width=4), {"architecture": "edsr", "scale": 2})
    assert recipe.place.float_ == ["sub_mean", "add_mean"]
    assert recipe.place.eight_bit == ["head.0", "tail.1"]


def test_sizes_are_those_that_the_network_takes(span: Path) -> None:
    network = load_network(None, span)
    network.size_multiple, network.size_minimum, network.square = 48, 192, True
    recipe = network_recipe(network, {"weights": str(span)}, images=[str(span.parent)], backend="brevitas", seed=3)
    assert (recipe.calibrate.patch, recipe.calibrate.count, recipe.calibrate.batch) == (192, 7, 7)
    assert recipe.export.openvino.tile == [192, 192]
    assert (recipe.calibrate.degrade, recipe.backend, recipe.seed, recipe.calibrate.seed) == (False, "brevitas", 3, 3)


def test_other_bits_keep_all_else(span: Path) -> None:
    recipe = network_recipe(load_network(None, span), {"weights": str(span)})
    changed = at_bits(recipe, 6, ["block_1.c1_r", "conv_1"], ["block_2.c1_r"])
    assert changed.place.eight_bit == ["conv_1", "upsampler.0.1", "block_1.c1_r"]
    assert changed.place.float_ == ["block_2.c1_r"]
    assert (changed.scheme["mean_bits"], changed.scheme["layer_mapping"]) == (6.0, True)
    assert at_bits(recipe, 8) == recipe
    again = at_bits(changed, 8)
    assert (again.calibrate, again.export, again.model) == (recipe.calibrate, recipe.export, recipe.model)


def test_a_network_without_layers_is_refused() -> None:
    network = Network(nn.Upsample(scale_factor=2), "upsample", 2, 1.0)
    with pytest.raises(UserError, match=r"^a\.pth: upsample calls no convolution or linear layer$"):
        network_recipe(network, {"weights": "a.pth"})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": {"weights": "none.pth"}}, r"^model: there is no weights file none\.pth; name yours with"),
        ({"calibrate": {"images": ["nowhere"]}}, r"^calibrate\.images: nowhere is not a folder, and no file; name"),
        ({"evaluate": [{"set": "builtin"}, {"set": "a", "folder": "no"}]}, r"^evaluate\.1\.folder: no is not a folder"),
        (
            {"clips": {"mask": "shiftng"}},
            r"^clips\.mask: there is no file shiftng; .*clips\.mask=FILE, or draw one: random, shifting, mixed$",
        ),
    ],
)
def test_what_a_recipe_names_and_is_not_there_is_told_by_its_key(changed: dict[str, object], message: str) -> None:
    plain = {"version": 1, "model": {"weights": "builtin:edsr_x4"}, "scheme": {"name": "adabm"}}
    check_paths(make_recipe(plain))
    with pytest.raises(UserError, match=message):
        check_paths(make_recipe({**plain, **changed}))
