"""The sets that a recipe is measured on, found before any work begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.benchmark import BenchmarkSet, find_set
from qsci_plugins.recipes.reading import expand
from qsci_plugins.recipes.schema import Benchmark

__all__ = ["STANDARD_SETS", "find_sets", "torch_upscaler"]

#: what is measured besides the recipe's own sets where the data folder has it
STANDARD_SETS = ("Set5", "Set14", "B100", "Urban100")


def find_sets(
    benchmarks: Sequence[Benchmark], data: Path | None, scale: int, only: Sequence[str] | None = None
) -> list[BenchmarkSet]:
    """The named sets, then the standard ones that `data` holds; with `only`, exactly those of `only`.

    Raises UserError for a set that is named and not there, and for one of another scale than the network's.
    """
    if data is not None and not data.is_dir():
        raise UserError(f"the data folder {data} does not exist")
    if only is not None:
        return [find_set(data, name, scale) for name in only]
    found: dict[str, BenchmarkSet] = {}
    for index, benchmark in enumerate(benchmarks):
        key = f"evaluate.{index}"
        if benchmark.scale not in (None, scale):
            raise UserError(f"{key}.scale is {benchmark.scale}, but the network's scale is {scale}; make them agree")
        folder = data if benchmark.folder is None else expand(benchmark.folder, f"{key}.folder")
        try:
            found[benchmark.name] = find_set(folder, benchmark.name, scale)
        except UserError as error:
            hint = "; give --data DIR" if folder is None else ""
            raise UserError(f"{key}: {error}{hint}") from None
    if data is not None:
        for name in STANDARD_SETS:
            if name not in found and any((data / place / name).is_dir() for place in ("", "benchmark", "sr/benchmark")):
                found[name] = find_set(data, name, scale)
    return list(found.values())


def torch_upscaler(
    module: nn.Module, value_range: float, scale: int, size_multiple: int = 1
) -> Callable[[np.ndarray], np.ndarray]:
    """The whole image through a network at once: uint8 (h,w,3) to uint8 (scale*h,scale*w,3).

    Where the network wants multiples of a size, the right and lower borders are mirrored up to it and cut off again.
    """
    device = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))

    @torch.no_grad()
    def upscale(low: np.ndarray) -> np.ndarray:
        height, width = low.shape[:2]
        x = torch.from_numpy(np.ascontiguousarray(low)).to(device).permute(2, 0, 1)[None].float() * (value_range / 255)
        pad = (-width % size_multiple, -height % size_multiple)
        if any(pad):
            mode = "reflect" if pad[0] < width and pad[1] < height else "replicate"
            x = F.pad(x, (0, pad[0], 0, pad[1]), mode=mode)
        y = module(x)[0, :, : scale * height, : scale * width] * (255 / value_range)
        return y.clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()

    return upscale
