"""report.html in a real Chromium: it asks nothing of a network, and works by mouse, by keyboard, in the dark, on a telephone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_folders import picture, run_folder

from qsci_plugins.cli import main

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine: apt-get install chromium")

WIDE, TELEPHONE = {"width": 1200, "height": 800}, {"width": 400, "height": 800}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a picture with two tiles, and a video of four frames."""
    folder = run_folder(tmp_path_factory.mktemp("runs") / "run", picture("a"), picture("clip", 9, frames=4))
    assert main(["report", str(folder)]) == 0
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[Any]:
    """Opens the page in a window, and holds it to be silent and to ask for nothing."""
    said: list[str] = []
    asked: list[str] = []
    contexts = []

    def open_(size: dict[str, int] = WIDE, **settings: Any) -> Any:
        context = browser.new_context(viewport=size, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report.as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert said == []
    assert {url for url in asked if not url.startswith("data:")} == {report.as_uri()}


def shown(viewer: Any, side: str) -> str:
    """The part of a side's picture that is cut away."""
    return str(viewer.locator(f".layer.{side}-side").evaluate("layer => layer.style.clipPath"))


def test_the_slider_moves_by_mouse_and_by_keyboard(opened: Any) -> None:
    page = opened()
    viewer = page.locator(".viewer").first
    assert shown(viewer, "left") == "inset(0px 50% 0px 0px)"
    box = viewer.locator(".stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 20, steps=3)
    page.mouse.up()
    assert shown(viewer, "left") == "inset(0px 75% 0px 0px)"
    assert shown(viewer, "right") == "inset(0px 0px 0px 25%)"
    viewer.locator(".split").focus()
    page.keyboard.press("ArrowRight")
    assert shown(viewer, "right") == "inset(0px 0px 0px 26%)"
    page.keyboard.press("Home")
    assert shown(viewer, "right") == "inset(0px 0px 0px 0%)"
    viewer.locator("select").nth(1).select_option(label="truth")
    assert viewer.locator(".right-side img").get_attribute("alt") == "a, truth"


def test_pointing_at_the_bit_map_reads_a_number(opened: Any) -> None:
    page = opened()
    viewer = page.locator(".viewer").first
    bits, readout = viewer.locator("svg.bits"), viewer.locator(".readout")
    assert not bits.is_visible()
    viewer.locator(".bits-switch").check()
    assert bits.is_visible()
    box = viewer.locator(".stage").bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"])
    assert readout.inner_text() == "x 15, y 20: 3.25 bits, tile 1 of 2"
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.5 * box["height"])
    assert readout.inner_text() == "x 45, y 20: 5.00 bits, tile 2 of 2"
    viewer.locator(".stage").focus()
    for _ in range(8):
        page.keyboard.press("ArrowLeft")
    assert readout.inner_text() == "x 29, y 20: 3.25 bits, tile 1 of 2"
    page.keyboard.press("b")
    assert not bits.is_visible()


def test_the_lens_shows_the_same_place_of_every_picture(opened: Any) -> None:
    page = opened()
    viewer = page.locator(".viewer").first
    box = viewer.locator(".stage").bounding_box()

    def lenses() -> list[str]:
        urls: list[str] = viewer.locator("canvas").evaluate_all("all => all.map(each => each.toDataURL())")
        return urls

    page.mouse.move(box["x"] + 1, box["y"] + 1)
    before = lenses()
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] - 2)
    after = lenses()
    assert len(set(before) | set(after)) == 6


def test_frames_are_played_and_stepped(opened: Any) -> None:
    page = opened()
    viewer = page.locator(".viewer").nth(1)
    number, play = viewer.locator(".frame-number"), viewer.locator(".play")
    assert number.inner_text() == "1 of 4"
    viewer.locator(".frame").focus()
    page.keyboard.press("ArrowRight")
    assert number.inner_text() == "2 of 4"
    assert viewer.locator(".left-side img").evaluate("image => image.style.transform") == "translateY(-25%)"
    play.click()
    assert play.inner_text() == "Pause"
    sync_api.expect(number).to_have_text("4 of 4")
    play.click()
    stopped = number.inner_text()
    page.wait_for_timeout(300)
    assert number.inner_text() == stopped


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system(opened: Any, scheme: str) -> None:
    page = opened(color_scheme=scheme)
    colours = page.evaluate(
        "['backgroundColor', 'color'].map(key => getComputedStyle(document.body)[key].match(/\\d+/g).map(Number))"
    )
    ground, ink = (sum(colour[:3]) for colour in colours)
    assert (ground < ink) == (scheme == "dark")
    label = page.locator("svg.chart text").first.evaluate(
        "text => getComputedStyle(text).fill.match(/\\d+/g).map(Number)"
    )
    assert label[:3] == colours[1][:3]


def test_a_telephone_scrolls_one_way(opened: Any) -> None:
    page = opened(TELEPHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 400


def test_the_recipe_is_copied(opened: Any) -> None:
    page = opened(permissions=["clipboard-read", "clipboard-write"])
    page.locator(".copy").click()
    sync_api.expect(page.locator(".copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "version: 1\n"


def test_paper_shows_every_picture_whole(opened: Any) -> None:
    page = opened()
    page.emulate_media(media="print")
    layers = page.locator(".viewer").first.locator(".layer")
    assert [layer.is_visible() for layer in layers.all()] == [True, True, True]
    assert len({layer.bounding_box()["x"] for layer in layers.all()}) == 3
    assert not page.locator(".split").first.is_visible()


def test_without_scripts_pictures_and_numbers_are_there(opened: Any) -> None:
    page = opened(java_script_enabled=False)
    assert page.locator(".layer img").first.is_visible()
    assert "37.25" in page.locator("#quality").inner_text()


def test_a_hostile_name_does_not_act(browser: Any, tmp_path: Path) -> None:
    name = '"><script>document.title = "owned"</script><img src=x onerror="document.title = \'owned\'">'
    folder = run_folder(tmp_path / "run", replace(picture(), name=name), recipe=f"# </script>{name}\n")
    assert main(["report", str(folder)]) == 0
    page = browser.new_page()
    page.goto((folder / "report.html").as_uri())
    assert page.title() == "edsr x2, adabm through nncf"
    assert name in page.locator(".viewer figcaption").inner_text()
    page.close()
