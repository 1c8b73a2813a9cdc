"""What the sections of a recipe hand to the loop, and the rates that they give."""

from __future__ import annotations

import pytest

from qsci_plugins.training.settings import CADyQTraining, FloatTraining, Folder, LoopSettings, TrainingPhase


def test_float_training_as_the_loop_takes_it() -> None:
    section = FloatTraining(
        steps=7, batch=3, patch=24, ema=0.5, precision="bf16", clip=1.0, channels_last=False, cpu=True
    )
    assert section.loop() == LoopSettings(
        steps=7, learning_rate=4e-4, ema=0.5, precision="bf16", clip=1.0, channels_last=False, device="cpu"
    )
    assert section.model_copy(update={"cpu": False}).loop("cuda:1").device == "cuda:1"


def test_a_phase_s_rate_stays_unless_it_has_a_final_one() -> None:
    assert TrainingPhase(crop=8, steps=4, rate=0.5).rate_at(0.7) == 0.5
    falling = TrainingPhase(crop=8, steps=4, rate=0.5, final_rate=0.1)
    assert [falling.rate_at(progress) for progress in (0, 0.5, 1, 2)] == pytest.approx([0.5, 0.3, 0.1, 0.1])


def test_a_teacher_is_there_for_three_terms_of_cadyq_s_loss() -> None:
    section = CADyQTraining(schedule="cadyq", data=[Folder(path="photos")])
    assert section.has_teacher
    none = {"output_weight": 0.0, "feature_weight": 0.0, "block_weight": 0.0}
    assert not section.model_copy(update=none).has_teacher
    for name in none:
        assert section.model_copy(update={**none, name: 1.0}).has_teacher
