from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import inputs_for
from torch.overrides import TorchFunctionMode

from qsci_plugins.architectures.registry import load_network
from qsci_plugins.architectures.sci.initial import mean_plus_masked, projected
from qsci_plugins.architectures.sci.stformer import STFormerBlock
from qsci_plugins.architectures.sci.windows import merge_windows, part_windows, relative_positions, shift_mask

_NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("efficientsci", {"in_ch": 4, "units": 1, "group_num": 2}),
    ("efficientsci", {"in_ch": 2, "units": 1, "group_num": 1, "color_ch": 3}),
    ("stformer", {"dim": 4, "units": 1}),
]


@pytest.mark.parametrize(("architecture", "options"), _NETWORKS)
@pytest.mark.filterwarnings("ignore")
def test_traced_and_exported_networks_compute_the_same(architecture: str, options: dict[str, Any]) -> None:
    network = load_network(architecture, None, **options)
    inputs = inputs_for(network, height=18, width=22)
    with torch.no_grad():
        expected = network.module(*inputs)
        traced = torch.jit.trace(network.module, inputs, check_trace=False)
        assert torch.allclose(traced(*inputs), expected, atol=1e-6)
        exported = torch.export.export(network.module, inputs, strict=False).module()
        assert torch.allclose(exported(*inputs), expected, atol=1e-6)


@pytest.mark.parametrize(("architecture", "options"), _NETWORKS)
def test_a_batch_gives_what_its_samples_give_alone(architecture: str, options: dict[str, Any]) -> None:
    network = load_network(architecture, None, **options)
    inputs = inputs_for(network, height=18, width=16)
    with torch.no_grad():
        together = network.module(*inputs)
        for index in range(2):
            alone = network.module(*(part[index : index + 1] for part in inputs))
            assert torch.allclose(together[index : index + 1], alone, atol=1e-6)


@pytest.mark.parametrize(("architecture", "options"), _NETWORKS)
def test_frames_that_the_mask_has_are_frames_that_come_out(architecture: str, options: dict[str, Any]) -> None:
    network = load_network(architecture, None, **options)
    for frames in (1, 3, 8):
        with torch.no_grad():
            output = network.module(*inputs_for(network, frames=frames))
        assert output.shape[-3] == frames


class _Recorder(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(getattr(func, "__name__", str(func)))
        return func(*args, **(kwargs or {}))


def test_every_call_runs_the_same_operations() -> None:
    """Hooks find operations by the order of their calls, so that nothing may be made once and kept."""
    network = load_network("stformer", None, dim=4, units=1)
    inputs = inputs_for(network, height=18, width=22)
    shift_mask.cache_clear()
    calls = []
    for _ in range(2):
        with torch.no_grad(), _Recorder() as recorder:
            network.module(*inputs)
        calls.append(recorder.names)
    assert calls[0] == calls[1]
    assert "matmul" in calls[0] or "__matmul__" in calls[0]


def test_stformer_refuses_more_frames_than_it_has_positions_for() -> None:
    network = load_network("stformer", None, dim=4, units=1, frames=4)
    with pytest.raises(ValueError, match="at most 4 frames, and the mask has 5"):
        network.module(*inputs_for(network, frames=5))


@pytest.mark.parametrize(("shift", "first", "last"), [(0, 7, 13), (3, 3, 9)])
def test_attention_in_space_sees_its_own_window_alone(shift: int, first: int, last: int) -> None:
    torch.manual_seed(0)
    block = STFormerBlock(8, heads=2, window=7, shift=shift, frames=2)
    for parameter in block.ff.parameters():
        torch.nn.init.zeros_(parameter)  # convolutions look further
    x = torch.randn(1, 2, 18, 20, 8, requires_grad=True)
    block(x)[0, 0, 9, 8].sum().backward()
    places = x.grad.abs().sum(dim=(0, 1, 4)).nonzero()
    assert (int(places.min()), int(places.max())) == (first, last)


def test_both_first_guesses_follow_their_formulas() -> None:
    generator = torch.Generator().manual_seed(2)
    mask, y = torch.rand(2, 3, 4, 6, generator=generator), torch.rand(2, 4, 6, generator=generator)
    total = mask.sum(1)
    mean = y / total
    for t in range(3):
        m = mask[:, t]
        assert torch.allclose(mean_plus_masked(y, mask, total)[:, 0, t], mean + m * mean)
        expected = m * y + m * (y - (mask**2).sum(1) * y) / total
        assert torch.allclose(projected(y, mask, total)[:, 0, t], expected, atol=1e-6)
    binary = (mask > 0.5).float()
    total = binary.sum(1).clamp(min=1)
    assert torch.allclose(projected(y, binary, total)[:, 0], binary * (y / total)[:, None], atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 2))
def test_windows_part_and_merge_without_loss(rows: int, columns: int, height: int, width: int, batch: int) -> None:
    x = torch.arange(batch * rows * height * columns * width * 2.0).reshape(batch, rows * height, columns * width, 2)
    parted = part_windows(x, (height, width))
    assert parted.shape == (batch * rows * columns, height * width, 2)
    assert torch.equal(parted[0], x[0, :height, :width].reshape(-1, 2))
    assert torch.equal(merge_windows(parted, (height, width), (rows * height, columns * width)), x)


def test_relative_positions_are_one_number_for_each_displacement() -> None:
    index = relative_positions((2, 3))
    points = [(row, column) for row in range(2) for column in range(3)]
    number_of: dict[tuple[int, int], int] = {}
    for i, a in enumerate(points):
        for j, b in enumerate(points):
            displacement = (a[0] - b[0], a[1] - b[1])
            assert number_of.setdefault(displacement, int(index[i, j])) == int(index[i, j])
    assert sorted(number_of.values()) == list(range(3 * 5))


def test_the_mask_of_shifted_windows_parts_what_was_not_neighbours() -> None:
    height, width, window, shift = 6, 9, (3, 3), (1, 1)
    places = torch.arange(height * width).reshape(1, height, width, 1).roll((-1, -1), (1, 2))
    tokens = part_windows(places, window).squeeze(-1)
    mask = torch.from_numpy(shift_mask(height, width, window, shift))
    assert mask.shape == (6, 9, 9)
    for index, members in enumerate(tokens.tolist()):
        for i, a in enumerate(members):
            for j, b in enumerate(members):
                near = abs(a // width - b // width) < 3 and abs(a % width - b % width) < 3
                assert mask[index, i, j] == (0 if near else -100)
