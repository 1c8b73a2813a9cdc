"""What a finished run shows: summary.md and its pictures."""

from __future__ import annotations

from pathlib import Path

from qsci_plugins.files import write_text
from qsci_plugins.pipeline.run import RunResult
from qsci_plugins.report.summary import summary

__all__ = ["write_report"]


def write_report(result: RunResult, folder: Path) -> None:
    """Adds summary.md and pictures of the first set to a run's folder.

    Of images before_after_*.png and bits_*.png, of video reconstruction_*.png.
    """
    if result.task.name == "sr":
        from qsci_plugins.report.image_pictures import draw_images

        names = draw_images(result, folder)
    else:
        from qsci_plugins.report.video_pictures import draw_scenes

        names = draw_scenes(result, folder)
    write_text(folder / "summary.md", summary(result.metrics, names))
