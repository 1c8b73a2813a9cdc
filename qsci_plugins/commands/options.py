"""Options of commands, each declared once, by the field of the settings that it fills."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from qsci_plugins.machine import DEVICES

__all__ = [
    "Option",
    "add_data",
    "add_device",
    "add_options",
    "add_output",
    "add_overrides",
    "add_precision",
    "device",
    "frame_size",
    "option",
    "optional_path",
    "positive",
    "read_settings",
    "seconds",
    "tile_size",
]

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Option:
    """What argparse's `add_argument` is given; without flags it is a positional argument."""

    flags: tuple[str, ...]
    keywords: Mapping[str, Any]


def option(*flags: str, **keywords: Any) -> Option:
    """An `Option` as a call of `add_argument` reads."""
    return Option(flags, keywords)


def positive(text: str) -> int:
    """The type of an argument that counts something."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"should be a whole number of at least 1, not {text!r}")
    return int(text)


def device(text: str) -> str:
    """The type of an argument that names a device of torch's; whether it is there is seen later."""
    if not re.fullmatch(DEVICES, text):
        raise argparse.ArgumentTypeError(f"should be auto, cpu, cuda or cuda:N, not {text!r}")
    return text


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


_SETS = "builtin, names in --data, or folders of HR images or scenes"

#: what several commands have, by the field that it fills
_SHARED: Mapping[str, Option] = {
    "output": option("--output", "-o", type=Path, metavar="DIR", help="folder to write; must be new"),
    "force": option("--force", action="store_true", help="replace the output of an earlier run"),
    "data": option(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder with benchmark sets (Set5, ...) in EDSR's layout; for video, with .mat files or clips",
    ),
    "sets": option(
        "--sets", nargs="+", metavar="SET", help=f"{_SETS} (default: the standard ones in --data, else builtin)"
    ),
    "overrides": option(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a key of the recipe, such as scheme.activation_bits=6 (repeatable)",
    ),
    "recipe": option(metavar="RECIPE", help="a recipe file, or the name of a shipped one (`qsci recipes`)"),
    "jobs": option("--jobs", "-j", type=positive, metavar="N", help="processes that measure (default: one per core)"),
    "cluster": option(
        "--cluster",
        metavar="local|auto|HOST:PORT",
        help="run recipes and measure on Ray (extra [cluster]): started here, running here already, or at an address; its"
        " machines share this folder, the output and the data, at the same paths",
    ),
    "device": option(
        "--device",
        type=device,
        metavar="DEVICE",
        help="where torch computes: auto (a GPU where there is one), cpu, cuda or cuda:N (default: the recipe's, or auto)",
    ),
    "threads": option("--threads", type=positive, metavar="N", help="CPU threads (default: all)"),
    "precision": option(
        "--precision",
        choices=("auto", "f32"),
        help="of what does not run in integers: auto is bf16 where the CPU has it and the model allows it, which is"
        " faster (default); f32 is as close to torch as an exported network comes",
    ),
}


def add_options(parser: argparse.ArgumentParser, settings: type, **own: Option) -> None:
    """An option for every field of a settings dataclass that is shared or among `own`, with the field's default.

    Positional arguments come in the order of `own`.
    """
    by_name = {entry.name: entry for entry in fields(settings)}
    names = [*own, *(name for name in _SHARED if name in by_name and name not in own)]
    for name in names:
        _add(parser, name, own.get(name) or _SHARED[name], by_name[name].default)


def _add(parser: argparse.ArgumentParser, name: str, chosen: Option, default: Any) -> None:
    keywords = dict(chosen.keywords)
    if not chosen.flags:
        parser.add_argument(name, **keywords)
        return
    if default is MISSING:
        keywords.setdefault("required", "default" not in keywords)
    elif keywords.get("action") != "append":
        keywords.setdefault("default", default)
    parser.add_argument(*chosen.flags, dest=name, **keywords)


def read_settings(settings: type[Settings], arguments: argparse.Namespace, **instead: Any) -> Settings:
    """The settings that the arguments make, field by field; `instead` gives those that need more than argparse."""
    named = {entry.name for entry in fields(settings)}  # type: ignore[arg-type]
    given = {name: value for name, value in vars(arguments).items() if name in named}
    return settings(**{**given, **instead})


def optional_path(path: str | Path | None) -> Path | None:
    """A path that may be left out."""
    return None if path is None else Path(path)


def add_output(parser: argparse.ArgumentParser) -> None:
    """--output and --force."""
    _add(parser, "output", _SHARED["output"], MISSING)
    _add(parser, "force", _SHARED["force"], False)


def add_data(parser: argparse.ArgumentParser) -> None:
    """--data."""
    _add(parser, "data", _SHARED["data"], None)


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device."""
    _add(parser, "device", _SHARED["device"], None)


def add_precision(parser: argparse.ArgumentParser) -> None:
    """--precision."""
    _add(parser, "precision", _SHARED["precision"], "auto")


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """--set, any number of times."""
    _add(parser, "overrides", _SHARED["overrides"], ())
