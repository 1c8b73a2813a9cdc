"""ONNX files of Brevitas networks: onnxruntime and OpenVINO compute what torch does, OpenVINO in integers."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from torch import Tensor, nn

from qsci_plugins.architectures.sci.efficientsci import EfficientSCI
from qsci_plugins.architectures.sr.edsr import EDSR
from qsci_plugins.brevitas import apply, quantize
from qsci_plugins.brevitas.onnx import export_qcdq, export_qonnx
from qsci_plugins.errors import UserError
from qsci_plugins.openvino.lowering import lower
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork

EVERY_LAYER = Placement(targets=("body.*",), eight_bit=("head.*", "tail.*"))
STATIC = {
    "adabm": {"name": "adabm", "image_mapping": False},
    "qsci": {"name": "qsci", "attention": [], "weight_bits": 3, "activation_bits": 5},
    "qsci 8 bits": {"name": "qsci", "attention": [], "weight_bits": 8, "activation_bits": 8},
}


def images(count: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, 16, 16, generator=generator) * torch.linspace(50, 255, count)[:, None, None, None]


def edsr(seed: int = 0) -> EDSR:
    torch.manual_seed(seed)
    return EDSR(blocks=2, width=16, scale=2).eval()


def measurement() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(1, 2, 8, 8, generator=generator) + 0.1
    return (mask * torch.rand(1, 2, 8, 8, generator=generator)).sum(1), mask, mask.sum(1)


def quantized_edsr(settings: dict[str, Any], seed: int = 0) -> QuantizedNetwork:
    return quantize(edsr(seed), make_scheme(settings), EVERY_LAYER, [images()], 255.0)


def run_onnx(file: Path, *inputs: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    return session.run(None, {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)})[0]


def run_openvino(file: Path, *inputs: Tensor) -> tuple[np.ndarray, Counter[tuple[str, str]]]:
    """The output, and how often a kind of layer runs in which precision."""
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    output = next(iter(compiled([tensor.numpy() for tensor in inputs]).values()))
    precisions = Counter()
    for operation in compiled.get_runtime_model().get_ordered_ops():
        info = operation.get_rt_info()
        precisions[info["layerType"].astype(str), info["runtimePrecision"].astype(str)] += 1
    return output, precisions


def assert_equal_but_for_flips(output: np.ndarray, expected: Tensor) -> None:
    """A value next to a rounding boundary may fall on its other side, and is then seen in its neighbourhood."""
    reference = expected.numpy()
    error = np.abs(output - reference) / (reference.max() - reference.min())
    assert error.mean() < 1e-4
    assert (error > 1e-4).mean() < 0.02


@pytest.mark.parametrize("name", STATIC)
def test_qcdq_runs_in_integers_and_is_equal(name: str, tmp_path: Path) -> None:
    quantized, x = quantized_edsr(STATIC[name], seed=1), images(1)  # with 0, one value lies on a rounding boundary
    file = tmp_path / "edsr.onnx"
    export_qcdq(quantized, file, x)
    assert [entry.name for entry in tmp_path.iterdir()] == ["edsr.onnx"]
    with torch.no_grad():
        expected = quantized.model.eval()(x)
    assert_equal_but_for_flips(run_onnx(file, x), expected)
    output, precisions = run_openvino(file, x)
    assert_equal_but_for_flips(output, expected)
    convolutions = {key[1]: count for key, count in precisions.items() if key[0] == "Convolution"}
    # every quantized convolution; the two mean shifts stay in float
    assert sum(count for precision, count in convolutions.items() if precision in ("u8", "i8")) == len(quantized.layers)
    graph = onnx.load(file).graph
    constants = {tensor.name for tensor in graph.initializer}
    assert not any(node.op_type == "Clip" and node.input[0] in constants for node in graph.node)
    kernels = [tensor for tensor in graph.initializer if len(tensor.dims) == 4]
    assert sum(tensor.data_type == onnx.TensorProto.INT8 for tensor in kernels) == len(quantized.layers)


_RUN = """
import sys
import numpy as np, openvino
compiled = openvino.Core().compile_model(sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
np.save(sys.argv[3], compiled(np.load(sys.argv[2]))[0])
"""


@pytest.mark.parametrize("name", STATIC)
def test_qcdq_is_exact_without_vnni(name: str, tmp_path: Path) -> None:
    """Signed activations of few bits, too: as int8 they would cost weights their last bit."""
    quantized, x = quantized_edsr(STATIC[name], seed=1), images(1)
    export_qcdq(quantized, tmp_path / "m.onnx", x)
    np.save(tmp_path / "x.npy", x.numpy())
    with torch.no_grad():
        expected = quantized.model.eval()(x)
    files = [tmp_path / name for name in ("m.onnx", "x.npy", "y.npy")]
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    subprocess.run([sys.executable, "-c", _RUN, *files], env=environment, check=True)
    assert_equal_but_for_flips(np.load(files[-1]), expected)


@pytest.mark.parametrize("name", STATIC)
def test_qonnx_is_executed_and_equal(name: str, tmp_path: Path) -> None:
    quantized, x = quantized_edsr(STATIC[name], seed=1), images(1)
    export_qonnx(quantized, tmp_path / "edsr.onnx", x)
    with torch.no_grad():
        expected = quantized.model.eval()(x)
    assert_equal_but_for_flips(run_onnx(tmp_path / "edsr.onnx", x), expected)
    model = onnx.load(tmp_path / "edsr.onnx")
    quants = [node for node in model.graph.node if node.op_type == "Quant"]
    assert len(quants) == 2 * len(quantized.layers)
    assert {node.domain for node in quants} == {"qonnx.custom_op.general"}


def test_an_eight_bit_image_is_read_on_its_own_grid(tmp_path: Path) -> None:
    x = images(4).round()
    quantized = quantize(edsr(), make_scheme(STATIC["adabm"]), EVERY_LAYER, [x], 255.0)
    assert bool(quantized.layers["head.0"].activation.on_grid)
    with torch.no_grad():
        expected = quantized.model.eval()(x[:1])
    for export in (export_qcdq, export_qonnx):
        export(quantized, tmp_path / "m.onnx", x[:1])
        assert_equal_but_for_flips(run_onnx(tmp_path / "m.onnx", x[:1]), expected)


def test_attention_and_video_export_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = EfficientSCI(in_ch=8, units=1).eval()
    inputs = measurement()
    quantized = quantize(model, make_scheme({"name": "qsci"}), Placement(("resdnet_list.*",)), [inputs], 1.0)
    for attention in quantized.attentions.values():
        with torch.no_grad():
            attention.query.shift.add_(0.1)
    with torch.no_grad():
        expected = quantized.model(*inputs)
    export_qcdq(quantized, tmp_path / "qcdq.onnx", inputs)
    export_qonnx(quantized, tmp_path / "qonnx.onnx", inputs)
    for name in ("qcdq", "qonnx"):
        assert_equal_but_for_flips(run_onnx(tmp_path / f"{name}.onnx", *inputs), expected)
    output, precisions = run_openvino(tmp_path / "qcdq.onnx", *inputs)
    assert_equal_but_for_flips(output, expected)
    in_integers = sum(
        count
        for (kind, precision), count in precisions.items()
        if kind in ("Convolution", "FullyConnected") and precision in ("u8", "i8")
    )
    assert in_integers == len(quantized.layers)


@pytest.mark.parametrize("settings", [{"name": "adabm"}, {"name": "cadyq"}, STATIC["qsci 8 bits"]])
def test_adaptive_networks_go_through_the_same_lowering_as_nncf_models(settings: dict[str, Any]) -> None:
    """8-bit weights may reach -128, which int8 holds."""
    # of seed 0, CADyQ has one value on a rounding boundary before body.1.body.0, which a whole image sees
    quantized, x = quantized_edsr(settings, seed=1), images()
    with torch.no_grad():
        expected = quantized.model.eval()(x)
        output = lower(edsr(1), quantized, None)(x)
    assert_equal_but_for_flips(output.numpy(), expected)


def test_brevitas_own_exporter_knows_our_quantizers(tmp_path: Path) -> None:
    from brevitas.export import export_onnx_qcdq

    quantized, x = quantized_edsr(STATIC["qsci"]), images(1)
    model = copy.deepcopy(quantized.model).eval()
    export_onnx_qcdq(model, args=x, export_path=str(tmp_path / "m.onnx"), dynamo=True, optimize=True)
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node)
    assert kinds["QuantizeLinear"] == len(quantized.layers)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"name": "cadyq"}, "depend on the image"),
        ({"name": "adabm"}, "image_mapping: false"),
        ({"name": "adabm", "image_mapping": False, "form": "faithful"}, "form: integer"),
        ({"name": "qsci", "attention": [], "form": "faithful"}, "form: integer"),
    ],
)
def test_what_has_no_integer_form_is_refused(settings: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    quantized = quantized_edsr(settings)
    for export in (export_qcdq, export_qonnx):
        with pytest.raises(UserError, match=complaint):
            export(quantized, tmp_path / "m.onnx", images(1))
    assert not list(tmp_path.iterdir())
    # a refused export leaves the network as it was
    with torch.no_grad():
        assert torch.isfinite(quantized.model(images(1))).all()


def test_export_before_calibration(tmp_path: Path) -> None:
    quantized = apply(edsr(), make_scheme(STATIC["qsci"]), EVERY_LAYER, images(1), 255.0)
    with pytest.raises(UserError, match="not calibrated"):
        export_qcdq(quantized, tmp_path / "m.onnx", images(1))


def test_a_new_process_loads_the_same_network(tmp_path: Path) -> None:
    from qsci_plugins.brevitas import save

    quantized: QuantizedNetwork = quantized_edsr({"name": "cadyq", "form": "faithful"})
    x: Tensor = images(2)
    save(quantized, tmp_path / "q.pt")
    torch.save(x, tmp_path / "x.pt")
    program = (
        "import sys, torch\n"
        "from qsci_plugins.architectures.sr.edsr import EDSR\n"
        "from qsci_plugins.brevitas import load\n"
        "folder = sys.argv[1]; x = torch.load(folder + '/x.pt', weights_only=True)\n"
        "network = load(EDSR(blocks=2, width=16, scale=2).eval(), folder + '/q.pt')\n"
        "with torch.no_grad(): torch.save(network.model(x), folder + '/y.pt')\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program, str(tmp_path)], check=True)
    model: nn.Module = quantized.model
    with torch.no_grad():
        assert torch.equal(torch.load(tmp_path / "y.pt", weights_only=True), model(x))
