from __future__ import annotations

import re
from pathlib import Path

import pytest

from qsci_plugins.errors import UserError
from qsci_plugins.recipes import Recipe, find_recipe, read_recipe, recipe_text, shipped_recipes
from qsci_plugins.recipes.reading import make_recipe
from qsci_plugins.recipes.yaml_text import parse


@pytest.mark.parametrize("shipped", shipped_recipes(), ids=lambda recipe: recipe.name)
def test_every_shipped_recipe_is_valid_and_says_what_it_is(shipped) -> None:
    recipe = read_recipe(shipped.file)
    assert make_recipe(parse(recipe_text(recipe), "text")) == recipe
    header = [line for line in shipped.file.read_text().splitlines() if line.startswith("#")]
    assert 20 < len(shipped.description) <= 110
    text = " ".join(header)
    for word in ("Stands for", "xpect", "Takes"):
        assert word in text, f"the header does not say {word!r}"
    if isinstance(recipe, Recipe) and (said := re.search(r"w\d+a\d+", shipped.name)):
        assert said[0] == f"w{recipe.scheme['weight_bits']}a{recipe.scheme['activation_bits']}"


def test_the_command_of_the_readme_finds_its_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = find_recipe("recipes/sr/edsr_x4_adabm_w4a4.yaml")
    assert wanted.is_file()
    for name in ("sr/edsr_x4_adabm_w4a4", "edsr_x4_adabm_w4a4.yaml", "./recipes/sr/edsr_x4_adabm_w4a4.yaml"):
        assert find_recipe(name) == wanted


def test_a_file_of_the_users_goes_before_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "recipes" / "sr" / "edsr_x4_adabm_w4a4.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("version: 1\n")
    assert find_recipe("recipes/sr/edsr_x4_adabm_w4a4.yaml").resolve() == own


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"nearest shipped ones are .*sr/edsr_x4_adabm_w4a4"):
        find_recipe("recipes/sr/edsr_x4_adabm_w4a44.yaml")
    with pytest.raises(UserError, match="`qsci recipes` lists"):
        find_recipe("qqqqqqqqqqqq")
