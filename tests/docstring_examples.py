"""Runs the examples in the docstrings of what `qsci_plugins` exports."""

from __future__ import annotations

import doctest

import qsci_plugins

#: those that run or measure whole networks: `integration_tests/test_examples.py`
LONG = (
    *(
        "Reconstructor",
        "Upscaler",
        "bench",
        "bench_tiled",
        "benchmark",
        "cost",
        "evaluate",
        "make_report",
        "reconstruct",
    ),
    *("run", "sweep", "train", "upscale", "upscale_raw", "upscale_video"),
)


def examples(name: str) -> list[doctest.DocTest]:
    """The one docstring of an exported name, where it has examples; its methods' are not looked at."""
    text = getattr(qsci_plugins, name).__doc__ or ""
    test = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    return [test] if test.examples else []


def run_examples(name: str) -> None:
    """Fails with what an example printed instead of what it should."""
    (test,) = examples(name)
    lines: list[str] = []
    result = doctest.DocTestRunner().run(test, out=lines.append)
    assert result.failed == 0, "".join(lines)
