"""Every scheme through both backends on a GPU: calibrated, trained, saved, and the same again on a CPU."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_size import SMALL
from torch import Tensor, nn

import qsci_plugins
from qsci_plugins.architectures.sci.efficientsci import EfficientSCI
from qsci_plugins.architectures.sr.edsr import EDSR
from qsci_plugins.pipeline.networks import full_precision
from qsci_plugins.schemes.registry import scheme_names
from qsci_plugins.schemes.scheme import QuantizedNetwork, inputs_of

pytestmark = pytest.mark.gpu

BACKENDS = ("nncf", "brevitas")

#: what the schemes are tried on, by the value range of its input
IMAGES, VIDEO = 255.0, 1.0

ADABM = {"name": "adabm", "weight_bits": 4, "activation_bits": 4, "reconstruct_weights": False}

#: a network's kind and a scheme; further ones than each scheme's own make other code run
CASES: list[tuple[float, dict[str, Any]]] = [
    (IMAGES, {**ADABM, "mean_bits": 4.0}),
    *((IMAGES, {"name": name}) for name in scheme_names() if name != "adabm"),
    (VIDEO, {"name": "qsci"}),
]
if not SMALL:
    CASES += [
        (IMAGES, {**ADABM, "reconstruct_weights": True}),
        (IMAGES, {**ADABM, "form": "faithful"}),
        (IMAGES, {"name": "cadyq", "form": "faithful", "quantize_skip": True}),
        (IMAGES, {"name": "qsci", "form": "faithful"}),
        (VIDEO, ADABM),
        (VIDEO, {"name": "cadyq"}),
        (VIDEO, {"name": "qsci", "form": "faithful"}),
    ]


def network(kind: float) -> nn.Module:
    torch.manual_seed(0)
    if kind == VIDEO:
        return EfficientSCI(in_ch=2 if SMALL else 8, units=1, group_num=1 if SMALL else 2).eval()
    return EDSR(blocks=1 if SMALL else 2, width=4 if SMALL else 16, scale=2).eval()


def batches(kind: float) -> list[Any]:
    """Two batches on the CPU, from dark to bright."""
    generator = torch.Generator().manual_seed(0)
    brightness = torch.linspace(0.1, 1.0, 4)[:, None, None, None]
    if kind == IMAGES:
        return [255 * brightness * torch.rand(4, 3, 24, 24, generator=generator) for _ in range(2)]
    found = []
    for _ in range(2):
        mask = (torch.rand(4, 4, 16, 16, generator=generator) > 0.5).float()
        video = brightness * torch.rand(4, 4, 16, 16, generator=generator)
        found.append(((mask * video).sum(1), mask, mask.sum(1).clamp_min(1)))
    return found


def on(device: str, batch: Tensor | tuple[Tensor, ...]) -> Any:
    return batch.to(device) if isinstance(batch, Tensor) else tuple(part.to(device) for part in batch)


def quantized(kind: float, scheme: dict[str, Any], backend: str, device: str, side: str) -> QuantizedNetwork:
    settings = {**scheme, "attention": []} if scheme["name"] == "qsci" and kind == IMAGES else scheme
    model = network(kind).to(device)
    with full_precision():
        return qsci_plugins.quantize(
            model,
            [on(side, batch) for batch in batches(kind)],
            scheme=settings,
            backend=backend,
            ignored=["*_mean"] if kind == IMAGES else [],
            value_range=kind,
        )


def output(quantized: QuantizedNetwork, batch: Any) -> Tensor:
    """In float64, where no sum depends on its order so much that a value is rounded to the next level."""
    model = copy.deepcopy(quantized.model).double().eval()
    device = next(model.parameters()).device
    with torch.no_grad():
        result: Tensor = model(*(tensor.to(device, torch.float64) for tensor in inputs_of(batch)))
    return result.cpu()


def devices(module: nn.Module) -> set[str]:
    return {str(tensor.device) for tensor in (*module.parameters(), *module.buffers())}


@pytest.mark.parametrize(("kind", "scheme"), CASES, ids=str)
def test_a_scheme_is_calibrated_trained_and_saved_on_a_gpu_and_the_same_on_a_cpu(
    kind: float, scheme: dict[str, Any], device: str, tmp_path: Path
) -> None:
    first, second = batches(kind)
    networks = {backend: quantized(kind, scheme, backend, device, "cpu") for backend in BACKENDS}
    mine, theirs = (output(each, second) for each in networks.values())
    assert mine.std() > 0
    assert (mine - theirs).abs().mean() <= 1e-4 * kind
    for backend, each in networks.items():
        assert devices(each.model) == {device}
        assert each.calibrated()
        before = {name: tensor.clone() for name, tensor in each.model.state_dict().items()}
        train(each, on(device, first), on(device, second), on(device, first))
        after = each.model.state_dict()
        assert devices(each.model) == {device}
        assert any(not torch.equal(before[name], after[name]) for name in before)
        assert all(tensor.isfinite().all() for tensor in after.values() if tensor.is_floating_point())
        file = tmp_path / f"{backend}.pt"
        qsci_plugins.save(each, file)
        again = qsci_plugins.load(network(kind), file)
        assert devices(again.model) == {"cpu"}
        expected = output(each, second)
        assert (output(again, second) - expected).abs().max() <= 1e-4 * kind
        assert torch.allclose(again.fab(second), each.fab(on(device, second)).cpu(), atol=0.05)


def train(network: QuantizedNetwork, *steps: Any) -> None:
    """A step on each of the batches, towards darker pictures."""
    optimizer = torch.optim.Adam([p for p in network.model.parameters() if p.requires_grad], lr=1e-4)
    network.model.train()
    for inputs in steps:
        network.model(*inputs_of(inputs)).float().abs().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    network.model.eval()


def test_images_may_be_on_either_side(device: str) -> None:
    first, second = (quantized(IMAGES, {"name": "qsci"}, "nncf", device, side) for side in ("cpu", device))
    assert torch.equal(output(first, batches(IMAGES)[0]), output(second, batches(IMAGES)[0]))
