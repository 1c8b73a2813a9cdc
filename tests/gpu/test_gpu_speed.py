"""How fast a GPU calibrates, fine-tunes and trains: printed beside the goals, and judged by readers alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from gpu_size import SMALL
from torch import nn

from qsci_plugins.comparing.cost import Pairs, quantized_reference, random_images, reference, training_step
from qsci_plugins.pipeline.run import run_recipe
from qsci_plugins.progress import Advance, Progress
from qsci_plugins.recipes.library import find_recipe
from qsci_plugins.recipes.reading import on_device, read_recipe
from qsci_plugins.recipes.schema import Recipe

pytestmark = pytest.mark.gpu

#: a training step at most so many times the float one's
GOALS = {"adabm": 1.6, "qsci": 1.6, "cadyq": 2.5}


def say(text: str) -> None:
    """Into what `pytest -s` shows."""
    print(f"\n{text}", flush=True)


class Shown(Progress):
    """Notes and the ends of stages, printed."""

    def note(self, text: str) -> None:
        say(text)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Advance]:
        yield lambda done, text="", total=None: None
        say(f"stage: {title}")


@pytest.mark.parametrize("backend", ["nncf", "brevitas"])
@pytest.mark.parametrize("scheme", sorted(GOALS))
def test_a_training_step_beside_the_float_one(scheme: str, backend: str, device: str) -> None:
    """EDSR x2 of 8 blocks and 16 patches of 48x48, as `qsci cost` has them."""
    model: nn.Module = (reference(1, 8) if SMALL else reference()).to(device).train()
    network = quantized_reference(model, scheme, backend)
    network.model.train()
    images = random_images(*((2, 16) if SMALL else (16, 48))).to(device)
    pairs = Pairs().measure(
        lambda: training_step(model, images), lambda: training_step(network.model, images), 1 if SMALL else 20
    )
    found = pairs.summary()
    say(
        f"{scheme} in {backend} on {device}: {found['ratio']:.2f} of float, goal {GOALS[scheme]}"
        f" ({found['quantized_ms']:.1f} / {found['float_ms']:.1f} ms)"
    )
    assert found["ratio"] > 0


@pytest.mark.parametrize("backend", ["brevitas"] if SMALL else ["nncf", "brevitas"])
def test_edsr_baseline_in_4_bits(backend: str, device: str, tmp_path: Path) -> None:
    """100 patches of 96x96, the shipped recipe's fine-tuning: calibration and fine-tuning in under 26 s."""
    overrides = [f"backend={backend}", "calibrate.patch=96", "export.openvino.mode=none", "evaluate=[]"]
    if SMALL:
        tiny = "model={architecture: edsr, scale: 4, settings: {blocks: 1, width: 4}}"
        overrides += [tiny, "calibrate.count=4", "calibrate.patch=16", "calibrate.batch=2", "train={steps: 2}"]
    recipe = on_device(read_recipe(find_recipe("sr/edsr_x4_adabm_w4a4"), overrides), device)
    assert isinstance(recipe, Recipe)
    output = run_recipe(recipe, tmp_path / "run", progress=Shown(), latency=False)
    metrics = json.loads((output / "metrics.json").read_text())
    seconds = metrics["seconds"]
    total = seconds["calibration"] + seconds["fine_tuning"]
    say(
        f"EDSR-baseline x4, W4A4, in {backend} on {metrics['machine']['devices']['calibration'][0]}: {total:.1f} s, goal 26"
        f" (calibration {seconds['calibration']:.1f}, fine-tuning {seconds['fine_tuning']:.1f})"
    )
    assert metrics["training"]["steps"] == (2 if SMALL else 200)
    names = metrics["machine"]["devices"].values()
    assert all(len(each) == 1 and each[0].startswith(device) for each in names)
    state = torch.load(output / "checkpoint.pt", weights_only=True)["state_dict"]
    assert all(tensor.isfinite().all() for tensor in state.values() if tensor.is_floating_point())
