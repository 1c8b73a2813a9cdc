"""`qsci sweep`: one recipe at many settings, as a table and the front of PSNR against BitOPs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsci_plugins.commands.benchmark import add_measuring
from qsci_plugins.commands.options import add_overrides

if TYPE_CHECKING:
    from qsci_plugins.progress import Progress

__all__ = ["add", "sweep"]


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = commands.add_parser("sweep", help="a recipe at many settings: PSNR against BitOPs (goes on after Ctrl-C)")
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe file, or the name of a shipped one (`qsci recipes`)")
    parser.add_argument(
        "--key",
        dest="keys",
        action="append",
        required=True,
        metavar="KEY=A,B,...",
        help="values of a key, such as scheme.activation_bits=4,6,8 (repeatable: every combination is run)",
    )
    parser.add_argument(
        "--one-at-a-time", action="store_true", help="an ablation: the recipe as it is, then each value alone"
    )
    parser.add_argument(
        "--output", "-o", type=Path, required=True, metavar="DIR", help="folder where an interrupted sweep goes on"
    )
    add_overrides(parser)
    add_measuring(parser)
    parser.set_defaults(execute=_execute)


def sweep(
    recipe: str | Path,
    values: Mapping[str, Sequence[Any]],
    output: str | Path,
    *,
    one_at_a_time: bool = False,
    data: str | Path | None = None,
    sets: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    jobs: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Runs and measures the recipe at every combination of the keys' values; see `comparing.sweep.run_sweep`.

    `values` is such as {"scheme.activation_bits": [4, 6, 8]}. Leaves sweep.json, sweep.md, sweep.csv and sweep.png.
    """
    from qsci_plugins.comparing.sweep import run_sweep
    from qsci_plugins.report.sweep_tables import write_sweep

    result = run_sweep(
        recipe,
        values,
        output,
        one_at_a_time=one_at_a_time,
        data=data,
        sets=sets,
        overrides=overrides,
        jobs=jobs,
        progress=progress,
    )
    write_sweep(result, Path(output))
    return result


def _execute(arguments: argparse.Namespace) -> int:
    from qsci_plugins.commands.console import console_progress
    from qsci_plugins.comparing.sweep import read_values

    values = read_values(arguments.keys)
    with console_progress() as progress:
        sweep(
            arguments.recipe,
            values,
            arguments.output,
            one_at_a_time=arguments.one_at_a_time,
            data=arguments.data,
            sets=arguments.sets,
            overrides=arguments.overrides,
            jobs=arguments.jobs,
            progress=progress,
        )
    print((arguments.output / "sweep.md").read_text(encoding="utf-8"), end="")
    print(f"\n{arguments.output}")
    return 0
