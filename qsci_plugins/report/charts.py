"""The charts of report.html: SVG by matplotlib, in the page's own font and colours, the same text for the same numbers."""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["CHARTS", "Dot", "bits_chart", "curves_chart", "latency_chart", "psnr_chart"]

#: colours that no chart has otherwise, and what the page's style sheet calls them
_COLOURS = {"#010203": "ink", "#010204": "faint", "#010205": "first", "#010206": "second", "#010207": "third"}
_INK, _FAINT, _FIRST, _SECOND, _THIRD = _COLOURS

#: inches; charts are as wide as a telephone's screen, and the page enlarges them
_WIDTH = 5.2

#: as many layers have their names on the axis
_NAMED = 40

_STYLE = {
    "svg.hashsalt": "qsci-plugins",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.5,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 2,
    "ytick.major.size": 2,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}

#: (x, y, label, group) of `psnr_chart`
Dot = tuple[float, float, str, str]


def bits_chart(bits: Mapping[str, Mapping[str, float]], errors: Mapping[str, Any] | None, title: str) -> str:
    """Weight and activation bits of every layer and, where measured, the share of the output's error that it makes."""
    names = list(bits)
    places = range(len(names))
    shown = len(names) <= _NAMED
    with _figure(title, 4.2 if errors else 2.6, rows=2 if errors else 1) as (figure, axes):
        top = axes[0]
        activations = [layer["activation"] for layer in bits.values()]
        top.bar(places, activations, 0.72, color=_FIRST, label="activations, mean")
        weights = [layer["weight"] for layer in bits.values()]
        top.plot(places, weights, "_", color=_SECOND, markersize=7, markeredgewidth=1.8, label="weights")
        top.set_ylabel("bits")
        top.set_ylim(0, max([8.0, *activations, *weights]) * 1.08)
        top.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderaxespad=0.1)
        if errors:
            whole = errors["whole"]
            shares = [100 * errors["layers"].get(name, 0.0) / whole if whole else 0.0 for name in names]
            axes[1].bar(places, shares, 0.72, color=_THIRD)
            axes[1].set_ylabel("% of the error")
        for each in axes:
            each.grid(axis="x", visible=False)
            each.set_xlim(-0.7, len(names) - 0.3)
        last = axes[-1]
        if shown:
            last.set_xticks(places, [_literal(name) for name in names], rotation=90, fontsize=6)
        else:
            last.set_xlabel("layer, in the network's order")
        return _svg(figure, title)


def latency_chart(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """Median milliseconds of each form, from the fastest fifth to the slowest run; rows that failed are left out."""
    rows = [row for row in rows if "failed" not in row]
    with _figure(title, 0.75 + 0.34 * len(rows)) as (figure, (axes,)):
        medians = [row["median_ms"] for row in rows]
        spread = [
            [row["median_ms"] - row["fast_ms"] for row in rows],
            [row["slowest_ms"] - row["median_ms"] for row in rows],
        ]
        colours = [_FIRST if row["name"] == "ours" else _FAINT for row in rows]
        places = range(len(rows))
        axes.barh(places, medians, 0.62, color=colours)
        axes.errorbar(medians, places, xerr=spread, fmt="none", ecolor=_INK, elinewidth=0.9, capsize=3)
        for place, row in zip(places, rows, strict=True):
            axes.annotate(
                f"{row['median_ms']:.1f}", (row["slowest_ms"], place), (5, 0), textcoords="offset points", va="center"
            )
        axes.set_yticks(places, [_literal(row["title"]) for row in rows])
        axes.set_xlim(0, max([row["slowest_ms"] for row in rows], default=1) * 1.14)
        axes.set_xlabel("ms, median; whiskers from the fastest fifth to the slowest")
        axes.grid(axis="y", visible=False)
        axes.invert_yaxis()
        return _svg(figure, title)


def curves_chart(log: Sequence[Mapping[str, float]], title: str, x_title: str = "step") -> str:
    """Every scalar of rows with a `step`, one below the other: a training's means, a scene's measurements."""
    keys = [key for key in log[0] if key != "step"]
    steps = [row["step"] for row in log]
    colours = (_FIRST, _SECOND, _THIRD)
    _matplotlib()
    from matplotlib.ticker import MaxNLocator

    with _figure(title, 0.7 + 1.1 * len(keys), rows=len(keys)) as (figure, axes):
        for number, (each, key) in enumerate(zip(axes, keys, strict=True)):
            marker = "o" if len(steps) < 30 else ""
            values = [row.get(key, math.nan) for row in log]
            each.plot(steps, values, marker=marker, markersize=2.5, linewidth=1.3, color=colours[number % 3])
            each.set_ylabel(_literal(key))
        axes[-1].set_xlabel(x_title)
        axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        return _svg(figure, title)


def psnr_chart(dots: Sequence[Dot], x_title: str, y_title: str, title: str) -> str:
    """Points of quality over cost, in a colour for each group."""
    groups = list(dict.fromkeys(group for *_, group in dots))
    colours = (_FIRST, _SECOND, _THIRD, _INK)
    with _figure(title, 3.4) as (figure, (axes,)):
        for number, group in enumerate(groups):
            points = [dot for dot in dots if dot[3] == group]
            colour = colours[number % len(colours)]
            marker = "osD^v"[number // len(colours) % 5]
            axes.plot([x for x, *_ in points], [y for _, y, *_ in points], marker, color=colour, label=_literal(group))
            for x, y, label, _ in points:
                axes.annotate(_literal(label), (x, y), (4, 4), textcoords="offset points", fontsize=7)
        axes.set_xlabel(x_title)
        axes.set_ylabel(y_title)
        axes.margins(0.12)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(3, len(groups)), borderaxespad=0.1)
        return _svg(figure, title)


def _literal(text: str) -> str:
    """Text that matplotlib does not take for mathematics, on one line of a chart."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text).replace("$", r"\$")
    return shown if len(shown) <= 36 else f"{shown[:34]}…"


@contextmanager
def _figure(title: str, height: float, rows: int = 1) -> Iterator[tuple[Figure, list[Axes]]]:
    matplotlib = _matplotlib()
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever a user's own file of settings says
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        yield figure, list(figure.subplots(rows, 1, sharex=rows > 1, squeeze=False)[:, 0])


def _svg(figure: Figure, title: str) -> str:
    """The figure as an element of a page: without a date, its colours those of the style sheet, its names its own."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for colour, name in _COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", text)
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    head = re.sub(r' (width|height)="[^"]*"', "", text[: text.index(">")])
    label = f' class="chart" role="img" aria-label="{escape(title)}"'
    return _unique(f"{head}{label}{text[text.index('>') :]}", title)


def _unique(text: str, title: str) -> str:
    """Names inside of a chart belong to it alone, as several are in a page."""
    own = hashlib.sha256(text.encode("utf-8", "backslashreplace") + title.encode("utf-8", "backslashreplace"))
    prefix = f"c{own.hexdigest()[:8]}-"
    return re.sub(r'( id="|url\(#|href="#)', lambda found: found[0] + prefix, text)


#: matplotlib's own folder, where it would keep its list of fonts, for as long as this process lives
_folder: TemporaryDirectory[str] | None = None


def _matplotlib() -> Any:
    """The package, which writes nothing into the user's folders."""
    global _folder
    if "matplotlib" in sys.modules or "MPLCONFIGDIR" in os.environ:
        import matplotlib

        return matplotlib
    _folder = TemporaryDirectory(prefix="qsci-")
    os.environ["MPLCONFIGDIR"] = _folder.name
    try:
        import matplotlib
        import matplotlib.figure  # reads the settings, and lists the fonts
    finally:
        del os.environ["MPLCONFIGDIR"]
    return matplotlib


#: what a page calls them
CHARTS: Mapping[str, Callable[..., str]] = {
    "bits": bits_chart,
    "curves": curves_chart,
    "latency": latency_chart,
    "psnr": psnr_chart,
}
