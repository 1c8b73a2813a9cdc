"""What report.html consists of: sections with charts and tables of one or several runs, pictures, and all of it as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qsci_plugins.report.summary import Rows

if TYPE_CHECKING:
    from qsci_plugins.report.pictures import Picture

__all__ = ["Block", "PageContent", "PageSection", "Table"]


@dataclass(frozen=True)
class Table:
    """Rows under a title; a long one is folded away."""

    title: str
    rows: Rows
    folded: bool = False


@dataclass(frozen=True)
class Block:
    """What one run, named `run`, says in a section: a chart of `charts` and what it takes, tables, a text to copy, remarks."""

    run: str
    chart: tuple[Any, ...] = ()
    tables: Sequence[Table] = ()
    code: str = ""
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class PageSection:
    """A titled part of the page; those of one key stand side by side where the page has several runs."""

    key: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class PageContent:
    """What a folder gives to a page: its name and title, numbers to see first, sections, pictures, and all as JSON."""

    name: str
    title: str
    highlights: Sequence[tuple[str, str]]
    sections: Sequence[PageSection]
    data: Mapping[str, Any]
    pictures: Sequence[Picture] = ()
    #: a sentence below the title
    about: str = ""
