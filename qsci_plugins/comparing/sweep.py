"""A recipe at many settings: every combination of some keys' values, or one change at a time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qsci_plugins.comparing.benchmark import RUNS, measure_subjects
from qsci_plugins.comparing.settings import SweepSettings
from qsci_plugins.comparing.subjects import Subject, read_recipe_subject
from qsci_plugins.errors import UserError
from qsci_plugins.files import write_text
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.yaml_text import parse_value

__all__ = ["SWEEP_FILE", "combinations", "read_values", "run_sweep"]

SWEEP_FILE = "sweep.json"

Values = Mapping[str, Sequence[Any]]


def read_values(texts: Sequence[str]) -> dict[str, list[Any]]:
    """The keys and values of texts such as "scheme.activation_bits=4,6,8"; values are YAML, `null` and `{...}` too.

    Raises UserError for a text of another form, and a key that comes twice.
    """
    values: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, listed = text.partition("=")
        key = key.strip()
        if not equals or not key or not listed.strip():
            raise UserError(f"--key {text}: should read key=value,value, such as scheme.activation_bits=4,6,8")
        if key in values:
            raise UserError(f"--key {text}: the key {key} comes twice; give all its values at once")
        values[key] = parse_value(f"[{listed}]", f"--key {text}")
    return values


def combinations(values: Values, one_at_a_time: bool = False) -> list[dict[str, Any]]:
    """The product of all values, the last key changing fastest; or no change, and then each value alone."""
    if one_at_a_time:
        return [{}, *({key: value} for key, listed in values.items() for value in listed)]
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def run_sweep(settings: SweepSettings, progress: Progress | None = None) -> dict[str, Any]:
    """Runs the recipe at each of `combinations` of the values and measures it; see `measure_subjects`.

    What is finished below the output is not done again. Values that come to the same recipe are one point. Returns, and
    writes to sweep.json, the row of the float network and by point its settings and the rows of its forms.
    Raises UserError for a recipe, key or value that is wrong before the first run.
    """
    values, output = settings.values, settings.output
    points: dict[Path, tuple[dict[str, Any], Subject]] = {}
    for chosen in combinations(values, settings.one_at_a_time):
        changes = [f"{key}={json.dumps(value)}" for key, value in chosen.items()]
        overrides = [*settings.overrides, *changes]
        title = _title(chosen, values)
        subject = read_recipe_subject(settings.recipe, output / RUNS, overrides, title, settings.device)
        points.setdefault(subject.run, (chosen, subject))
    subjects = [subject for _, subject in points.values()]
    if len({subject.shape for subject in subjects}) > 1:
        raise UserError("a sweep compares networks of one scale and number of frames; sweep each alone")
    rows = measure_subjects(subjects, settings, progress)["rows"]
    result = {
        "version": 2,
        "recipe": str(settings.recipe),
        "keys": list(values),
        "float": next(row for row in rows if row["form"] == "float"),
        "points": [
            {
                "title": subject.title,
                "settings": chosen,
                "rows": {row["form"]: row for row in rows if row["title"] == subject.title and row["form"] != "float"},
            }
            for chosen, subject in points.values()
        ],
    }
    write_text(output / SWEEP_FILE, json.dumps(result, indent=2, allow_nan=False) + "\n")
    return result


def _title(chosen: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Short keys where no two of the sweep's end alike."""
    ends = [key.rsplit(".", 1)[-1] for key in keys]
    names = {key: key if ends.count(end := key.rsplit(".", 1)[-1]) > 1 else end for key in chosen}
    return ", ".join(f"{names[key]}={json.dumps(value)}" for key, value in chosen.items()) or "the recipe as it is"
