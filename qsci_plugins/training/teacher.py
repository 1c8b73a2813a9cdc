"""What the float network makes of the calibration patches, computed once per patch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.errors import UserError

__all__ = ["BlockOutputs", "Teacher"]


class BlockOutputs:
    """Collects the normalised outputs of named blocks during forwards of a model: each (N, numbers), unit L2 length."""

    def __init__(self, model: nn.Module, blocks: Sequence[str]) -> None:
        self.values: list[Tensor] = []
        self._handles = [model.get_submodule(name).register_forward_hook(self._keep) for name in blocks]

    def _keep(self, module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        self.values.append(F.normalize(output.float().flatten(1), dim=1))

    def take(self) -> list[Tensor]:
        """The outputs since the last call."""
        values, self.values = self.values, []
        return values

    def close(self) -> None:
        """Leaves the model as it was."""
        for handle in self._handles:
            handle.remove()


class Teacher:
    """A float network's outputs for `patches` (P,C,H,W), in memory, and its blocks' outputs, in a file (float16).

    Each patch passes through the network once, when it is first asked for. `close` removes the file.
    """

    def __init__(
        self, model: nn.Module, patches: Tensor, blocks: Sequence[str] = (), folder: Path | None = None
    ) -> None:
        self._model = model.eval()
        self._patches = patches
        self._outputs: Tensor | None = None
        self._done = torch.zeros(len(patches), dtype=torch.bool)
        self._features: list[Tensor] = []
        self._hooks = BlockOutputs(model, blocks) if blocks else None
        self._folder = TemporaryDirectory(dir=folder, prefix=".teacher-") if blocks else None

    @torch.no_grad()
    def __call__(self, indices: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """Outputs (N,C,sH,sW) and the blocks' normalised outputs, each (N, numbers), of the patches at `indices`."""
        for index in indices:
            if not self._done[index]:
                self._compute(index)
        assert self._outputs is not None
        chosen = list(indices)
        return self._outputs[chosen], [feature[chosen].float() for feature in self._features]

    def _compute(self, index: int) -> None:
        output = self._model(self._patches[index : index + 1]).float()
        features = self._hooks.take() if self._hooks else []
        if self._outputs is None:
            self._outputs = output.new_empty(len(self._patches), *output.shape[1:])
            self._features = [self._file(i, feature.shape[1]) for i, feature in enumerate(features)]
        self._outputs[index] = output[0]
        for stored, feature in zip(self._features, features, strict=True):
            stored[index] = feature[0].half()
        self._done[index] = True

    def _file(self, number: int, size: int) -> Tensor:
        assert self._folder is not None
        count = len(self._patches)
        path = str(Path(self._folder.name) / f"{number}.f16")
        if hasattr(os, "posix_fallocate"):
            # a hole in a mapped file that finds no room on disk would end the process
            with open(path, "wb") as file:
                try:
                    os.posix_fallocate(file.fileno(), 0, 2 * count * size)
                except OSError as error:
                    raise UserError(f"no room for the float network's outputs in {path}: {error.strerror}") from error
        return torch.from_file(path, shared=True, size=count * size, dtype=torch.float16).view(count, size)

    def close(self) -> None:
        """Removes the hooks and the file."""
        if self._hooks:
            self._hooks.close()
        self._features = []
        if self._folder is not None:
            self._folder.cleanup()
