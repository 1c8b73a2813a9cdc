"""What a benchmark compares: finished runs, or recipes, which are run first."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from qsci_plugins.comparing.log import fingerprint, network_fingerprint
from qsci_plugins.errors import UserError
from qsci_plugins.pipeline.image_prepare import resolved
from qsci_plugins.pipeline.networks import load_recipe_network
from qsci_plugins.pipeline.output import CHECKPOINT, METRICS_FILE, RECIPE_FILE
from qsci_plugins.pipeline.run import run_recipe
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.library import find_recipe
from qsci_plugins.recipes.reading import AnyRecipe, read_recipe, recipe_text
from qsci_plugins.recipes.schema import FloatVideoRecipe, Recipe, VideoRecipe

__all__ = ["Subject", "of_recipe", "read_subjects", "refuse_video", "refuse_video_recipe"]


@dataclass(frozen=True)
class Subject:
    """One quantized network, under the name that tables give it."""

    title: str
    recipe: Recipe
    architecture: str
    scale: int
    #: of the float network
    network: str
    #: where its run is, or will be
    run: Path

    def finish(self, progress: Progress) -> None:
        """Runs the recipe, if its run is not there; Ctrl-C keeps what is done, as in `qsci run`."""
        if not self.run.exists():
            progress.note(f"{self.title}: running its recipe")
            run_recipe(self.recipe, self.run, progress=progress, latency=False)

    def seconds(self) -> float | None:
        """What calibration and training or fine-tuning took, where the run tells."""
        file = self.run / METRICS_FILE
        if not file.is_file():
            return None
        seconds = json.loads(file.read_text(encoding="utf-8")).get("seconds", {})
        return round(sum(seconds.get(step, 0.0) for step in ("calibration", "training", "fine_tuning")), 1)


def read_subjects(targets: Sequence[str | Path], runs: Path, overrides: Sequence[str] = ()) -> list[Subject]:
    """Every target: the output folder of `qsci run`, a recipe file, or the name of a shipped recipe.

    Recipes, with the overrides, are to run below `runs`, in a folder that is named after their content, and without
    benchmarks of their own.
    Raises UserError for a target that is none of these, or comes twice.
    """
    subjects: dict[Path, Subject] = {}
    for target in targets:
        path = Path(target)
        finished = path.is_dir()
        subject = _of_run(path) if finished else of_recipe(target, runs, overrides)
        if subject.run in subjects:
            raise UserError(f"{target} comes twice; name it once")
        subjects[subject.run] = subject
    found = list(subjects.values())
    for index, subject in enumerate(found):
        if [one.title for one in found].count(subject.title) > 1:
            raise UserError(f"{targets[index]} has the same name as another; rename one of them, as tables show names")
    return found


def of_recipe(target: str | Path, runs: Path, overrides: Sequence[str] = (), title: str | None = None) -> Subject:
    """The subject of a recipe; see `read_subjects`."""
    file = find_recipe(target)
    recipe = read_recipe(file, overrides)
    refuse_video_recipe(recipe, target)
    if not isinstance(recipe, Recipe):
        raise UserError(f"{target} trains a float network; compare recipes that quantize one")
    recipe = resolved(recipe.model_copy(update={"evaluate": []}))
    short = file.stem
    return _subject(
        title or short, recipe, lambda network: runs / f"{short}-{fingerprint(recipe_text(recipe), network)[:8]}"
    )


def _of_run(run: Path) -> Subject:
    if not (run / RECIPE_FILE).is_file():
        raise UserError(f"{run} is no output of `qsci run`: it has no {RECIPE_FILE}")
    recipe = read_recipe(run / RECIPE_FILE)
    refuse_video_recipe(recipe, run)
    if not isinstance(recipe, Recipe):
        raise UserError(f"{run} is the output of `qsci train`; compare those of `qsci run`")
    if not (run / CHECKPOINT).is_file():
        raise UserError(f"{run} is no output of `qsci run`: it has no {CHECKPOINT}")
    return _subject(run.resolve().name, recipe, lambda network: run.resolve())


def _subject(title: str, recipe: Recipe, run: Callable[[str], Path]) -> Subject:
    network = load_recipe_network(recipe.model, recipe.seed)
    if network.task != "sr":
        refuse_video(f"{title}: {network.architecture}")
    name = network_fingerprint(network)
    return Subject(title, recipe, network.architecture, network.scale, name, run(name))


def refuse_video_recipe(recipe: AnyRecipe, source: str | Path) -> None:
    """Raises UserError where the recipe of `source` is for video."""
    if isinstance(recipe, VideoRecipe | FloatVideoRecipe):
        refuse_video(source)


def refuse_video(source: str | Path) -> NoReturn:
    """Raises the UserError that says so."""
    raise UserError(
        f"{source} is for video, which image sets do not measure; a run's own metrics.json has its PSNR, and"
        " `qsci reconstruct` measures other scenes"
    )
