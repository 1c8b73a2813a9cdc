from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from qsci_plugins.architectures import checkpoint
from qsci_plugins.architectures.checkpoint import read_checkpoint
from qsci_plugins.architectures.registry import load_network
from qsci_plugins.errors import UserError


@pytest.fixture
def state() -> dict[str, Tensor]:
    return load_network("edsr", None, 2, blocks=1, width=4).module.state_dict()


def _prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"params": state},
        lambda state: {"params": {}, "params_ema": state},
        lambda state: {"state_dict": _prefixed(state, "module."), "epoch": 3, "optimizer": {"lr": 1.0}},
        lambda state: {"model": {"state_dict": state}},
        lambda state: _prefixed(state, "module.model."),
        lambda state: _prefixed(state, "_orig_mod."),
        lambda state: {**state, "epoch": 7, "settings": {"width": 4}},
    ],
    ids=["plain", "params", "ema", "lightning", "nested", "prefixes", "compiled", "with extras"],
)
def test_common_wrappers_are_taken_off(wrap: Any, state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(wrap(state), tmp_path / "it.pth")
    read = read_checkpoint(tmp_path / "it.pth")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], state[name]) for name in state)


def test_averaged_weights_come_before_the_others(state: dict[str, Tensor], tmp_path: Path) -> None:
    zeros = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    torch.save({"model": zeros, "average": state, "step": 9}, tmp_path / "state.pt")
    assert torch.equal(read_checkpoint(tmp_path / "state.pt")["head.0.weight"], state["head.0.weight"])


def test_half_precision_becomes_float32(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file({name: tensor.half() for name, tensor in state.items()}, tmp_path / "half.safetensors")
    assert {tensor.dtype for tensor in read_checkpoint(tmp_path / "half.safetensors").values()} == {torch.float32}


def test_the_old_file_format_is_read(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert read_checkpoint(tmp_path / "old.pth").keys() == state.keys()


class _Harmful:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch was-run",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_does_not_run(
    zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": _Harmful()}, tmp_path / "bad.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"bad\.pth is refused: it holds Python code .*system.*Save the weights alone"):
        read_checkpoint(tmp_path / "bad.pth")
    assert not (tmp_path / "was-run").exists()


def test_a_pickled_module_is_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.save(nn.Conv2d(3, 3, 1), tmp_path / "module.pth")
    with pytest.raises(UserError, match=r"holds Python code.*model\.state_dict\(\)"):
        read_checkpoint(tmp_path / "module.pth")


def test_a_torchscript_archive_is_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Conv2d(3, 3, 1)), tmp_path / "script.pt")
    with pytest.raises(UserError, match="TorchScript"):
        read_checkpoint(tmp_path / "script.pt")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello, this is a text file\n", b"\x89PNG\r\n\x1a\n" + bytes(64)])
def test_something_else_is_not_a_checkpoint(suffix: str, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / f"it{suffix}"
    file.write_bytes(content)
    with pytest.raises(UserError, match=rf"it\{suffix} is not a checkpoint, or a damaged one") as raised:
        read_checkpoint(file)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_named(suffix: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / f"cut{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(dict(state), file)
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(UserError, match=rf"cut\{suffix} is not a checkpoint, or a damaged one"):
        read_checkpoint(file)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.zeros(2)], torch.zeros(3), {"model": {"lr": 1.0}}])
def test_a_file_without_tensors_by_name_is_no_state_dict(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "it.pt")
    with pytest.raises(UserError, match="holds no state dict"):
        read_checkpoint(tmp_path / "it.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_not_finite_is_named(value: float, state: dict[str, Tensor], tmp_path: Path) -> None:
    state["body.0.body.2.weight"][1, 2, 0, 0] = value
    torch.save(state, tmp_path / "it.pt")
    with pytest.raises(UserError, match=r"it\.pt: body\.0\.body\.2\.weight holds NaN or infinite"):
        read_checkpoint(tmp_path / "it.pt")


def test_a_missing_file_names_the_nearest(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "edsr_x2.pth")
    with pytest.raises(UserError, match=r"no weights file .*edsr_x3\.pth; nearest: .*edsr_x2\.pth"):
        read_checkpoint(tmp_path / "edsr_x3.pth")
    with pytest.raises(UserError, match="nor a folder"):
        read_checkpoint(tmp_path / "nowhere" / "it.pth")
    with pytest.raises(UserError, match="is a folder"):
        read_checkpoint(tmp_path)


def test_built_in_weights_are_found_by_name(
    state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").mkdir()
    save_file(dict(state), tmp_path / "weights" / "tiny_x2.safetensors")
    monkeypatch.setattr(checkpoint, "files", lambda package: tmp_path)
    assert checkpoint.builtin_weights() == ["tiny_x2"]
    assert read_checkpoint("builtin:tiny_x2").keys() == state.keys()
    for name in ("tiny", "../weights/tiny_x2", ""):
        with pytest.raises(UserError, match=r"no built-in weights .*there are: builtin:tiny_x2"):
            read_checkpoint(f"builtin:{name}")


def test_an_installation_without_built_in_weights_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "files", lambda package: tmp_path)
    with pytest.raises(UserError, match="there are: none"):
        read_checkpoint("builtin:edsr_x4")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.eye(4).to_sparse(), "is sparse"),
        (torch.eye(4).to_sparse_csr(), "is sparse"),
        (torch.empty(4, device="meta"), "has no values"),
        (torch.ones(4, dtype=torch.complex64), "holds complex numbers"),
        (torch.zeros(1).expand(10**12), r"x \(1000000000000\) its tensors take more than the limit of 4 GiB"),
    ],
)
def test_only_plain_tensors_are_weights(state: dict[str, Tensor], tmp_path: Path, tensor: Tensor, message: str) -> None:
    torch.save({**state, "x": tensor}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=message):
        read_checkpoint(tmp_path / "w.pth")


def test_a_state_dict_that_holds_itself_is_read_once(state: dict[str, Tensor], tmp_path: Path) -> None:
    itself: dict[str, Any] = {**state}
    itself["state_dict"] = itself
    torch.save(itself, tmp_path / "w.pth")
    assert read_checkpoint(tmp_path / "w.pth").keys() == state.keys()


def test_truth_values_are_no_weights(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({name: tensor.bool() for name, tensor in state.items()}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="every tensor is of truth values"):
        read_checkpoint(tmp_path / "w.pth")
