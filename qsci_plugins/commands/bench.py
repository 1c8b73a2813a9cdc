"""`qsci bench`: latency and quality of exported models beside plain OpenVINO and NNCF."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsci_plugins.commands.options import frame_size, positive
from qsci_plugins.errors import UserError

if TYPE_CHECKING:
    from qsci_plugins.progress import Progress

__all__ = ["add", "bench", "bench_tiled"]


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = commands.add_parser("bench", help="latency and PSNR of exported models beside plain OpenVINO and NNCF")
    parser.add_argument(
        "models", type=Path, nargs="+", metavar="MODEL", help="outputs of `qsci run`, or the model folders in them"
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder with benchmark sets (Set5, ...) in EDSR's layout; for video, with .mat files or clips",
    )
    parser.add_argument(
        "--sets",
        nargs="+",
        metavar="SET",
        help="builtin, names in --data, or folders of HR images (default: the standard ones in --data, else builtin)",
    )
    parser.add_argument("--repeats", type=positive, default=20, metavar="N", help="runs of each form (default: 20)")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: all)")
    parser.add_argument("--format", choices=("md", "json"), default="md", help="what to print (default: md)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw milliseconds against PSNR (.png)")
    parser.add_argument(
        "--tiled", type=frame_size, metavar="WxH", help="time an image of this size in tiles and in one piece instead"
    )
    parser.set_defaults(execute=_execute)


def bench(
    models: Sequence[str | Path],
    *,
    data: str | Path | None = None,
    sets: Sequence[str] | None = None,
    repeats: int = 20,
    threads: int | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """One table of latency and PSNR per model, for images or video. See `comparing.bench.bench_model`."""
    from qsci_plugins.comparing.bench import bench_model

    return [bench_model(model, data, sets, repeats=repeats, threads=threads, progress=progress) for model in models]


def bench_tiled(
    models: Sequence[str | Path], size: tuple[int, int], *, repeats: int = 20, threads: int | None = None
) -> list[dict[str, Any]]:
    """What tiles cost on an image of `size` (width, height), per model. See `comparing.tiled`."""
    from qsci_plugins.commands.upscale import model_folder
    from qsci_plugins.comparing.tiled import tiled_latency
    from qsci_plugins.evaluation.latency import usable_threads

    threads = threads or usable_threads()
    tables = []
    for model in models:
        rows = tiled_latency(model_folder(Path(model)), size[::-1], repeats=repeats, threads=threads)
        size_of = [size[1], size[0]]
        tables.append({"model": str(model), "size": size_of, "threads": threads, "repeats": repeats, "rows": rows})
    return tables


def _execute(arguments: argparse.Namespace) -> int:
    from qsci_plugins.commands.console import console_progress
    from qsci_plugins.report.scatter import bench_picture
    from qsci_plugins.report.summary import bench_table

    if arguments.picture is not None and arguments.picture.suffix.lower() != ".png":
        raise UserError(f"--picture {arguments.picture}: pictures are written as .png")
    if arguments.tiled:
        if arguments.data or arguments.sets or arguments.picture:
            raise UserError("--tiled measures time alone; leave out --data, --sets and --picture")
        from qsci_plugins.report.summary import tiled_table

        tables = bench_tiled(arguments.models, arguments.tiled, repeats=arguments.repeats, threads=arguments.threads)
        _print(arguments.format, tables, tiled_table)
        return 0
    with console_progress() as progress:
        tables = bench(
            arguments.models,
            data=arguments.data,
            sets=arguments.sets,
            repeats=arguments.repeats,
            threads=arguments.threads,
            progress=progress,
        )
    if arguments.picture is not None:
        from qsci_plugins.data.images import write_image

        write_image(arguments.picture, bench_picture(tables))
    _print(arguments.format, tables, bench_table)
    return 0


def _print(form: str, tables: list[dict[str, Any]], as_text: Callable[[dict[str, Any]], str]) -> None:
    from qsci_plugins.machine import describe_machine

    if form == "json":
        print(json.dumps({"machine": describe_machine(), "models": tables}, indent=2))
    else:
        print("\n\n".join(as_text(table) for table in tables))
