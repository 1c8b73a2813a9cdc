from __future__ import annotations

import torch
from torch import nn

from qsci_plugins.training.average import WeightAverage


def test_an_average_moves_by_its_decay_and_copies_counters() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = WeightAverage(model)
    start = {name: tensor.clone() for name, tensor in average.tensors.items()}
    with torch.no_grad():
        model[0].weight += 1
    # a buffer that is another tensor afterwards
    model[1].running_mean = torch.full((2,), 4.0)
    model[1].num_batches_tracked += 3
    average.update(0.75)
    expected = start["0.weight"].lerp(model[0].weight.detach(), 0.25)
    assert torch.equal(average.tensors["0.weight"], expected)
    assert average.tensors["1.running_mean"].tolist() == [1.0, 1.0]
    assert average.tensors["1.num_batches_tracked"] == 3
    assert average.tensors.keys() == model.state_dict().keys()


def test_a_state_that_is_made_anew_for_each_caller_is_asked_for_each_time() -> None:
    class Doubled(nn.Linear):
        def _save_to_state_dict(self, destination, prefix, keep_vars):  # type: ignore[no-untyped-def]
            super()._save_to_state_dict(destination, prefix, keep_vars)
            destination[f"{prefix}weight"] = destination[f"{prefix}weight"] * 2

    model = Doubled(1, 1)
    average = WeightAverage(model)
    with torch.no_grad():
        model.weight.fill_(3.0)
    average.update(0.0)
    assert average.tensors["weight"].item() == 6.0
