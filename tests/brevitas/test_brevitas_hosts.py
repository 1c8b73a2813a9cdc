"""What Brevitas' users try first: its own exporters, a scheme's classes alone, layers whose weights are computed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import utils
from torch.nn.utils import parametrizations

import qsci_plugins.brevitas
import qsci_plugins.nncf
from qsci_plugins.brevitas import CADyQAct
from qsci_plugins.errors import UserError
from qsci_plugins.openvino.lowering import lower
from qsci_plugins.schemes.content import set_content
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme

_EXPORT = """
import sys
import brevitas.nn as qnn, openvino, torch
from brevitas.export import export_onnx_qcdq, export_qonnx
from brevitas.graph.calibrate import calibration_mode
from torch import nn
from qsci_plugins.brevitas import QSCIAct, QSCIWeight

torch.manual_seed(0)
layers = [qnn.QuantConv2d(c, d, 3, input_quant=QSCIAct, weight_quant=QSCIWeight) for c, d in ((3, 8), (8, 3))]
model = nn.Sequential(*layers).eval()
x = torch.rand(1, 3, 16, 16)
with torch.no_grad(), calibration_mode(model):
    model(x)
expected = model(x).detach()
export_qonnx(model, args=x, export_path=sys.argv[1] + "/q.onnx")
export_onnx_qcdq(model, args=x, export_path=sys.argv[1] + "/qcdq.onnx")
compiled = openvino.Core().compile_model(sys.argv[1] + "/qcdq.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
assert (torch.from_numpy(compiled(x.numpy())[0]) - expected).abs().max() < 1e-5
"""


def test_brevitas_own_exporters_know_our_classes_by_their_import_alone(tmp_path: Path) -> None:
    # in a process of its own, as any other test may have imported what registers them
    subprocess.run([sys.executable, "-c", _EXPORT, tmp_path], check=True, capture_output=True)
    assert (tmp_path / "q.onnx").is_file()


def test_cadyq_alone_says_what_it_lacks() -> None:
    import brevitas.nn as qnn

    set_content(None)
    layer = qnn.QuantConv2d(3, 4, 3, input_quant=CADyQAct)
    with pytest.raises(UserError, match=r"qsci_plugins\.brevitas\.attach_scheme\(model, scheme\)"):
        layer(torch.rand(1, 3, 8, 8))


class Normed(nn.Module):
    """Two convolutions whose weights are computed."""

    def __init__(self, norm: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(norm(nn.Conv2d(3, 8, 3)), nn.ReLU(), norm(nn.Conv2d(8, 3, 3)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layers(x)
        return y


@pytest.mark.parametrize("backend", [qsci_plugins.brevitas, qsci_plugins.nncf])
@pytest.mark.parametrize(
    "norm", [utils.weight_norm, utils.spectral_norm, parametrizations.weight_norm, parametrizations.spectral_norm]
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_norms_of_weights_are_folded(norm: Callable[[nn.Module], nn.Module], backend: object) -> None:
    torch.manual_seed(0)
    stock = Normed(norm)
    x = torch.rand(2, 3, 12, 12)
    stock(x)  # leaves weights with a history behind
    stock.eval()
    with torch.no_grad():
        expected = stock(x)
    scheme = make_scheme({"name": "adabm", "weight_bits": 8, "activation_bits": 8, "image_mapping": False})
    quantized = backend.quantize(stock, scheme, Placement(("*",)), [x], 1.0)  # type: ignore[attr-defined]
    with torch.no_grad():
        assert (quantized.model(x) - expected).abs().max() < 0.05 * expected.abs().max()
        assert torch.allclose(stock(x), expected, atol=1e-6)  # it still has its norms
        assert torch.allclose(lower(stock, quantized)(x), quantized.model(x), atol=1e-3 * float(expected.abs().max()))
