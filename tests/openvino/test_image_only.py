"""bf16 where nothing chooses bits: the choices are those of f32, and the float layers behind them run faster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
import pytest
from openvino_networks import integer_layers, plain_apply, small_edsr, smooth_images
from plain import calibrate

from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.latency import open_graph
from qsci_plugins.openvino.export import export_upscaler
from qsci_plugins.openvino.manifest import load_manifest
from qsci_plugins.openvino.precisions import Precision, allowed, has_bf16, image_only_in_bf16, runtime_precisions
from qsci_plugins.openvino.runtime import Upscaler
from qsci_plugins.schemes.placement import Placement

TILE = (24, 24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stock = small_edsr(width=16)
    network = plain_apply(stock, {"name": "cadyq"}, Placement(("body.*",), float_=("body.2",)), stock.value_range)
    calibrate(network, [smooth_images(3, TILE[0])])
    folder = tmp_path_factory.mktemp("dynamic") / "m"
    export_upscaler(network, stock, folder, tile=TILE, scale=2, mode="dynamic", overlap=4)
    return folder


def graph_of(folder: Path) -> openvino.Model:
    manifest = load_manifest(folder)
    return openvino.Core().read_model(folder / manifest.route(0).graph.name, folder / manifest.weights.name)


def test_the_layers_behind_the_last_choice_and_no_others_are_changed(folder: Path) -> None:
    model = graph_of(folder)
    before = [op.get_friendly_name() for op in model.get_ops() if op.get_type_name() == "Convolution"]
    assert image_only_in_bf16(model) == 3
    halved = {
        op.get_friendly_name()
        for op in model.get_ops()
        if op.get_type_name() == "Convolution" and op.get_element_type() == openvino.Type.bf16
    }
    assert {name.split("/")[0].split(".", 1)[1] for name in halved} == {"body.2", "tail.0.0", "tail.1"}
    assert len(before) > 3 + len(halved)
    assert [output.get_element_type() for output in model.outputs] == [openvino.Type.u8, openvino.Type.f32]


@pytest.mark.skipif(not has_bf16(), reason="this CPU does not compute in bf16")
def test_it_chooses_the_same_bits_and_computes_the_rest_in_bf16(folder: Path) -> None:
    assert load_manifest(folder).precision == "image_only"
    graph = graph_of(folder)
    exact, fast = (open_graph(graph, precision=precision, threads=1) for precision in ("f32", "image_only"))
    everywhere = open_graph(graph, precision="bf16", threads=1)
    precisions = [
        {layer.name: layer.precision for layer in runtime_precisions(compiled) if layer.type == "Convolution"}
        for compiled in (exact, fast)
    ]
    behind = [name for name in precisions[0] if precisions[0][name] != precisions[1][name]]
    assert {precisions[1][name] for name in behind} == {"bf16"}
    assert all(any(part in name for part in ("body.2", "tail.0.0", "tail.1")) for name in behind), behind
    assert len(behind) == 3
    assert sum(integer_layers(fast).values()) == sum(integer_layers(exact).values()) == 4
    for image in smooth_images(4, TILE[0], seed=3).permute(0, 2, 3, 1).numpy().astype(np.uint8):
        first, second, third = (compiled(image[None]) for compiled in (exact, fast, everywhere))
        np.testing.assert_array_equal(first[1], second[1])
        errors = [np.abs(other[0].astype(int) - first[0]).mean() for other in (second, third)]
        assert 0 < errors[0] < errors[1]


def test_the_runtime_takes_it_where_bf16_is_wanted(folder: Path) -> None:
    image = smooth_images(1, TILE[0], seed=3).permute(0, 2, 3, 1).numpy().astype(np.uint8)[0]
    default, fast = Upscaler(folder, threads=1), Upscaler(folder, threads=1, precision="auto")
    expected = open_graph(graph_of(folder), precision="f32", threads=1)(image[None])[0][0]
    np.testing.assert_array_equal(default.upscale(image), expected)
    expected = open_graph(graph_of(folder), precision="image_only", threads=1)(image[None])[0][0]
    np.testing.assert_array_equal(fast.upscale(image), expected)


@pytest.mark.parametrize(
    ("asked", "at_most", "given"),
    [
        (None, "auto", "f32"),
        ("f32", "image_only", "f32"),
        ("auto", "image_only", "image_only"),
        ("bf16", "image_only", "image_only"),
        ("bf16", "f32", "f32"),
        ("bf16", "auto", "bf16"),
    ],
)
def test_what_is_asked_for_is_given_up_to_what_the_manifest_allows(
    asked: Precision | None, at_most: Precision, given: Precision
) -> None:
    assert allowed(asked, at_most) == given


def test_an_unknown_precision_is_named_with_those_there_are(folder: Path) -> None:
    with pytest.raises(UserError, match="there is no precision 'fp16'; known: f32, bf16, auto, image_only"):
        Upscaler(folder, precision="fp16")  # type: ignore[arg-type]
