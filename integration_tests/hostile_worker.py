"""Hands hostile files to the commands, many in one process: `python hostile_worker.py WORK SEED SIZE SAMPLE FIRST`.

Writes one line of JSON when a case begins and one when it has ended, so that whoever reads knows which one hangs or crashes.
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import hostile_data
import hostile_files
import numpy as np
from hostile_files import Case
from PIL import Image

from qsci_plugins.cli import main
from qsci_plugins.errors import UserError

#: of the whole, by group; clips and checkpoints take longest
SHARES = {"pictures": 0.2, "clips": 0.05, "recipes": 0.25, "folders": 0.25, "checkpoints": 0.1, "measurements": 0.15}

#: MiB that a file may ask for here, and twice that a case may add to what the process holds
MEMORY = 512


def all_cases(seed: int, size: int, models: Path) -> list[Case]:
    """About `size` damaged ones besides those that are always there."""
    makers: dict[str, Callable[[random.Random, int], Iterator[Case]]] = {
        "pictures": hostile_files.pictures,
        "clips": hostile_data.clips,
        "recipes": hostile_files.recipes,
        "folders": lambda rng, count: hostile_files.folders(rng, count, models / "images"),
        "checkpoints": hostile_data.checkpoints,
        "measurements": hostile_data.measurements,
    }
    found: list[Case] = []
    for group, make in makers.items():
        found += make(random.Random(f"{seed} {group}"), round(size * SHARES[group]))
    return found


def make_models(folder: Path) -> None:
    """An exact enlarger x2 with three routes, and a network for snapshots of eight frames."""
    from exact_network import exact_upscaler
    from video_folder import Strided, exported

    images = exact_upscaler(folder / "images")
    content = json.loads((images / "manifest.json").read_bytes())
    content["routes"] = [{**content["routes"][0], "factor": factor} for factor in (-1, 0, 1)]
    content["thresholds"] = [5.0, 50.0]
    (images / "manifest.json").write_bytes(hostile_files.seal(content))
    exported(folder / "videos", {0: Strided()}, hostile_data.FRAMES)


def _command(case: Case, models: Path) -> Callable[[], int]:
    network = str(models / "images")
    if case.group == "checkpoints":

        def load() -> int:
            import torch

            from qsci_plugins import load_network

            try:
                state = load_network(None, Path(case.file), 2).module.state_dict()
            except UserError as error:
                print(f"qsci: error: {error}", file=sys.stderr)
                return 2
            return 0 if all(torch.isfinite(value).all() for value in state.values()) else 99

        return load
    arguments = {
        "pictures": ["upscale", network, case.file, "-o", "big.png"],
        "clips": ["upscale", network, case.file, "-o", "big.mp4"],
        "folders": ["upscale", case.file, "x.png", "-o", "big.png"],
        "recipes": ["validate", case.file],
        "measurements": ["reconstruct", str(models / "videos"), case.file, "-o", "big"],
    }[case.group]
    return lambda: main(arguments)


def outcome(case: Case, models: Path, work: Path) -> tuple[str, str]:
    """What became of a case, in a word, and what was said."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    case.make(work)
    os.chdir(work)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = io.StringIO()
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(said):
            code = _command(case, models)()
    except BaseException as error:  # whatever it is, the command let it through
        place = [frame for frame in traceback.extract_tb(error.__traceback__) if "qsci_plugins" in frame.filename][-1:]
        where = "".join(f" @ {Path(frame.filename).name}:{frame.lineno}" for frame in place)
        return "traceback", f"{type(error).__name__}: {str(error)[:200]}{where}"
    if Path("exploded").exists():
        return "code ran", ""
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    if more > 2 * MEMORY:
        return "memory", f"{more} MiB"
    lines = said.getvalue().splitlines()
    if code == 0:
        mistake = "accepted" if case.expected == "refused" else _mistake(case)
        return ("wrong", mistake) if mistake else ("right", "")
    if code != 2:
        return "wrong", f"exit code {code}"
    errors = [line for line in lines if line.startswith("qsci: error: ")]
    if len(errors) != 1 or lines[-1] != errors[0]:
        return "several lines", " | ".join(lines[-4:])[:300]
    if case.expected == "works":
        return "wrong", f"refused: {errors[0][:300]}"
    left = [name for name in os.listdir() if name.startswith("big") and not Path(name).is_dir()]
    return ("half an output", str(left)) if left else ("refused", errors[0][:300])


def _mistake(case: Case) -> str | None:
    if case.group in ("pictures", "folders"):
        image = np.asarray(Image.open("big.png"))
        if case.exact and not np.array_equal(image, hostile_files.picture().repeat(2, 0).repeat(2, 1)):
            return "other pixels than those of the intact files"
    if case.group == "clips" and not Path("big.mp4").stat().st_size:
        return "an empty clip"
    if case.group == "measurements" and not list(Path("big").rglob("*.png")):
        return "no frames"
    return None


def run(work: Path, cases: list[Case]) -> None:
    """Goes through cases; prints on the standard output of before."""
    os.environ["QSCI_MAX_MEMORY"] = str(MEMORY / 1024)
    out = os.fdopen(os.dup(1), "w", buffering=1)
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries write themselves
    for index, case in enumerate(cases):
        print(json.dumps({"begins": index}), file=out)
        start = time.monotonic()
        kind, said = outcome(case, work / "models", work / f"case{os.getpid()}")
        answer: dict[str, Any] = {
            "ended": index, "group": case.group, "name": case.name, "kind": kind, "said": said,
            "seconds": round(time.monotonic() - start, 2),
        }  # fmt: skip
        print(json.dumps(answer), file=out)
    shutil.rmtree(work / f"case{os.getpid()}", ignore_errors=True)


def chosen(seed: int, size: int, sample: int, models: Path) -> list[Case]:
    """All cases, or a sample of them by the seed where `sample` is not 0."""
    cases = all_cases(seed, size, models)
    return random.Random(seed).sample(cases, sample) if sample else cases


if __name__ == "__main__":
    place, seed_, size_, sample_, first = Path(sys.argv[1]), *map(int, sys.argv[2:6])
    run(place, chosen(seed_, size_, sample_, place / "models")[first:])
