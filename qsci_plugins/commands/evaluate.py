"""`qsci evaluate`: a finished run, or an exported model, on benchmark sets."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsci_plugins.commands.options import add_data

if TYPE_CHECKING:
    from qsci_plugins.progress import Progress

__all__ = ["add", "evaluate"]


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = commands.add_parser("evaluate", help="measure a finished run on sets of images")
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="an output of `qsci run` on images, or the model folder in it"
    )
    add_data(parser)
    parser.add_argument(
        "--sets",
        nargs="+",
        metavar="SET",
        help="builtin, names in --data, or folders of HR images (default: the recipe's and the standard ones in --data)",
    )
    parser.add_argument("--format", choices=("md", "json"), default="md", help="what to print (default: md)")
    parser.set_defaults(execute=_execute)


def evaluate(
    run: str | Path,
    *,
    data: str | Path | None = None,
    sets: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """PSNR-Y, SSIM and FAB by set and form. See `comparing.evaluate.evaluate_run`."""
    from qsci_plugins.comparing.evaluate import evaluate_run

    return evaluate_run(run, data, sets, progress)


def _execute(arguments: argparse.Namespace) -> int:
    from qsci_plugins.commands.console import console_progress
    from qsci_plugins.report.quality import patch_table, quality_table

    with console_progress() as progress:
        sets = evaluate(arguments.run, data=arguments.data, sets=arguments.sets, progress=progress)
    if arguments.format == "json":
        print(json.dumps(sets, indent=2))
    else:
        print("\n\n".join(part for part in (quality_table(sets), patch_table(sets)) if part))
    return 0
