from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsci_plugins.errors import UserError
from qsci_plugins.recipes import FloatRecipe, Recipe, make_recipe, read_recipe, write_recipe
from qsci_plugins.recipes.reading import all_keys, expand, nearest_key

SMALL = {"version": 1, "model": {"architecture": "edsr", "scale": 2}, "scheme": {"name": "adabm"}}
FLOAT = {"version": 1, "model": {"architecture": "edsr"}, "data": [{"path": "x"}], "train": {"steps": 3}}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text("# a tiny one\nversion: 1\nmodel: {architecture: edsr, scale: 2}\nscheme: {name: adabm}\n")
    return file


def test_defaults_are_filled_in(small: Path) -> None:
    recipe = read_recipe(small)
    assert isinstance(recipe, Recipe)
    assert recipe.backend == "nncf"
    assert recipe.scheme["weight_bits"] == 4
    assert recipe.place.targets == ["*"]
    assert recipe.calibrate.images == ["builtin:photos"]


@pytest.mark.parametrize("mapping", [SMALL, FLOAT])
def test_round_trip(mapping: dict, tmp_path: Path) -> None:
    recipe = make_recipe(mapping)
    assert isinstance(recipe, FloatRecipe if "data" in mapping else Recipe)
    write_recipe(recipe, tmp_path / "again.yaml")
    assert read_recipe(tmp_path / "again.yaml") == recipe


_OVERRIDES = st.sampled_from(
    [
        "scheme.activation_bits=6",
        "scheme.form=faithful",
        "place.float=[head.*, 'tail.*']",
        "place.eight_bit=body.1",
        "calibrate.images=[a, ~/b]",
        "model.weights='007.pth'",
        "model.settings.blocks=2",
        "model.value_range=1",
        "evaluate=[{set: Set5}, {set: '1e-4', scale: 2}]",
        "export.openvino.tile=[64, 32]",
        "seed=12",
    ]
)


@given(st.lists(_OVERRIDES, max_size=5))
@settings(max_examples=40, deadline=None)
def test_round_trip_with_any_overrides(tmp_path_factory: pytest.TempPathFactory, overrides: list[str]) -> None:
    recipe = make_recipe(SMALL, overrides=overrides)
    file = tmp_path_factory.mktemp("recipe") / "r.yaml"
    write_recipe(recipe, file)
    assert read_recipe(file) == recipe


def test_overrides_are_typed_and_the_last_one_wins(small: Path) -> None:
    recipe = read_recipe(
        small, ["scheme.activation_bits=6", "calibrate.count=3", "calibrate.count=4", "evaluate=[{set: A}]", "seed=1"]
    )
    assert isinstance(recipe, Recipe)
    assert (recipe.scheme["activation_bits"], recipe.calibrate.count, recipe.seed) == (6, 4, 1)
    again = read_recipe(small, ["evaluate=[{set: A}, {set: B}]", "evaluate.1.set=C"])
    assert [item.name for item in again.evaluate] == ["A", "C"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.wieghts=x", "--set model.wieghts=x: unknown key 'model.wieghts'; the nearest is 'model.weights'"),
        ("weights=x", "--set weights=x: unknown key 'weights'; the nearest is 'model.weights'"),
        ("scheme.activation_bit=6", "--set scheme.activation_bit=6: scheme.activation_bit.*'activation_bits'"),
        ("scheme.activation_bits=9", "--set scheme.activation_bits=9: scheme.activation_bits.*9"),
        ("scheme.name=adabn", "--set scheme.name=adabn: .*'adabn'.*'adabm'"),
        ("calibrate.count=many", "--set calibrate.count=many: calibrate.count: should be a valid integer.*not 'many'"),
        ("calibrate.count='4'", "calibrate.count: should be a valid integer"),
        ("calibrate.degrade=1", "calibrate.degrade: should be a valid boolean"),
        ("calibrate.count=0", "calibrate.count: should be greater than or equal to 1, not 0"),
        ("backend=nnfc", "--set backend=nnfc: backend: should be 'nncf' or 'brevitas', not 'nnfc'"),
        ("calibrate=5", "--set calibrate=5: calibrate: should be a mapping"),
        ("seed.deep=5", "--set seed.deep=5"),
        ("version=2", "--set version=2: version: should be 1, not 2"),
        ("model.value_range=.nan", "model.value_range: should be a finite number"),
        ("evaluate.0.set=Set5", "--set evaluate.0.set=Set5"),
        ("export.openvino.tile=[1]", "should be \\[height, width\\]"),
        ("model.settings.scale=4", "scale has its own key"),
        ("novalue", "--set novalue: should read key=value"),
        ("=5", "should read key=value"),
        ("a..b=5", "should read key=value"),
        ("seed=[1", "--set seed=\\[1.*not valid YAML"),
    ],
)
def test_a_wrong_override_is_named(small: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_recipe(small, [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 1\nmodel: {architecture: edsr}\nshceme: {name: adabm}\n", "unknown key 'shceme'.*'scheme'"),
        ("version: 1\nmodel: {architecture: edsr}\n", "the key 'scheme' is missing"),
        ("version: 1\nmodel: {}\nscheme: {name: adabm}\n", "model: give architecture, weights, or both"),
        ("version: 1\nmodel: {weights: a.pth}\nscheme: {}\n", "scheme.name is missing"),
        ("version: 1\nmodel: {weights: 5}\nscheme: {name: adabm}\n", "model.weights: should be a valid string, not 5"),
        ("version: 1\nmodel: [1]\nscheme: {name: adabm}\n", "model: should be a mapping"),
        ("version: 1\nmodel: {architecture: edsr}\ndata: []\ntrain: {steps: 1}\n", "data: .*at least 1 item"),
        ("version: 1\nmodel: {architecture: edsr}\ndata: [{pth: a}]\ntrain: {steps: 1}\n", "'data.0.pth'.*path"),
        ("version: 1\nmodel: {architecture: edsr}\ndata: [{path: a}]\ntrain: {step: 1}\n", "train.step'.*train.steps'"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_recipe(file)
    assert str(caught.value).startswith(str(file))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_misspelt_key_is_always_refused_with_a_valid_one(data: st.DataObject) -> None:
    key = data.draw(st.sampled_from([key for key in all_keys(Recipe) if key != "scheme" and "." in key]))
    cut = data.draw(st.integers(0, len(key.rsplit(".", 1)[1]) - 1))
    head, name = key.rsplit(".", 1)
    wrong = f"{head}.{name[:cut]}qz{name[cut:]}".replace("evaluate.", "evaluate.0.")
    wrong = wrong.replace("train.data.", "train.data.0.")
    mapping = {**copy.deepcopy(SMALL), "evaluate": [{"set": "A"}]}
    if head == "train.data":
        mapping["train"] = {"schedule": "cadyq", "data": [{"path": "A"}]}
    with pytest.raises(UserError, match="unknown key") as caught:
        make_recipe(mapping, overrides=[f"{wrong}=1"])
    named = re.search(r"nearest is '([\w.]+)'", str(caught.value))
    assert named is not None
    assert named[1].replace(".0.", ".") in all_keys(Recipe)


def test_nearest_key_prefers_the_same_section() -> None:
    assert nearest_key(Recipe, ("calibrate", "sead")) == "calibrate.seed"
    assert nearest_key(Recipe, ("tile",)) == "export.openvino.tile"
    assert nearest_key(Recipe, ("evaluate", "1", "sett")) == "evaluate.1.set"
    assert nearest_key(FloatRecipe, ("learning_rate",)) == "train.learning_rate"
    assert nearest_key(Recipe, ("train", "kind of cadyq", "warmup")) == "train.warm_up"


def test_variables_in_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QSCI_HERE", "/somewhere")
    assert expand("$QSCI_HERE/sr", "data.0.path") == Path("/somewhere/sr")
    assert expand("${QSCI_HERE}/sr", "data.0.path") == Path("/somewhere/sr")
    with pytest.raises(UserError, match=r"data.0.path: .*environment variable QSCI_NOT_SET"):
        expand("$QSCI_NOT_SET/sr", "data.0.path")
