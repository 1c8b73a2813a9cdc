from __future__ import annotations

from pathlib import Path

import pytest

from qsci_plugins.data import find_images, list_images
from qsci_plugins.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png", "deep/c.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_a_text_file_in_a_folder_is_reported_not_fatal(folder: Path) -> None:
    skipped: list[Path] = []
    assert list_images([folder], skipped.append) == [folder / "a.JPG", folder / "b.png"]
    assert skipped == [folder / "notes.txt"]


def test_a_named_file_is_taken_whatever_its_suffix_and_once(folder: Path) -> None:
    named = folder / "notes.txt"
    assert list_images([named, folder, str(folder / "b.png")]) == [named, folder / "a.JPG", folder / "b.png"]


def test_nothing_to_do_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no image in .*\.png"):
        list_images([tmp_path])
    with pytest.raises(UserError, match="no image"):
        list_images([])
    with pytest.raises(UserError, match="does not exist"):
        list_images([tmp_path / "photo.jpg"])


def test_find_images_walks_the_whole_tree(folder: Path) -> None:
    everything = [folder / name for name in ("a.JPG", "b.png", "deep/c.tif")]
    assert find_images(folder) == everything
    assert find_images(folder, stride=2) == everything[::2]


def test_find_images_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a folder"):
        find_images(tmp_path / "nothing")
    with pytest.raises(UserError, match="no image"):
        find_images(tmp_path)
