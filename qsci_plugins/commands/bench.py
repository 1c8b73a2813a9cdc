"""`qsci bench`: latency and quality of exported models beside plain OpenVINO and NNCF."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsci_plugins.commands.options import positive
from qsci_plugins.errors import UserError

if TYPE_CHECKING:
    from qsci_plugins.progress import Progress

__all__ = ["add", "bench"]


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = commands.add_parser("bench", help="latency and PSNR of exported models beside plain OpenVINO and NNCF")
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="outputs of `qsci run`, or model folders")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="benchmark sets (Set5, ...) in EDSR's layout, for video .mat files"
    )
    parser.add_argument("--sets", nargs="+", metavar="SET", help="these sets alone (builtin, Set5, ...), of images")
    parser.add_argument("--repeats", type=positive, default=20, metavar="N", help="runs per form (default: 20)")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: all)")
    parser.add_argument("--format", choices=("md", "json"), default="md", help="what to print (default: md)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw milliseconds against PSNR (.png)")
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
    """One table of latency and PSNR per model, for images or video. See `recipes.benching.bench_model`."""
    from qsci_plugins.recipes.benching import bench_model

    return [bench_model(model, data, sets, repeats=repeats, threads=threads, progress=progress) for model in models]


def _execute(arguments: argparse.Namespace) -> int:
    from qsci_plugins.commands.console import console_progress
    from qsci_plugins.recipes.machine import describe_machine
    from qsci_plugins.report.bench_picture import bench_picture
    from qsci_plugins.report.summary import bench_table

    if arguments.picture is not None and arguments.picture.suffix.lower() != ".png":
        raise UserError(f"--picture {arguments.picture}: pictures are written as .png")
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
    if arguments.format == "json":
        print(json.dumps({"machine": describe_machine(), "models": tables}, indent=2))
    else:
        print("\n\n".join(bench_table(table) for table in tables))
    return 0
