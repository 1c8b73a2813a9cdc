"""`qsci cost`: what training and evaluating a quantized network costs in torch, beside the float one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qsci_plugins.commands.options import positive

if TYPE_CHECKING:
    from qsci_plugins.progress import Progress

__all__ = ["add", "cost"]

_SCHEMES = ("adabm", "qsci", "cadyq")
_BACKENDS = ("nncf", "brevitas")


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = commands.add_parser("cost", help="time and memory of training and evaluation in torch, beside float")
    parser.add_argument(
        "--schemes", nargs="+", default=_SCHEMES, metavar="NAME", help="what to measure (default: adabm qsci cadyq)"
    )
    parser.add_argument(
        "--backends", nargs="+", default=_BACKENDS, choices=_BACKENDS, help="through which (default: nncf brevitas)"
    )
    parser.add_argument(
        "--form",
        choices=("integer", "faithful"),
        default="integer",
        help="the arithmetic that runs in integers, or that of the papers' code (default: integer)",
    )
    parser.add_argument(
        "--pairs",
        type=positive,
        default=10,
        metavar="N",
        help="steps of each, float and quantized by turns (default: 10)",
    )
    parser.add_argument("--threads", type=positive, default=2, metavar="N", help="CPU threads (default: 2)")
    parser.add_argument("--format", choices=("md", "json"), default="md", help="what to print (default: md)")
    parser.set_defaults(execute=_execute)


def cost(
    schemes: Sequence[str] = _SCHEMES,
    backends: Sequence[str] = _BACKENDS,
    *,
    form: str = "integer",
    pairs: int = 10,
    threads: int = 2,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Ratios to the float network's time and memory, by scheme and backend. See `comparing.cost.measure_cost`."""
    from qsci_plugins.comparing.cost import measure_cost

    return measure_cost(schemes, backends, form=form, pairs=pairs, threads=threads, progress=progress)


def _execute(arguments: argparse.Namespace) -> int:
    from qsci_plugins.commands.console import console_progress
    from qsci_plugins.machine import describe_machine
    from qsci_plugins.report.summary import cost_table

    with console_progress() as progress:
        measured = cost(
            arguments.schemes,
            arguments.backends,
            form=arguments.form,
            pairs=arguments.pairs,
            threads=arguments.threads,
            progress=progress,
        )
    if arguments.format == "json":
        print(json.dumps({"machine": describe_machine(), **measured}, indent=2))
    else:
        print(cost_table(measured))
    return 0
