"""The pictures that report.html shows: kept without loss in a run's folder, and put into a page of a bounded size."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qsci_plugins.files import write_bytes, write_text

__all__ = ["PICTURES", "WINDOW", "Box", "Picture", "ShownForm", "add_pictures", "embedded", "merged", "read_pictures"]

#: the folder beside metrics.json
PICTURES = "pictures"

#: most height and width of what is shown of a picture, in its own pixels
WINDOW = 480

#: what is no run's own, where it is the same
_SHARED = {"truth", "bicubic", "measurement"}

_INDEX = "pictures.json"

#: WebP without loss, and where that is too much, its quality of 100 and the share of the pixels' sides
_QUALITIES = ((None, 1.0), (95, 1.0), (85, 1.0), (70, 1.0), (60, 0.5), (40, 0.25))


@dataclass(frozen=True)
class Box:
    """A tile in a picture's pixels, no neighbour's, its mean bits, and the colour that stands for them."""

    top: int
    left: int
    bottom: int
    right: int
    bits: float
    colour: str


@dataclass(frozen=True)
class ShownForm:
    """A picture as one network gives it, or as it is: WebP of its `frames`, one below the other.

    `key` is float, ours, bicubic, truth or measurement; `psnr` in dB of the whole picture, None where there is none.
    """

    key: str
    title: str
    psnr: float | None
    webp: bytes
    frames: int = 1


@dataclass(frozen=True)
class Picture:
    """What is shown of one picture or scene; `focus` is where to look first (x, y), and `note` says what to know."""

    name: str
    height: int
    width: int
    focus: tuple[int, int]
    forms: tuple[ShownForm, ...]
    boxes: tuple[Box, ...] = ()
    note: str = ""

    @property
    def frames(self) -> int:
        """Of the longest form."""
        return max(form.frames for form in self.forms)

    @property
    def legend(self) -> list[tuple[float, str, int]]:
        """Bits, their colour, and how many tiles have them, from few bits to many; a few of them where there are many."""
        counts = Counter((round(box.bits, 2), box.colour) for box in self.boxes)
        entries = [(bits, colour, count) for (bits, colour), count in sorted(counts.items())]
        few = range(len(entries)) if len(entries) <= 8 else [index * (len(entries) - 1) // 5 for index in range(6)]
        return [entries[index] for index in few]

    def described(self) -> dict[str, Any]:
        """All but the pixels."""
        forms = [{key: value for key, value in asdict(form).items() if key != "webp"} for form in self.forms]
        return {**asdict(self), "forms": forms, "boxes": [asdict(box) for box in self.boxes], "frames": self.frames}


def encode(frames: np.ndarray, quality: int | None = None) -> bytes:
    """WebP of uint8 (T,H,W,3) as a strip of T frames, one below the other; without loss unless a quality is given."""
    buffer = io.BytesIO()
    strip = Image.fromarray(frames.reshape(-1, *frames.shape[2:]))
    if quality is None:
        strip.save(buffer, "WEBP", lossless=True, quality=40, method=3)
    else:
        strip.save(buffer, "WEBP", quality=quality, method=3)
    return buffer.getvalue()


def add_pictures(folder: Path, pictures: Sequence[Picture]) -> None:
    """Writes pictures/ into a folder: a .webp file for each form, and pictures.json."""
    if not pictures:
        return
    (folder / PICTURES).mkdir(exist_ok=True)
    described = [picture.described() for picture in pictures]
    for number, (picture, about) in enumerate(zip(pictures, described, strict=True)):
        for form, entry in zip(picture.forms, about["forms"], strict=True):
            entry["file"] = f"{number}_{form.key}.webp"
            write_bytes(folder / PICTURES / entry["file"], form.webp)
    write_text(folder / PICTURES / _INDEX, json.dumps({"version": 1, "pictures": described}, indent=2) + "\n")


def read_pictures(folder: Path) -> list[Picture]:
    """What `add_pictures` wrote; nothing where it is not there, or not whole."""
    try:
        described = json.loads((folder / PICTURES / _INDEX).read_text(encoding="utf-8"))["pictures"]
        return [_read(folder / PICTURES, about) for about in described]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _read(folder: Path, about: dict[str, Any]) -> Picture:
    forms = []
    for entry in about["forms"]:
        content = (folder / Path(entry["file"]).name).read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            image.verify()
            frames = int(entry["frames"])
            if image.format != "WEBP" or image.size != (about["width"], about["height"] * frames):
                raise ValueError(f"{entry['file']} is not what was written")
        psnr = None if entry["psnr"] is None else float(entry["psnr"])
        forms.append(ShownForm(str(entry["key"]), str(entry["title"]), psnr, content, frames))
    boxes = [
        Box(
            int(box["top"]),
            int(box["left"]),
            int(box["bottom"]),
            int(box["right"]),
            float(box["bits"]),
            str(box["colour"]),
        )
        for box in about["boxes"]
    ]
    x, y = about["focus"]
    size = int(about["height"]), int(about["width"])
    return Picture(str(about["name"]), *size, (int(x), int(y)), tuple(forms), tuple(boxes), str(about["note"]))


def merged(runs: Sequence[tuple[str, Sequence[Picture]]]) -> list[Picture]:
    """The pictures of several runs by name: forms that are the same are shown once, others under the run's name.

    Boxes are those of the first run that has some. Pictures of one name and another size stand apart.
    """
    if len(runs) == 1:
        return list(runs[0][1])
    found: dict[tuple[Any, ...], Picture] = {}
    for run, pictures in runs:
        for picture in pictures:
            key = (picture.name, picture.height, picture.width, picture.frames)
            before = found.get(key)
            known = [] if before is None else list(before.forms)
            seen, keys = {form.webp for form in known}, {form.key for form in known}
            known += [
                form if form.key in _SHARED - keys else replace(form, title=f"{run}: {form.title}")
                for form in picture.forms
                if form.webp not in seen
            ]
            start = before or picture
            found[key] = replace(start, forms=tuple(known), boxes=start.boxes or picture.boxes)
    return list(found.values())


def embedded(pictures: Sequence[Picture], budget: int) -> tuple[list[list[str]], str]:
    """data: URIs of every form of every picture, of at most `budget` characters together, and what was done to them."""
    for quality, share in _QUALITIES:
        uris = [[_uri(form.webp, quality, share) for form in picture.forms] for picture in pictures]
        if sum(len(uri) for row in uris for uri in row) <= budget:
            break
    if quality is None:
        return uris, "Pictures are shown without loss."
    smaller = "" if share == 1 else f" at {share:.0%} of their width"
    return (
        uris,
        f"Pictures are shown as WebP of quality {quality}{smaller}; without loss they are too large for a page.",
    )


def _uri(webp: bytes, quality: int | None, share: float) -> str:
    if quality is not None:
        with Image.open(io.BytesIO(webp)) as image:
            pixels = image.convert("RGB")
        if share < 1:
            size = (max(1, round(pixels.width * share)), max(1, round(pixels.height * share)))
            pixels = pixels.resize(size, Image.Resampling.BOX)
        webp = encode(np.asarray(pixels)[None], quality)
    return f"data:image/webp;base64,{base64.b64encode(webp).decode('ascii')}"
