"""The learning rate of every step, of trainings that bring no schedule of their own."""

from __future__ import annotations

import math

from qsci_plugins.training.settings import LoopSettings

__all__ = ["learning_rate_at"]


def learning_rate_at(settings: LoopSettings, step: int) -> float:
    """The rate of a 0-based step."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    if settings.halve_every:
        return settings.learning_rate * 0.5 ** (step // settings.halve_every)
    progress = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return settings.learning_rate * (settings.final_fraction + (1 - settings.final_fraction) * cosine)
