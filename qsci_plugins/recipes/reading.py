"""A recipe from a file and `--set` overrides, with errors that name where the mistake is; and back to a file."""

from __future__ import annotations

import copy
import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

from pydantic import BaseModel, Tag, ValidationError

from qsci_plugins.errors import UserError, shown
from qsci_plugins.files import write_text
from qsci_plugins.machine import DEVICES
from qsci_plugins.recipes.schema import DRAWN_MASKS, FloatRecipe, FloatVideoRecipe, Recipe, VideoRecipe
from qsci_plugins.recipes.yaml_text import parse_value, read_mapping, write_yaml
from qsci_plugins.training.settings import TAG

__all__ = [
    "AnyRecipe",
    "all_keys",
    "check_paths",
    "expand",
    "make_recipe",
    "nearest_key",
    "on_device",
    "read_recipe",
    "recipe_text",
    "write_recipe",
]

AnyRecipe = Recipe | FloatRecipe | VideoRecipe | FloatVideoRecipe

Kind = TypeVar("Kind", bound=AnyRecipe)


def read_recipe(file: str | Path, overrides: Sequence[str] = ()) -> AnyRecipe:
    """The recipe of a YAML file, with overrides such as "scheme.activation_bits=6" put in.

    A value is read as YAML; a number steps into a list (`evaluate.0.set=Set5`).
    Raises UserError that names the file (or the override), the key, the value and, for an unknown key, the nearest one.

    >>> import qsci_plugins
    >>> file = qsci_plugins.find_recipe("edsr_x4_adabm_w4a4")
    >>> qsci_plugins.read_recipe(file, ["scheme.activation_bits=6"]).scheme["activation_bits"]
    6
    """
    return make_recipe(read_mapping(Path(file)), str(file), overrides)


def make_recipe(mapping: Mapping[str, Any], source: str = "recipe", overrides: Sequence[str] = ()) -> AnyRecipe:
    """The recipe of plain values; `source` is what errors call them. See `read_recipe`.

    >>> import qsci_plugins
    >>> model = {"architecture": "edsr", "scale": 2}
    >>> recipe = qsci_plugins.make_recipe({"version": 1, "model": model, "scheme": {"name": "adabm"}}, overrides=["seed=3"])
    >>> recipe.scheme["name"], recipe.seed
    ('adabm', 3)
    """
    values: dict[str, Any] = copy.deepcopy(dict(mapping))
    sources: dict[tuple[str, ...], str] = {}
    for override in overrides:
        path, value = _split(override)
        _put(values, path, value, f"--set {override}")
        sources[path] = f"--set {override}"
    kind = _kind(values)

    def named(path: tuple[str, ...]) -> str:
        touched = [where for key, where in sources.items() if path[: len(key)] == key or key[: len(path)] == path]
        return touched[-1] if touched else source

    try:
        recipe = kind.model_validate(values)
    except ValidationError as error:
        raise _explained(error, kind, named) from None
    if isinstance(recipe, (Recipe, VideoRecipe)):
        return recipe.model_copy(update={"scheme": _checked_scheme(recipe.scheme, named)})
    return recipe


def _kind(values: Mapping[str, Any]) -> type[AnyRecipe]:
    """By the sections that a recipe has: `clips` are for video, and without a `scheme` a network is trained in float."""
    if "clips" in values:
        return VideoRecipe if "scheme" in values else FloatVideoRecipe
    return FloatRecipe if "data" in values and "scheme" not in values else Recipe


def on_device(recipe: Kind, device: str | None) -> Kind:
    """The same recipe with another `device`, unless that is None. Raises UserError for what is no device."""
    if device is None:
        return recipe
    if not re.fullmatch(DEVICES, device):
        raise UserError(f"the device should be auto, cpu, cuda or cuda:N, not {device!r}")
    return cast(Kind, recipe.model_copy(update={"device": device}))


def recipe_text(recipe: AnyRecipe) -> str:
    """The YAML of a recipe with every default written out, but without its device: a run may go on on another one."""
    return write_yaml(recipe.model_dump(by_alias=True, exclude={"device"}))


def write_recipe(recipe: AnyRecipe, file: Path) -> None:
    """Writes a recipe with every default; reading the file gives an equal one.

    >>> from pathlib import Path
    >>> import qsci_plugins
    >>> recipe = qsci_plugins.read_recipe(qsci_plugins.find_recipe("edsr_x4_adabm_w4a4"))
    >>> qsci_plugins.write_recipe(recipe, Path("resolved.yaml"))
    >>> qsci_plugins.read_recipe("resolved.yaml") == recipe
    True
    """
    write_text(file, write_yaml(recipe.model_dump(by_alias=True)))


def expand(path: str, key: str) -> Path:
    """A recipe's path with ~ and $VARIABLES expanded, relative to the working folder; UserError for an unset one."""
    expanded = os.path.expandvars(os.path.expanduser(path))
    unset = re.search(r"\$\{?(\w+)\}?", expanded)
    if unset:
        raise UserError(f"{key}: {path} needs the environment variable {unset[1]}, which is not set")
    return Path(expanded)


def check_paths(recipe: AnyRecipe) -> None:
    """Raises UserError, by its key, for the first file or folder of a recipe that is not there."""
    for key, path in _paths(recipe.model_dump(by_alias=True)):
        if path is None or path.startswith("builtin:") or (key.endswith(".mask") and path in DRAWN_MASKS):
            continue
        if not (found := expand(path, key)).exists():
            if key == "model.weights":
                raise UserError(f"model: there is no weights file {found}; name yours with --set model.weights=FILE")
            if key.endswith(".mask"):
                raise UserError(
                    f"{key}: there is no file {found}; name yours with --set {key}=FILE, or draw one:"
                    f" {', '.join(DRAWN_MASKS)}"
                )
            raise UserError(f"{key}: {found} is not a folder, and no file; name another with --set {key}=PATH")


#: the keys of sections that hold paths, and of the items of lists
_PATHS = ("model.weights", "calibrate.images", "clips.folders", "clips.mask")
_ITEM_PATHS = {"data": ("path",), "train.data": ("path",), "evaluate": ("folder", "mask")}


def _paths(values: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """The keys of a recipe that hold paths, with what stands there."""
    for key in _PATHS:
        section, _, name = key.partition(".")
        found = (values.get(section) or {}).get(name)
        for path in found if isinstance(found, list) else [found]:
            yield key, path
    for key, names in _ITEM_PATHS.items():
        section, _, inner = key.partition(".")
        items = (values.get(section) or {}).get(inner) if inner else values.get(section)
        for index, item in enumerate(items or []):
            for name in names:
                yield f"{key}.{index}.{name}", item.get(name)


def _split(override: str) -> tuple[tuple[str, ...], Any]:
    key, equals, text = override.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise UserError(f"--set {override}: should read key=value, such as scheme.activation_bits=6")
    return path, parse_value(text, f"--set {override}")


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any, source: str) -> None:
    """Sets a dotted key, making the sections on the way; whether the key is valid is for the schema to say."""
    place: Any = values
    for depth, step in enumerate(path[:-1], 1):
        place = _inner(place, step, path[:depth], source)
    if isinstance(place, list):
        _inner(place, path[-1], path, source)
        place[int(path[-1])] = value
    else:
        place[path[-1]] = value


def _inner(place: Any, step: str, path: tuple[str, ...], source: str) -> Any:
    if isinstance(place, list):
        if not step.isdigit() or int(step) >= len(place):
            where = ".".join(path[:-1])
            raise UserError(f"{source}: {where} is a list of {len(place)}; {step!r} is none of 0 to {len(place) - 1}")
        return place[int(step)]
    inner = place.setdefault(step, {})
    if inner is None:
        inner = place[step] = {}
    if not isinstance(inner, (dict, list)):
        raise UserError(f"{source}: {'.'.join(path)} is {shown(inner)}, which has no keys of its own")
    return inner


def _checked_scheme(settings: dict[str, Any], named: Any) -> dict[str, Any]:
    """The scheme's settings with its defaults."""
    from qsci_plugins.schemes.registry import make_scheme  # torch, which the rest of reading does without

    try:
        return make_scheme(settings).config.model_dump(mode="json")
    except UserError as error:
        key = re.match(r"scheme\.([\w.]+)", str(error))
        path = ("scheme", *key[1].rstrip(".").split(".")) if key else ("scheme",)
        raise UserError(f"{named(path)}: {error}") from None


def _explained(error: ValidationError, kind: type[AnyRecipe], named: Any) -> UserError:
    """One sentence about the first mistake; an unknown key goes first, as it often explains a missing one."""
    details = sorted(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")[0]
    tagged = tuple(str(step) for step in details["loc"])
    path = tuple(step for step in tagged if not step.startswith(TAG))
    key = ".".join(path)
    if details["type"] == "extra_forbidden":
        return UserError(f"{named(path)}: unknown key {key!r}; the nearest is {nearest_key(kind, tagged)!r}")
    if details["type"] == "missing":
        return UserError(f"{named(path)}: the key {key!r} is missing")
    message = details["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if details["type"] in ("model_type", "dict_type"):
        message = "should be a mapping of keys to values"
    got = "" if details["type"] == "value_error" and isinstance(details["input"], dict) else shown(details["input"])
    return UserError(f"{named(path)}: {key}: {message}{f', not {got}' if got else ''}")


def all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key of a recipe class, depth first; list items are left out (`evaluate.set`)."""
    for key, annotation in _children(model).items():
        yield f"{prefix}{key}"
        inner = [
            key_inside
            for section in _sections(annotation).values()
            for key_inside in all_keys(section, f"{prefix}{key}.")
        ]
        yield from dict.fromkeys(inner)


def nearest_key(model: type[BaseModel], path: tuple[str, ...]) -> str:
    """The valid dotted key that is most like `path`: of the same section, else the same name elsewhere.

    Where a key holds one of several kinds of sections, `path` may have the kind's tag behind it.
    """
    *sections, name = path
    section: type[BaseModel] | None = model
    kinds: dict[str, type[BaseModel]] = {}
    for step in sections:
        if step in kinds:
            section = kinds[step]
        elif section is not None and not step.isdigit():
            kinds = _sections(_children(section).get(step))
            section = next(iter(kinds.values()), None)
    sections = [step for step in sections if not step.startswith(TAG)]
    prefix = ".".join(sections)
    siblings = list(_children(section or model))
    near = difflib.get_close_matches(name, siblings, 1, 0.6)
    if not near:
        elsewhere = [key for key in all_keys(model) if key.rsplit(".", 1)[-1] == name]
        elsewhere += difflib.get_close_matches(".".join(path), list(all_keys(model)), 1, 0.75)
        if elsewhere:
            return elsewhere[0]
        near = difflib.get_close_matches(name, siblings, 1, 0.0)
    return f"{prefix}.{near[0]}" if prefix else near[0]


def _children(model: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _sections(annotation: Any) -> dict[str, type[BaseModel]]:
    """The sections that a field holds, itself or as items of a list, by tag ("" without one); empty for plain values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {"": annotation}
    found: dict[str, type[BaseModel]] = {}
    tags = [inner.tag for inner in get_args(annotation) if isinstance(inner, Tag)]
    for inner in get_args(annotation):
        for tag, section in _sections(inner).items():
            found.setdefault(tags[0] if tags else tag, section)
    return found
