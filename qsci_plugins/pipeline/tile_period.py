"""Where the tiles of a network may begin: found by running it on a picture in several places."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qsci_plugins.architectures.network import Network
from qsci_plugins.data.photos import builtin_photos
from qsci_plugins.openvino.tiling import smallest_tile

__all__ = ["TilePeriod", "find_period"]

#: tiles as near as that to the whole picture's output cannot be distinguished from it, dB at the network's own range
_EQUAL = 60.0

#: what phases may differ by where even the best tiles are not equal
_AS_GOOD = 6.0

#: pixels at the inner border of a tile that are not looked at
_MARGIN = 16

#: the smallest side of the pictures tried, and the periods tried besides those of windows
_SIDE = 64
_STRIDES = (1, 2, 4, 8, 16)
#: pictures of four times that must still be quick to run
_LARGEST = 64


@dataclass(frozen=True)
class TilePeriod:
    """What tiles begin at multiples of, how far their output then is from the whole picture's, and what to say about it."""

    period: int
    decibels: float | None
    note: str = ""


@torch.no_grad()
def find_period(network: Network, tile: Sequence[int]) -> TilePeriod:
    """Tries one photo at different places, and takes the smallest period that is as good as any.

    `tile` is the height and width that will be exported: a period for which it is too small is halved until it fits. A
    network that cannot run on two sizes has the period of its sizes.
    """
    candidates = _candidates(network)
    side = max(network.valid_size(*[max(_SIDE, 4 * candidates[-1])] * 2))
    try:
        shifted = _shifted(network, side, candidates)
        best = max(shifted.values())
        enough = min(_EQUAL, best - _AS_GOOD)
        period = next(candidate for candidate, decibels in shifted.items() if decibels >= enough)
        period = math.lcm(period, network.size_multiple)
        return _fitted(period, _tiled(network, side, period), network, tile)
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError):
        return _fitted(network.size_multiple, None, network, tile)


def _shifted(network: Network, side: int, candidates: Sequence[int]) -> dict[int, float]:
    """PSNR of the outputs of a picture and of the same one rolled by so many pixels both ways, where both show the same.

    Rolled, it has the statistics that it had. Candidates behind the first that is equal are not tried.
    """
    picture = _photo(network, side)
    output = network.module(picture.clone())
    found: dict[int, float] = {}
    for place in candidates:
        rolled = network.module(picture.roll((place, place), (2, 3)).clone())
        first, last = (place + _MARGIN) * network.scale, (side - _MARGIN) * network.scale
        moved = place * network.scale
        expected = output[..., first - moved : last - moved, first - moved : last - moved]
        found[place] = _decibels(rolled[..., first:last, first:last], expected, network)
        if found[place] >= _EQUAL:
            break
    return found


def _tiled(network: Network, side: int, place: int) -> float:
    """PSNR of the inside of a tile that begins at (place, place) against the same part of the whole picture."""
    whole_side = max(network.valid_size(side + place, side + place))
    picture = _photo(network, whole_side)
    tile = network.module(picture[..., place : place + side, place : place + side].clone())
    whole = network.module(picture.clone())
    first, last = _MARGIN * network.scale, (side - _MARGIN) * network.scale
    moved = place * network.scale
    inside = whole[..., moved + first : moved + last, moved + first : moved + last]
    return _decibels(tile[..., first:last, first:last], inside, network)


def _decibels(first: Tensor, second: Tensor, network: Network) -> float:
    error = (first - second).double().square().mean().item() / network.value_range**2
    return -10 * math.log10(max(error, 1e-20))


def _candidates(network: Network) -> list[int]:
    """Powers of two, the network's own multiple, and every number that its modules call a window or a split."""
    sizes = {*_STRIDES, network.size_multiple}
    for module in network.module.modules():
        for name, value in vars(module).items():
            if any(part in name for part in ("window", "split_size", "patch_size")):
                sizes.update(_integers(value))
    return sorted(size for size in sizes if 1 <= size <= _LARGEST)


def _integers(value: object) -> Iterator[int]:
    values = value if isinstance(value, list | tuple) else (value,)
    yield from (entry for entry in values if isinstance(entry, int) and not isinstance(entry, bool))


def _photo(network: Network, side: int) -> Tensor:
    photo = builtin_photos("calibration")[0][1]
    missing = [(0, max(0, side - length)) for length in photo.shape[:2]]
    photo = np.pad(photo, [*missing, (0, 0)], mode="reflect")[:side, :side]
    return torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1)[None].float() * (network.value_range / 255)


def _fitted(period: int, decibels: float | None, network: Network, tile: Sequence[int]) -> TilePeriod:
    notes = []
    fitting = period
    while smallest_tile(0, multiple=fitting) > min(tile) and fitting > 1:
        fitting = fitting // 2 if fitting % 2 == 0 else 1
    if fitting < period:
        notes.append(
            f"{network.architecture} repeats every {period} pixels; tiles of {min(tile)} are too small for that"
        )
    if decibels is not None and decibels < _EQUAL:
        notes.append(
            f"{network.architecture} looks further than a tile; tiled pictures are {decibels:.0f} dB from untiled ones"
        )
    return TilePeriod(fitting, decibels, "; ".join(notes))
