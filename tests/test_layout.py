"""The package keeps its layout: floors, sizes of rooms, one signature for a name, schemes at home in schemes/."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

import pytest
from source_tree import PACKAGE, REPOSITORY, circles, imports, modules, public_signatures, room

#: from the ground up; a module imports from its own floor and those below
FLOORS = (
    ("errors", "extras", "progress", "telemetry", "machine", "files", "safe_load", "cluster"),
    ("schemes", "data"),
    ("architectures", "training", "openvino", "nncf", "brevitas"),
    ("recipes", "evaluation"),
    ("pipeline",),
    ("comparing", "report", "api"),
    ("commands",),
    ("cli",),
    ("__main__",),
)
FLOOR = {name: height for height, floor in enumerate(FLOORS) for name in floor}

MOST_MODULES = {"recipes": 6}
MOST_WORDS = 1100

#: outside schemes/ alone these name a scheme: each host's public quantizers and algorithms, and a scheme's own training
NAMES_SCHEMES = {
    "api",  # whose default it is
    "brevitas",
    "brevitas.quantizers",
    "nncf",
    "nncf.algorithm",
    "pipeline.image_training",
    "recipes.schema",
    "training.cadyq",
    "training.settings",
}
SCHEMES = ("AdaBM", "CADyQ", "QSCI")
#: words that say nothing of what a name stands for
VAGUE = {"one", "told", "made", "door"}
#: what every scheme's config has (schemes.scheme.SchemeConfig and pydantic): free for all to read
CONFIG = {"name", "model_dump", "model_dump_json"}


def test_every_room_has_a_floor() -> None:
    assert {room(name) for name in modules()} - {""} == set(FLOOR)


@pytest.mark.parametrize("when", ["module", "function", "types"])
def test_no_import_goes_up(when: str) -> None:
    up = [
        str(each)
        for each in imports()
        # the package itself, bare of imports, holds the version; its lazy names are for users
        if each.when == when and PACKAGE not in (each.source, each.target)
        if FLOOR[room(each.source)] < FLOOR[room(each.target)]
    ]
    assert not up, "\n".join(up)


def test_the_hosts_never_meet() -> None:
    hosts = {"nncf", "brevitas"}
    across = [str(each) for each in imports() if {room(each.source), room(each.target)} == hosts]
    assert not across, "\n".join(across)


def test_the_ground_and_the_package_import_no_room() -> None:
    up = [
        str(each)
        for each in imports()
        if each.when != "types" and (each.source == PACKAGE or FLOOR[room(each.source)] == 0) and each.target != PACKAGE
        if FLOOR[room(each.target)] > 0
    ]
    assert not up, "\n".join(up)


def test_no_module_is_imported_in_a_circle() -> None:
    found = circles({(each.source, each.target) for each in imports() if each.when == "module"})
    assert not found, "\n".join(" <-> ".join(group) for group in found)


def test_a_circle_is_found_and_what_hangs_on_it_is_not() -> None:
    assert circles({("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("e", "a")}) == [["a", "b", "c"]]


def test_rooms_of_a_floor_are_in_no_circle() -> None:
    edges = {(room(each.source), room(each.target)) for each in imports() if each.source != PACKAGE}
    found = circles({(source, target) for source, target in edges if source != target and target})
    lines = [
        " <-> ".join(group) + "".join(f"\n    {each}" for each in imports() if between(group, each.source, each.target))
        for group in found
    ]
    assert not lines, "\n".join(lines)


def between(group: list[str], source: str, target: str) -> bool:
    return room(source) != room(target) and {room(source), room(target)} <= set(group)


def test_no_room_is_crowded() -> None:
    files = Counter(
        file.parent.relative_to(REPOSITORY / PACKAGE).as_posix() for file in (REPOSITORY / PACKAGE).rglob("*.py")
    )
    crowded = {name: count for name, count in files.items() if count > MOST_MODULES.get(name, 28)}
    assert not crowded


def test_the_readme_is_short() -> None:
    words = len((REPOSITORY / "README.md").read_text(encoding="utf-8").split())
    assert words <= MOST_WORDS


def test_a_public_name_has_one_signature() -> None:
    """But for `api`: its calls do with plain arguments what the functions of the same names do with the package's own."""
    differing = [
        f"{name}: " + "; ".join(f"{module}({parameters})" for module, parameters in homes.items())
        for name, homes in public_signatures().items()
        if len({parameters for module, parameters in homes.items() if module != f"{PACKAGE}.api"}) > 1
    ]
    assert not differing, "\n".join(differing)


@pytest.mark.parametrize("folder", [PACKAGE, "tests", "integration_tests"])
def test_no_name_is_vague(folder: str) -> None:
    vague = [
        f"{file.relative_to(REPOSITORY)}:{node.lineno} {name}"  # type: ignore[attr-defined]
        for file in sorted((REPOSITORY / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if (name := _defined(node)) in VAGUE
    ]
    assert not vague, "\n".join(vague)


def _defined(node: ast.AST) -> str | None:
    """The name that a node gives to a value, a parameter, a function or a class."""
    if isinstance(node, ast.Name):
        return node.id if isinstance(node.ctx, ast.Store) else None
    fields = {ast.arg: "arg", ast.FunctionDef: "name", ast.AsyncFunctionDef: "name", ast.ClassDef: "name"}
    return getattr(node, fields[type(node)]) if type(node) in fields else None


def outside_schemes() -> Iterator[tuple[str, ast.AST]]:
    for name, tree in modules().items():
        if room(name) != "schemes":
            for node in ast.walk(tree):
                yield name.removeprefix(f"{PACKAGE}."), node


def test_only_the_hosts_and_its_training_name_a_scheme() -> None:
    named = sorted(
        f"{module}:{node.lineno} {ast.unparse(node)}"  # type: ignore[attr-defined]
        for module, node in outside_schemes()
        if module not in NAMES_SCHEMES
        if _names_scheme(node) and f"{module} {ast.unparse(node)}" != "cli 'qsci'"  # the program's own name
    )
    assert not named, "\n".join(named)


def _names_scheme(node: ast.AST) -> bool:
    """A class of a scheme's, or the scheme's name as a string alone, as in {"name": "adabm"}."""
    if isinstance(node, ast.Constant):
        return node.value in [scheme.lower() for scheme in SCHEMES]
    fields = {ast.Name: "id", ast.Attribute: "attr", ast.alias: "name"}
    return str(getattr(node, fields.get(type(node), ""), "")).startswith(SCHEMES)


def test_what_is_particular_in_a_schemes_config_is_read_by_the_scheme() -> None:
    read = sorted(
        f"{module}:{node.lineno} {ast.unparse(node)}"  # type: ignore[attr-defined]
        for module, node in outside_schemes()
        if _reads_config(node)
    )
    assert not read, "\n".join(read)


def _reads_config(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
        return _is_config(node.args[0])
    return isinstance(node, ast.Attribute) and _is_config(node.value) and node.attr not in CONFIG


def _is_config(node: ast.AST) -> bool:
    """A scheme's config, by the name that holds it."""
    return isinstance(node, ast.Attribute) and node.attr == "config" and "scheme" in ast.unparse(node.value)
