"""`qsci cost`: what training and evaluating a quantized network costs in torch, beside the float one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qsci_plugins.commands.options import add_options, option, positive, read_settings
from qsci_plugins.comparing.settings import CostSettings

if TYPE_CHECKING:
    from qsci_plugins.progress import Progress

__all__ = ["add", "cost"]


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = commands.add_parser("cost", help="time and memory of training and evaluation in torch, beside float")
    add_options(
        parser,
        CostSettings,
        schemes=option("--schemes", nargs="+", metavar="NAME", help="what to measure (default: every scheme)"),
        backends=option(
            "--backends", nargs="+", choices=CostSettings.backends, help="through which (default: nncf brevitas)"
        ),
        form=option(
            "--form",
            choices=("integer", "faithful"),
            help="the arithmetic that runs in integers, or that of the papers' code (default: integer)",
        ),
        pairs=option(
            "--pairs", type=positive, metavar="N", help="steps of each, float and quantized by turns (default: 10)"
        ),
        threads=option("--threads", type=positive, metavar="N", help="CPU threads (default: 2)"),
    )
    parser.add_argument("--format", choices=("md", "json"), default="md", help="what to print (default: md)")
    parser.set_defaults(execute=_execute)


def cost(
    schemes: Sequence[str] | None = None,
    backends: Sequence[str] = CostSettings.backends,
    *,
    form: str = "integer",
    pairs: int = 10,
    threads: int = 2,
    device: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Ratios to the float network's time and memory, by scheme and backend. See `comparing.cost.measure_cost`.

    >>> import qsci_plugins
    >>> measured = qsci_plugins.cost(["adabm"], ["nncf"], pairs=1, threads=1)
    >>> type(measured)
    <class 'dict'>
    """
    from qsci_plugins.comparing.cost import measure_cost

    settings = CostSettings(schemes=schemes, backends=backends, form=form, pairs=pairs, threads=threads, device=device)
    return measure_cost(settings, progress)


def _execute(arguments: argparse.Namespace) -> int:
    from qsci_plugins.commands.console import console_progress
    from qsci_plugins.comparing.cost import measure_cost
    from qsci_plugins.machine import describe_machine
    from qsci_plugins.report.bench_tables import cost_table

    with console_progress() as progress:
        measured = measure_cost(read_settings(CostSettings, arguments), progress)
    if arguments.format == "json":
        print(json.dumps({"machine": describe_machine(), **measured}, indent=2))
    else:
        print(cost_table(measured))
    return 0
