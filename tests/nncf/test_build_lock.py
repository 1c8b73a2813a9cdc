"""A stale lock in torch's extension cache is one line before NNCF waits for it; a build that runs is let run."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import nncf
import pytest
from nncf.quantization.algorithms.pipeline import Pipeline
from nncf.torch.function_hook.nncf_graph.nncf_graph_builder import GraphModelWrapper
from nncf.torch.function_hook.wrapper import wrap_model
from nncf.torch.quantization.extensions import QuantizedFunctionsCPULoader
from nncf_networks import batches, small_edsr

from qsci_plugins.errors import UserError
from qsci_plugins.nncf import AdaBMQuantization, build_lock, default_int8, network
from qsci_plugins.nncf.build_lock import check_build_locks


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch would make it."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr("torch.utils.cpp_extension.FileBaton", object, raising=False)  # as torch had it once
    return Path(QuantizedFunctionsCPULoader.get_build_dir()) / "lock"


def test_no_lock_is_no_matter(lock: Path) -> None:
    check_build_locks()


def test_a_lock_that_nobody_holds_is_named_at_once(lock: Path) -> None:
    lock.touch()
    begin = time.monotonic()
    with pytest.raises(UserError, match=f"{re.escape(str(lock))} was left behind .* remove that file"):
        default_int8(small_edsr(), batches())
    assert time.monotonic() - begin < 10


def test_a_file_that_torch_locks_may_stay(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("torch.utils.cpp_extension.FileBaton")
    lock.touch()
    check_build_locks()


def test_a_lock_that_a_build_holds_is_waited_for(lock: Path) -> None:
    descriptor = os.open(lock, os.O_CREAT | os.O_EXCL)  # as torch.utils.file_baton does
    try:
        check_build_locks()
    finally:
        os.close(descriptor)


def test_without_a_list_of_open_files_age_decides(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_lock, "_open_in_processes", lambda state: None)
    lock.touch()
    check_build_locks()
    os.utime(lock, (time.time() - 3600,) * 2)
    with pytest.raises(UserError, match="was left behind"):
        check_build_locks()


def test_an_algorithm_says_so_before_nncfs_own_quantizers_wait(lock: Path, caplog: pytest.LogCaptureFixture) -> None:
    """NNCF runs those whenever it looks at the network; ours need no extension, and run with the lock there."""
    lock.touch()
    model, images = small_edsr(), batches()
    ours = AdaBMQuantization(targets=["body.*"], image_mapping=False)
    (line,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert line.startswith(f"{lock} was left behind")
    quantized = Pipeline([[ours]]).run(GraphModelWrapper(wrap_model(model), images[0]), nncf.Dataset(images)).model
    assert network(quantized).calibrated()
