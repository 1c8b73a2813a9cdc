"""What a benchmark compares: finished runs, or recipes, which are run first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qsci_plugins.comparing.fingerprints import fingerprint, network_fingerprint
from qsci_plugins.errors import UserError
from qsci_plugins.pipeline.metrics import read_metrics
from qsci_plugins.pipeline.networks import device_of
from qsci_plugins.pipeline.output import CHECKPOINT, METRICS_FILE, RECIPE_FILE
from qsci_plugins.pipeline.run import run_recipe
from qsci_plugins.pipeline.task import Task, task_of
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.library import find_recipe
from qsci_plugins.recipes.reading import on_device, read_recipe, recipe_text
from qsci_plugins.recipes.schema import Recipe, VideoRecipe

__all__ = ["NetworkShape", "Subject", "finish_subject", "read_recipe_subject", "read_subjects", "recipe_of_run"]


@dataclass(frozen=True)
class NetworkShape:
    """What sets have to suit; see `pipeline.task.Shape`."""

    scale: int
    channels: int
    frames: int | None


@dataclass(frozen=True)
class Subject:
    """A quantized network, under the name that tables give it."""

    title: str
    recipe: Recipe | VideoRecipe
    architecture: str
    shape: NetworkShape
    #: fingerprint of the float network
    network: str
    #: where its run is, or will be
    run: Path

    @property
    def task(self) -> Task:
        """That of its recipe."""
        return task_of(self.recipe)

    def finish(self, progress: Progress) -> None:
        """Runs the recipe, if its run is not there; Ctrl-C keeps what is done, as in `qsci run`."""
        if not self.run.exists():
            progress.note(f"{self.title}: running its recipe")
            run_recipe(self.recipe, self.run, progress=progress, latency=False)

    def metrics(self) -> dict[str, Any]:
        """The content of the run's metrics.json; empty where there is none."""
        file = self.run / METRICS_FILE
        return read_metrics(file) if file.is_file() else {}

    def seconds(self) -> float | None:
        """What calibration and training or fine-tuning took, where the run says so."""
        seconds = self.metrics().get("seconds")
        if seconds is None:
            return None
        return round(sum(seconds.get(step, 0.0) for step in ("calibration", "training", "fine_tuning")), 1)


def finish_subject(subject: Subject) -> None:
    """`Subject.finish`, where nobody watches."""
    subject.finish(Progress())


def read_subjects(
    targets: Sequence[str | Path], runs: Path, overrides: Sequence[str] = (), device: str | None = None
) -> list[Subject]:
    """Every target: the output folder of `qsci run`, a recipe file, or the name of a shipped recipe.

    Recipes, with the overrides, are to run below `runs`, in a folder that is named after their content, and without
    benchmarks of their own. `device` goes before what they and runs say of it.
    Raises UserError for a target that is none of these, or comes twice.
    """
    subjects: dict[Path, Subject] = {}
    for target in targets:
        path = Path(target)
        subject = (
            _of_run(path, device) if path.is_dir() else read_recipe_subject(target, runs, overrides, device=device)
        )
        if subject.run in subjects:
            raise UserError(f"{target} comes twice; name it once")
        subjects[subject.run] = subject
    found = list(subjects.values())
    titles = [subject.title for subject in found]
    for target, title in zip(targets, titles, strict=True):
        if titles.count(title) > 1:
            raise UserError(f"{target} has the same name as another; rename one of them, as tables show names")
    return found


def read_recipe_subject(
    target: str | Path,
    runs: Path,
    overrides: Sequence[str] = (),
    title: str | None = None,
    device: str | None = None,
) -> Subject:
    """The subject of a recipe; see `read_subjects`."""
    file = find_recipe(target)
    recipe = on_device(read_recipe(file, overrides), device)
    if not isinstance(recipe, Recipe | VideoRecipe):
        raise UserError(f"{target} trains a float network; compare recipes that quantize one")
    recipe = task_of(recipe).resolve(recipe.model_copy(update={"evaluate": []}))
    text, short = recipe_text(recipe), file.stem
    return _subject(title or short, recipe, lambda network: runs / f"{short}-{fingerprint(text, network)[:8]}")


def recipe_of_run(run: Path) -> Recipe | VideoRecipe:
    """The recipe in the output of `qsci run`; UserError for a folder that is none, or not all of it."""
    if not (run / RECIPE_FILE).is_file():
        raise UserError(f"{run} is no output of `qsci run`: it has no {RECIPE_FILE}")
    recipe = read_recipe(run / RECIPE_FILE)
    if not isinstance(recipe, Recipe | VideoRecipe):
        raise UserError(f"{run} is the output of `qsci train`; give that of `qsci run`")
    if not (run / CHECKPOINT).is_file():
        raise UserError(f"{run} is no output of `qsci run`: it has no {CHECKPOINT}")
    return recipe


def _of_run(run: Path, device: str | None) -> Subject:
    return _subject(run.resolve().name, on_device(recipe_of_run(run), device), lambda network: run.resolve())


def _subject(title: str, recipe: Recipe | VideoRecipe, run: Callable[[str], Path]) -> Subject:
    device_of(recipe)  # a GPU that is not there is refused before the first run
    loaded = task_of(recipe).load(recipe)
    name = network_fingerprint(loaded.float_network)
    shape = NetworkShape(loaded.scale, loaded.channels, loaded.frames)
    return Subject(title, recipe, loaded.float_network.architecture, shape, name, run(name))
