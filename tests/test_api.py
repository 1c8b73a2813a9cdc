"""The calls for a program of one's own: quantize, export, save and load."""

from __future__ import annotations

import copy
import doctest
from pathlib import Path
from typing import Any

import nncf
import openvino
import pytest
import torch
from nncf.quantization.algorithms.pipeline import Pipeline
from nncf.torch.function_hook.nncf_graph.nncf_graph_builder import GraphModelWrapper
from nncf.torch.function_hook.wrapper import wrap_model
from openvino_networks import integer_layers

import qsci_plugins
import qsci_plugins.api
from qsci_plugins.api import Backend
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.latency import open_exported
from qsci_plugins.nncf import AdaBMQuantization, all_but, network
from qsci_plugins.openvino.precisions import runtime_precisions

SCHEME = {"name": "adabm", "weight_bits": 6, "activation_bits": 6, "image_mapping": False}
BACKENDS: list[Backend] = ["nncf", "brevitas"]


def edsr() -> torch.nn.Module:
    torch.manual_seed(0)
    module = qsci_plugins.load_network("edsr", None, 2, blocks=1, width=8).module
    return module.eval()


def images() -> torch.Tensor:
    return torch.randint(0, 256, (4, 3, 24, 24), generator=torch.Generator().manual_seed(0)).float()


def test_the_docstring_runs() -> None:
    examples = doctest.DocTestFinder().find(qsci_plugins.api.quantize, globs={})
    assert sum(doctest.DocTestRunner().run(example).attempted for example in examples) > 5
    assert doctest.DocTestRunner().summarize().failed == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_stock_network_is_taken_out_of_the_quantized_one(backend: Backend, tmp_path: Path) -> None:
    stock = edsr()
    quantized = qsci_plugins.quantize(stock, images(), scheme=SCHEME, backend=backend)
    assert quantized.float_form is not None
    alone = quantized.float_form()
    assert {name for name, _ in alone.named_modules()} == {name for name, _ in stock.named_modules()}
    assert alone.state_dict().keys() == stock.state_dict().keys()
    qsci_plugins.export(quantized, tmp_path / "a", tile=(24, 24), overlap=4)
    qsci_plugins.export(quantized, tmp_path / "b", tile=(24, 24), overlap=4, stock=stock)
    assert {f.name for f in (tmp_path / "a").iterdir()} == {f.name for f in (tmp_path / "b").iterdir()}
    layers = integer_layers(open_exported(tmp_path / "a"))
    assert len(layers) == 8
    assert all(layers.values())


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_saved_loads_without_any_list_of_modules(backend: Backend, tmp_path: Path) -> None:
    quantized = qsci_plugins.quantize(edsr(), images(), scheme=SCHEME, backend=backend)
    qsci_plugins.save(quantized, tmp_path / "q.pt")
    loaded = qsci_plugins.load(edsr(), tmp_path / "q.pt")
    with torch.no_grad():
        assert torch.equal(loaded.model.eval()(images()), quantized.model.eval()(images()))
    torch.save({"format": "other"}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt was not written by qsci_plugins\.save"):
        qsci_plugins.load(edsr(), tmp_path / "other.pt")


@pytest.mark.parametrize(
    ("ignored", "left"),
    [
        (["head"], {"head.0"}),
        (["tail.*", "body.1"], {"tail.0.0", "tail.1", "body.1"}),
        (nncf.IgnoredScope(names=["head/0/conv2d/0"]), {"head.0"}),
        (nncf.IgnoredScope(patterns=["tail/.*"]), {"tail.0.0", "tail.1"}),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_ignored_layers_stay_in_float(ignored: Any, left: set[str], backend: Backend) -> None:
    quantized = qsci_plugins.quantize(edsr(), images(), scheme=SCHEME, backend=backend, ignored=ignored)
    every = {"head.0", "body.0.body.0", "body.0.body.2", "body.1", "tail.0.0", "tail.1", "sub_mean", "add_mean"}
    assert set(quantized.layers) == every - left


def in_pipeline(model: torch.nn.Module, *algorithms: Any) -> torch.nn.Module:
    wrapper = GraphModelWrapper(wrap_model(model), images()[:1])
    result: torch.nn.Module = Pipeline([list(algorithms)]).run(wrapper, nncf.Dataset([images()])).model
    return result


def test_the_network_that_nncf_wrapped_in_place_still_serves_as_stock(tmp_path: Path) -> None:
    from qsci_plugins.openvino.export import export_upscaler

    model = edsr()
    settings = {name: value for name, value in SCHEME.items() if name != "name"}
    quantized = in_pipeline(model, AdaBMQuantization(**settings))
    export_upscaler(network(quantized), model, tmp_path / "m", tile=(24, 24), scale=2, overlap=4, mode="static")
    layers = integer_layers(open_exported(tmp_path / "m"))
    assert len(layers) == 8
    assert all(layers.values())
    assert openvino.Core().read_model(next((tmp_path / "m").glob("*.xml"))) is not None


def test_layers_that_nncf_quantized_are_named_and_not_dropped(tmp_path: Path) -> None:
    from nncf.quantization.algorithms.min_max.algorithm import MinMaxQuantization

    scope = all_but(edsr(), images()[:1], ["head.*", "tail.*"])
    mine = AdaBMQuantization(targets=["body.*"], image_mapping=False)
    quantized = network(in_pipeline(copy.deepcopy(edsr()), mine, MinMaxQuantization(ignored_scope=scope)))
    with pytest.raises(UserError, match=r"head/0/conv2d/0.*another algorithm"):
        qsci_plugins.export(quantized, tmp_path / "m", tile=(24, 24), overlap=4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scheme", [{**SCHEME, "activation_bits": 4}, {"name": "qsci", "attention": []}])
def test_static_networks_leave_by_openvinos_own_call(scheme: dict[str, Any], backend: Backend) -> None:
    quantized = qsci_plugins.quantize(edsr(), images(), scheme=scheme, backend=backend, ignored=["*_mean"]).model.eval()
    x = images()[:1]
    with torch.no_grad():
        expected = quantized(x)
    model = openvino.convert_model(quantized, example_input=x, input=[1, 3, 24, 24])
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    difference = torch.from_numpy(compiled(x.numpy())[0]) - expected
    assert difference.abs().max() < 1e-3 * (expected.max() - expected.min())
    kinds = [layer.precision for layer in runtime_precisions(compiled) if "Conv" in layer.type]
    assert sum(kind in ("u8", "i8") for kind in kinds) == 6  # all but the two mean shifts


@pytest.mark.parametrize("backend", BACKENDS)
def test_adaptive_networks_name_the_call_that_exports_them(backend: Backend) -> None:
    quantized = qsci_plugins.quantize(edsr(), images(), backend=backend)
    with pytest.raises(Exception, match=r"qsci_plugins\.export\(quantized, folder, tile=\.\.\.\)"):
        openvino.convert_model(quantized.model.eval(), example_input=images()[:1])
