"""Which files in a folder are images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from qsci_plugins.errors import UserError

__all__ = ["IMAGE_FORMATS", "VIDEO_FORMATS", "WRITABLE_FORMATS", "find_images", "is_image", "list_images"]

#: the suffixes that are images in a folder, and Pillow's name of the format that is written for each
IMAGE_FORMATS = {
    ".bmp": "BMP",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}

#: the same with those that a folder of frames or photos is not looked through for: they are clips there
WRITABLE_FORMATS = {**IMAGE_FORMATS, ".apng": "PNG", ".gif": "GIF"}

#: the suffixes of files that are read as videos
VIDEO_FORMATS = (
    ".3gp",
    ".asf",
    ".avi",
    ".flv",
    ".gif",
    ".m2ts",
    ".m4v",
    ".mkv",
    ".mov",
    ".mp4",
    ".mpeg",
    ".mpg",
    ".mts",
    ".mxf",
    ".ogv",
    ".ts",
    ".vob",
    ".webm",
    ".wmv",
)


def list_images(paths: Sequence[str | Path], on_skip: Callable[[Path], None] = lambda file: None) -> list[Path]:
    """The image files among `paths`: files as they are, of folders the direct children that are images,
    sorted.

    Every file comes once. What a folder holds besides images (not its folders and hidden files) goes to
    `on_skip`.
    Raises UserError for a path that does not exist and where nothing is left.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"{path} does not exist")
        if not path.is_dir():
            found[path] = None
            continue
        for file in sorted(path.iterdir()):
            if file.name.startswith(".") or not file.is_file():
                continue
            if file.suffix.lower() in WRITABLE_FORMATS:
                found[file] = None
            else:
                on_skip(file)
    if not found:
        raise UserError(f"no image in {', '.join(map(str, paths)) or 'an empty list'}; looked for {_suffixes()} files")
    return list(found)


def find_images(folder: Path, stride: int = 1) -> list[Path]:
    """Every `stride`-th image anywhere below `folder`, in sorted order, but for hidden files and what hidden folders hold.

    Raises UserError where the folder is missing or holds no image.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; images are read from folders")
    files = sorted(
        file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_FORMATS and not _is_hidden(file, folder)
    )
    if not files:
        raise UserError(f"no image in {folder}; it should hold {_suffixes()} files")
    return files[::stride]


def is_image(file: Path) -> bool:
    """Whether a file in a folder is a photo or frame by its name, and not hidden."""
    return file.suffix.lower() in IMAGE_FORMATS and not file.name.startswith(".")


def _is_hidden(file: Path, folder: Path) -> bool:
    """Whether a name below the folder begins with a dot, as what systems keep beside files does (`._photo.png`)."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _suffixes() -> str:
    return ", ".join(sorted(IMAGE_FORMATS))
