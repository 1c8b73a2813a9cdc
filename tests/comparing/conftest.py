"""A run of a tiny network for video, which also measures a scene of 2 measurements."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_video import TINY_VIDEO, write_scene

from qsci_plugins.pipeline.run import run_recipe
from qsci_plugins.recipes import VideoRecipe, make_recipe


@pytest.fixture(scope="session")
def video_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `scenes` with one scene."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    folder.mkdir()
    write_scene(folder / "moving.mat")
    return folder


@pytest.fixture(scope="session")
def video_run(tmp_path_factory: pytest.TempPathFactory, video_scenes: Path) -> Path:
    """The output of a run that measured `video_scenes`."""
    recipe = make_recipe({**TINY_VIDEO, "evaluate": [{"set": "scenes", "folder": str(video_scenes)}]})
    assert isinstance(recipe, VideoRecipe)
    return run_recipe(recipe, tmp_path_factory.mktemp("runs") / "tiny", latency=False)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bench is made in the process of the test, as it is where another cannot begin."""
    monkeypatch.setattr("qsci_plugins.comparing.bench_isolated.child_events", lambda *_: (event for event in ()))
