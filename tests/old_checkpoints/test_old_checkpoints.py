"""Quantized networks that an older version saved are read, whatever has moved since, and compute what they did."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from old_checkpoints.make_checkpoints import BACKENDS, CASES, example, stock

from qsci_plugins.schemes.backend import load_backend

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_an_old_checkpoint_is_the_same_network(case: str, name: str) -> None:
    expected = torch.load(HERE / "outputs.pt", weights_only=True)[f"{case}.{name}"]
    # the weights of the float network do not matter
    quantized = load_backend(name).load(stock(case, 1), HERE / f"{case}.{name}.pt")
    with torch.no_grad():
        output = quantized.model(example(case))
    torch.testing.assert_close(output, expected, rtol=1e-6, atol=1e-6)
    assert quantized.calibrated()
    assert quantized.scheme.config.name == CASES[case]["name"]
