"""What each layer costs the output is measured, and shown, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from noted import Notes

import qsci_plugins
from qsci_plugins.pipeline import image_prepare
from qsci_plugins.pipeline.run import _layer_errors
from qsci_plugins.progress import Advance, Progress
from qsci_plugins.recipes import Recipe, make_recipe
from qsci_plugins.schemes.quantizer import Mode
from qsci_plugins.schemes.scheme import set_mode


class Recorded(Notes):
    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[float, int]] = []

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Advance]:
        yield lambda done, **_: self.steps.append((done, total))


def calibrated(*, zero: bool = False):
    """A recipe's parts, and its network at 4 bits, whose last layers give zero where asked."""
    recipe = make_recipe(
        {
            "version": 1,
            "model": {"architecture": "edsr", "scale": 2, "settings": {"blocks": 1, "width": 4}},
            "scheme": {"name": "adabm", "weight_bits": 4, "activation_bits": 4},
            "place": {"targets": ["body.*"]},
            "calibrate": {"count": 2, "patch": 16, "batch": 2},
        }
    )
    assert isinstance(recipe, Recipe)
    prepared = image_prepare.prepare(recipe, None, Progress())
    if zero:
        with torch.no_grad():
            [parameter.zero_() for parameter in prepared.network.module.tail.parameters()]
    return prepared, qsci_plugins.quantize(
        prepared.network.module, prepared.batches, scheme=prepared.scheme, targets=["body.*"]
    )


def test_the_layers_are_counted_and_the_costly_ones_named_ahead_of_training(tmp_path: Path) -> None:
    prepared, quantized = calibrated()
    progress = Recorded()
    found = _layer_errors(prepared, quantized, tmp_path, progress)
    count = len(quantized.layers)
    assert len(found["layers"]) == count > 1
    assert progress.steps == [(done, count) for done in range(1, count + 1)]
    most = max(found["layers"], key=found["layers"].__getitem__)
    share = 100 * found["layers"][most] / found["whole"]
    (note,) = progress.notes
    assert note.startswith(f"of the error ahead of training come {share:.0f} % with {most}")
    assert note.endswith("; place.eight_bit gives layers 8 bits")
    set_mode(quantized.quantizers(), Mode.OFF)
    assert _layer_errors(prepared, quantized, tmp_path, progress) == found, "measured again behind the training"


def test_no_layer_is_named_where_there_is_no_error(tmp_path: Path) -> None:
    prepared, quantized = calibrated(zero=True)
    progress = Recorded()
    found = _layer_errors(prepared, quantized, tmp_path, progress)
    assert found["whole"] == 0
    assert set(found["layers"].values()) == {0.0}
    assert not progress.notes
