"""The state of a training on file, and how a later call goes on from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.safe_load import first_line, load_without_code

__all__ = ["restore"]


def restore(
    file: Path,
    model: nn.Module,
    optimizer: Any,
    average: dict[str, Tensor],
    accelerator: Accelerator,
    checkpoint_settings: Mapping[str, Any] | None,
) -> int:
    """Fills a training's parts from `file` and returns the steps done. Raises UserError where they do not belong together."""
    device = accelerator.device
    try:
        # several processes without a GPU name their device cpu:0, which torch.load does not know
        state = load_without_code(file)
        if checkpoint_settings is not None and state["settings"] != dict(checkpoint_settings):
            raise ValueError("it was made with other settings")
        if average:
            kept = {name: state["average"][name].to(device) for name in average}
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (UserError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file} does not continue this run ({first_line(error)}); remove it, or use another output folder"
        ) from error
    if average:
        average.update(kept)
    if "random" in state:
        torch.set_rng_state(state["random"].cpu())
    if accelerator.scaler is not None and state.get("scaler"):
        accelerator.scaler.load_state_dict(state["scaler"])
    return int(state["step"])
