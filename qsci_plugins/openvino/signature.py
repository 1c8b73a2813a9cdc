"""What an exported graph takes and returns: images of 8 bits, or a measurement, its mask, and a video."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import openvino
import torch
from torch import Tensor

from qsci_plugins.errors import UserError
from qsci_plugins.openvino.ir import with_image_ports
from qsci_plugins.openvino.manifest import Task
from qsci_plugins.openvino.tiling import video_period

__all__ = ["ImageSignature", "Signature", "VideoSignature"]


@dataclass(frozen=True)
class Signature(ABC):
    """One static shape of a network: `tile` is the height and width of its input."""

    task: ClassVar[Task]

    tile: tuple[int, int]
    value_range: float

    @abstractmethod
    def examples(self) -> tuple[Tensor, ...]:
        """Inputs of the right shapes that the float network can run."""

    @abstractmethod
    def with_ports(self, model: openvino.Model) -> openvino.Model:
        """The converted network with the ports that the manifest describes.

        Raises UserError where its output is not of the size that these settings say.
        """

    def period(self) -> int:
        """What the places of tiles are multiples of."""
        return 1

    def for_manifest(self) -> dict[str, Any]:
        """The fields of the manifest that follow from it."""
        return {"task": self.task, "tile": self.tile, "value_range": self.value_range}


@dataclass(frozen=True)
class ImageSignature(Signature):
    """(1,3,H,W) in 0..value_range to (1,3,scale*H,scale*W)."""

    task: ClassVar[Task] = "sr"

    scale: int
    #: of the network's strides and windows, in pixels of its input
    tile_period: int = 1

    def examples(self) -> tuple[Tensor, ...]:
        steps = 3 * self.tile[0] * self.tile[1]
        return (torch.linspace(0, self.value_range, steps).reshape(1, 3, *self.tile),)

    def with_ports(self, model: openvino.Model) -> openvino.Model:
        wanted = [1, 3, *(self.scale * side for side in self.tile)]
        shape = _output_shape(model)
        if shape != wanted:
            raise UserError(
                f"the network makes {shape} of a tile {list(self.tile)}, not {wanted}; is its scale {self.scale}?"
            )
        return with_image_ports(model, self.value_range)

    def period(self) -> int:
        return self.tile_period

    def for_manifest(self) -> dict[str, Any]:
        return {**super().for_manifest(), "scale": self.scale, "period": self.tile_period}


@dataclass(frozen=True)
class VideoSignature(Signature):
    """measurement (1,H,W), mask (1,T,H,W) and mask_sum (1,H,W) to a video (1,T,H,W), or (1,3,T,H,W) in colour."""

    task: ClassVar[Task] = "sci"

    frames: int
    channels: int = 1

    def examples(self) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(0)
        mask = (torch.rand(1, self.frames, *self.tile, generator=generator) > 0.5).float()
        video = torch.rand(1, self.frames, *self.tile, generator=generator) * self.value_range
        return (mask * video).sum(1), mask, mask.sum(1).clamp_min(1.0)

    def with_ports(self, model: openvino.Model) -> openvino.Model:
        colours = [] if self.channels == 1 else [self.channels]
        wanted = [1, *colours, self.frames, *self.tile]
        shape = _output_shape(model)
        if shape != wanted:
            way_out = f"has it {self.frames} frames and {self.channels} channels?"
            if shape[:-2] == wanted[:-2]:
                way_out = f"take a tile of multiples of its strides, such as {shape[-2:]}"
            raise UserError(
                f"the network makes a video {shape} of a measurement {list(self.tile)}, not {wanted}; {way_out}"
            )
        for port, name in zip(model.inputs, ("measurement", "mask", "mask_sum"), strict=True):
            port.get_tensor().set_names({name})
            port.get_node().set_friendly_name(name)
        model.output(0).get_tensor().set_names({"video"})
        return model

    def period(self) -> int:
        return video_period(self.tile)

    def for_manifest(self) -> dict[str, Any]:
        return {**super().for_manifest(), "scale": 1, "frames": self.frames, "channels": self.channels}


def _output_shape(model: openvino.Model) -> list[int]:
    return list(model.output(0).get_partial_shape().to_shape())
