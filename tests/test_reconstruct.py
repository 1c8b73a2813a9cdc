"""`qsci reconstruct`, with every kind of model and everything that can be wrong with a measurement."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy.io import loadmat, savemat
from video_folder import Strided, exported

from qsci_plugins import Reconstructor, reconstruct
from qsci_plugins.architectures.registry import load_network
from qsci_plugins.cli import main
from qsci_plugins.data.snapshots import mask_sum, measure, random_mask
from qsci_plugins.evaluation.metrics import score_video
from qsci_plugins.openvino.precisions import Precision, has_bf16

TINY: dict[str, Any] = {"in_ch": 8, "units": 1, "group_num": 1}
#: odd, where the network halves the height
FRAMES, HEIGHT, WIDTH = 3, 21, 26


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "tiny.pt"
    torch.save(load_network("efficientsci", None, **TINY).module.state_dict(), file)
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose exported network is there, and nothing else."""
    run = tmp_path_factory.mktemp("run")
    exported(run / "model", {0: Strided()}, FRAMES)
    return run


def scene(measurements: int = 2) -> dict[str, np.ndarray]:
    """Variables of a .mat file, as published."""
    orig = np.random.default_rng(0).integers(0, 256, (measurements * FRAMES, HEIGHT, WIDTH), np.uint8)
    mask = random_mask(FRAMES, HEIGHT, WIDTH)
    grouped = orig.reshape(-1, FRAMES, HEIGHT, WIDTH).astype(np.uint16)
    meas = np.stack([measure(frames, mask.astype(np.uint16)) for frames in grouped], 2)
    return {"orig": orig.transpose(1, 2, 0), "mask": mask.transpose(1, 2, 0).astype(np.uint8), "meas": meas}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    savemat(tmp_path / "scene.mat", scene())
    return tmp_path / "scene.mat"


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail with one line and exit code 2, and returns the line."""

    def run(*arguments: str | Path) -> str:
        capsys.readouterr()
        assert main(["reconstruct", *map(str, arguments)]) == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("qsci: ")]
        assert len(errors) == 1
        return errors[0]

    return run


def test_a_checkpoint_gives_the_networks_own_frames_and_scores(checkpoint: Path, file: Path, tmp_path: Path) -> None:
    (done,) = reconstruct(checkpoint, [file], tmp_path / "out", format="mat")
    assert done.measurements == 2
    variables = scene()
    recon = loadmat(tmp_path / "out" / "scene.mat")["recon"]
    assert recon.shape == (HEIGHT, WIDTH, 2 * FRAMES)
    network = load_network("efficientsci", checkpoint).module
    # an odd height is mirrored to an even one, and cut back
    pad = lambda array: np.pad(array, ((0, 1), *[(0, 0)] * (array.ndim - 1)), mode="reflect")  # noqa: E731
    mask = torch.from_numpy(pad(variables["mask"]).transpose(2, 0, 1).astype(np.float32))[None]
    y = torch.from_numpy(pad(variables["meas"][..., 1]).astype(np.float32) / 255)[None]
    with torch.no_grad():
        expected = network(y, mask, mask_sum(mask))[0, :, :HEIGHT].numpy()
    np.testing.assert_allclose(recon[..., FRAMES:].transpose(2, 0, 1), expected, atol=1e-4)
    truth = variables["orig"].transpose(2, 0, 1)[FRAMES:] / 255
    assert done.scores[1].psnr == pytest.approx(score_video(expected, truth).psnr, abs=1e-3)
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())["scenes"]["scene"]
    assert scores["psnr"] == done.psnr
    assert len(scores["measurements"][0]["frame_psnr"]) == FRAMES


def test_an_exported_network_needs_no_torch(folder: Path, file: Path, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from qsci_plugins.cli import main\n"
        f"sys.exit(main(['reconstruct', {str(folder)!r}, {str(file)!r}, '-o', {str(tmp_path / 'out')!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert " dB, SSIM " in done.stdout
    pictures = sorted((tmp_path / "out" / "scene").iterdir())
    assert len(pictures) == 2 * FRAMES
    with Image.open(pictures[0]) as picture:
        assert picture.size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("precision", ["auto", "f32"])
def test_the_precision_of_an_exported_network_is_the_users(
    folder: Path, file: Path, tmp_path: Path, precision: Precision
) -> None:
    command = ["reconstruct", str(folder), str(file), "-o", str(tmp_path / "out"), "--precision", precision]
    assert main(command) == 0
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())["scenes"]["scene"]["measurements"]
    content = scene()
    mask, measurement = content["mask"].transpose(2, 0, 1).astype(np.float32), content["meas"][..., 0] / np.float32(255)
    truth = content["orig"].transpose(2, 0, 1)[:FRAMES] / 255
    psnr = {
        each: score_video(Reconstructor(folder / "model", mask, precision=each).reconstruct(measurement), truth).psnr
        for each in ("auto", "f32")
    }
    assert scores[0]["psnr"] == pytest.approx(psnr[precision], abs=1e-9)
    assert (psnr["auto"] != psnr["f32"]) == has_bf16()


def test_the_builtin_scene_needs_nothing(checkpoint: Path, tmp_path: Path) -> None:
    mask = random_mask(2, 32, 32)
    (first,) = reconstruct(checkpoint, output=tmp_path / "a", mask=mask, format="gif")
    assert (first.name, first.measurements) == ("builtin", 2)
    assert first.target == tmp_path / "a" / "builtin.gif"
    (again,) = reconstruct(checkpoint, ["builtin"], tmp_path / "b", mask=mask)
    assert again.psnr == first.psnr


def test_a_clip_is_measured_first(checkpoint: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "clip").mkdir()
    for index in range(7):
        Image.new("RGB", (24, 18), (30 * index,) * 3).save(tmp_path / "clip" / f"{index}.png")
    (done,) = reconstruct(checkpoint, [tmp_path / "clip"], tmp_path / "out", mask=random_mask(3, 18, 24))
    assert done.measurements == 2  # the seventh frame is left over
    assert len(list((tmp_path / "out" / "clip").iterdir())) == 6
    savemat(tmp_path / "mask.mat", {"mask": np.ones((18, 24, 8))})
    arguments = (checkpoint, tmp_path / "clip", "--mask", tmp_path / "mask.mat", "-o", tmp_path / "b")
    assert "clip has 7 frames, fewer than the 8" in refused(*arguments)
    savemat(tmp_path / "mask.mat", {"mask": np.ones((18, 20, 3))})
    assert "clip is 24x18 pixels, the mask 20x18" in refused(*arguments)


def test_pixels_that_never_open_and_files_of_a_folder(checkpoint: Path, tmp_path: Path) -> None:
    variables = scene(1)
    variables["mask"][:, 4] = 0
    variables["meas"][:, 4] = 0
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        savemat(tmp_path / "in" / f"{name}.mat", variables)
    done = reconstruct(checkpoint, [tmp_path / "in"], tmp_path / "out", format="mat")
    assert [each.name for each in done] == ["a", "b"]
    assert np.isfinite(loadmat(tmp_path / "out" / "a.mat")["recon"]).all()


def test_a_mask_of_the_users_goes_before_the_files(checkpoint: Path, file: Path, tmp_path: Path) -> None:
    (own,) = reconstruct(checkpoint, [file], tmp_path / "a")
    savemat(tmp_path / "mask.mat", {"mask": scene()["mask"]})
    (same,) = reconstruct(checkpoint, [file], tmp_path / "b", mask=tmp_path / "mask.mat")
    (other,) = reconstruct(checkpoint, [file], tmp_path / "c", mask=1 - scene()["mask"].transpose(2, 0, 1))
    assert own.psnr == same.psnr != other.psnr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"meas": scene()["meas"][:-1]}, "meas is 26x20 pixels, the mask 26x21"),
        ({"mask": scene()["mask"][..., :2]}, "orig has 3 frames for each measurement, the mask 2"),
        ({"orig": scene()["orig"][..., :5]}, "orig has 5 frames, but 2 measurements"),
        ({"mask": 0 * scene()["mask"]}, "mask is all zero"),
        ({"meas": np.where(scene()["meas"] > 300, np.nan, 1)}, "NaN or infinite, the first at"),
        ({"meas": scene()["meas"] * 1e6}, "tell with --white"),
        ({"orig": np.zeros((HEIGHT, WIDTH, 3, 2 * FRAMES))}, "scene is in colour, the network reconstructs grey"),
    ],
)
def test_a_wrong_measurement_is_one_line(
    folder: Path, tmp_path: Path, refused: Callable[..., str], change: dict[str, np.ndarray], message: str
) -> None:
    savemat(tmp_path / "scene.mat", {**scene(), **change})
    assert message in refused(folder, tmp_path / "scene.mat", "-o", tmp_path / "out", "--format", "gif")
    assert not list((tmp_path / "out").iterdir())


def test_sixteen_bits_are_what_eight_bits_are(folder: Path, file: Path, tmp_path: Path) -> None:
    variables = scene()
    wide = {**variables, "orig": variables["orig"].astype(np.uint16) * 257, "meas": variables["meas"] * 257.0}
    savemat(tmp_path / "wide.mat", wide)
    eight, sixteen = reconstruct(folder, [file, tmp_path / "wide.mat"], tmp_path / "out")
    assert sixteen.psnr == pytest.approx(eight.psnr, abs=1e-3)


def test_wrong_files_and_names(checkpoint: Path, file: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    out = ("-o", tmp_path / "out")
    file_ = tmp_path / "cut.mat"
    file_.write_bytes(file.read_bytes()[:500])
    assert "damaged or cut off" in refused(checkpoint, file_, *out)
    savemat(file_, {"video": np.zeros((4, 4, 8))})
    assert "it has video (4x4x8)" in refused(checkpoint, file_, *out)
    assert "does not exist" in refused(checkpoint, tmp_path / "none.mat", *out)
    assert "holds nothing to reconstruct" in refused(
        checkpoint, (tmp_path / "empty").mkdir() or tmp_path / "empty", *out
    )
    assert "there is no model" in refused(tmp_path / "none.pt", file, *out)
    assert "no built-in weights" in refused("builtin:nothing", file, *out)
    assert "is a file; name a folder" in refused(checkpoint, file, "-o", file)
    assert "rate" in refused(checkpoint, file, *out, "--rate", "0")
    for white in "1e-300", "0", "inf", "nan":
        assert "full brightness is 1e-9 to 1e9" in refused(checkpoint, file, *out, "--white", white)
    (tmp_path / "scene.png").touch()
    assert "two scenes are named scene" in refused(checkpoint, file, tmp_path / "scene.png", *out)
    reconstruct(checkpoint, [file], tmp_path / "out", format="gif")
    assert "scene.gif exists" in refused(checkpoint, file, *out, "--format", "gif")
    reconstruct(checkpoint, [file], tmp_path / "out", format="gif", force=True)
    savemat(tmp_path / "scene.mat", scene())
    assert "is one of the inputs" in refused(checkpoint, file, "-o", tmp_path, "--format", "mat", "--force")


def test_models_of_another_configuration(
    checkpoint: Path, folder: Path, file: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    out = ("-o", tmp_path / "out")
    assert "not the stformer that" in refused(checkpoint, file, *out, "--architecture", "stformer")
    assert "in_ch 8" in refused(checkpoint, file, *out, "--architecture", "efficientsci_t")
    images = tmp_path / "edsr.pt"
    torch.save(load_network("edsr", None, 2, blocks=1, width=8).module.state_dict(), images)
    assert "enlarges images; give it to `qsci upscale`" in refused(images, file, *out)
    state = torch.load(checkpoint, weights_only=True)
    torch.save({name: tensor for name, tensor in state.items() if name != "up_conv.bias"}, images)
    assert "missing up_conv.bias" in refused(images, file, *out)
    color = tmp_path / "color.pt"
    torch.save(load_network("efficientsci", None, **TINY, color_ch=3).module.state_dict(), color)
    assert "scene is in grey, the network reconstructs colour" in refused(color, file, *out)
    assert "holds no exported network" in refused(checkpoint, file, *out, "--runtime", "openvino")
    assert "neither the output of a run" in refused(folder, file, *out, "--runtime", "torch")


def test_a_float_run_and_one_that_does_not_fit_its_recipe(
    checkpoint: Path, file: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    text = "version: 1\nmodel: {architecture: efficientsci, settings: {in_ch: WIDTH, units: 1, group_num: 1}}\n"
    text += "data: [{path: photos}]\ntrain: {steps: 1}\n"
    (run / "recipe.yaml").write_text(text.replace("WIDTH", "8"))
    assert "neither weights.safetensors nor checkpoint.pt" in refused(run, file, "-o", tmp_path / "c")
    save_file(torch.load(checkpoint, weights_only=True), run / "weights.safetensors")
    (of_run,) = reconstruct(run, [file], tmp_path / "a")
    (of_file,) = reconstruct(checkpoint, [file], tmp_path / "b")
    assert of_run.psnr == of_file.psnr
    (run / "recipe.yaml").write_text(text.replace("WIDTH", "16"))
    assert "the tensors say in_ch 8, not 16" in refused(run, file, "-o", tmp_path / "c")
