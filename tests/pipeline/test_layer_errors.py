"""What each layer costs the output is measured, and shown, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import qsci_plugins
from qsci_plugins.pipeline import image_prepare
from qsci_plugins.pipeline.run import _layer_errors
from qsci_plugins.progress import Advance, Progress
from qsci_plugins.recipes import Recipe, make_recipe


class Recorded(Progress):
    def __init__(self) -> None:
        self.steps: list[tuple[float, int]] = []

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Advance]:
        yield lambda done, **_: self.steps.append((done, total))


def test_the_progress_counts_the_layers() -> None:
    recipe = make_recipe(
        {
            "version": 1,
            "model": {"architecture": "edsr", "scale": 2, "settings": {"blocks": 1, "width": 4}},
            "scheme": {"name": "adabm"},
            "place": {"targets": ["body.*"]},
            "calibrate": {"count": 2, "patch": 16, "batch": 2},
        }
    )
    assert isinstance(recipe, Recipe)
    prepared = image_prepare.prepare(recipe, None, Progress())
    quantized = qsci_plugins.quantize(prepared.network.module, prepared.batches, targets=["body.*"])
    progress = Recorded()
    found = _layer_errors(prepared, quantized, progress)
    count = len(quantized.layers)
    assert len(found["layers"]) == count > 1
    assert progress.steps == [(done, count) for done in range(1, count + 1)]
