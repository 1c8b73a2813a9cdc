"""Image files enlarged: what is in them besides three colours of 8 bits comes out as it went in, only larger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from qsci_plugins.data.animation_writers import write_gif, write_webp
from qsci_plugins.data.image_metadata import Metadata, save_options
from qsci_plugins.data.image_writing import (
    SAVE_OPTIONS,
    image_file,
    image_format,
    refuse_larger,
    to_eight_bits,
    write_pixels,
)
from qsci_plugins.data.images import Frames, Photo, open_frames
from qsci_plugins.data.png_writer import write_apng
from qsci_plugins.data.tiff_pages import write_pages
from qsci_plugins.data.transparency import enlarged_alpha, filled
from qsci_plugins.errors import UserError
from qsci_plugins.openvino.runtime import Upscaler

__all__ = ["enlarge_file"]

#: which formats hold all pictures of a file of each kind
_SEVERAL = {"animation": ("GIF", "PNG", "WEBP"), "pages": ("TIFF",), "views": (), "one": ()}
_WHAT = {"animation": "frames", "pages": "pages", "views": "pictures", "one": "pictures"}
_DEEP = ("PNG", "TIFF")
#: of red, green and blue in grey (ITU-R BT.601), in 65536ths
_GREY = (19595, 38470, 7471)


def enlarge_file(
    upscaler: Upscaler,
    source: Path,
    target: Path,
    on_part: Callable[[float], None] = lambda part: None,
    note: Callable[[str], None] = lambda text: None,
) -> None:
    """Enlarges all pictures of a file, or the first where the target's format holds one, which `note` reports.

    Grey stays grey, 16 bits stay 16 where the format has them, transparency, delays and metadata are kept; `note` is
    given one line for what the format cannot hold. `on_part` gets the share that is done, 0 to 1. Raises UserError for what
    cannot be read or written.
    """
    format_ = image_format(target)
    with open_frames(source, deep=format_ in _DEEP) as frames:
        several = frames.kind in ("animation", "pages") and format_ in _SEVERAL[frames.kind]
        _make_folder(target.parent)
        if not several or (frames.count == 1 and format_ != "GIF"):
            if frames.count > 1:
                note(f"{source} holds {frames.count} {_WHAT[frames.kind]}; only the first was taken")
            picture = _Enlarged(upscaler, next(frames.photos), on_part)
            picture.write(target, note)
        elif frames.kind == "pages":
            with image_file(target) as file:
                write_pages(file, _pages(upscaler, frames, on_part))
        else:
            _write_animation(upscaler, frames, target, format_, on_part, note)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}") from error


class _Enlarged:
    """One picture, enlarged strip by strip when asked for."""

    def __init__(self, upscaler: Upscaler, photo: Photo, on_part: Callable[[float], None]) -> None:
        self.photo = photo
        self.size = (photo.rgb.shape[1] * upscaler.scale, photo.rgb.shape[0] * upscaler.scale)
        self.channels = (1 if photo.is_grey else 3) + (photo.alpha is not None)
        self.bits = 16 if photo.rgb.dtype == np.uint16 else 8
        self._upscaler = upscaler
        self._on_part = on_part

    def write(self, target: Path, note: Callable[[str], None]) -> None:
        write_pixels(target, self.strips(), self.size, self.channels, self.bits, self.photo.metadata, note)

    def pixels(self) -> np.ndarray:
        """(H,W,channels) of uint8 or uint16."""
        return np.concatenate(list(self.strips()))

    def strips(self) -> Iterator[np.ndarray]:
        """The same, some rows at a time."""
        photo, scale = self.photo, self._upscaler.scale
        rgb, alpha = photo.rgb, None
        if photo.alpha is not None:
            rgb, alpha = filled(rgb, photo.alpha), enlarged_alpha(photo.alpha, scale)
        deep = self.bits == 16
        image = rgb / np.float32(257) if deep else rgb
        done = 0
        for strip in self._upscaler.strips(image, lambda tile, of: self._on_part(tile / of), as_float=deep):
            if deep:
                strip = np.rint(strip * 257).astype(np.uint16)
            if photo.is_grey:
                strip = _grey(strip)
            if alpha is not None:
                strip = np.concatenate([strip, alpha[done : done + len(strip), :, None]], axis=2)
            done += len(strip)
            yield strip


def _grey(strip: np.ndarray) -> np.ndarray:
    """(rows,W,1) of RGB; equal colours stay what they are."""
    total = strip @ np.array(_GREY, np.uint32)
    grey: np.ndarray = ((total + 2**15) >> 16).astype(strip.dtype)[..., None]
    return grey


def _pages(
    upscaler: Upscaler, frames: Frames, on_part: Callable[[float], None]
) -> Iterator[tuple[np.ndarray, Metadata]]:
    for index, photo in enumerate(frames.photos):
        page = _Enlarged(upscaler, photo, _share(on_part, index, frames.count))
        yield page.pixels(), photo.metadata


def _write_animation(
    upscaler: Upscaler,
    frames: Frames,
    target: Path,
    format_: str,
    on_part: Callable[[float], None],
    note: Callable[[str], None],
) -> None:
    first = _Enlarged(upscaler, next(frames.photos), _share(on_part, 0, frames.count))
    size, metadata = first.size, first.photo.metadata
    refuse_larger(target, format_, size)
    # a frame of a GIF may be the first with holes
    channels = 4 if first.photo.mode in ("P", "PA") else first.channels
    bits = first.bits if format_ == "PNG" else 8
    options, kept, lost = save_options(metadata, format_, channels, size)
    if lost:
        note(f"{target}: {format_} does not hold {' and '.join(lost)} here; left out")

    def pictures() -> Iterator[tuple[np.ndarray, float]]:
        yield _of_kind(first.pixels(), channels, bits), first.photo.duration
        for index, photo in enumerate(frames.photos, 1):
            picture = _Enlarged(upscaler, photo, _share(on_part, index, frames.count))
            yield _of_kind(picture.pixels(), channels, bits), photo.duration

    with image_file(target) as file:
        if format_ == "GIF":
            write_gif(file, pictures(), frames.plays, size)
        elif format_ == "PNG":
            write_apng(file, pictures(), frames.count, frames.plays, size, channels, bits, kept)
        else:
            write_webp(file, pictures(), frames.plays, size, {**SAVE_OPTIONS[format_], **options})


def _of_kind(pixels: np.ndarray, channels: int, bits: int) -> np.ndarray:
    """Pixels (H,W,C) with the channels and bits of the whole animation."""
    if pixels.dtype == np.uint16 and bits == 8:
        pixels = to_eight_bits(pixels)
    if pixels.shape[2] == channels:
        return pixels
    opaque = np.full((*pixels.shape[:2], 1), np.iinfo(pixels.dtype).max, pixels.dtype)
    colours = pixels[..., :1] if pixels.shape[2] < 3 else pixels[..., :3]
    alpha = pixels[..., -1:] if pixels.shape[2] in (2, 4) else opaque
    if channels > 2 and colours.shape[2] == 1:
        colours = colours.repeat(3, axis=2)
    if channels < 3 and colours.shape[2] == 3:
        colours = _grey(colours)
    return np.concatenate([colours, alpha], axis=2) if channels in (2, 4) else np.ascontiguousarray(colours)


def _share(on_part: Callable[[float], None], index: int, count: int) -> Callable[[float], None]:
    return lambda part: on_part((index + part) / count)
