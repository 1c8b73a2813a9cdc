"""Files that a stranger might hand over, by group, made from a seed: damaged, contradictory, and made to mislead."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import random
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

Expected = Literal["works", "refused", "either"]
Maker = Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """`make` writes the files into an empty working folder; `file` is what is read of them.

    `expected` says whether it may be accepted; where it is, `exact` that the result is that of the intact files.
    """

    group: str
    name: str
    make: Maker
    file: str
    expected: Expected = "either"
    exact: bool = False


def written(name: str, content: bytes) -> Maker:
    """A file of these bytes."""
    return lambda folder: _write(folder / name, content)


def _write(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Cut off, with flipped bits, with a part overwritten, doubled or left out."""
    data = bytearray(content)
    kind = rng.choice(["cut", "flip", "flip", "noise", "double", "drop", "big"])
    place = rng.randrange(len(data))
    if kind == "cut":
        return bytes(data[:place])
    if kind == "flip":
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "noise":
        part = rng.randbytes(rng.randint(1, 40))
        data[place : place + len(part)] = part
    elif kind == "double":
        data[place:place] = data[place : place + rng.randint(1, 60)]
    elif kind == "drop":
        del data[place : place + rng.randint(1, 60)]
    else:  # where a length may stand
        data[place : place + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4)])
    return bytes(data)


#: what is no regular file, under the name that is read
def specials(name: str) -> dict[str, Maker]:
    return {
        "pipe": lambda folder: os.mkfifo(folder / name),
        "zeros": lambda folder: os.symlink("/dev/zero", folder / name),
        "terminal": lambda folder: os.symlink("/dev/tty", folder / name),
        "link to itself": lambda folder: os.symlink(name, folder / name),
        "folder": lambda folder: (folder / name).mkdir(),
        "empty": lambda folder: (folder / name).touch(),
        "missing": lambda folder: None,
    }


def picture() -> np.ndarray:
    """What every intact picture here shows, uint8 (14,20,3)."""
    return np.random.default_rng(5).integers(0, 256, (14, 20, 3), dtype=np.uint8)


def _encoded(kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture()).save(stream, kind, **options)
    return stream.getvalue()


def png_claiming(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG file of a few bytes that says that it is of this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def pictures(rng: random.Random, count: int) -> Iterator[Case]:
    """For `qsci upscale`."""
    kinds = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "tif": "TIFF", "bmp": "BMP", "gif": "GIF", "ppm": "PPM"}
    intact = {suffix: _encoded(kind) for suffix, kind in kinds.items()}
    intact["deflated.tif"] = _encoded("TIFF", compression="tiff_adobe_deflate")
    yield Case("pictures", "intact", written("x.png", intact["png"]), "x.png", "works", exact=True)
    for name in ("a\nb.png", "a\nqsci: error: b.png", "\x1b[2Jx.png", "-x.png", "x" * 240 + ".png", "\udcff.png"):
        yield Case("pictures", f"named {name!r}", written(name, intact["png"]), f"./{name}", "works", exact=True)
        yield Case("pictures", f"text named {name!r}", written(name, b"words"), f"./{name}", "refused")
    for width, height in ((100_000, 100_000), (2**31 - 1, 2**31 - 1), (0, 0), (16_383, 16_383), (1, 2**31 - 1)):
        yield Case(
            "pictures", f"claims {width}x{height}", written("x.png", png_claiming(width, height)), "x.png", "refused"
        )
    for name, make in specials("x.png").items():
        yield Case("pictures", name, make, "x.png", "refused")
    for suffix, content in intact.items():
        yield Case("pictures", f"noise.{suffix}", written(f"x.{suffix}", rng.randbytes(2000)), f"x.{suffix}", "refused")
        yield Case("pictures", f"text.{suffix}", written(f"x.{suffix}", b"<svg/>" * 9), f"x.{suffix}", "refused")
        magic = content[:30] + rng.randbytes(900)
        yield Case("pictures", f"half noise.{suffix}", written(f"x.{suffix}", magic), f"x.{suffix}")
    for index in range(count):
        suffix = rng.choice(list(intact))
        content = damaged(rng, intact[suffix])
        yield Case("pictures", f"damaged {index}", written(f"x.{suffix}", content), f"x.{suffix}")


def recipes(rng: random.Random, count: int) -> Iterator[Case]:
    """For `qsci validate`: values that no key expects, at every place of the shipped recipes."""
    from qsci_plugins.recipes.library import shipped_recipes
    from qsci_plugins.recipes.yaml_text import read_mapping, write_yaml

    texts = {
        "binary": bytes(range(256)),
        "deep": b"a: " + b"[" * 5000 + b"]" * 5000,
        "deep indents": b"".join(b" " * depth + b"k:\n" for depth in range(500)),
        "aliases": b"a: &a [1]\nb: [*a, *a]\n",
        "tag": b"a: !!python/object/apply:os.system ['touch exploded']\n",
        "merge": b"<<: {a: 1}\n",
        "digits": b"version: " + b"9" * 5000,
        "NUL": b"version: 1\0",
        "two documents": b"a: 1\n---\nb: 2\n",
        "long": b"a: b\n" * 100_000,
        "UTF-16": "version: 1".encode("utf-16"),
    }
    for name, text in texts.items():
        yield Case("recipes", name, written("r.yaml", text), "r.yaml", "refused")
    for name, make in specials("r.yaml").items():
        yield Case("recipes", name, make, "r.yaml", "refused")
    yield Case("recipes", "named in lines", written("a\nb.yaml", b"x: 1"), "a\nb.yaml", "refused")
    shipped = [read_mapping(Path(found.file)) for found in shipped_recipes()]
    for index in range(count):
        recipe = copy.deepcopy(rng.choice(shipped))
        for _ in range(rng.randint(1, 3)):
            _disturb(rng, recipe)
        yield Case("recipes", f"disturbed {index}", written("r.yaml", write_yaml(recipe).encode()), "r.yaml")


STRANGE: list[Any] = [
    None, True, -1, 0, 1, 2, 2**63, -(2**63), 10**400, 1e308, 1e-308, float("nan"), float("inf"), 0.5, "", " ", "36", "日本",
    "\u202e", "a\nb", "x" * 5000, "../x", "/dev/zero", "..", "~", "$NOPE", "*", "(?:", [], [[]], [None], {}, {"": {}},
    {"a": {"b": {}}}, ["x"] * 3000, [0, 0], [-1, -1], [10**9, 10**9], [1], "builtin:../x", "python:os:system", "a\0b",
]  # fmt: skip


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key in it."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])


def _disturb(rng: random.Random, value: Any) -> None:
    places = list(_places(value))
    if not places:
        return
    holder, key = rng.choice(places)
    action = rng.choice(["drop", "replace", "replace", "replace", "scale", "add"])
    if action == "drop":
        del holder[key]
    elif action == "scale" and isinstance(holder[key], (int, float)):
        holder[key] = rng.choice([-1, 0, 0.5, 10**9]) * holder[key]
    elif action == "add" and isinstance(holder, dict):
        holder[rng.choice(["extra", "a.b", "", "\u202e"])] = rng.choice(STRANGE)
    else:
        holder[key] = copy.deepcopy(rng.choice(STRANGE))


def folders(rng: random.Random, count: int, model: Path) -> Iterator[Case]:
    """For `qsci upscale x.png`: the model folder `model` changed, most with checksums that fit again."""
    content = json.loads((model / "manifest.json").read_bytes())
    names = sorted(file.name for file in model.iterdir())
    graphs = sorted({route["graph"]["name"] for route in content["routes"]})

    def case(name: str, change: Maker, expected: Expected = "either", exact: bool = True) -> Case:
        def make(folder: Path) -> None:
            shutil.copytree(model, folder / "m")
            _write(folder / "x.png", _encoded("PNG"))
            change(folder / "m")

        return Case("folders", name, make, "m", expected, exact)

    def sealed(change: Callable[[Any], None]) -> Maker:
        def make(folder: Path) -> None:
            changed = copy.deepcopy(content)
            change(changed)
            _write(folder / "manifest.json", seal(changed))

        return make

    def entry_named(name: str) -> Maker:
        return sealed(lambda manifest: manifest["weights"].update(name=name))

    def regraphed(change: Callable[[bytes], bytes], files: list[str]) -> Maker:
        def make(folder: Path) -> None:
            changed = copy.deepcopy(content)
            for name in files:
                data = change((folder / name).read_bytes())
                _write(folder / name, data)
                for holder in (changed["weights"], *(route["graph"] for route in changed["routes"])):
                    if holder["name"] == name:
                        holder.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
            _write(folder / "manifest.json", seal(changed))

        return make

    yield case("intact", lambda folder: None, "works")
    yield case("sealed again", sealed(lambda manifest: None), "works")
    for name in (
        "../x.bin",
        "/etc/passwd",
        "..",
        "a\0b",
        "\ud800",
        "x" * 5000,
        "",
        "manifest.json",
        "a/b.bin",
        "a\nb.bin",
    ):
        yield case(f"weights named {name[:12]!r}", entry_named(name), "refused")
    for name in names:
        for kind, make in specials(name).items():
            yield case(f"{name} {kind}", lambda m, make=make, name=name: ((m / name).unlink(), make(m)), "refused")  # type: ignore[misc]
    entity = (
        b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a SYSTEM "file:///etc/passwd">]><net name="&a;" version="11"/>'
    )
    texts = (
        b"hello",
        b"",
        b"<a>" * 9999,
        b"\x08\x07",
        entity,
        b'<?xml version="1.0"?><net name="x" version="11"></net>',
    )
    for text in texts:
        yield case(f"graph {text[:20]!r}", regraphed(lambda _, text=text: text, graphs), "refused")  # type: ignore[misc]
    for values in ([], [[1]], [{}], 5):
        yield case(
            f"routes {values}", sealed(lambda manifest, values=values: manifest.update(routes=values)), "refused"
        )  # type: ignore[misc]
    contradictions: dict[str, list[Any]] = {
        "scale": [0, 1, 3, -2], "tile": [[32, 41], [16, 20], [0, 0]], "thresholds": [[9, 5], [float("nan")] * 2, [1]],
        "frames": [8], "channels": [1], "task": ["sci"], "overlap": [10**9, -1], "version": [0, 2.5, True, "3", 10**400],
    }  # fmt: skip
    for key, wrong in contradictions.items():
        for value in wrong:
            change = sealed(lambda manifest, key=key, value=value: manifest.update({key: value}))  # type: ignore[misc]
            yield case(f"{key} {str(value)[:20]}", change, "refused")
    for index in range(count):
        kind = index % 4
        if kind < 2:
            disturbed = copy.deepcopy(content)
            _disturb(rng, disturbed)
            sealing = seal(disturbed)
            yield case(f"disturbed {index}", lambda m, text=sealing: _write(m / "manifest.json", text))  # type: ignore[misc]
        elif kind == 2:
            name, state = rng.choice(names), rng.getrandbits(32)

            def damage(m: Path, name: str = name, state: int = state) -> None:
                before = (m / name).read_bytes()
                _write(m / name, damaged(random.Random(state), before))

            yield case(f"damaged {index}", damage)
        else:
            state = rng.getrandbits(32)
            change = regraphed(lambda data, state=state: _misspelled(random.Random(state), data), graphs)  # type: ignore[misc]
            yield case(f"graph misspelled {index}", change, exact=False)


def _misspelled(rng: random.Random, graph: bytes) -> bytes:
    data = bytearray(graph)
    for _ in range(rng.randint(1, 5)):
        data[rng.randrange(len(data))] = rng.choice(b'0123456789"<>-, az')
    return bytes(data)


def seal(content: Any) -> bytes:
    """A manifest's text with the checksum that fits."""
    if isinstance(content, dict) and "sha256" in content:
        content = {**content, "sha256": "0" * 64}
    text = json.dumps(content, indent=1).encode()
    return text.replace(b"0" * 64, hashlib.sha256(text).hexdigest().encode(), 1)
