"""`qsci quantize`: what it refuses, in one line, and `qsci doctor FILE`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import qsci_plugins
from qsci_plugins.architectures.network import Network
from qsci_plugins.architectures.registry import load_network
from qsci_plugins.cli import main
from qsci_plugins.comparing.held_back import held_back_images, split_images, write_float_output
from qsci_plugins.data import write_image
from qsci_plugins.data.images import read_image
from qsci_plugins.evaluation.benchmark import find_set


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    file = tmp_path / "mine.pth"
    torch.save(load_network("edsr", None, 2, blocks=1, width=4).module.state_dict(), file)
    (tmp_path / "one").mkdir()
    write_image(tmp_path / "one" / "a.png", np.zeros((80, 80, 3), np.uint8))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    (tmp_path / "noise.pth").write_bytes(b"no network")
    return file


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.pth", "-o", "out"], "there is no file none.pth; give the weights of a network"),
        (["noise.pth", "-o", "out"], "noise.pth"),
        (["mine.pth"], "the following arguments are required: --output/-o"),
        (["mine.pth", "-o", "taken"], "the output folder taken exists; name another"),
        (["mine.pth", "-o", "taken", "--force"], "taken is not the output of a run"),
        (["mine.pth", "-o", "out", "--bits", "7"], "invalid choice: '7'"),
        (["mine.pth", "-o", "out", "--max-loss", "0"], "--max-loss: should be dB above 0, such as 0.1, not '0'"),
        (["mine.pth", "-o", "out", "--max-loss", "x"], "--max-loss: should be dB above 0, such as 0.1, not 'x'"),
        (["mine.pth", "-o", "out", "--images", "nowhere"], "--images nowhere: there is no such folder"),
        (["mine.pth", "-o", "out", "--truth", "nowhere"], "--truth nowhere: there is no such folder"),
        (["mine.pth", "-o", "out", "--images", "one"], "one holds one image; give at least two"),
        (["mine.pth", "-o", "out", "--scale", "4"], "mine.pth holds edsr for x2, but model.scale is 4"),
        (["mine.pth", "-o", "out", "--device", "tpu"], "should be auto, cpu, cuda or cuda:N, not 'tpu'"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(
    arguments: list[str],
    message: str,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(weights.parent)
    assert main(["quantize", *arguments]) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("qsci: "))
    assert message in line
    assert not Path("out").exists()


def test_every_second_image_is_held_back_and_at_most_ten(tmp_path: Path) -> None:
    for index in range(7):
        write_image(tmp_path / f"{index}.png", np.full((16, 16, 3), index, np.uint8))
    calibrating, measured = split_images(tmp_path)
    assert [file.stem for file in measured] == ["0", "2", "4", "6"]
    assert [file.stem for file in calibrating] == ["1", "3", "5"]
    for index in range(7, 32):
        write_image(tmp_path / f"{index:02}.png", np.full((16, 16, 3), index, np.uint8))
    calibrating, measured = split_images(tmp_path)
    assert (len(measured), len(calibrating)) == (8, 24)
    assert not set(calibrating) & set(measured)


def test_the_set_of_the_float_networks_output(tmp_path: Path) -> None:
    network = Network(nn.Identity(), "same", 4, 1.0)
    images = held_back_images(None, network)
    assert [name for name, _ in images] == ["chelsea", "coffee", "flower"]
    clean = held_back_images(None, replace(network, scale=1))
    assert max(max(image.shape) for _, image in clean) == 192
    noisy = held_back_images(None, replace(network, scale=1, removes="noise"))
    assert all(5 < np.std(noise[1].astype(float) - image) < 40 for noise, (_, image) in zip(noisy, clean, strict=True))
    calls = []

    def upscale(image: np.ndarray) -> np.ndarray:
        calls.append(image.shape)
        return image.repeat(4, 0).repeat(4, 1)

    first = write_float_output(images, upscale, "one network", 4, tmp_path)
    assert write_float_output(images, upscale, "one network", 4, tmp_path) == first
    assert len(calls) == 3
    found = find_set(tmp_path, "float_output", 4)
    low, high = found.images[0].load(4)
    assert np.array_equal(low, images[0][1])
    assert np.array_equal(high, low.repeat(4, 0).repeat(4, 1))
    assert write_float_output(images[:2], lambda image: 255 - upscale(image), "another", 4, tmp_path) != first
    assert len(find_set(tmp_path, "float_output", 4).images) == 2
    assert np.array_equal(read_image(tmp_path / "float_output" / "HR" / "chelsea.png"), 255 - high)


def test_doctor_says_what_of_a_network_can_be_quantized(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = qsci_plugins.doctor(weights)["network"]
    assert (found["architecture"], found["scale"], found["macs_in_integers"]) == ("edsr", 2, 1.0)
    assert main(["doctor", str(weights)]) == 0
    text = capsys.readouterr().out
    assert "edsr x2" in text
    assert "can be quantized" in text
    for estimated in ("loss", "PSNR to its float output", "latency", "size"):
        assert f"estimated {estimated}" in text
    assert main(["doctor", "none.pth"]) == 2
    assert "qsci: error: there is no file none.pth; give the weights of a network" in capsys.readouterr().err


def test_validate_looks_for_the_files_that_a_recipe_names(
    weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(weights.parent)
    Path("own.yaml").write_text("version: 1\nmodel: {weights: mine.pth}\nscheme: {name: adabm}\n")
    assert main(["validate", "own.yaml"]) == 0
    assert capsys.readouterr().out == "own.yaml: valid\n"
    assert main(["validate", "own.yaml", "--set", "model.weights=x.pth"]) == 2
    assert "own.yaml: model: there is no weights file x.pth" in capsys.readouterr().err
    assert main(["validate", "swinir_light_x4_adabm"]) == 0  # a shipped one's weights are the user's to bring
    assert "swinir_light_x4_adabm: valid; it needs model: there is no weights file" in capsys.readouterr().out
