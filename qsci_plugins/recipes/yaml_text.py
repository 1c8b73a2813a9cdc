"""YAML as people mean it: no key twice, 1e-4 is a number, yes and no are words, nothing is built but plain values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from qsci_plugins.errors import UserError
from qsci_plugins.files import check_regular

__all__ = ["parse", "parse_value", "read_mapping", "write_yaml"]

#: no recipe is as long; a longer file was named by mistake
MAX_BYTES = 256 * 1024

_MAP = "tag:yaml.org,2002:map"
_FLOAT = "tag:yaml.org,2002:float"
_BOOL = "tag:yaml.org,2002:bool"
_INT = "tag:yaml.org,2002:int"


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain scalars, no aliases, no key twice."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 PyYAML's own name

    def compose_node(self, parent: Any, index: Any) -> Any:
        # an alias makes a few lines stand for gigabytes, and no recipe needs one
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.constructor.ConstructorError(None, None, "aliases are not allowed", self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} twice", key.start_mark)
            seen.add(key.value)
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}


_Loader.add_constructor(_MAP, _Loader.construct_mapping)
_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_INT, re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    """PyYAML reads 010 as octal; a recipe means ten."""
    return int(str(loader.construct_scalar(node)))


_Loader.add_constructor(_INT, _integer)


def parse(text: str, source: str) -> Any:
    """The plain values (mappings, lists, str, int, float, bool, None) of a YAML text.

    Raises UserError, beginning with `source`, for text that is not YAML, a key twice in a mapping, aliases and tags.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{source}{where}: this is not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{source}: this is not valid YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise UserError(f"{source}: it is nested too deeply to be a recipe") from None


def parse_value(text: str, source: str) -> Any:
    """One value as a recipe's line would have it behind the colon."""
    return parse(text, source)


def read_mapping(file: Path) -> dict[str, Any]:
    """A YAML file whose top level is a mapping; UserError for every other file."""
    check_regular(file)
    if file.is_dir():
        raise UserError(f"{file} is a folder; give a recipe file")
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from None
    if len(content) > MAX_BYTES:
        raise UserError(f"{file} is larger than {MAX_BYTES // 1024} KiB; this is no recipe")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{file} is not a text file in UTF-8; give a recipe in YAML") from None
    value = parse(text, str(file))
    if value is None:
        raise UserError(f"{file} is empty; a recipe begins with `version: 1`")
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else "a text" if isinstance(value, str) else "a single value"
        raise UserError(f"{file} holds {kind}; a recipe is a mapping that begins with `version: 1`")
    return value


def write_yaml(mapping: dict[str, Any]) -> str:
    """A text that `parse` reads back as the same mapping, in the mapping's order."""
    return yaml.dump(mapping, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class _Dumper(yaml.SafeDumper):
    """Short lists on one line; quotes wherever our loader (or any other) would read a string as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_list(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.Node:
    plain = all(isinstance(item, (str, int, float, bool)) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=plain)


_NUMBER_LIKE = re.compile(r"^[-+.]?[0-9.]")


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = '"' if not text.isprintable() else "'" if _NUMBER_LIKE.match(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(str, _represent_text)
