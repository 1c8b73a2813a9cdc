"""`qsci upscale`: images and clips through an exported network; needs OpenVINO and numpy, not torch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from qsci_plugins.commands.options import add_options, frame_size, option, positive, read_settings, seconds, tile_size
from qsci_plugins.commands.upscale_images import upscale
from qsci_plugins.commands.upscale_raw import standard_streams, upscale_raw
from qsci_plugins.commands.upscale_settings import UpscaleSettings, model_folder
from qsci_plugins.commands.upscale_video import preview_video, upscale_video
from qsci_plugins.data.folders import VIDEO_FORMATS, WRITABLE_FORMATS
from qsci_plugins.errors import UserError

__all__ = ["UpscaleSettings", "add", "model_folder", "upscale"]


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = commands.add_parser("upscale", help="enlarge images and clips of any size with an exported network")
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a run's output, the model folder in it, or builtin:edsr_x4"
    )
    parser.add_argument(
        "inputs", type=Path, nargs="+", metavar="FILE", help="images, folders of images, a video, or - for raw frames"
    )
    parser.add_argument(
        "--output",
        "-o",
        type=Path,
        required=True,
        metavar="OUT",
        help="an image file (for one image), a folder, a video file, or - for raw frames",
    )
    parser.add_argument("--size", type=frame_size, metavar="WxH", help="width and height of raw rgb24 frames on stdin")
    add_options(
        parser,
        UpscaleSettings,
        force=option("--force", action="store_true", help="replace existing files"),
        streams=option(
            "--streams",
            type=positive,
            metavar="N",
            help="tiles at once, each in its own memory (default: OpenVINO's choice)",
        ),
        cache_dir=option("--cache", type=Path, metavar="DIR", help="keep compiled graphs here for the next time"),
        tile=option(
            "--tile",
            type=tile_size,
            metavar="SIZE",
            help="what large images are cut into: fit (the fastest within about 1 GiB, default), model (the exported size)"
            " or WxH; bits that adapt follow each tile's content",
        ),
        preview=option(
            "--preview",
            type=seconds,
            metavar="2s",
            help="enlarge the first seconds of a video into OUT.preview, and tell how long all of it would take",
        ),
        threads=option(
            "--threads", type=positive, metavar="N", help="CPU threads (default: all; of each worker of a cluster, 1)"
        ),
        cluster=option(
            "--cluster",
            metavar="local|auto|HOST:PORT",
            help="share images, or segments of a video, on Ray (extra [cluster]): started here, running here already, or at"
            " an address; files and the model are sent to its machines, which need no folder of this one",
        ),
        jobs=option(
            "--jobs",
            "-j",
            type=positive,
            metavar="N",
            help="workers in the cluster (default: as many as it has cores for)",
        ),
    )
    parser.set_defaults(execute=_execute)


def _execute(arguments: argparse.Namespace) -> int:
    from qsci_plugins.commands.console import console_progress, one_line, report

    inputs, output = arguments.inputs, arguments.output
    settings = read_settings(UpscaleSettings, arguments)
    if settings.jobs is not None and settings.cluster is None:
        raise UserError("--jobs counts the workers of a cluster; add --cluster local, or take --threads")
    if settings.cluster is not None and (settings.preview is not None or Path("-") in inputs):
        raise UserError("--cluster is for files; a preview measures this machine, and raw frames are enlarged on it")
    if Path("-") in (*inputs, output) or arguments.size:
        if (inputs, output) != ([Path("-")], Path("-")) or not arguments.size:
            raise UserError(
                "raw frames go from - to -, and need --size WIDTHxHEIGHT: qsci upscale MODEL - -o - --size 640x360"
            )
        with console_progress() as progress:
            upscale_raw(arguments.model, *standard_streams(), arguments.size, settings, progress=progress)
        return 0
    if any(_is_clip(file, output) for file in inputs):
        if len(inputs) > 1:
            raise UserError("a video is enlarged alone; give the images in another command")
        target = output / inputs[0].with_suffix(".mp4").name if output.is_dir() else output
        with console_progress() as progress:
            if settings.preview is None:
                report(upscale_video(arguments.model, inputs[0], target, settings, progress=progress))
            else:
                preview = preview_video(arguments.model, inputs[0], target, settings, progress=progress)
                report(f"{preview.file}\n{preview}")
        return 0
    if settings.preview is not None:
        raise UserError("--preview is for a video; images are enlarged at once")
    failures: list[UserError] = []
    with console_progress() as progress:
        upscale(
            arguments.model,
            inputs,
            output,
            settings,
            progress=progress,
            on_error=failures.append,
            on_written=report,
        )
    for error in failures:
        print(f"qsci: error: {one_line(error)}", file=sys.stderr)
    return 2 if failures else 0


def _is_clip(file: Path, output: Path) -> bool:
    """Whether a file is enlarged as a video: a GIF is where the output is one, and a picture elsewhere."""
    if file.suffix.lower() == ".gif" and output.suffix.lower() in (*WRITABLE_FORMATS, ""):
        return False
    return file.suffix.lower() in VIDEO_FORMATS and file.is_file()
