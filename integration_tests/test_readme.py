"""What README and the documents beside the code show is run from their own text: programs, commands and recipes."""

from __future__ import annotations

import argparse
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from qsci_plugins.cli import main
from qsci_plugins.recipes.library import find_recipe
from qsci_plugins.recipes.reading import read_recipe
from qsci_plugins.recipes.schema import FloatRecipe, FloatVideoRecipe, Recipe, VideoRecipe

ROOT = Path(__file__).resolve().parent.parent
SCHEMES, ARCHITECTURES = "qsci_plugins/schemes/README.md", "qsci_plugins/architectures/README.md"
DOCUMENTS = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "recipes/README.md",
        "qsci_plugins/weights/README.md",
        SCHEMES,
        ARCHITECTURES,
    )
}
README = DOCUMENTS["README.md"]
TEXT = "\n".join(DOCUMENTS.values())
NNCF = "In your NNCF pipeline"
BREVITAS = "In your Brevitas model"


def program(heading: str) -> str:
    """README's one Python program right under a heading."""
    sections = re.findall(rf"^## {heading}\n\s*```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(sections) == 1, f"README.md has {len(sections)} programs under {heading!r}"
    return sections[0]


def only_program(document: str) -> str:
    """The one Python program of a document."""
    (text,) = re.findall(r"^```python\n(.*?)^```", DOCUMENTS[document], re.MULTILINE | re.DOTALL)
    return text


def commands() -> list[str]:
    """Every command line of a shell block of any document, those joined by && apart."""
    blocks = re.findall(r"^```(?:bash|console|sh)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [one.strip() for line in lines if line and not line.startswith("#") for one in line.split("&&")]


QSCI = [command for command in commands() if shlex.split(command, comments=True)[:1] == ["qsci"]]


def run_program(text: str, folder: Path) -> str:
    """What it prints in a process and a folder of its own."""
    (folder / "program.py").write_text(text, encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("heading", [NNCF, BREVITAS])
def test_programs_are_at_most_fifteen_lines(heading: str) -> None:
    assert 1 <= len(program(heading).splitlines()) <= 15


def test_the_nncf_program_gives_layers_their_bits(tmp_path: Path) -> None:
    out = run_program(program(NNCF), tmp_path)
    bits = {name: float(value) for name, value in re.findall(r"'([\w.]+)': ([\d.]+)", out)}
    assert {bits[name] for name in bits if name.startswith(("head", "tail"))} == {8.0}
    body = [bits[name] for name in bits if name.startswith("body")]
    assert len(body) == 5
    assert all(2 <= value <= 6 for value in body)


def test_the_brevitas_program_gives_images_their_bits(tmp_path: Path) -> None:
    out = run_program(program(BREVITAS), tmp_path)
    bits = [float(value) for value in re.findall(r"\d+\.\d*", out[out.index("tensor(") :])]
    assert len(bits) == 4
    assert all(2 <= value <= 6 for value in bits)


def test_a_scheme_of_ones_own_has_its_bits_in_forty_lines(tmp_path: Path) -> None:
    text = only_program(SCHEMES)
    assert len(text.splitlines()) <= 40
    assert run_program(text, tmp_path).split()[-1] == "5.0"


def test_a_network_of_ones_own_is_described(tmp_path: Path) -> None:
    assert run_program(only_program(ARCHITECTURES), tmp_path) == "2 255.0 ['body.0', 'body.1']\n"


@pytest.mark.parametrize("command", QSCI)
def test_commands_are_understood_and_name_recipes_that_exist(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = shlex.split(command, comments=True)[1:]
    monkeypatch.chdir(tmp_path)  # recipes are found by name, from anywhere
    monkeypatch.setenv("QSCI_DATA", str(tmp_path))
    understood: list[argparse.Namespace] = []
    monkeypatch.setattr(
        f"qsci_plugins.commands.{words[0]}._execute", lambda arguments: understood.append(arguments) or 0
    )
    assert main(words) == 0
    (arguments,) = understood
    run, train = (Recipe, VideoRecipe), (FloatRecipe, FloatVideoRecipe)
    kinds = {"run": run, "train": train, "validate": (*run, *train)}
    if arguments.command in kinds:
        for name in arguments.files if arguments.command == "validate" else [arguments.recipe]:
            recipe = read_recipe(find_recipe(name), getattr(arguments, "overrides", []))
            assert isinstance(recipe, kinds[arguments.command])  # type: ignore[arg-type]


def test_the_main_and_the_test_command_are_one_line_each() -> None:
    marked = dict(re.findall(r"^<!-- (main|test) -->\n```bash\n(.+)\n```$", README, re.MULTILINE))
    assert marked["main"].endswith("qsci run recipes/sr/edsr_x4_adabm_w4a4.yaml --output runs/demo")
    assert marked["test"].endswith("pytest")


def test_commands_and_names_in_the_text_exist() -> None:
    for name in re.findall(r"`qsci ([a-z]\w+)", TEXT):
        pkgutil.resolve_name(f"qsci_plugins.commands.{name}:add")
    for path in re.findall(r"`(qsci_plugins(?:\.\w+)+)`", TEXT):
        pkgutil.resolve_name(path)
    for recipe in re.findall(r"\brecipes/[\w/]+\.yaml", TEXT):
        find_recipe(recipe)


def test_links_and_pictures_lead_somewhere() -> None:
    for name, text in DOCUMENTS.items():
        for target in re.findall(r"\]\(([^)]+)\)", text):
            path, _, heading = target.partition("#")
            if "://" in target:
                continue
            file = ROOT / name if not path else (ROOT / name).parent / path
            assert file.exists(), f"{name} links to {target}"
            headings = (
                [
                    re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
                    for line in file.read_text(encoding="utf-8").splitlines()
                    if line.startswith("#")
                ]
                if heading
                else []
            )
            assert not heading or heading in headings, f"{name} links to {target}"
