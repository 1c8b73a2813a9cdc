"""An interrupted run goes on with the network and the images that it began with, and with no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qsci_plugins.architectures.registry import load_network
from qsci_plugins.data import write_image
from qsci_plugins.errors import UserError
from qsci_plugins.pipeline import run as pipeline
from qsci_plugins.pipeline.run import run_recipe
from qsci_plugins.recipes import make_recipe


def _write(folder: Path, seed: int = 0, grey: int = 0) -> Any:
    torch.save(load_network("edsr", None, 2, seed=seed, blocks=1, width=4).module.state_dict(), folder / "weights.pth")
    (folder / "images").mkdir(exist_ok=True)
    noise = np.random.default_rng(0).integers(grey, 256, (40, 40, 3), dtype=np.uint8)
    write_image(folder / "images" / "a.png", noise)
    return make_recipe(
        {
            "version": 1,
            "model": {"weights": str(folder / "weights.pth")},
            "scheme": {"name": "adabm", "reconstruct_weights": False},
            "calibrate": {"images": [str(folder / "images")], "count": 2, "patch": 16, "batch": 2},
            "export": {"openvino": {"mode": "none"}},
        }
    )


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    recipe = _write(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_export", stop)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe, tmp_path / "run")
    assert (tmp_path / "run.partial" / "checkpoint.pt").is_file()
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "key"),
    [({"seed": 1}, r"model\.weights"), ({"grey": 90}, r"calibrate\.images")],
    ids=["weights", "images"],
)
def test_others_are_one_error_until_forced(interrupted: Path, changed: dict[str, int], key: str) -> None:
    recipe = _write(interrupted, **changed)
    with pytest.raises(UserError, match=rf"interrupted run with another content of {key}; remove it, or use --force"):
        run_recipe(recipe, interrupted / "run")
    run_recipe(recipe, interrupted / "run", force=True)
    saved = torch.load(interrupted / "run" / "checkpoint.pt", weights_only=True)["state_dict"]
    wanted = torch.load(interrupted / "weights.pth", weights_only=True)
    assert any(torch.equal(tensor, wanted["head.0.weight"]) for tensor in saved.values())


def test_the_same_ones_go_on(interrupted: Path) -> None:
    recipe = _write(interrupted)
    run_recipe(recipe, interrupted / "run")
    assert not list((interrupted / "run").glob("*.state"))
