"""`qsci report`: report.html anew, of one run or of several side by side."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsci_plugins.errors import UserError

if TYPE_CHECKING:
    from qsci_plugins.progress import Progress

__all__ = ["add", "make_report"]

#: what tells a page of ours from others, in its head
_MARK = b'name="generator" content="qsci-plugins report"'


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = commands.add_parser("report", help="write report.html anew, or of several runs side by side")
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="outputs of run, quantize, train, benchmark, sweep or reconstruct",
    )
    parser.add_argument(
        "--output",
        "-o",
        type=Path,
        metavar="FILE",
        help="page to write (default: report.html in the run; of several runs, here)",
    )
    parser.add_argument("--force", action="store_true", help="replace a file that is no report")
    parser.set_defaults(execute=_execute)


def make_report(
    runs: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Writes one page about one output folder, or several side by side, and returns its path.

    The page is one file that asks nothing of a network. By default it is report.html in the folder, of several runs in the
    working folder. Raises UserError for a folder without results, a file in the way that is no report (without `force`),
    and where the packages for it are not installed.

    With the run that the example of `run` makes:

    >>> import qsci_plugins
    >>> qsci_plugins.make_report(["runs/tiny"]).name
    'report.html'
    """
    from qsci_plugins.progress import Progress
    from qsci_plugins.report.folder_content import read_content
    from qsci_plugins.report.page import REPORT_FILE, write_page

    folders = [Path(run) for run in runs]
    if not folders:
        raise UserError("name the output folder of at least one run")
    if len(folders) == 1:
        contents, default = [read_content(folders[0])], folders[0] / REPORT_FILE
    else:
        contents = [read_content(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]
        default = Path(REPORT_FILE)
    file = default if output is None else Path(output)
    if file.is_dir():
        file = file / REPORT_FILE
    if file.exists() and not force and not _is_report(file):
        raise UserError(f"{file} is no report of ours; name another --output, or replace it with --force")
    write_page(file, contents, progress or Progress(), needed=True)
    return file


def _is_report(file: Path) -> bool:
    with file.open("rb") as opened:
        return _MARK in opened.read(2000)


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names; whole paths where two are alike."""
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) == len(names):
        return names
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("a folder comes twice; name it once")
    return [str(folder) for folder in folders]


def _execute(arguments: argparse.Namespace) -> int:
    from qsci_plugins.commands.console import console_progress, report

    with console_progress() as progress:
        file = make_report(arguments.runs, arguments.output, force=arguments.force, progress=progress)
    report(file)
    return 0
