from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from spandrel import Architecture, ArchSupport, ImageModelDescriptor
from spandrel.architectures.RCAN import RCAN
from spandrel.architectures.SPAN import SPAN
from spandrel.architectures.SwinIR import SwinIR
from spandrel.util import KeyCondition
from torch import nn

from qsci_plugins.architectures import spandrel_bridge
from qsci_plugins.architectures.registry import architecture_names, load_network
from qsci_plugins.errors import UserError


def _saved(folder: Path, architecture: str, scale: int | None = None, **settings: Any) -> Path:
    network = load_network(architecture, None, scale, **settings)
    torch.save(network.module.state_dict(), folder / f"{architecture}.pth")
    return folder / f"{architecture}.pth"


@pytest.fixture
def edsr(tmp_path: Path) -> Path:
    return _saved(tmp_path, "edsr", 2, blocks=2, width=4)


@pytest.mark.parametrize("name", ["edsr", "EDSR", None])
def test_the_name_may_be_left_out(name: str | None, edsr: Path) -> None:
    network = load_network(name, edsr)
    assert (network.architecture, network.scale, network.blocks) == ("edsr", 2, ["body.0", "body.1"])
    assert not network.module.training


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("esdr", "edsr"), ("swinr", "SwinIR"), ("efficientsci-s", "efficientsci_s"), ("carnm", "carn_m")],
)
def test_an_unknown_architecture_names_the_nearest(name: str, nearest: str, edsr: Path) -> None:
    for weights in (None, edsr):
        with pytest.raises(UserError, match=rf"unknown architecture '{name}'; nearest: .*{nearest}"):
            load_network(name, weights)


def test_an_architecture_near_to_none_lists_all() -> None:
    with pytest.raises(UserError, match=r"known: edsr, .*stformer"):
        load_network("qqqqqq", None)


def test_neither_name_nor_weights_is_an_error() -> None:
    with pytest.raises(UserError, match=r"model\.architecture and model\.weights are both missing"):
        load_network(None, None)


def test_weights_of_another_network_are_recognised_and_compared(edsr: Path) -> None:
    with pytest.raises(UserError, match=r"holds edsr, not the rdn .*missing SFENet1\.weight.*not expected sub_mean"):
        load_network("rdn", edsr)
    with pytest.raises(UserError, match=r"holds edsr, not the swinir .*Use architecture: edsr"):
        load_network("swinir", edsr)


def test_weights_that_nobody_knows(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(3, 3), "fc.bias": torch.zeros(3)}, tmp_path / "classifier.pth")
    with pytest.raises(UserError, match=r"of no known architecture \(its tensors: fc\.weight, fc\.bias.*python:"):
        load_network(None, tmp_path / "classifier.pth")
    with pytest.raises(UserError, match=r"holds neither edsr nor .*missing sub_mean\.weight"):
        load_network("edsr", tmp_path / "classifier.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("body.1.body.0.bias"), r"does not fit edsr: missing body\.1\.body\.0\.bias"),
        (lambda state: state.update({"body.0.extra": torch.zeros(1)}), r"not expected body\.0\.extra"),
        (
            lambda state: state.update({"tail.1.bias": torch.zeros(4)}),
            r"other shapes: tail\.1\.bias is \(4,\) .* \(3,\)",
        ),
        (
            lambda state: state.pop("sub_mean.bias"),
            "looks like edsr, but not all of it is there: missing sub_mean.bias",
        ),
    ],
)
def test_damaged_state_dicts_list_what_differs(change: Any, message: str, edsr: Path) -> None:
    state = torch.load(edsr, weights_only=True)
    change(state)
    torch.save(state, edsr)
    with pytest.raises(UserError, match=message):
        load_network(None, edsr)


def test_a_wrong_scale_is_an_error(edsr: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"edsr for x2, but model\.scale is 4"):
        load_network("edsr", edsr, scale=4)
    with pytest.raises(UserError, match=r"reconstructs at the size .*model\.scale is 1, not 4"):
        load_network("efficientsci", _saved(tmp_path, "efficientsci", in_ch=2, units=1, group_num=1), scale=4)
    with pytest.raises(UserError, match="upsample by 1, 2, 3, 4 or 8, not by 5"):
        load_network("edsr", None, scale=5)


def test_a_scale_that_tensors_do_not_tell_must_be_given(tmp_path: Path) -> None:
    file = _saved(tmp_path, "idn", 2, width=8, blocks=1, diff=2, groups=2)
    with pytest.raises(UserError, match=r"do not tell its scale; give model\.scale"):
        load_network(None, file)
    assert load_network(None, file, scale=3).scale == 3


def test_the_scale_chooses_among_the_upsamplers_of_a_carn(tmp_path: Path) -> None:
    state: dict[str, torch.Tensor] = {}
    for scale in (2, 3, 4):
        state |= load_network("carn", None, scale, width=4).module.state_dict()
    torch.save(state, tmp_path / "carn.pth")
    assert [load_network(None, tmp_path / "carn.pth", scale).scale for scale in (2, 3, 4, None)] == [2, 3, 4, 4]
    names = set(load_network(None, tmp_path / "carn.pth", 3).module.state_dict())
    assert {name for name in names if name.startswith("upsample.")} == {
        "upsample.up3.body.0.weight",
        "upsample.up3.body.0.bias",
    }
    with pytest.raises(UserError, match=r"upscales by 2, 3, 4, but model\.scale is 8"):
        load_network(None, tmp_path / "carn.pth", 8)


def test_settings_are_checked_by_name_and_against_the_tensors(edsr: Path) -> None:
    with pytest.raises(UserError, match="edsr has no setting 'widht'; nearest: width"):
        load_network("edsr", None, 2, widht=4)
    with pytest.raises(UserError, match="edsr has no setting 'heads'"):
        load_network(None, edsr, heads=4)
    with pytest.raises(UserError, match="the tensors say width 4, not 8"):
        load_network(None, edsr, width=8)
    with pytest.raises(UserError, match="the tensors say blocks 2, not 16"):
        load_network("edsr_baseline", edsr)
    with pytest.raises(UserError, match=r"the tensors say value_range 255\.0, not 1\.0"):
        load_network(None, edsr, value_range=1.0)
    with pytest.raises(UserError, match=r"efficientsci cannot be built with .*: 20 channels do not part into 3 groups"):
        load_network("efficientsci", None, in_ch=5, group_num=3)


def test_published_sizes_have_the_published_numbers_of_parameters() -> None:
    sizes = {"efficientsci_t": 0.947, "efficientsci_s": 3.777, "efficientsci_b": 8.824, "stformer_s": 1.230}
    for name, millions in sizes.items():
        count = sum(parameter.numel() for parameter in load_network(name, None).module.parameters())
        assert count / 1e6 == pytest.approx(millions, abs=0.001)
        assert name in architecture_names()


def test_the_flat_names_of_a_converted_srresnet_are_read(tmp_path: Path) -> None:
    settings = {"blocks": 2, "width": 4, "bias": True, "channel_slopes": True, "shared_slope": False}
    network = load_network("srresnet", None, 4, value_range=1.0, signed_output=True, **settings)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.module.parameters():
            parameter.add_(torch.rand(parameter.shape, generator=generator) * 0.1)
    places = {"head.0": "head", "head.1": "head_act", "body.2": "body_conv", "body.3": "body_bn", "tail.1": "tail"}
    places |= {"tail.0.0": "up1", "tail.0.2": "act1", "tail.0.3": "up2", "tail.0.5": "act2"}
    flat = {}
    for name, tensor in network.module.state_dict().items():
        layer, _, kind = name.rpartition(".")
        flat[f"{places.get(layer, layer)}.{kind}"] = tensor
    torch.save(flat, tmp_path / "flat.pth")
    again = load_network(None, tmp_path / "flat.pth")
    assert (again.value_range, again.settings) == (1.0, network.settings)
    image = torch.rand(1, 3, 6, 7, generator=generator)
    with torch.no_grad():
        assert torch.equal(again.module(image), network.module(image))


def test_prelu_is_shared_as_in_the_published_srresnet() -> None:
    network = load_network("srresnet", None, 4, blocks=2, width=4)
    assert network.module.head[1] is network.module.body[1].act is network.module.tail[0][2]


@pytest.mark.parametrize(
    ("build", "architecture", "scale", "blocks"),
    [
        (
            lambda: SwinIR(
                embed_dim=12, depths=[2, 2], num_heads=[2, 2], window_size=8, upscale=2, upsampler="pixelshuffledirect"
            ),
            "SwinIR",
            2,
            ["layers.0", "layers.1"],
        ),
        (
            lambda: SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=4),
            "SPAN",
            4,
            [f"block_{n}" for n in range(1, 7)],
        ),
        (lambda: RCAN(scale=2, n_resgroups=3, n_resblocks=2, n_feats=16), "RCAN", 2, [f"body.{n}" for n in range(3)]),
    ],
    ids=["SwinIR", "SPAN", "RCAN"],
)
@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_any_network_that_spandrel_knows_loads(
    build: Any, architecture: str, scale: int, blocks: list[str], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = build().eval()
    torch.save({"params": model.state_dict()}, tmp_path / "it.pth")
    network = load_network(None, tmp_path / "it.pth", value_range=1.0)
    assert (network.architecture, network.scale, network.value_range) == (architecture, scale, 1.0)
    assert network.blocks == blocks
    assert load_network(architecture.lower(), tmp_path / "it.pth", scale).architecture == architecture
    with pytest.raises(UserError, match=rf"holds {architecture} for x{scale}, but model\.scale is 3"):
        load_network(None, tmp_path / "it.pth", scale=3)
    with pytest.raises(UserError, match="leave out width"):
        load_network(None, tmp_path / "it.pth", width=3)
    with pytest.raises(UserError, match=rf"holds {architecture}, not the edsr"):
        load_network("edsr", tmp_path / "it.pth")


def test_a_spandrel_network_needs_weights() -> None:
    with pytest.raises(UserError, match=r"SwinIR is spandrel's.*give model\.weights"):
        load_network("SwinIR", None)


class _Tripler(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.only_layer_of_the_tripler = nn.Conv2d(3, 27, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pixel_shuffle(self.only_layer_of_the_tripler(x), 3)


class _TriplerArchitecture(Architecture[_Tripler]):
    def __init__(self) -> None:
        super().__init__(id="Tripler", detect=KeyCondition.has_all("only_layer_of_the_tripler.weight"))

    def load(self, state_dict: dict[str, Any]) -> ImageModelDescriptor[_Tripler]:
        model = _Tripler()
        model.load_state_dict(state_dict)
        sizes = {"scale": 3, "input_channels": 3, "output_channels": 3}
        return ImageModelDescriptor(
            model, state_dict, self, "SR", [], supports_half=False, supports_bfloat16=False, **sizes
        )


def test_a_third_party_adds_a_network_through_spandrels_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spandrel_bridge, "MAIN_REGISTRY", spandrel_bridge.MAIN_REGISTRY.copy())
    spandrel_bridge.MAIN_REGISTRY.add(ArchSupport.from_architecture(_TriplerArchitecture()))
    torch.save(_Tripler().state_dict(), tmp_path / "it.pth")
    network = load_network("tripler", tmp_path / "it.pth")
    assert (network.architecture, network.scale) == ("Tripler", 3)
    assert "Tripler" in architecture_names()
