"""The package as source text: its modules, what each imports and when, and the public names that each defines."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["PACKAGE", "REPOSITORY", "Import", "circles", "imports", "modules", "public_signatures", "room"]

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = "qsci_plugins"


@dataclass(frozen=True)
class Import:
    """Module `source` imports module `target`: while it is itself imported, later inside a function, or for types alone."""

    source: str
    target: str
    line: int
    when: str  # "module", "function" or "types"

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


@cache
def modules() -> dict[str, ast.Module]:
    """The syntax tree of every module of the package, by its full name."""
    trees = {}
    for file in sorted((REPOSITORY / PACKAGE).rglob("*.py")):
        parts = file.relative_to(REPOSITORY).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        trees[name] = ast.parse(file.read_text(encoding="utf-8"), str(file))
    return trees


def room(module: str) -> str:
    """`data` for qsci_plugins.data.images, `errors` for qsci_plugins.errors, "" for the package itself."""
    return ".".join(module.split(".")[1:2])


@cache
def imports() -> list[Import]:
    """Every import of one module of the package by another."""
    found = []
    for name, tree in modules().items():
        _visit(tree, name, "module", found)
    return [each for each in found if each.source != each.target]


def _visit(node: ast.AST, name: str, when: str, found: list[Import]) -> None:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            found += [Import(name, target, child.lineno, when) for target in _targets(child)]
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            _visit(child, name, "function", found)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            for statement in child.body:
                _visit(ast.Module([statement], []), name, "types", found)
            for statement in child.orelse:
                _visit(ast.Module([statement], []), name, when, found)
        else:
            _visit(child, name, when, found)


def _targets(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        assert node.level == 0, f"line {node.lineno}: relative import"
        inner = [f"{node.module}.{alias.name}" for alias in node.names]
        names = [name if name in modules() else str(node.module) for name in inner]
    return [name for name in dict.fromkeys(names) if name in modules()]


def circles(edges: set[tuple[str, str]]) -> list[list[str]]:
    """Groups of names that reach one another along the edges, each group sorted."""
    following: dict[str, set[str]] = {}
    for source, target in edges:
        following.setdefault(source, set()).add(target)

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        left = [start]
        while left:
            new = following.get(left.pop(), set()) - seen
            seen |= new
            left += new
        return seen

    beyond = {name: reached(name) for name in following}
    groups = {frozenset(other for other in beyond[name] if name in beyond.get(other, ())) for name in beyond}
    return sorted(sorted(group) for group in groups if group)


def public_signatures() -> dict[str, dict[str, str]]:
    """Public name -> {module that defines it: its parameters}, for the functions and classes of every `__all__`."""
    found: dict[str, dict[str, str]] = {}
    for module, tree in modules().items():
        public = _all(tree)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in public and not _is_protocol(node):
                found.setdefault(node.name, {})[module] = _signature(node)
    return found


def _all(tree: ast.Module) -> set[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return set(ast.literal_eval(node.value))
    return set()


def _is_protocol(node: ast.FunctionDef | ast.ClassDef) -> bool:
    """It defines nothing: those that fulfil it may bear its name."""
    return isinstance(node, ast.ClassDef) and any("Protocol" in ast.unparse(base) for base in node.bases)


def _signature(node: ast.FunctionDef | ast.ClassDef) -> str:
    """Names, kinds and defaults of the parameters; of a class those of __init__, or else its fields."""
    if isinstance(node, ast.ClassDef):
        methods = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
        if methods:
            return f"class {_signature(methods[0])}"
        fields = [item.target for item in node.body if isinstance(item, ast.AnnAssign)]
        return f"class ({', '.join(field.id for field in fields if isinstance(field, ast.Name))})"
    return ast.unparse(_without_annotations(node.args))


def _without_annotations(arguments: ast.arguments) -> ast.arguments:
    def bare(argument: ast.arg | None) -> ast.arg | None:
        return None if argument is None else ast.arg(argument.arg)

    return ast.arguments(
        posonlyargs=[ast.arg(each.arg) for each in arguments.posonlyargs],
        args=[ast.arg(each.arg) for each in arguments.args],
        vararg=bare(arguments.vararg),
        kwonlyargs=[ast.arg(each.arg) for each in arguments.kwonlyargs],
        kw_defaults=arguments.kw_defaults,
        kwarg=bare(arguments.kwarg),
        defaults=arguments.defaults,
    )
