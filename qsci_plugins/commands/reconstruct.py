"""`qsci reconstruct`: frames from snapshot measurements; an exported network needs OpenVINO and no torch."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qsci_plugins.commands.options import add_precision, positive
from qsci_plugins.commands.reconstruct_raw import PIXEL_FORMATS, reconstruct_raw
from qsci_plugins.commands.reconstruct_settings import ReconstructSettings
from qsci_plugins.commands.upscale_raw import standard_streams
from qsci_plugins.data.frame_writers import FORMATS, frame_writer
from qsci_plugins.data.snapshot_sources import BUILTIN_SCENE, SnapshotSource, open_source, source_paths
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.metrics import VideoScore, score_video
from qsci_plugins.progress import Progress

if TYPE_CHECKING:
    from qsci_plugins.pipeline.networks import MaskedNetwork

__all__ = ["ReconstructSettings", "Reconstruction", "add", "reconstruct"]

SCORES_FILE = "scores.json"


@dataclass(frozen=True)
class Reconstruction:
    """What became of one scene: where its frames are, how many measurements, and scores of each that has a ground truth."""

    name: str
    target: Path
    measurements: int
    scores: list[VideoScore] = field(default_factory=list)
    #: the first measurement (H,W), its frames and, where there is a ground truth, those: (T,H,W) or (3,T,H,W) in 0..1
    first: tuple[np.ndarray, ...] = field(default=(), repr=False, compare=False)

    @property
    def psnr(self) -> float | None:
        """Mean over all frames in dB; None without a ground truth."""
        return float(np.mean([score.psnr for score in self.scores])) if self.scores else None

    @property
    def ssim(self) -> float | None:
        """Mean over all frames."""
        values = [score.ssim for score in self.scores if score.ssim is not None]
        return float(np.mean(values)) if values else None


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = commands.add_parser("reconstruct", help="turn coded snapshot measurements into video frames")
    parser.add_argument(
        "model", metavar="MODEL", help="a run's output, a model folder, a checkpoint file, or builtin:NAME"
    )
    parser.add_argument(
        "inputs",
        nargs="*",
        default=[BUILTIN_SCENE],
        metavar="MEASUREMENT",
        help=".mat, .npy, .npz, TIFF or PNG files with measurements, .mat or .npz files with frames, clips to measure"
        " first, folders of them, or - for raw measurements (default: builtin, a scene)",
    )
    parser.add_argument(
        "--mask",
        type=Path,
        metavar="FILE",
        help="the camera's: .mat, .npz, .npy, TIFF, or a folder of images (else the file's own)",
    )
    parser.add_argument(
        "--keys",
        type=_keys,
        metavar="meas=Y,mask=M",
        help="other names of meas, mask and frames in .mat and .npz files",
    )
    parser.add_argument(
        "--pixels",
        choices=tuple(PIXEL_FORMATS),
        default="gray",
        help="of raw measurements, by ffmpeg's names (default: gray); frames come out as gray, or rgb24 in colour",
    )
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="DIR", help="folder for the frames, or -")
    parser.add_argument("--format", choices=FORMATS, default="png", help="what to write for a scene (default: png)")
    parser.add_argument("--rate", type=float, default=10.0, metavar="FPS", help="of mp4 and gif (default: 10)")
    parser.add_argument(
        "--white",
        type=float,
        metavar="VALUE",
        help="full brightness of one frame in the measurement (default: estimated from it)",
    )
    parser.add_argument(
        "--runtime",
        choices=("auto", "openvino", "torch"),
        default="auto",
        help="how to run a finished run (default: its exported network, else torch)",
    )
    parser.add_argument("--architecture", metavar="NAME", help="of a checkpoint whose tensors do not tell it")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: all)")
    parser.add_argument("--streams", type=positive, metavar="N", help="tiles at once (default: OpenVINO's choice)")
    parser.add_argument(
        "--cache", dest="cache_dir", type=Path, metavar="DIR", help="keep compiled graphs here for the next time"
    )
    add_precision(parser)
    parser.add_argument("--force", action="store_true", help="replace existing files")
    parser.set_defaults(execute=_execute)


def reconstruct(
    model: str | Path,
    inputs: Sequence[str | Path] = (BUILTIN_SCENE,),
    output: str | Path = ".",
    settings: ReconstructSettings | None = None,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> list[Reconstruction]:
    """Reconstructs every measurement of every scene, one at a time, and scores those that have a ground truth.

    `model` is a run's output, a model folder, a checkpoint or builtin:NAME; `inputs` are `data.snapshot_sources`;
    `options` are single `settings`. Into the folder `output` go, for a scene NAME, NAME/00001.png and on, or NAME.mp4,
    NAME.gif or NAME.mat, and scores.json and report.html. Which full brightness was taken for measurements in a file is
    noted. Raises UserError for whatever does not fit together, and where files exist (without `force`).

    One measurement of the built-in scene, by the small built-in network:

    >>> import qsci_plugins
    >>> [scene] = qsci_plugins.reconstruct("builtin:efficientsci_small", output="frames")
    >>> scene.psnr > 20
    True
    """
    settings, progress = (settings or ReconstructSettings()).changed(options), progress or Progress()
    output = Path(output)
    paths = source_paths(inputs)
    targets = _targets(paths, output, settings.format, settings.force)
    network = settings.network(model)
    shared = settings.camera_mask(network.frames)
    done: list[Reconstruction] = []
    ready: tuple[np.ndarray, MaskedNetwork] | None = None
    for path, target in zip(paths, targets, strict=True):
        source = open_source(
            path, shared, white=settings.white, names=settings.keys, frames=network.frames, color=network.color
        )
        if source.white is not None:
            progress.note(source.white.sentence(source.name))
        if ready is None or not np.array_equal(ready[0], source.mask):
            ready = (source.mask, network.behind(source.mask))
        done.append(_reconstruct(source, ready[1], target, settings.format, settings.rate, progress))
    if any(result.scores for result in done):
        _write_scores(output / SCORES_FILE, done)
    _report(output, model, done, progress)
    return done


def _reconstruct(
    source: SnapshotSource, network: MaskedNetwork, target: Path, format_: str, rate: float, progress: Progress
) -> Reconstruction:
    scores: list[VideoScore] = []
    first: tuple[np.ndarray, ...] = ()
    count = 0

    def extras() -> dict[str, Any]:
        return (
            {"psnr": [score.psnr for score in scores], "ssim": [score.ssim or np.nan for score in scores]}
            if scores
            else {}
        )

    with (
        progress.stage(f"reconstructing {source.name}", max(1, source.count)) as advance,
        frame_writer(target, format_, rate, extras) as writer,
    ):
        for measurement, truth in source.pairs():
            frames = network.reconstruct(measurement)
            if truth is not None and truth.ndim != frames.ndim:
                kinds = ("colour", "grey") if truth.ndim == 4 else ("grey", "colour")
                raise UserError(
                    f"{source.name} is in {kinds[0]}, the network reconstructs {kinds[1]}; use another network"
                )
            if truth is not None:
                scores.append(score_video(frames, truth))
            writer.write(frames)
            first = first or (measurement, frames, *([] if truth is None else [truth]))
            count += 1
            advance(count, f"{scores[-1].psnr:.2f} dB" if scores else "", total=max(count, source.count))
    return Reconstruction(source.name, writer.target, count, scores, first)


def _targets(paths: Sequence[Path], output: Path, format_: str, force: bool) -> list[Path]:
    """What `frame_writer` takes for each scene, and the folder to hold them."""
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; name a folder for the frames")
    targets: list[Path] = []
    for path in paths:
        target = output / (path.stem if path.suffix and not path.is_dir() else path.name)
        if target in targets:
            raise UserError(f"two scenes are named {target.name}; reconstruct them one after the other")
        written = target if format_ == "png" else target.with_name(f"{target.name}.{format_}")
        if path.exists() and written.exists() and written.samefile(path):
            raise UserError(f"{written} is one of the inputs; name another output")
        taken = written.exists() and not (written.is_dir() and not any(written.iterdir()))
        if taken and not force:
            raise UserError(f"{written} exists; name another output, or replace it with --force")
        targets.append(target)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {output}: {error.strerror}") from error
    return targets


def _write_scores(file: Path, done: Sequence[Reconstruction]) -> None:
    from qsci_plugins.files import write_text

    scenes = {
        result.name: {
            "psnr": result.psnr,
            "ssim": result.ssim,
            "measurements": [asdict(score) for score in result.scores],
        }
        for result in done
        if result.scores
    }
    write_text(file, json.dumps({"version": 1, "scenes": scenes}, indent=2) + "\n")


def _report(output: Path, model: str | Path, done: Sequence[Reconstruction], progress: Progress) -> None:
    """report.html, and what it is made from."""
    from qsci_plugins.files import write_text
    from qsci_plugins.machine import describe_machine
    from qsci_plugins.report.folder_content import RECONSTRUCTION_FILE, read_content
    from qsci_plugins.report.page import REPORT_FILE, write_page
    from qsci_plugins.report.video_pictures import add_reconstructions

    add_reconstructions(output, [(result.name, *result.first) for result in done if result.first])
    scenes = {
        result.name: {
            "measurements": result.measurements,
            "psnr": result.psnr,
            "ssim": result.ssim,
            "scores": [asdict(score) for score in result.scores],
        }
        for result in done
    }
    content = {"version": 1, "model": str(model), "machine": describe_machine(), "scenes": scenes}
    write_text(output / RECONSTRUCTION_FILE, json.dumps(content, indent=2) + "\n")
    write_page(output / REPORT_FILE, [read_content(output)], progress)


def _lines(done: Sequence[Reconstruction]) -> Iterator[str]:
    for result in done:
        ssim = "" if result.ssim is None else f", SSIM {result.ssim:.4f}"
        yield str(result.target) if result.psnr is None else f"{result.target}: {result.psnr:.2f} dB{ssim}"


def _execute(arguments: argparse.Namespace) -> int:
    from qsci_plugins.commands.console import console_progress, report

    options = {name: getattr(arguments, name) for name in ReconstructSettings.__dataclass_fields__}
    settings = ReconstructSettings(**options)
    inputs = arguments.inputs or [BUILTIN_SCENE]
    with console_progress() as progress:
        if "-" in (*inputs, str(arguments.output)):
            if inputs != ["-"] or str(arguments.output) != "-":
                raise UserError(
                    "raw measurements go from - to -, and need --mask FILE: qsci reconstruct MODEL - -o - --mask mask.mat"
                )
            reconstruct_raw(arguments.model, *standard_streams(), arguments.pixels, settings, progress=progress)
            return 0
        done = reconstruct(arguments.model, inputs, arguments.output, settings, progress=progress)
    for line in _lines(done):
        report(line)
    return 0


def _keys(text: str) -> dict[str, str]:
    """The type of --keys: meas=Y,mask=M."""
    pairs = [part.split("=", 1) for part in text.split(",")]
    if any(len(pair) < 2 or not all(pair) for pair in pairs):
        raise argparse.ArgumentTypeError(f"should be NAME=NAME,..., such as meas=Y,mask=M, not {text!r}")
    return {pair[0].strip(): pair[1].strip() for pair in pairs}
