"""`qsci benchmark`: recipes and finished runs side by side on benchmark sets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsci_plugins.commands.options import add_options, option, optional_path, read_settings
from qsci_plugins.comparing.settings import BenchmarkSettings

if TYPE_CHECKING:
    from qsci_plugins.progress import Progress

__all__ = ["add", "benchmark"]


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = commands.add_parser(
        "benchmark", help="float, quantized torch and OpenVINO of several recipes side by side (goes on after Ctrl-C)"
    )
    add_options(
        parser,
        BenchmarkSettings,
        targets=option(
            nargs="+", metavar="RECIPE", help="recipe files, names of shipped ones, or outputs of `qsci run`"
        ),
        output=option(
            "--output",
            "-o",
            type=Path,
            metavar="DIR",
            help="folder for runs and results, where an interrupted benchmark goes on (default: benchmark)",
        ),
        baseline=option("--baseline", action="store_true", help="measure NNCF's default INT8 of every network as well"),
    )
    parser.add_argument(
        "--format", choices=("md", "csv", "json", "latex"), default="md", help="what to print (default: md)"
    )
    parser.set_defaults(execute=_execute)


def benchmark(
    targets: Sequence[str | Path],
    output: str | Path = "benchmark",
    *,
    data: str | Path | None = None,
    sets: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    baseline: bool = False,
    jobs: int | None = None,
    cluster: str | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """PSNR (of images on Y), SSIM, FAB and operations of every form of every target, for images and video.

    See `comparing.benchmark.measure_subjects`. Leaves benchmark.json and report.html in the output.

    With the run that the example of `run` makes:

    >>> from pathlib import Path
    >>> from PIL import Image
    >>> import qsci_plugins
    >>> Path("photos").mkdir(exist_ok=True)
    >>> Image.linear_gradient("L").convert("RGB").resize((96, 64)).save("photos/gradient.png")
    >>> result = qsci_plugins.benchmark(["runs/tiny"], "table", sets=["./photos"], jobs=1)
    >>> Path("table").is_dir()
    True
    """
    settings = BenchmarkSettings(
        targets=targets,
        output=Path(output),
        data=optional_path(data),
        sets=sets,
        overrides=overrides,
        baseline=baseline,
        jobs=jobs,
        cluster=cluster,
        device=device,
    )
    return _benchmark(settings, progress)


def _benchmark(settings: BenchmarkSettings, progress: Progress | None) -> dict[str, Any]:
    from qsci_plugins.comparing.benchmark import run_benchmark
    from qsci_plugins.progress import Progress
    from qsci_plugins.report.folder_content import read_content
    from qsci_plugins.report.page import REPORT_FILE, write_page

    result = run_benchmark(settings, progress)
    write_page(settings.output / REPORT_FILE, [read_content(settings.output)], progress or Progress())
    return result


def _execute(arguments: argparse.Namespace) -> int:
    from qsci_plugins.commands.console import console_progress
    from qsci_plugins.report.benchmark_tables import benchmark_text

    with console_progress() as progress:
        result = _benchmark(read_settings(BenchmarkSettings, arguments), progress)
    print(benchmark_text(result, arguments.format))
    return 0
