"""A damaged model folder is refused with the reason, whatever byte is wrong."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from qsci_plugins.errors import UserError
from qsci_plugins.openvino.folder import write_folder
from qsci_plugins.openvino.manifest import MANIFEST, VERSION, Manifest, Route, load_manifest, stored


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {name: name.encode() * 40 for name in ("minus-0123456789ab.xml", "weights-0123456789ab.bin")}
    entries = [stored(name, content) for name, content in files.items()]
    manifest = Manifest(
        scale=2,
        tile=(20, 30),
        overlap=7,
        value_range=255.0,
        weights=entries[1],
        routes=(
            Route(-1, entries[0], {"body.0": 3.0}, 3.0),
            Route(0, entries[0], {"body.0": 4.0}, 4.0),
            Route(1, entries[0], {"body.0": 5.0}, 5.0),
        ),
        thresholds=(12.5, 80.25),
        weight_bits={"body.0": 4.0},
        about={"made of": "words"},
    )
    write_folder(tmp_path / "model", manifest, files)
    return tmp_path / "model"


def test_a_manifest_reads_back_as_it_was_written(folder: Path) -> None:
    manifest = load_manifest(folder)
    assert manifest.tile == (20, 30)
    assert manifest.thresholds == (12.5, 80.25)
    assert manifest.route(1).bits == {"body.0": 5.0}
    assert (folder / MANIFEST).read_bytes() == manifest.to_bytes()
    assert len(manifest.files()) == 2


def test_a_reconstructor_says_its_frames(folder: Path) -> None:
    manifest = replace(load_manifest(folder), task="sci", scale=1, frames=8, channels=1)
    (folder / MANIFEST).write_bytes(manifest.to_bytes())
    assert load_manifest(folder) == manifest
    for nonsense in ({"task": "sr"}, {"frames": None}, {"task": "other"}, {"precision": "f16"}):
        (folder / MANIFEST).write_bytes(replace(manifest, **nonsense).to_bytes())
        with pytest.raises(UserError, match="lacks or misspells"):
            load_manifest(folder)


def test_folders_of_the_first_version_are_still_read(folder: Path) -> None:
    content = json.loads((folder / MANIFEST).read_bytes())
    for name in ("task", "frames", "channels", "precision", "exact_on"):
        del content[name]
    content["version"] = 1
    content["sha256"] = "0" * 64
    text = json.dumps(content).encode()
    (folder / MANIFEST).write_bytes(text.replace(b"0" * 64, hashlib.sha256(text).hexdigest().encode(), 1))
    assert load_manifest(folder).task == "sr"
    assert load_manifest(folder).exact_on == "vnni"  # nobody had looked


def test_every_flipped_byte_of_the_manifest_is_noticed(folder: Path) -> None:
    content = (folder / MANIFEST).read_bytes()
    for position in range(0, len(content), 3):
        flipped = bytearray(content)
        flipped[position] ^= 1 << (position % 8)
        (folder / MANIFEST).write_bytes(flipped)
        with pytest.raises(UserError, match=r"manifest\.json"):
            load_manifest(folder)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "longer"])
@pytest.mark.parametrize("index", [0, 1])
def test_every_damaged_file_is_named(folder: Path, damage: str, index: int) -> None:
    file = folder / load_manifest(folder).files()[index].name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        changed = {"truncated": content[:-1], "flipped": b"?" + content[1:], "longer": content + b" "}
        file.write_bytes(changed[damage])
    with pytest.raises(UserError, match=file.name):
        load_manifest(folder)


@pytest.mark.parametrize("length", [0, 1, 200])
def test_a_truncated_manifest_is_damaged(folder: Path, length: int) -> None:
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:length])
    with pytest.raises(UserError, match="damaged"):
        load_manifest(folder)


def test_a_newer_version_asks_for_an_update(folder: Path) -> None:
    content = json.loads((folder / MANIFEST).read_bytes())
    content["version"] = VERSION + 1
    (folder / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(UserError, match="update qsci-plugins"):
        load_manifest(folder)


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"format": "onnx", "version": 1, "sha256": ""}', "[" * 100_000])
def test_other_json_is_not_ours(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    with pytest.raises(UserError, match="damaged or not ours"):
        load_manifest(folder)


def test_no_folder_and_no_model_in_it(tmp_path: Path) -> None:
    for target in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="no model folder"):
            load_manifest(target)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": 0}, "scale: 0 is no integer of 1 to 64"),
        ({"scale": True}, "scale: True is no integer"),
        ({"tile": (20.5, 30)}, "tile: 20.5 is no integer"),
        ({"tile": (20,)}, r"tile: \[20\] is no list of 2 to 2"),
        ({"value_range": float("nan")}, "value_range: nan is no number"),
        ({"thresholds": (80.0, 12.0)}, r"thresholds: \[80.0, 12.0\] are not in order"),
        ({"thresholds": (float("nan"), 1.0)}, "thresholds: nan is no number"),
        ({"thresholds": None}, "thresholds: there are two where there are three routes"),
        ({"routes": ()}, r"routes: \[\] is no list of 1 to 3"),
        ({"channels": 1}, "channels: 1 are none of an image"),
        ({"weight_bits": {"body.0": float("inf")}}, "weight_bits: inf is no number of 0 to 64"),
        ({"about": "words"}, "about: 'words' is no mapping"),
        ({"overlap": -1}, "overlap: -1 is no integer of 0"),
    ],
)
def test_values_that_cannot_be_are_refused_under_a_checksum_that_fits(
    folder: Path, change: dict[str, object], message: str
) -> None:
    (folder / MANIFEST).write_bytes(replace(load_manifest(folder), **change).to_bytes())
    with pytest.raises(UserError, match=f"lacks or misspells {message}"):
        load_manifest(folder)


@pytest.mark.parametrize(
    "name", ["../x.bin", "/etc/passwd", "..", "a\0.bin", "\ud800.bin", "x" * 5000 + ".bin", "", "a\n.bin"]
)
def test_files_have_plain_names(folder: Path, name: str) -> None:
    manifest = load_manifest(folder)
    weights = replace(manifest.weights, name=name)
    (folder / MANIFEST).write_bytes(replace(manifest, weights=weights).to_bytes())
    with pytest.raises(UserError, match=r"weights: .* is no plain name"):
        load_manifest(folder)


def test_the_same_route_twice_and_one_too_few(folder: Path) -> None:
    manifest = load_manifest(folder)
    minus, zero, _ = manifest.routes
    for routes in ((minus, zero, zero), (minus, zero), (minus,)):
        (folder / MANIFEST).write_bytes(replace(manifest, routes=routes).to_bytes())
        with pytest.raises(UserError, match="routes: their factors are"):
            load_manifest(folder)


def test_pipes_are_refused_and_links_to_the_same_content_followed(folder: Path) -> None:
    file = folder / load_manifest(folder).weights.name
    content = file.read_bytes()
    (folder.parent / "blob").write_bytes(content)
    file.unlink()
    file.symlink_to("../blob")
    load_manifest(folder)
    for target in (file, folder / MANIFEST):
        target.unlink()
        os.mkfifo(target)
        with pytest.raises(UserError, match="it is a pipe, not a regular file"):
            load_manifest(folder)
