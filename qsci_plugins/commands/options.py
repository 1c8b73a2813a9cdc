"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Literal

__all__ = ["add_data", "add_output", "add_overrides", "frame_size", "positive", "seconds", "tile_size"]


def add_output(parser: argparse.ArgumentParser) -> None:
    """--output and --force."""
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="DIR", help="folder to write; must be new")
    parser.add_argument("--force", action="store_true", help="replace the output of an earlier run")


def add_data(parser: argparse.ArgumentParser) -> None:
    """--data."""
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder with benchmark sets (Set5, Set14, B100, ...) in EDSR's layout"
    )


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """--set, any number of times."""
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a key of the recipe, such as scheme.activation_bits=6 (repeatable)",
    )


def positive(text: str) -> int:
    """The type of an argument that counts something."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"should be a whole number of at least 1, not {text!r}")
    return int(text)


def frame_size(text: str) -> tuple[int, int]:
    """The type of an argument WIDTHxHEIGHT: (width, height)."""
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not found:
        raise argparse.ArgumentTypeError(f"should be WIDTHxHEIGHT, such as 640x360, not {text!r}")
    return int(found[1]), int(found[2])


def seconds(text: str) -> float:
    """The type of an argument in seconds, such as 2, 2s or 0.5s."""
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?s?", text) or not float(text.rstrip("s")):
        raise argparse.ArgumentTypeError(f"should be seconds above 0, such as 2s, not {text!r}")
    return float(text.rstrip("s"))


def tile_size(text: str) -> tuple[int, int] | Literal["fit"] | None:
    """The type of an argument WIDTHxHEIGHT, `fit` or `model`, as `Upscaler` takes it: (height, width), "fit" or None."""
    if text == "model":
        return None
    if text == "fit":
        return "fit"
    try:
        width, height = frame_size(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"should be fit, model or WIDTHxHEIGHT, not {text!r}") from None
    return height, width
