"""What the documents show is run from their own text: programs, commands and recipes."""

from __future__ import annotations

import argparse
import ast
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from qsci_plugins import cli
from qsci_plugins.recipes.library import find_recipe
from qsci_plugins.recipes.reading import read_recipe
from qsci_plugins.recipes.schema import FloatRecipe, FloatVideoRecipe, Recipe, VideoRecipe

REPOSITORY = Path(__file__).resolve().parent.parent
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "recipes/README.md",
    "qsci_plugins/schemes/README.md",
    "qsci_plugins/architectures/README.md",
    "qsci_plugins/weights/README.md",
)
TEXT = {document: (REPOSITORY / document).read_text(encoding="utf-8") for document in DOCUMENTS}
README = TEXT["README.md"]
SCHEMES, ARCHITECTURES = "qsci_plugins/schemes/README.md", "qsci_plugins/architectures/README.md"
NNCF = "In your NNCF pipeline"
BREVITAS = "In your Brevitas model"


@dataclass(frozen=True)
class Program:
    """A Python block, or the file that the sentence before it says to save it as."""

    heading: str
    text: str
    file: str | None


def programs(document: str) -> list[Program]:
    """Every Python block of a document, in order."""
    found = []
    for match in re.finditer(r"^```python\n(.*?)^```", TEXT[document], re.MULTILINE | re.DOTALL):
        before = TEXT[document][: match.start()]
        named = re.search(r"[Ss]ave as `([\w.]+)`[^`\n]*:\s*$", before)
        heading = re.findall(r"^##+ (.+)$", before, re.MULTILINE)[-1]
        found.append(Program(heading, match[1], named[1] if named else None))
    return found


def program(heading: str) -> str:
    """The one Python program under a heading of the README."""
    (found,) = (program.text for program in programs("README.md") if program.heading == heading)
    return found


def commands(document: str) -> list[str]:
    """Every command line of the shell blocks and `qsci ...` of the text; variables that the document sets are put in."""
    blocks = re.findall(r"^```(?:bash|console|sh)\n(.*?)^```", TEXT[document], re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    values = dict(match.groups() for line in lines if (match := re.fullmatch(r'(\w+)="(.*)"', line)))
    prose = re.sub(r"^```.*?^```", "", TEXT[document], flags=re.MULTILINE | re.DOTALL)
    lines += [" ".join(code.split()) for code in re.findall(r"`(qsci \w+ [^`]+)`", prose)]
    found = [part.strip() for line in lines if line and not line.startswith("#") for part in line.split("&&")]
    return [re.sub(r"\$(\w+)", lambda match: values.get(match[1], match[0]), command) for command in found]


def arguments_of(command: str) -> list[str] | None:
    """What follows `qsci`, or `-m qsci_plugins`; None for another program's command."""
    words = shlex.split(command, comments=True)
    if words[:1] == ["qsci"]:
        return words[1:]
    return words[words.index("qsci_plugins") + 1 :] if "qsci_plugins" in words and "-m" in words else None


QSCI = [
    pytest.param(arguments, id=f"{document}:{' '.join(arguments)[:60]}")
    for document in DOCUMENTS
    for command in commands(document)
    if (arguments := arguments_of(command)) is not None
]


def run_program(text: str, folder: Path) -> str:
    """What it prints in a process and a folder of its own, where packages that the folder holds are installed."""
    (folder / "program.py").write_text(text, encoding="utf-8")
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_files(document: str, folder: Path) -> None:
    """The files that a document says to save."""
    for block in programs(document):
        if block.file is not None:
            (folder / block.file).write_text(block.text, encoding="utf-8")


def test_every_program_is_run_here() -> None:
    headings = {(document, block.heading) for document in DOCUMENTS for block in programs(document) if not block.file}
    assert headings == {
        ("README.md", NNCF),
        ("README.md", BREVITAS),
        (SCHEMES, "Use it"),
        (SCHEMES, "Through OpenVINO's own call"),
        (ARCHITECTURES, "From your own module"),
        (ARCHITECTURES, "Through spandrel's registry"),
    }


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


@pytest.mark.parametrize("backend", ["brevitas", "nncf"])
def test_a_scheme_of_ones_own_has_the_steps_that_its_guide_explains(tmp_path: Path, backend: str) -> None:
    write_files(SCHEMES, tmp_path)
    assert len((tmp_path / "power_of_two.py").read_text().splitlines()) <= 40
    (project,) = re.findall(r"^```toml\n(.*?)^```", TEXT[SCHEMES], re.MULTILINE | re.DOTALL)
    name, value = re.search(
        r'^\[project.entry-points."qsci_plugins.schemes"\]\n(\w+) = "(\S+)"$', project, re.MULTILINE
    ).groups()  # type: ignore[union-attr]
    installed = tmp_path / "power_of_two-0.0.1.dist-info"  # what pip leaves of the project
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: power-of-two\nVersion: 0.0.1\n")
    (installed / "entry_points.txt").write_text(f"[qsci_plugins.schemes]\n{name} = {value}\n")
    (text,) = (block.text for block in programs(SCHEMES) if block.heading == "Use it")
    text = text.replace("from qsci_plugins.brevitas import", f"from qsci_plugins.{backend} import")
    out = run_program(text, tmp_path).splitlines()
    assert out[-3] == "first: step 32, 5 bits"
    layer, step, bits = re.fullmatch(r"(\w+): step ([\d.]+), (\d) bits", out[-2]).groups()  # type: ignore[union-attr]
    assert (layer, bits) == ("second", "8")
    assert float(step) in [2.0**power for power in range(-4, 4)]
    assert out[-1] == "FAB [5.0, 5.0]"


def test_openvino_converts_what_the_schemes_program_gives_it(tmp_path: Path) -> None:
    (text,) = (block.text for block in programs(SCHEMES) if block.heading == "Through OpenVINO's own call")
    difference, value_range = re.findall(r"^([\d.]+) of (\d+)$", run_program(text, tmp_path), re.MULTILINE)[-1]
    assert float(difference) < 1e-3 * float(value_range)


def test_a_network_of_ones_own_is_quantized_and_exported(tmp_path: Path) -> None:
    write_files(ARCHITECTURES, tmp_path)
    (text,) = (p.text for p in programs(ARCHITECTURES) if p.heading == "From your own module" and not p.file)
    out = run_program(text, tmp_path)
    bits = ast.literal_eval(out[out.index("weight bits") + len("weight bits ") :].strip())
    assert bits == {"head": 8, "body.0": 4, "body.2": 4, "tail.0": 8}
    assert (tmp_path / "runs" / "tiny" / "model" / "manifest.json").is_file()


def test_a_network_in_spandrels_registry_is_recognised_by_its_tensors(tmp_path: Path) -> None:
    (text,) = (p.text for p in programs(ARCHITECTURES) if p.heading == "Through spandrel's registry")
    assert run_program(text, tmp_path).strip().splitlines()[-1] == "Tripler 3 (1, 3, 24, 24)"


@pytest.mark.parametrize("words", QSCI)
def test_commands_are_understood_and_name_recipes_that_exist(
    words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # recipes are found by name, from anywhere
    monkeypatch.setenv("QSCI_DATA", str(tmp_path))
    understood: list[argparse.Namespace] = []
    monkeypatch.setattr(
        f"qsci_plugins.commands.{words[0]}._execute", lambda arguments: understood.append(arguments) or 0
    )
    assert cli.main(words) == 0
    (arguments,) = understood
    run, train = (Recipe, VideoRecipe), (FloatRecipe, FloatVideoRecipe)
    kinds = {"run": run, "train": train, "validate": (*run, *train)}
    if arguments.command in kinds:
        for name in arguments.files if arguments.command == "validate" else [arguments.recipe]:
            if name == "RECIPE":
                continue
            recipe = read_recipe(find_recipe(name), getattr(arguments, "overrides", []))
            assert isinstance(recipe, kinds[arguments.command])  # type: ignore[arg-type]


def test_the_table_of_commands_has_every_command() -> None:
    table = re.findall(r"^\| `qsci (\w+)[^|]* \|", README, re.MULTILINE)
    assert sorted(table) == sorted(module.__name__.rpartition(".")[2] for module in cli._COMMANDS)


def test_the_main_and_the_test_command_are_one_line_each() -> None:
    marked = dict(re.findall(r"^<!-- (main|test) -->\n```bash\n(.+)\n```$", README, re.MULTILINE))
    assert marked["main"].endswith("qsci run recipes/sr/edsr_x4_adabm_w4a4.yaml --output runs/demo")
    assert marked["test"].endswith("pytest")


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= 1100


@pytest.mark.parametrize("document", DOCUMENTS)
def test_names_in_the_text_exist(document: str) -> None:
    text = TEXT[document]
    for name in re.findall(r"`qsci (\w+)", text):
        pkgutil.resolve_name(f"qsci_plugins.commands.{name}:add")
    for path in re.findall(r"`(qsci_plugins(?:\.\w+)+)`", text):
        pkgutil.resolve_name(path)
    for recipe in re.findall(r"\brecipes/[\w/]+\.yaml", text):
        find_recipe(recipe)
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)\)", text):
        assert ((REPOSITORY / document).parent / target).exists(), f"{document} links to {target}"
