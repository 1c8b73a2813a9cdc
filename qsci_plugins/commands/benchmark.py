"""`qsci benchmark`: recipes and finished runs side by side on benchmark sets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsci_plugins.commands.options import add_data, add_overrides, positive

if TYPE_CHECKING:
    from qsci_plugins.progress import Progress

__all__ = ["add", "add_measuring", "benchmark"]


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = commands.add_parser(
        "benchmark", help="float, quantized torch and OpenVINO of several recipes side by side (goes on after Ctrl-C)"
    )
    parser.add_argument(
        "targets", nargs="+", metavar="RECIPE", help="recipe files, names of shipped ones, or outputs of `qsci run`"
    )
    parser.add_argument(
        "--output", "-o", type=Path, default=Path("benchmark"), metavar="DIR",
        help="folder for runs and results, where an interrupted benchmark goes on (default: benchmark)",
    )  # fmt: skip
    add_overrides(parser)
    add_measuring(parser)
    parser.add_argument("--baseline", action="store_true", help="measure NNCF's default INT8 of every network as well")
    parser.add_argument(
        "--format", choices=("md", "csv", "json", "latex"), default="md", help="what to print (default: md)"
    )
    parser.set_defaults(execute=_execute)


def add_measuring(parser: argparse.ArgumentParser) -> None:
    """--data, --sets and --jobs."""
    add_data(parser)
    parser.add_argument(
        "--sets",
        nargs="+",
        metavar="SET",
        help="builtin, names in --data, or folders of HR images (default: the standard ones in --data, else builtin)",
    )
    parser.add_argument(
        "--jobs", "-j", type=positive, metavar="N", help="processes that measure (default: one per core)"
    )


def benchmark(
    targets: Sequence[str | Path],
    output: str | Path = "benchmark",
    *,
    data: str | Path | None = None,
    sets: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    baseline: bool = False,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """PSNR-Y, SSIM, FAB and operations of every form of every target. See `comparing.benchmark.run_benchmark`."""
    from qsci_plugins.comparing.benchmark import run_benchmark

    return run_benchmark(
        targets,
        output,
        data=data,
        sets=sets,
        overrides=overrides,
        baseline=baseline,
        jobs=jobs,
        progress=progress,
    )


def _execute(arguments: argparse.Namespace) -> int:
    from qsci_plugins.commands.console import console_progress
    from qsci_plugins.report.benchmark_tables import benchmark_text

    with console_progress() as progress:
        result = benchmark(
            arguments.targets,
            arguments.output,
            data=arguments.data,
            sets=arguments.sets,
            overrides=arguments.overrides,
            baseline=arguments.baseline,
            jobs=arguments.jobs,
            progress=progress,
        )
    print(benchmark_text(result, arguments.format))
    return 0
