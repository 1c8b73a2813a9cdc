"""`qsci bench`: latency and quality of exported models beside plain OpenVINO and NNCF."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsci_plugins.commands.options import (
    add_options,
    frame_size,
    option,
    optional_path,
    positive,
    read_settings,
    seconds,
)
from qsci_plugins.comparing.settings import ROWS, BenchSettings
from qsci_plugins.errors import UserError

if TYPE_CHECKING:
    from qsci_plugins.progress import Progress

__all__ = ["add", "bench", "bench_tiled"]


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = commands.add_parser("bench", help="latency and PSNR of exported models beside plain OpenVINO and NNCF")
    add_options(
        parser,
        BenchSettings,
        models=option(
            type=Path, nargs="+", metavar="MODEL", help="outputs of `qsci run`, or the model folders in them"
        ),
        repeats=option("--repeats", type=positive, metavar="N", help="runs of each form (default: 20)"),
        only=option("--only", nargs="+", metavar="NAME", help=f"rows to make, of {', '.join(ROWS)} (default: all)"),
        limit=option(
            "--limit",
            type=seconds,
            metavar="SECONDS",
            help="end rows that take longer to make or for a tile, and their timed runs after so long (default: no limit)",
        ),
        tiled=option(
            "--tiled",
            type=frame_size,
            metavar="WxH",
            help="time an image of this size in tiles and in one piece instead",
        ),
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw milliseconds against PSNR (.png)")
    parser.add_argument("--format", choices=("md", "json"), default="md", help="what to print (default: md)")
    parser.set_defaults(execute=_execute)


def bench(
    models: Sequence[str | Path],
    *,
    data: str | Path | None = None,
    sets: Sequence[str] | None = None,
    repeats: int = 20,
    threads: int | None = None,
    only: Sequence[str] | None = None,
    limit: float | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """A table of latency and PSNR per model, for images or video. See `comparing.bench_isolated.bench_model`.

    `only` names the rows to make, such as ["fp32", "ours"]; `limit` is in seconds, for the making of a row and for its runs.

    With the run that the example of `run` makes; each row is a form of the network:

    >>> from pathlib import Path
    >>> from PIL import Image
    >>> import qsci_plugins
    >>> Path("photos").mkdir(exist_ok=True)
    >>> Image.linear_gradient("L").convert("RGB").resize((96, 64)).save("photos/gradient.png")
    >>> [table] = qsci_plugins.bench(["runs/tiny"], sets=["./photos"], repeats=1, threads=1)
    >>> len(table["rows"]) > 3
    True
    """
    settings = BenchSettings(
        models=[Path(model) for model in models],
        data=optional_path(data),
        sets=sets,
        repeats=repeats,
        threads=threads,
        only=only,
        limit=limit,
    )
    tables: list[dict[str, Any]] = []
    _bench(settings, progress, tables)
    return tables


def bench_tiled(
    models: Sequence[str | Path], size: tuple[int, int], *, repeats: int = 20, threads: int | None = None
) -> list[dict[str, Any]]:
    """What tiles cost on an image of `size` (width, height), per model. See `comparing.tiled`.

    With the run that the example of `run` makes:

    >>> import qsci_plugins
    >>> [table] = qsci_plugins.bench_tiled(["runs/tiny"], (80, 64), repeats=1, threads=1)
    >>> table["size"], len(table["rows"]) > 1
    ([64, 80], True)
    """
    return _bench_tiled(BenchSettings(models=[Path(model) for model in models], repeats=repeats, threads=threads), size)


def _bench(settings: BenchSettings, progress: Progress | None, tables: list[dict[str, Any]]) -> None:
    """Adds a table per model, each of which has at any time the rows that are complete."""
    from qsci_plugins.comparing.bench_isolated import bench_model

    for model in settings.models:
        bench_model(model, settings, progress, tables.append)


def _bench_tiled(settings: BenchSettings, size: tuple[int, int]) -> list[dict[str, Any]]:
    from qsci_plugins.commands.upscale import model_folder
    from qsci_plugins.comparing.tiled import tiled_latency
    from qsci_plugins.machine import usable_threads

    threads, repeats = settings.threads or usable_threads(), settings.repeats
    tables = []
    for model in settings.models:
        rows = tiled_latency(model_folder(model), size[::-1], repeats=repeats, threads=threads)
        height_width = [size[1], size[0]]
        tables.append({"model": str(model), "size": height_width, "threads": threads, "repeats": repeats, "rows": rows})
    return tables


def _execute(arguments: argparse.Namespace) -> int:
    from qsci_plugins.commands.console import console_progress
    from qsci_plugins.report.bench_tables import bench_table, tiled_table
    from qsci_plugins.report.scatter import bench_picture

    settings, picture = read_settings(BenchSettings, arguments), arguments.picture
    if picture is not None and picture.suffix.lower() != ".png":
        raise UserError(f"--picture {picture}: pictures are written as .png")
    if settings.tiled:
        if settings.data or settings.sets or picture:
            raise UserError("--tiled measures time alone; leave out --data, --sets and --picture")
        if settings.only or settings.limit:
            raise UserError("--tiled has rows of its own; leave out --only and --limit")
        _print(arguments.format, _bench_tiled(settings, settings.tiled), tiled_table)
        return 0
    tables: list[dict[str, Any]] = []
    try:
        with console_progress() as progress:
            _bench(settings, progress, tables)
    except KeyboardInterrupt:
        complete = [table for table in tables if table["rows"]]
        if not complete:
            raise KeyboardInterrupt("stopped before a row was complete") from None
        _print(arguments.format, complete, bench_table)
        raise KeyboardInterrupt("stopped; the rows that were complete are printed") from None
    if picture is not None:
        from qsci_plugins.data.images import write_image

        write_image(picture, bench_picture(tables))
    _print(arguments.format, tables, bench_table)
    return 0


def _print(form: str, tables: list[dict[str, Any]], as_text: Callable[[dict[str, Any]], str]) -> None:
    from qsci_plugins.machine import describe_machine

    if form == "json":
        print(json.dumps({"machine": describe_machine(), "models": tables}, indent=2))
    else:
        print("\n\n".join(as_text(table) for table in tables))
