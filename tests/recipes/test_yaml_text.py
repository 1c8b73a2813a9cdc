from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsci_plugins.errors import UserError
from qsci_plugins.recipes.yaml_text import MAX_BYTES, parse, read_mapping, write_yaml

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT
_VALUES = st.recursive(_PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4))


@given(st.dictionaries(_TEXT, _VALUES, max_size=5))
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_back(mapping: dict) -> None:
    assert parse(write_yaml(mapping), "text") == mapping


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("4", 4),
        ("-3", -3),
        ("010", 10),
        ("4.0", 4.0),
        (".5", 0.5),
        ("true", True),
        ("null", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("[180, 320]", [180, 320]),
        ("'4'", "4"),
    ],
)
def test_plain_values(text: str, value: object) -> None:
    got = parse(text, "text")
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("- version: 1\n", "holds a list"),
        ("just words", "holds a text"),
        ("5", "holds a single value"),
        ("version: 1\nmodel: {a: 1\n", "line 3, column 1: this is not valid YAML"),
        ("version: 1\n\tmodel: 2", "not valid YAML"),
        ("version: 1\nversion: 2\n", "the key 'version' twice"),
        ("model:\n  scale: 2\n  scale: 4\n", "line 3, column 3: this is not valid YAML: the key 'scale' twice"),
        ("a: &x [1]\nb: *x\n", "aliases are not allowed"),
        ("a: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
        ("? [1, 2]\n: 3\n", "a key must be a word"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: " + "9" * 5000, "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("x" * (MAX_BYTES + 1), "is larger than"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path, content: str, message: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_mapping(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_binary_folder_and_missing_files(tmp_path) -> None:
    (tmp_path / "image.yaml").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(UserError, match="not a text file"):
        read_mapping(tmp_path / "image.yaml")
    with pytest.raises(UserError, match="is a folder"):
        read_mapping(tmp_path)
    with pytest.raises(UserError, match="No such file"):
        read_mapping(tmp_path / "none.yaml")
