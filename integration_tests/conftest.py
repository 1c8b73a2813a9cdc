"""What the tests of bad input share: a tiny recipe in an empty folder, a tiny exported network, a refused command."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable
from pathlib import Path

import environment  # noqa: F401  of tests/; what it sets must come first
import pytest

from qsci_plugins.cli import main

TINY = """version: 1
model: {architecture: edsr, scale: 2, settings: {blocks: 1, width: 8}}
scheme: {name: adabm, weight_bits: 4, activation_bits: 4}
place: {targets: ["body.*"], eight_bit: ["head.*", "tail.*"]}
calibrate: {count: 4, patch: 16, batch: 4}
evaluate: []
export: {openvino: {mode: none}}
"""


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run with a small exported network, x2."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "tiny.yaml").write_text(TINY)
    command = ["run", str(folder / "tiny.yaml"), "-o", str(folder / "run")]
    assert main([*command, "--set", "export.openvino={mode: routed, tile: [64, 96]}"]) == 0
    return folder / "run"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe that runs in a second, alone in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path / "tiny.yaml"


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail with one line, and nothing else, and returns it."""

    def run(*arguments: str | Path) -> str:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("qsci: ")]
        assert code == 2
        assert len(errors) == 1
        assert errors[0].startswith("qsci: error: ")
        return errors[0]

    return run


@pytest.fixture
def file_size_limit() -> Callable[[int], Callable[[], None]]:
    """For `preexec_fn`: a disk that takes no file larger than this."""

    def limit(size: int) -> Callable[[], None]:
        def apply() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the kernel would kill the process
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        return apply

    return limit
