"""`qsci sweep`: one recipe at many settings, as a table and the front of PSNR against BitOPs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsci_plugins.commands.options import add_options, option, optional_path, read_settings
from qsci_plugins.comparing.settings import SweepSettings

if TYPE_CHECKING:
    from qsci_plugins.progress import Progress

__all__ = ["add", "sweep"]


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = commands.add_parser("sweep", help="a recipe at many settings: PSNR against BitOPs (goes on after Ctrl-C)")
    add_options(
        parser,
        SweepSettings,
        values=option(
            "--key",
            action="append",
            metavar="KEY=A,B,...",
            help="values of a key, such as scheme.activation_bits=4,6,8 (repeatable: every combination is run)",
        ),
        one_at_a_time=option(
            "--one-at-a-time", action="store_true", help="an ablation: the recipe as it is, then each value alone"
        ),
        output=option("--output", "-o", type=Path, metavar="DIR", help="folder where an interrupted sweep goes on"),
    )
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
    cluster: str | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Runs and measures the recipe at every combination of the keys' values; see `comparing.sweep.run_sweep`.

    `values` is such as {"scheme.activation_bits": [4, 6, 8]}. Leaves sweep.json, sweep.md, sweep.csv, sweep.png and report.html.

    With the run that the example of `run` makes, at two bit-widths:

    >>> from pathlib import Path
    >>> from PIL import Image
    >>> import qsci_plugins
    >>> Path("photos").mkdir(exist_ok=True)
    >>> Image.linear_gradient("L").convert("RGB").resize((96, 64)).save("photos/gradient.png")
    >>> values = {"scheme.activation_bits": [4, 8]}
    >>> result = qsci_plugins.sweep("runs/tiny/recipe.yaml", values, "sweep", sets=["./photos"], jobs=1)
    >>> Path("sweep/sweep.md").is_file()
    True
    """
    settings = SweepSettings(
        recipe=recipe,
        values=values,
        output=Path(output),
        one_at_a_time=one_at_a_time,
        data=optional_path(data),
        sets=sets,
        overrides=overrides,
        jobs=jobs,
        cluster=cluster,
        device=device,
    )
    return _sweep(settings, progress)


def _sweep(settings: SweepSettings, progress: Progress | None) -> dict[str, Any]:
    from qsci_plugins.comparing.sweep import run_sweep
    from qsci_plugins.progress import Progress
    from qsci_plugins.report.folder_content import read_content
    from qsci_plugins.report.page import REPORT_FILE, write_page
    from qsci_plugins.report.sweep_tables import write_sweep

    result = run_sweep(settings, progress)
    write_sweep(result, settings.output)
    write_page(settings.output / REPORT_FILE, [read_content(settings.output)], progress or Progress())
    return result


def _execute(arguments: argparse.Namespace) -> int:
    from qsci_plugins.commands.console import console_progress
    from qsci_plugins.comparing.sweep import read_values

    settings = read_settings(SweepSettings, arguments, values=read_values(arguments.values))
    with console_progress() as progress:
        _sweep(settings, progress)
    print((settings.output / "sweep.md").read_text(encoding="utf-8"), end="")
    print(f"\n{settings.output}")
    return 0
