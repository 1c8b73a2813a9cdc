"""The recipes that come with the package, by name."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from qsci_plugins.errors import UserError

__all__ = ["ShippedRecipe", "find_recipe", "shipped_recipes"]

_PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class ShippedRecipe:
    """`name` such as recipes/sr/edsr_x4_adabm_w4a4.yaml, the file, and its first comment line."""

    name: str
    file: Path
    description: str


def shipped_recipes() -> list[ShippedRecipe]:
    """All of them, by name.

    >>> import qsci_plugins
    >>> "recipes/sr/edsr_x4_adabm_w4a4.yaml" in [recipe.name for recipe in qsci_plugins.shipped_recipes()]
    True
    """
    folder = _folder()
    return [
        ShippedRecipe(f"recipes/{file.relative_to(folder).as_posix()}", file, _description(file))
        for file in sorted(folder.rglob("*.yaml"))
    ]


def find_recipe(name: str | Path) -> Path:
    """A recipe file: `name` as a path, else a shipped one (recipes/sr/x.yaml, sr/x or just x).

    Raises UserError that names the nearest shipped recipes.

    >>> import qsci_plugins
    >>> qsci_plugins.find_recipe("edsr_x4_adabm_w4a4").name
    'edsr_x4_adabm_w4a4.yaml'
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    wanted = _short(str(name))
    shipped = {_short(recipe.name): recipe.file for recipe in shipped_recipes()}
    matches = [file for short, file in shipped.items() if short == wanted or short.endswith(f"/{wanted}")]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UserError(f"{name} is the name of {len(matches)} shipped recipes; see `qsci recipes` for their folders")
    near = difflib.get_close_matches(wanted, shipped, 3, 0.4)
    hint = f"; the nearest shipped ones are {', '.join(near)}" if near else "; `qsci recipes` lists the shipped ones"
    raise UserError(f"there is no recipe {name}{hint}")


def _folder() -> Path:
    """Inside a wheel recipes lie in the package; in a source tree beside it."""
    inside = _PACKAGE / "shipped"
    return inside if inside.is_dir() else _PACKAGE.parent.parent / "recipes"


def _short(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./").removeprefix("recipes/").removesuffix(".yaml")


def _description(file: Path) -> str:
    with file.open(encoding="utf-8") as lines:
        first = next(lines, "")
    return first.removeprefix("#").strip() if first.startswith("#") else ""
