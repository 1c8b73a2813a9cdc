"""Fitting the quantizers of a network to calibration inputs: one pass in float, then what needs all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.schemes.quantizer import Mode
from qsci_plugins.schemes.scheme import QuantizedNetwork, inputs_of, set_mode
from qsci_plugins.schemes.weight import limit_weights

__all__ = ["calibrate", "check_batches", "complete_observation", "finish_observation"]


@torch.no_grad()
def calibrate(
    network: QuantizedNetwork,
    batches: Sequence[Tensor | Sequence[Tensor]],
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Fits a network's quantizers to calibration inputs, each (N,C,H,W) in 0..value_range (or all it takes).

    Inputs may be on another device than the network; they are moved batch by batch.
    The float network runs over all batches while quantizers observe; then they are initialised; then the scheme completes
    them on the first batch.
    Raises UserError where there is no batch, or its shape or range does not fit.
    """
    check_batches(batches, network.value_range)
    quantizers = network.quantizers()
    was_training = network.model.training
    network.model.eval()
    total = len(batches) + 1
    try:
        set_mode(quantizers, Mode.OBSERVE)
        _observe_images(network.input_module, True)
        for done, batch in enumerate(batches, 1):
            network.model(*inputs_of(batch, network.device))
            on_batch(done, total)
        _observe_images(network.input_module, False)
        set_mode(quantizers, Mode.ON)
        finish_observation(network)
        network.scheme.complete(network, inputs_of(batches[0], network.device))
        on_batch(total, total)
    finally:
        set_mode(quantizers, Mode.ON)
        _observe_images(network.input_module, False)
        network.model.train(was_training)


def _observe_images(input_module: nn.Module | None, observing: bool) -> None:
    if hasattr(input_module, "observing"):
        input_module.observing = observing  # type: ignore[union-attr]


def finish_observation(network: QuantizedNetwork) -> None:
    """Initialises every quantizer from what it observed, then lets the scheme look at all of them."""
    for quantizer in network.quantizers():
        quantizer.initialise()
    complete_observation(network)


def complete_observation(network: QuantizedNetwork) -> None:
    """What needs all quantizers initialised: the scheme's own part, and weights that are exact on every CPU."""
    network.scheme.after_observation(network.layers)
    if getattr(network.scheme.config, "form", "integer") == "integer":
        limit_weights(network.layers, network.model)


def check_batches(batches: Sequence[Tensor | Sequence[Tensor]], value_range: float) -> None:
    """Raises UserError unless the batches look like images of a network that takes 0..value_range.

    Of several inputs the first is looked at, but not its range: a snapshot measurement is a sum of frames.
    """
    if not batches:
        raise UserError("calibration got no images; give at least one batch")
    for batch in (inputs_of(batch)[0] for batch in batches):
        if batch.dim() < 3:
            raise UserError(
                f"calibration images must be (N,C,H,W), got a tensor of shape {tuple(batch.shape)};"
                " stack them into batches"
            )
        if not torch.isfinite(batch).all():
            raise UserError("calibration images hold NaN or infinite values")
    images = [batch for batch in batches if isinstance(batch, Tensor)]
    if not images:
        return
    top = max(float(image.max()) for image in images)
    if value_range <= 1.0 and top > 2.0:
        raise UserError(f"calibration images reach {top:.0f}, but this network takes 0..1; divide them by 255")
    if value_range > 2.0 and top <= 1.0:
        raise UserError(f"calibration images end at {top:.2f}, but this network takes 0..{value_range:.0f}; scale them")
