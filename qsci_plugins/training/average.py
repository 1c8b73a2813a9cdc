"""A running average of a network's weights, in one update for all of its tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["WeightAverage"]


class WeightAverage:
    """Copies of what `model.state_dict()` holds; `update` moves them towards it. Integer tensors are copied."""

    def __init__(self, model: nn.Module) -> None:
        state = model.state_dict(keep_vars=True)
        self.tensors: dict[str, Tensor] = {name: tensor.detach().clone() for name, tensor in state.items()}
        self._model = model
        # a module may put another tensor in a buffer's place, so that where it is kept is looked up, not the tensor
        kept = {
            id(tensor): (table, key)
            for module in model.modules()
            for table in (module._parameters, module._buffers)
            for key, tensor in table.items()
            if tensor is not None
        }
        self._places = {name: kept[id(tensor)] for name, tensor in state.items() if id(tensor) in kept}

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """average = decay * average + (1 - decay) * weights."""
        moving: tuple[list[Tensor], list[Tensor]] = ([], [])
        for name, tensor in self._now().items():
            if tensor.is_floating_point():
                moving[0].append(self.tensors[name])
                moving[1].append(tensor)
            else:
                self.tensors[name].copy_(tensor)
        if moving[0]:
            torch._foreach_lerp_(*moving, 1 - decay)

    def _now(self) -> dict[str, Tensor]:
        if len(self._places) < len(self.tensors):  # a network that makes its state anew for each caller
            return dict(self._model.state_dict())
        now = {name: table[key] for name, (table, key) in self._places.items()}
        return {name: tensor for name, tensor in now.items() if tensor is not None}
