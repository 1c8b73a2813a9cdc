from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from qsci_plugins.architectures.network import Network
from qsci_plugins.architectures.registry import load_network
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.baselines import (
    Failed,
    PlainGraph,
    TiledGraph,
    float_graph,
    inference,
    plain_graphs,
    tile_samples,
)
from qsci_plugins.evaluation.benchmark import BenchmarkImage, BenchmarkSet
from qsci_plugins.evaluation.bit_meter import BitMeter, ImageForm, float_form
from qsci_plugins.evaluation.latency import open_graph
from qsci_plugins.evaluation.torch_networks import torch_upscaler
from qsci_plugins.nncf.backend import quantize
from qsci_plugins.pipeline.image_prepare import find_sets, pieces_of
from qsci_plugins.pipeline.image_task import ImageTask
from qsci_plugins.pipeline.measure import measure_forms
from qsci_plugins.pipeline.task import Loaded
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.schema import Benchmark
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme

NOISE = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network() -> Network:
    return load_network("edsr", None, 2, blocks=1, width=8)


class Mirror(nn.Module):
    """Nearest-neighbour enlargement that, like window attention, takes multiples of 8 alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[2] % 8 == x.shape[3] % 8 == 0
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.mark.parametrize("size", [(8, 8), (9, 15), (1, 1), (3, 17)])
def test_sizes_that_a_network_does_not_take_are_filled_up_and_cut_off(size: tuple[int, int]) -> None:
    image = NOISE[: size[0], : size[1]]
    eights = Network(Mirror(), "mirror", 2, 1.0, size_multiple=8)
    assert (torch_upscaler(eights.module, 1.0, 2, eights.valid_size)(image) == image.repeat(2, 0).repeat(2, 1)).all()


def test_bits_and_operations_of_a_quantized_network(network: Network) -> None:
    scheme = make_scheme({"name": "adabm", "weight_bits": 4, "activation_bits": 4})
    placement = Placement(("body.*",), ("head.*",))
    batch = torch.rand(2, 3, 24, 24) * 255
    quantized = quantize(network.module, scheme, placement, [batch], 255.0)
    meter = BitMeter(quantized, network)
    images = BenchmarkSet("noise", 2, (BenchmarkImage("a", NOISE), BenchmarkImage("b", NOISE // 2)))
    table = measure_forms(
        ImageTask(), {"float": float_form(network), "torch": meter.form()}, [pieces_of(images)], Progress()
    )
    row = table["noise"]["torch"]
    assert row["fab"] == pytest.approx(np.mean([image["fab"] for image in row["pieces"].values()]))
    assert row["fab"] == pytest.approx(meter.fab())
    bits = meter.bits()
    assert set(bits) == {"head.0", "body.0.body.0", "body.0.body.2", "body.1"}
    assert bits["head.0"] == (8, 8)
    assert bits["body.1"][0] == 4
    counted = [bits[name][1] for name in bits if name.startswith("body")]
    assert np.mean(counted) == pytest.approx(meter.fab())
    task = ImageTask()
    counts = task.operations(task.macs(Loaded(None, network, network)), quantized, meter)
    macs = {"head": 3 * 8 * 9, "body": 3 * 8 * 8 * 9, "tail": 8 * 32 * 9 + 4 * 8 * 3 * 9, "shift": 9 + 4 * 9}
    pixels = 360 * 640
    assert counts["input"] == [360, 640]
    assert counts["float"]["macs"] == sum(macs.values()) * pixels
    expected = macs["tail"] + macs["shift"] + macs["head"] / 16 + macs["body"] * 8 / 32 * meter.fab() / 32
    assert counts["quantized"]["cadyq_bitops"] == pytest.approx(expected * pixels)


def test_equal_pictures_have_no_number_of_decibels() -> None:
    images = BenchmarkSet("flat", 2, (BenchmarkImage("a", np.full((40, 40, 3), 9, np.uint8)),))
    form = ImageForm(lambda low: low.repeat(2, 0).repeat(2, 1))
    table = measure_forms(ImageTask(), {"float": form}, [pieces_of(images)], Progress())
    assert table["flat"]["float"]["psnr"] is None


def test_the_plain_graphs_are_the_network(network: Network) -> None:
    tile = (32, 40)
    patches = torch.from_numpy(NOISE).permute(2, 0, 1)[None, :, :24, :24].float()
    plain = {
        graph.name: graph for graph in plain_graphs(lambda: float_graph(network, tile), tile_samples(patches, tile))
    }
    assert set(plain) - {"bf16"} == {"fp32", "nncf_int8"}
    compiled = open_graph(plain["fp32"].graph, threads=1)
    tiled = TiledGraph(inference(compiled), network, tile, 6).upscale(NOISE)
    whole = torch_upscaler(network.module, 255.0, 2)(NOISE)
    inside = np.s_[:-16, :-16]  # beyond, tiles of small images see a mirror where the network sees zeros
    assert np.abs(tiled[inside].astype(int) - whole[inside]).max() <= 1
    default = open_graph(plain["nncf_int8"].graph, threads=1)
    quantized = TiledGraph(inference(default), network, tile, 6).upscale(NOISE)
    assert 0 < np.abs(quantized[inside].astype(int) - whole[inside]).mean() < 6


def test_what_fails_without_us_says_why(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("no such\n operation")

    monkeypatch.setattr("nncf.quantize", refuse)
    graphs = plain_graphs(lambda: float_graph(network, (32, 40)), [])
    assert [type(graph) for graph in graphs] == [PlainGraph] * (len(graphs) - 1) + [Failed]
    assert graphs[-1] == Failed("nncf_int8", "NNCF default INT8", "ValueError: no such operation")
    graphs = plain_graphs(refuse, [])
    assert {graph.name for graph in graphs} - {"bf16"} == {"fp32", "nncf_int8"}
    assert {graph.reason for graph in graphs} == {"ValueError: no such operation"}


def test_standard_sets_are_added_where_the_data_has_them(tmp_path) -> None:
    from qsci_plugins.data import write_image

    for name in ("Set5", "B100"):
        (tmp_path / "benchmark" / name / "HR").mkdir(parents=True)
        write_image(tmp_path / "benchmark" / name / "HR" / "a.png", NOISE)
    named = [Benchmark.model_validate({"set": "builtin"})]
    assert [each.name for each in find_sets(named, tmp_path, 2)] == ["builtin", "Set5", "B100"]
    assert [each.name for each in find_sets(named, None, 2)] == ["builtin"]
    assert [each.name for each in find_sets(named, tmp_path, 2, ["B100"])] == ["B100"]
    folder = [Benchmark.model_validate({"set": "Set5", "folder": str(tmp_path)})]
    assert [each.name for each in find_sets(folder, None, 2)] == ["Set5"]
    with pytest.raises(UserError, match=r"evaluate\.0: .*Set14"):
        find_sets([Benchmark.model_validate({"set": "Set14"})], tmp_path, 2)
