"""The deployed side: any size, no seams, the right route for every tile, without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch
from cores import TWO_CORES
from openvino_networks import ADABM_BODY, EVERYWHERE, Bound, calibrated_edsr, force_factor, plain_apply
from plain import calibrate

from qsci_plugins.errors import UserError
from qsci_plugins.openvino.compiling import LOCK
from qsci_plugins.openvino.export import export_upscaler
from qsci_plugins.openvino.gradient import route_factor, tile_gradient
from qsci_plugins.openvino.manifest import load_manifest
from qsci_plugins.openvino.runtime import Tile, Upscaler

TILE = (32, 40)
#: of the small EDSR: head, two blocks, the body's end, the pixel shuffle and the tail
RADIUS = 8


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A W8A8 network with one graph; its receptive radius is its overlap."""
    stock, network = calibrated_edsr({"weight_bits": 8, "activation_bits": 8}, EVERYWHERE)
    folder = tmp_path_factory.mktemp("static") / "model"
    export_upscaler(network, stock, folder, tile=TILE, scale=2, overlap=RADIUS, mode="static")
    return folder


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stock, network = calibrated_edsr({}, ADABM_BODY)
    folder = tmp_path_factory.mktemp("routed") / "model"
    export_upscaler(network, stock, folder, tile=TILE, scale=2, overlap=RADIUS)
    return folder


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth on the left, ever rougher to the right."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = 127 + 90 * np.sin(0.004 * x**2 + 0.1 * y)[..., None] * generator.uniform(0.5, 1, 3)
    return np.clip(waves + generator.normal(0, 4, (height, width, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(32, 40), (33, 41), (75, 90), (40, 200), (130, 40)])
def test_tiles_leave_no_seam(static: Path, size: tuple[int, int]) -> None:
    image = photo(*size)
    tiled = Upscaler(static, threads=1)
    whole = Upscaler(static, threads=1, tile="image")
    first, second = tiled.upscale(image), whole.upscale(image)
    assert first.shape == (2 * size[0], 2 * size[1], 3)
    assert len(whole.last_routes) == 1
    assert (size == TILE) == (len(tiled.last_routes) == 1)
    # the same integers everywhere; float rounding may move a value over an edge, never a whole region
    difference = np.abs(first.astype(int) - second)
    assert difference.max() <= 2
    assert (difference > 0).mean() < 0.002


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fitted tiles of 2,500 pixels at most."""
    monkeypatch.setattr("qsci_plugins.openvino.graphs.most_pixels", lambda model, size: 2500)


@pytest.mark.parametrize("size", [(32, 40), (75, 90), (31, 200)])
@pytest.mark.usefixtures("little_memory")
def test_fitted_tiles_leave_no_seam_and_compute_less(static: Path, size: tuple[int, int]) -> None:
    image = photo(*size)
    fitted, exported = Upscaler(static, threads=1, tile="fit"), Upscaler(static, threads=1)
    first, second = fitted.upscale(image), Upscaler(static, threads=1, tile="image").upscale(image)
    exported.upscale(image)
    difference = np.abs(first.astype(int) - second)
    assert difference.max() <= 2
    assert (difference > 0).mean() < 0.002
    areas = [sum(route.height * route.width for route in upscaler.last_routes) for upscaler in (fitted, exported)]
    assert (len(fitted.last_routes) == 1) == (size == TILE)
    assert areas[0] < areas[1] or size == TILE
    assert all(route.height * route.width <= 2500 for route in fitted.last_routes)


@pytest.mark.usefixtures("little_memory")
def test_fitted_tiles_take_the_routes_of_their_own_gradients(routed: Path) -> None:
    image = photo(60, 220)
    upscaler = Upscaler(routed, threads=1, tile="fit")
    first = upscaler.upscale(image)
    manifest = load_manifest(routed)
    assert len({route.factor for route in upscaler.last_routes}) > 1
    for route in upscaler.last_routes:
        tile = image[route.y : route.y + route.height, route.x : route.x + route.width]
        assert route.factor == route_factor(tile_gradient(tile), *manifest.thresholds)
    # graphs whose memory was released in between say the same again
    assert np.array_equal(upscaler.upscale(image), first)
    rows, columns = upscaler.plan(60, 220)
    assert [(route.y, route.x) for route in upscaler.last_routes] == [
        (y, x) for y in rows.starts for x in columns.starts
    ]


@TWO_CORES
@pytest.mark.parametrize("tile", ["fit", None])
@pytest.mark.usefixtures("little_memory")
def test_streams_reach_openvino_and_change_no_pixel(routed: Path, tile: Tile | None) -> None:
    image = photo(60, 220)
    expected = Upscaler(routed, threads=2, tile=tile).upscale(image)
    for streams in (1, 2):
        upscaler = Upscaler(routed, threads=2, tile=tile, streams=streams)
        assert np.array_equal(upscaler.upscale(image), expected)
        assert len(upscaler.last_routes) > 3
        assert len(upscaler._graphs.compiled) > 1
        for compiled in upscaler._graphs.compiled.values():
            assert compiled.model.get_property("NUM_STREAMS") == streams == compiled.count


@TWO_CORES
def test_one_tile_alone_has_all_threads(routed: Path) -> None:
    upscaler = Upscaler(routed, threads=2, streams=2)
    upscaler.upscale(photo(*TILE))
    (compiled,) = upscaler._graphs.compiled.values()
    assert compiled.model.get_property("NUM_STREAMS") == 1
    assert compiled.model.get_property("INFERENCE_NUM_THREADS") == 2


def test_less_context_than_the_network_looks_at_shows(static: Path) -> None:
    image = photo(75, 90)
    whole = Upscaler(static, threads=1, tile="image").upscale(image)
    blind = Upscaler(static, threads=1, overlap=0).upscale(image)
    assert np.abs(blind.astype(int) - whole).max() > 4


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (7, 3), (31, 39), (32, 300)])
def test_sizes_below_a_tile(routed: Path, size: tuple[int, int]) -> None:
    image = photo(*size)
    result = Upscaler(routed, threads=1).upscale(image)
    assert result.shape == (2 * size[0], 2 * size[1], 3)
    assert result.dtype == np.uint8


def test_every_tile_takes_the_route_of_its_gradient(routed: Path) -> None:
    image = photo(60, 220)
    upscaler = Upscaler(routed, threads=1)
    result = upscaler.upscale(image)
    manifest = load_manifest(routed)
    routes = upscaler.last_routes
    assert {route.factor for route in routes} == {-1, 0, 1}
    for route in routes:
        tile = image[route.y : route.y + route.height, route.x : route.x + route.width]
        assert route.gradient == tile_gradient(tile)
        assert route.factor == route_factor(route.gradient, *manifest.thresholds)
        assert route.bits == manifest.route(route.factor).fab
    # a corner belongs to one tile alone, and is what that tile's route makes of it
    for corner in (routes[0], routes[-1]):
        tile = image[corner.y : corner.y + 32, corner.x : corner.x + 40]
        alone = Upscaler(routed, threads=1)
        expected = alone.upscale(np.ascontiguousarray(tile))
        assert [route.factor for route in alone.last_routes] == [corner.factor]
        y, x = 2 * corner.y + (20 if corner.y else 0), 2 * corner.x + (30 if corner.x else 0)
        inner = slice(y - 2 * corner.y, y - 2 * corner.y + 40), slice(x - 2 * corner.x, x - 2 * corner.x + 50)
        assert np.array_equal(result[y : y + 40, x : x + 50], expected[inner])


def test_routes_differ_and_are_those_of_the_quantized_network(routed: Path, tmp_path: Path) -> None:
    stock, network = calibrated_edsr({}, ADABM_BODY)
    for image in (photo(32, 40) // 8 + 100, photo(32, 300)[:, -40:]):
        image = np.ascontiguousarray(image)
        upscaler = Upscaler(routed, threads=1)
        actual = upscaler.upscale(image)
        with torch.no_grad():
            x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
            expected = network.model(x)[0].permute(1, 2, 0).clamp(0, 255).round()
            fab = network.fab(x).item()
            lost = (expected - stock(x)[0].permute(1, 2, 0).clamp(0, 255)).abs().mean().item()
        # far nearer to the quantized network in torch than that one is to the float network
        assert np.abs(actual - expected.numpy()).mean() < 0.2 * lost
        assert upscaler.last_routes[0].bits == pytest.approx(fab)


@pytest.mark.parametrize("size", [(1, 1), (9, 40), (20, 13)])
def test_a_small_image_has_the_border_that_the_network_knows(static: Path, size: tuple[int, int]) -> None:
    _, network = calibrated_edsr({"weight_bits": 8, "activation_bits": 8}, EVERYWHERE)
    force_factor(network, 0)
    image = photo(*size)
    with torch.no_grad():
        output = network.model(torch.from_numpy(image).permute(2, 0, 1)[None].float())
    expected = output[0].permute(1, 2, 0).clamp(0, 255).round().numpy()
    difference = np.abs(Upscaler(static, threads=1).upscale(image) - expected)
    assert np.median(difference) == 0
    assert difference.mean() < 0.2


def test_a_network_bound_to_its_size_gets_mirrored_images(tmp_path: Path) -> None:
    stock = Bound(TILE)
    network = plain_apply(stock, {"name": "adabm", "image_mapping": False}, EVERYWHERE, 255.0)
    calibrate(network, [torch.rand(2, 3, *TILE) * 255])
    export_upscaler(network, stock, tmp_path / "m", tile=TILE, scale=1, overlap=1, mode="static")
    for settings in ({}, {"tile": "image"}, {"tile": "fit"}):
        upscaler = Upscaler(tmp_path / "m", threads=1, **settings)
        for size in ((1, 1), (20, 13), TILE, (60, 50)):
            assert upscaler.upscale(photo(*size)).shape == (*size, 3)


def test_strips_make_up_the_image_and_progress_counts_tiles(routed: Path) -> None:
    image = photo(150, 100)
    upscaler = Upscaler(routed, threads=1)
    reported: list[tuple[int, int]] = []
    strips = list(upscaler.strips(image, lambda done, total: reported.append((done, total))))
    assert len(strips) > 3
    assert np.array_equal(np.concatenate(strips), upscaler.upscale(image))
    assert [done for done, _ in reported] == list(range(1, len(reported) + 1))
    assert {total for _, total in reported} == {len(reported)} == {len(upscaler.last_routes)}


def test_two_images_of_different_sizes_as_wholes(static: Path) -> None:
    upscaler = Upscaler(static, threads=1, tile="image")
    for size in ((20, 30), (45, 17), (20, 30)):
        assert upscaler.upscale(photo(*size)).shape == (2 * size[0], 2 * size[1], 3)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3), (4, 4, 1)])
def test_other_arrays_are_refused(static: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="8-bit RGB"):
        Upscaler(static, threads=1).upscale(np.zeros(shape, np.uint8))
    with pytest.raises(UserError, match="float32"):
        Upscaler(static, threads=1).upscale(np.zeros((4, 4, 3), np.float32))


def test_bad_settings_are_refused(static: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too small for an overlap"):
        Upscaler(static, tile=(20, 20))
    with pytest.raises(UserError, match="no model folder"):
        Upscaler(tmp_path)
    with pytest.raises(UserError, match="streams is 0; give 1 or more"):
        Upscaler(static, streams=0)


def test_a_cache_folder_keeps_compiled_graphs(static: Path, tmp_path: Path) -> None:
    first = Upscaler(static, threads=1, cache_dir=tmp_path / "cache").upscale(photo(32, 40))
    assert list((tmp_path / "cache").glob("*.blob"))
    second = Upscaler(static, threads=1, cache_dir=tmp_path / "cache").upscale(photo(32, 40))
    assert np.array_equal(first, second)


def test_two_processes_share_a_model_folder_and_a_cache(routed: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "photo.npy", photo(48, 64))
    program = """
import sys, time
from pathlib import Path
import numpy as np
from qsci_plugins.openvino.runtime import Upscaler
model, out, other = map(Path, sys.argv[1:])
out.with_suffix(".ready").touch()
while not other.with_suffix(".ready").exists():
    time.sleep(0.01)
for _ in range(3):
    enlarged = Upscaler(model, threads=1, cache_dir="cache").upscale(np.load("photo.npy"))
np.save(out, enlarged)
"""
    names = ["a.npy", "b.npy"]
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(routed), own, other], cwd=tmp_path)
        for own, other in (names, names[::-1])
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    expected = Upscaler(routed, threads=1).upscale(photo(48, 64))
    assert all(np.array_equal(np.load(tmp_path / name), expected) for name in names)


def test_graphs_are_compiled_with_the_cache_to_itself(
    routed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl", reason="the system has no advisory locks")
    original, held = openvino.Core.compile_model, []

    def compile_model(*arguments: Any) -> Any:
        with (tmp_path / "cache" / LOCK).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(True)
        return original(*arguments)

    monkeypatch.setattr(openvino.Core, "compile_model", compile_model)
    Upscaler(routed, threads=1, cache_dir=tmp_path / "cache").upscale(photo(48, 64))
    assert held
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cache folder .*file cannot be used"):
        Upscaler(routed, threads=1, cache_dir=tmp_path / "file").upscale(photo(48, 64))


def test_a_deployed_machine_needs_no_torch(routed: Path, tmp_path: Path) -> None:
    program = f"""
import sys
from qsci_plugins.openvino.runtime import Upscaler
import numpy as np
print(Upscaler({str(routed)!r}, threads=1).upscale(np.zeros((5, 6, 3), np.uint8)).shape)
needless = [name for name in ("torch", "nncf", "brevitas", "pydantic", "qsci_plugins.schemes") if name in sys.modules]
print(needless)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines() == ["(10, 12, 3)", "[]"]
