"""The schemes as algorithms of NNCF's own pipeline, next to NNCF's own algorithms."""

from __future__ import annotations

import json
from collections import Counter

import nncf
import nncf.torch
import pytest
import torch
from nncf.quantization.algorithms.min_max.algorithm import MinMaxQuantization
from nncf.quantization.algorithms.pipeline import Pipeline
from nncf.torch.function_hook.hook_storage import decode_hook_name
from nncf.torch.function_hook.nncf_graph.nncf_graph_builder import GraphModelWrapper
from nncf.torch.function_hook.wrapper import get_hook_storage, wrap_model
from nncf.torch.quantization.layers import SymmetricQuantizer
from nncf_networks import batches, small_edsr
from plain import calibrate
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.errors import UserError
from qsci_plugins.nncf.algorithm import AdaBMQuantization, SchemeQuantization
from qsci_plugins.nncf.backend import apply
from qsci_plugins.nncf.hooks import InputHook, QuantizerHook, bits_per_layer, network
from qsci_plugins.nncf.placement import all_but
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme


def run(model: nn.Module, *steps: list[object], data: list[Tensor] | None = None) -> nn.Module:
    data = batches() if data is None else data
    return Pipeline(list(steps)).run(GraphModelWrapper(wrap_model(model), data[0][:1]), nncf.Dataset(data)).model


def hooks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return list(get_hook_storage(model).named_hooks(remove_duplicate=False))


def min_max() -> MinMaxQuantization:
    return MinMaxQuantization(ignored_scope=all_but(small_edsr(), batches()[0], ("head.*", "tail.*")), subset_size=3)


@pytest.mark.parametrize("order", ["theirs first", "ours first", "one step", "one step, ours first"])
def test_next_to_min_max_each_layer_is_quantized_once(order: str) -> None:
    ours, theirs = AdaBMQuantization(targets=("body.*",)), min_max()
    steps = {
        "theirs first": [[theirs], [ours]],
        "ours first": [[ours], [theirs]],
        "one step": [[theirs, ours]],
        "one step, ours first": [[ours, theirs]],
    }[order]
    model = run(small_edsr(), *steps)
    for name, hook in hooks(model):
        kind, operation, port = decode_hook_name(name)
        if isinstance(hook, QuantizerHook):
            assert operation.startswith("body/")
            assert (kind, port) in {("pre_hooks", 0), ("pre_hooks", 1)}
        elif isinstance(hook, SymmetricQuantizer):
            assert not operation.startswith("body/")
        else:
            assert isinstance(hook, InputHook)
    assert max(Counter(decode_hook_name(name) for name, _ in hooks(model)).values()) == 1
    assert sum(isinstance(hook, QuantizerHook) for _, hook in hooks(model)) == 2 * 5
    assert {decode_hook_name(name)[1] for name, hook in hooks(model) if isinstance(hook, SymmetricQuantizer)} >= {
        "head/0/conv2d/0",
        "tail/0/0/conv2d/0",
        "tail/1/conv2d/0",
    }
    restored = nncf.torch.load_from_config(
        small_edsr(seed=1),
        json.loads(json.dumps(nncf.torch.get_config(model))),
        allowed_modules=("nncf.*", "qsci_plugins.*"),
    )
    restored.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(restored(batches()[1]), model(batches()[1]))


def test_nothing_is_quantized_twice() -> None:
    everything = MinMaxQuantization(subset_size=3)
    with pytest.raises(UserError, match=r"'body\.0\.body\.0' is quantized already"):
        run(small_edsr(), [everything], [AdaBMQuantization(targets=("body.*",))])
    with pytest.raises(UserError, match="scheme already"):
        run(small_edsr(), [AdaBMQuantization(targets=("body.*",))], [AdaBMQuantization(targets=("tail.*",))])


def test_input_hook_sees_the_image_itself() -> None:
    """NNCF quantizes the network's input, which must not change the image gradient."""
    model = small_edsr()
    model.sub_mean = None
    ignored = nncf.IgnoredScope(patterns=["body/.*", "tail/.*", ".*add.*", ".*sub.*"])
    model = run(
        model, [MinMaxQuantization(ignored_scope=ignored, subset_size=3)], [AdaBMQuantization(targets=("body.*",))]
    )
    at_input = [type(hook) for name, hook in hooks(model) if name.startswith("post_hooks.x__0")]
    assert at_input[0] is InputHook


def test_static_mixed_precision() -> None:
    model = run(small_edsr(), [AdaBMQuantization(targets=("body.*",), eight_bit=("tail.*",), image_mapping=False)])
    bits = bits_per_layer(network(model))
    assert list(bits)[:2] == ["body.0.body.0", "body.0.body.2"]
    assert set(bits.values()) == {3, 4, 5, 8}
    assert bits["tail.1"] == 8
    fab = network(model).fab(batches()[0])
    body = [value for name, value in bits.items() if name.startswith("body")]
    assert torch.allclose(fab, torch.full((4,), sum(body) / len(body)))


def test_static_bits_take_no_content_from_another_network() -> None:
    adaptive = run(small_edsr(), [AdaBMQuantization(targets=("body.*",))])
    static = run(small_edsr(), [AdaBMQuantization(targets=("body.*",), image_mapping=False)])
    fab = network(static).fab(batches()[0])
    dark = torch.zeros(4, 3, 16, 16)
    assert not torch.equal(network(adaptive).fab(dark), fab)
    assert torch.equal(network(static).fab(batches()[0]), fab)


def test_adaptive_bits_have_no_bits_per_layer_without_images() -> None:
    model = network(run(small_edsr(), [AdaBMQuantization(targets=("body.*",))]))
    with pytest.raises(UserError, match="depend on the image"):
        bits_per_layer(model)
    assert set(bits_per_layer(model, batches()[0])) == set(model.layers)


class Shared(nn.Module):
    """One convolution called twice, as in CARN-M, and layers in a module list, whose names NNCF shortens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"), nn.Conv2d(3, 3, 1)])
        self.value_range = 1.0

    def forward(self, x: Tensor, gain: float = 2.0) -> Tensor:
        for _ in range(2):
            for layer in self.layers:
                x = F.relu(layer(x)) * gain
        return x


def test_a_layer_called_twice_has_one_quantizer() -> None:
    data = [batch / 255 for batch in batches()]
    algorithm = AdaBMQuantization(value_range=1.0)
    model = run(Shared(), [algorithm], data=data)
    names = [name for name, hook in hooks(model) if isinstance(hook, QuantizerHook)]
    assert len(names) == 8
    assert len({id(hook) for _, hook in hooks(model) if isinstance(hook, QuantizerHook)}) == 4
    plain = apply(Shared(), algorithm.scheme, Placement(), data[0], 1.0)
    calibrate(plain, data)
    for name, value in model.state_dict().items():
        assert torch.equal(value, plain.model.state_dict()[name]), name


def test_padding_layer_quantizes_what_it_pads() -> None:
    model = apply(Shared(), make_scheme({"name": "adabm"}), Placement(), batches()[0] / 255, 1.0).model
    first = [name for name, hook in hooks(model) if isinstance(hook, QuantizerHook) and hook.layer == "layers.0"]
    assert {decode_hook_name(name)[1].split("/")[-2] for name in first} == {"pad", "conv2d"}


def test_needs_statistics() -> None:
    algorithm = SchemeQuantization(make_scheme({"name": "adabm"}))
    wrapper = GraphModelWrapper(wrap_model(small_edsr()), batches()[0])
    with pytest.raises(UserError, match="Pipeline"):
        algorithm.apply(wrapper, wrapper.get_graph())


def test_wrong_range_is_noticed_in_the_pipeline() -> None:
    with pytest.raises(UserError, match=r"0\.\.255"):
        run(small_edsr(), [AdaBMQuantization(targets=("body.*",))], data=[batch / 255 for batch in batches()])
    with pytest.raises(UserError, match="did you mean 'weight_bits'"):
        AdaBMQuantization(weight_bit=4)


def test_a_dictionary_of_inputs() -> None:
    """A dataset may name the network's arguments."""
    wrapper = GraphModelWrapper(wrap_model(Shared()), {"x": batches()[0][:1] / 255, "gain": 1.5})
    data = nncf.Dataset([{"x": batch / 255, "gain": 1.5} for batch in batches()])
    model = Pipeline([[AdaBMQuantization(value_range=1.0)]]).run(wrapper, data).model
    assert network(model).calibrated()
