"""metrics.json: what a run measured, the same for images and for video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qsci_plugins.architectures.network import Network
from qsci_plugins.recipes.machine import describe_machine
from qsci_plugins.recipes.measure import BitMeter
from qsci_plugins.recipes.schema import Recipe
from qsci_plugins.recipes.steps import Journal
from qsci_plugins.recipes.video_schema import VideoRecipe

__all__ = ["run_metrics"]


def run_metrics(
    recipe: Recipe | VideoRecipe,
    network: Network,
    meter: BitMeter,
    journal: Journal,
    *,
    sets: Mapping[str, Any],
    operations: Mapping[str, Any],
    about_network: Mapping[str, Any],
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of metrics.json; `meter` has seen what the bits are to be told of.

    `about_network` says what one kind of network alone has (scale, shortcuts), `more` what one kind of run alone measures.
    """
    return {
        "version": 1,
        "network": {
            "architecture": network.architecture,
            "weights": recipe.model.weights,
            "settings": network.settings,
            **about_network,
        },
        "backend": recipe.backend,
        "scheme": recipe.scheme,
        "sets": sets,
        "operations": operations,
        "seconds": {step: round(seconds, 2) for step, seconds in journal.seconds.items()},
        **(more or {}),
        "bits": {
            name: {"weight": weight, "activation": activation} for name, (weight, activation) in meter.bits().items()
        },
        "machine": describe_machine(),
    }
