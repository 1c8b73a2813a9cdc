"""What cutting a large image into tiles costs, against one pass over the whole of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qsci_plugins.data.photos import builtin_photos
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.latency import time_in_turns
from qsci_plugins.evaluation.memory import peak_memory_of_image
from qsci_plugins.openvino.manifest import load_manifest
from qsci_plugins.openvino.runtime import Tile, Upscaler

__all__ = ["tiled_latency"]

_FORMS: dict[str, tuple[str, Tile | None]] = {
    "untiled": ("in one piece", "image"),
    "fitted": ("fitted tiles (`qsci upscale`)", "fit"),
    "exported": ("tiles of the exported size", None),
}


def tiled_latency(
    folder: Path | str, size: tuple[int, int], *, repeats: int = 20, threads: int
) -> list[dict[str, Any]]:
    """Milliseconds for one image (height, width) in one piece, in fitted tiles and in tiles of the exported size.

    The three take turns in one process, and each runs once more in a process of its own for `peak_mib`. A row's
    `ratio` is its median over that of one piece, `computed` the pixels that the network works on over those of the
    image, `skipping` how many tiles skip blocks. The image is noise; where smooth tiles skip blocks, a photo that
    goes on as in mirrors, and one piece skips nothing. Raises UserError for a network that runs at its exported size
    alone.
    """
    folder = Path(folder)
    skips = load_manifest(folder).skips_layers()
    image = _photo(size) if skips else _noise(size)
    upscalers = {
        name: Upscaler(folder, threads=threads, precision="auto", tile=tile) for name, (_, tile) in _FORMS.items()
    }
    untiled = upscalers["untiled"]
    if skips:
        untiled.manifest = replace(untiled.manifest, thresholds=None)
    whole = untiled.plan(*size)
    if len(whole[0].starts) * len(whole[1].starts) > 1:
        raise UserError(
            f"{folder} runs at its exported size alone, never over a whole image; there is nothing to compare"
        )
    times = time_in_turns(
        {name: lambda upscaler=upscaler: upscaler.upscale(image) for name, upscaler in upscalers.items()},  # type: ignore[misc]
        size,
        repeats,
        warm_up=1,
    )
    rows = []
    for name, (title, tile) in _FORMS.items():
        lowest = sum(route.factor < 0 for route in upscalers[name].last_routes)
        along, across = upscalers[name].plan(*size)
        tiles = len(along.starts) * len(across.starts)
        peak = peak_memory_of_image(folder, size, tile, threads)
        rows.append(
            {
                "name": name,
                "title": title,
                "tile": [along.tile, across.tile],
                "tiles": tiles,
                "skipping": lowest if skips else 0,
                "computed": round(tiles * along.tile * across.tile / (size[0] * size[1]), 4),
                "median_ms": round(times[name].median_ms, 2),
                "fast_ms": round(times[name].fast_ms, 2),
                "slowest_ms": round(times[name].slowest_ms, 2),
                "ratio": round(times[name].median_ms / times["untiled"].median_ms, 4),
                "peak_mib": None if peak is None else round(peak, 1),
            }
        )
    return rows


def _noise(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


def _photo(size: tuple[int, int]) -> np.ndarray:
    """A built-in photo with sharp and blurred parts, mirrored up to a size."""
    photo = dict(builtin_photos("evaluation"))["flower"]
    missing = [(0, max(0, wanted - side)) for wanted, side in zip(size, photo.shape[:2], strict=True)]
    return np.ascontiguousarray(np.pad(photo, [*missing, (0, 0)], mode="reflect")[: size[0], : size[1]])
