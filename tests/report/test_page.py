"""report.html holds the numbers of metrics.json, asks nothing of a network, and nothing of a user's acts in it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noted import Notes
from PIL import Image
from report_folders import COUNTS, LAYERS, MACHINE, Page, metrics, picture, pixels, run_folder, scores

from qsci_plugins.cli import main
from qsci_plugins.errors import UserError
from qsci_plugins.progress import Progress
from qsci_plugins.report.charts import bits_chart, curves_chart, latency_chart
from qsci_plugins.report.content import Block, PageContent, PageSection, Table
from qsci_plugins.report.folder_content import read_content
from qsci_plugins.report.page import write_page
from qsci_plugins.report.pictures import PICTURES, Picture, embedded, merged, read_pictures

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run's folder and its page, made by the command."""
    folder = run_folder(tmp_path_factory.mktemp("runs") / "run", picture(), recipe="version: 1 # <b> & 'c'\n")
    assert main(["report", str(folder)]) == 0
    return folder, (folder / "report.html").read_text(encoding="utf-8")


def page(*contents: PageContent, tmp_path: Path) -> str:
    write_page(tmp_path / "page.html", contents, Progress(), needed=True)
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_page_holds_every_number_as_json(written: tuple[Path, str]) -> None:
    folder, text = written
    data = Page(text).data
    assert data["runs"][0]["metrics"] == json.loads((folder / "metrics.json").read_text())
    assert data["runs"][0]["recipe"] == (folder / "recipe.yaml").read_text()
    [shown] = data["pictures"]
    assert [form["psnr"] for form in shown["forms"]] == [30.5, 30.5, None]
    assert [box["bits"] for box in shown["boxes"]] == [3.25, 5.0]


def test_the_page_holds_the_numbers_as_text(written: tuple[Path, str]) -> None:
    text = Page(written[1]).text
    for part in ("37.25 dB", "float 37.80, 0.55 lost", "3.50 bits", "0.30 of fp32", "0.10 TBitOPs", "A CPU", "2.14"):
        assert part in text, part
    for part in ("NNCF INT8 fails: no <op>", "All 2 nodes", "version: 1 # <b> & 'c'", *LAYERS):
        assert part in text, part
    assert "25.0" in text  # the share of the error of head.0
    assert "-0.5" in text


def test_nothing_is_asked_of_a_network(written: tuple[Path, str]) -> None:
    text = written[1]
    found = Page(text)
    for _, attributes in found.elements:
        for key in ("src", "href", "xlink:href", "srcset", "data", "action"):
            assert re.match(r"(data:|#|$)", attributes.get(key) or ""), attributes
    assert len(found.of("img")) == 3
    for attributes in found.of("img"):
        head, _, content = str(attributes["src"]).partition(",")
        assert head == "data:image/webp;base64"
        with Image.open(io.BytesIO(base64.b64decode(content))) as image:
            assert image.size == (60, 40)
    assert "url(" not in re.sub(r"url\(#[\w.-]+\)", "", text)
    assert "@import" not in text
    policy = found.of("meta")[1]["content"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:")
    digest = base64.b64encode(hashlib.sha256(found.scripts[1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy


def test_pictures_come_back_without_loss(written: tuple[Path, str], tmp_path: Path) -> None:
    [found] = read_pictures(written[0])
    assert found == picture()
    [[uri, *_]], note = embedded([found], 10**6)
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        assert (np.asarray(image) == pixels(0)[0]).all()
    assert "without loss" in note
    folder = run_folder(tmp_path / "damaged", picture())
    (folder / PICTURES / "0_ours.webp").write_bytes(b"RIFF")
    assert read_pictures(folder) == []
    assert not read_content(folder).pictures


@pytest.mark.parametrize("budget", [20_000, 9_000, 2_500])
def test_pictures_keep_to_their_budget(budget: int) -> None:
    uris, note = embedded([picture()], budget)
    assert sum(map(len, uris[0])) <= budget
    assert "WebP of quality" in note


def test_the_same_folder_gives_the_same_page(written: tuple[Path, str], tmp_path: Path) -> None:
    assert page(read_content(written[0]), tmp_path=tmp_path) == written[1]
    assert main(["report", str(written[0])]) == 0  # over the one that is there
    assert (written[0] / "report.html").read_text(encoding="utf-8") == written[1]


def test_a_user_s_words_do_not_act(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "sets": {HOSTILE: {"float": scores(37.8, 32.0), "torch": scores(37.3, 3.5)}},
        "bits": {HOSTILE: {"weight": 4.0, "activation": 3.0}, "$\\frac{": {"weight": 4.0, "activation": 3.0}},
        "float_layers": {HOSTILE: HOSTILE},
        "machine": {**MACHINE, "processor": HOSTILE},
        "training": {"steps": 1, "examples": None, "log": [{"step": 1, HOSTILE: 1.0}]},
    }
    recipe = f"a: 1 # </script>{HOSTILE}<!-- &lt; -->\u2028\n"
    folder = run_folder(tmp_path / "run", picture(HOSTILE), recipe=recipe, **changes)
    found = Page(page(read_content(folder, HOSTILE), tmp_path=tmp_path))
    assert len(found.scripts) == 2
    assert len(found.of("img")) == 3
    assert not [key for _, attributes in found.elements for key in attributes if key.startswith("on")]
    assert found.data["runs"][0]["recipe"] == recipe
    assert found.data["pictures"][0]["name"] == HOSTILE
    assert HOSTILE in found.text


@settings(max_examples=40, deadline=None)
@given(word=st.text(st.characters(exclude_categories=[]), max_size=40))
def test_any_word_stays_a_word(word: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Lone surrogates too, as names of files on Linux have them."""
    shown = Picture(word, 40, 60, (1, 1), picture().forms, note=word)
    table = Table(word, ([word], [[word]]))
    section = PageSection("x", word, [Block(word, tables=[table], code=word, notes=[word])])
    content = PageContent(word, word, [(word, word)], [section], {"word": word}, [shown])
    text = page(content, tmp_path=tmp_path_factory.mktemp("word"))
    found = Page(text)
    assert found.data["runs"] == [{"word": word}]
    plain = Page(page(PageContent("", "", [], [], {}, [picture()]), tmp_path=tmp_path_factory.mktemp("plain")))
    assert len(found.scripts) == len(plain.scripts) == 2
    assert {key for tag, attributes in found.elements if tag == "img" for key in attributes} == {
        key for tag, attributes in plain.elements if tag == "img" for key in attributes
    }


def test_several_runs_stand_side_by_side(written: tuple[Path, str], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    first = run_folder(tmp_path / "first", picture("a", 0), picture("b", 5))
    second = run_folder(tmp_path / "second", picture("a", 0), backend="brevitas")
    assert main(["report", str(first), str(second)]) == 0
    found = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert [run["name"] for run in found.data["runs"]] == ["first", "second"]
    assert [run["metrics"]["backend"] for run in found.data["runs"]] == ["nncf", "brevitas"]
    assert [shown["name"] for shown in found.data["pictures"]] == ["a", "b"]
    assert found.text.count("through brevitas") == 1


def test_forms_that_are_the_same_are_shown_once() -> None:
    first, second = picture("a", 0), picture("a", 1)  # the second's float is the first's ours
    [both] = merged([("x", [first]), ("y", [second])])
    assert [form.title for form in both.forms] == ["x: float", "x: ours", "truth", "y: truth"]
    assert both.boxes == first.boxes


def test_what_is_no_report_is_not_replaced(written: tuple[Path, str], tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "mine.html"
    target.write_text("<p>mine</p>")
    assert main(["report", str(written[0]), "-o", str(target)]) == 2
    assert "is no report of ours; name another --output" in capsys.readouterr().err
    assert target.read_text() == "<p>mine</p>"
    assert main(["report", str(written[0]), "-o", str(target), "--force"]) == 0
    assert target.read_text(encoding="utf-8") == written[1]


def test_a_page_that_is_cut_short_leaves_the_old_one(written: tuple[Path, str], monkeypatch: Any) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    before = sorted(written[0].iterdir())
    assert main(["report", str(written[0])]) == 130
    assert sorted(written[0].iterdir()) == before
    assert (written[0] / "report.html").read_text(encoding="utf-8") == written[1]


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_is_one_line(
    package: str, written: tuple[Path, str], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    progress = Notes()
    monkeypatch.setitem(sys.modules, package, None)
    if package == "matplotlib":
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        monkeypatch.setitem(sys.modules, "matplotlib.ticker", None)
    write_page(tmp_path / "report.html", [read_content(written[0])], progress)
    assert progress.notes == [f"report.html was not written: this needs {package}: pip install 'qsci-plugins[report]'"]
    assert not list(tmp_path.iterdir())
    assert main(["report", str(written[0])]) == 2
    assert f"this needs {package}: pip install 'qsci-plugins[report]'" in capsys.readouterr().err


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        read_content(tmp_path / "none")
    with pytest.raises(UserError, match="give the output folder of a run"):
        read_content(tmp_path)
    folder = run_folder(tmp_path / "run", sets={"a": {"torch": {}}})
    with pytest.raises(UserError, match=r"metrics\.json lacks what a run writes"):
        read_content(folder)
    (tmp_path / "benchmark.json").write_text("{}")
    with pytest.raises(UserError, match=r"benchmark\.json is damaged"):
        read_content(tmp_path)


def test_a_run_without_latency_training_or_sets_has_a_page(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", latency=None, training=None, sets={}, operations=None, layer_errors=None)
    found = Page(page(read_content(folder), tmp_path=tmp_path))
    assert not {"latency", "training", "quality", "pictures"} & {each.get("id") for each in found.of("section")}
    assert "% of the error" not in found.text
    folder = run_folder(tmp_path / "train", kind="train", scheme=None, bits=None, latency=None, operations=None)
    assert "float training" in page(read_content(folder), tmp_path=tmp_path)


def test_charts_have_names_of_their_own_and_no_date() -> None:
    log = [{"step": 1, "loss": 2.0, "fab": 4.0}, {"step": 2, "loss": 1.0}]
    bits = metrics()["bits"]
    charts = [bits_chart(bits, None, "a"), bits_chart(bits, None, "b"), curves_chart(log, "c")]
    charts.append(latency_chart(metrics()["latency"]["rows"], "d"))
    names = [name for chart in charts for name in re.findall(r' id="([^"]+)"', chart)]
    assert len(names) == len(set(names)) > 0
    for chart in charts:
        assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', chart)) <= set(names)
        assert not re.search(r"#0102|<\?xml|metadata|20\d\d-", chart)
    for part in ("OpenVINO fp32", "60.0"):
        assert part in charts[3]
    assert "NNCF INT8" not in charts[3]
    assert all(f">{name}<" in charts[0] for name in LAYERS)


def test_matplotlib_writes_nothing_of_its_own(tmp_path: Path) -> None:
    code = (
        "from qsci_plugins.report.charts import curves_chart; print(len(curves_chart([{'step': 1, 'loss': 2.0}], 'a')))"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "MPL"))}
    environment["HOME"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 1000
    assert not list(tmp_path.iterdir())


def row(form: str, psnr: float, title: str | None = None) -> dict[str, Any]:
    measured = {**scores(psnr, 4.0), **({} if form == "float" else {"weight_activation_bitops": 2e12})}
    return {
        "network": "edsr x2", "task": "sr", "title": title, "form": form, "scheme": None, "seconds": None,
        "sets": {"Set5": measured},
    }  # fmt: skip


def test_a_benchmark_and_a_sweep_have_pages(tmp_path: Path) -> None:
    rows = [row("float", 37.8), row("torch", 37.3, "w4a4"), row("openvino", 37.25, "w4a4")]
    folder = run_folder(tmp_path / "out" / "runs" / "w4a4-1234", latency=None).parent.parent
    benchmark = {"version": 2, "machine": MACHINE, "rows": rows}
    (folder / "benchmark.json").write_text(json.dumps(benchmark))
    found = Page(page(read_content(folder), tmp_path=tmp_path))
    assert found.data["runs"][0]["benchmark"] == benchmark
    assert found.data["runs"][0]["runs"][0]["metrics"]["operations"]["float"] == COUNTS
    for part in ("w4a4: OpenVINO", "37.25 / 0.9000 / 4.00", "w4a4-1234", "A CPU", "head.0"):
        assert part in found.text, part
    point = {"title": "bits=4", "settings": {"bits": 4}, "rows": {"torch": rows[1]}}
    sweep = {"version": 2, "recipe": "a/b.yaml", "keys": ["bits"], "float": rows[0], "points": [point]}
    (folder / "sweep.json").write_text(json.dumps(sweep))
    found = Page(page(read_content(folder), tmp_path=tmp_path))
    assert found.data["runs"][0]["sweep"] == sweep
    for part in ("Sweep of b", "1: bits=4", "37.30 (0.50) @ 4.00"):
        assert part in found.text, part


def test_layers_whose_cost_was_not_measured_have_none(tmp_path: Path) -> None:
    partly = {"whole": 2.0, "layers": {"head.0": 0.5}}
    found = page(read_content(run_folder(tmp_path / "run", layer_errors=partly)), tmp_path=tmp_path)
    assert "Measured for 1 of 3 layers, for want of time." in found
    assert "for want of time" not in page(read_content(run_folder(tmp_path / "other")), tmp_path=tmp_path)
