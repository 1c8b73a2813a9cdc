"""What `qsci doctor` says of machines, also of those that lack something."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest
import torch

import qsci_plugins
from qsci_plugins.cli import main
from qsci_plugins.commands import doctor as doctor_command

XEON = frozenset({"fpu", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"})
OLD = frozenset({"fpu", "avx2"})
ARM = frozenset({"asimd", "asimddp"})


def said(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["doctor"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "expected", "unexpected"),
    [
        (XEON, ["u8/i8 convolutions run natively", "AMX", "may run in bf16"], ["no VNNI"]),
        (
            OLD,
            ["no VNNI: exported models are exact", "no bf16 on the CPU", "avx2; without avx_vnni"],
            ["natively", "AMX tiles"],
        ),
        (ARM, ["asimd, asimddp; without i8mm, bf16", "run natively"], ["VNNI", "amx"]),
        (frozenset(), ["does not tell what its CPU can do"], ["VNNI", "features"]),
    ],
)
def test_what_follows_from_the_cpu(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    flags: frozenset[str],
    expected: list[str],
    unexpected: list[str],
) -> None:
    monkeypatch.setattr(doctor_command, "cpu_flags", lambda: flags)
    text = said(capsys)
    for part in expected:
        assert part in text, text
    for part in unexpected:
        assert part not in text, text


@pytest.mark.parametrize(("bf16", "training"), [(True, "training: bf16 on cuda:0"), (False, "training: float32")])
def test_what_follows_from_gpus(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, bf16: bool, training: str
) -> None:
    gpu = {"device": "cuda:0", "name": "Model 7", "memory_gib": 79.1, "bf16": bf16}
    monkeypatch.setattr(doctor_command, "_gpus", lambda found: ([gpu, {**gpu, "device": "cuda:1"}], ""))
    text = said(capsys)
    assert "Model 7, 79.1 GiB" in text
    assert training in text
    assert "2 GPUs: `accelerate launch --num_processes 2" in text


def test_versions_are_those_of_the_packages() -> None:
    found = qsci_plugins.doctor()
    assert found["packages"]["torch"] == version("torch")
    assert found["packages"]["nncf"] == version("nncf")
    assert (found["gpus"] == []) == (not torch.cuda.is_available())


def test_what_is_missing_is_told_with_what_it_is_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(package: str) -> str | None:
        return None if package in ("openvino", "tensorboard") else "1.0"

    monkeypatch.setattr(doctor_command, "package_version", lacking)
    text = said(capsys)
    assert "no openvino" in text
    assert "export, upscale, reconstruct, bench: pip install openvino" in text
    assert "pip install 'qsci-plugins[tensorboard]'" in text
    assert "no nncf" not in text


def test_it_works_where_only_numpy_and_pillow_are_installed() -> None:
    """Neither there to import nor in the records of what is installed."""
    code = """
import sys
from importlib import metadata
absent = {"torch", "torchvision", "nncf", "brevitas", "openvino", "openvino_telemetry", "pydantic", "yaml", "rich"}
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
real = metadata.version
def version(name):
    if name in absent:
        raise metadata.PackageNotFoundError(name)
    return real(name)
metadata.version = version
from qsci_plugins.cli import main
sys.exit(main(["doctor"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "no torch" in done.stdout
    assert "torch is not installed: no training" in done.stdout


def test_torch_that_fails_to_load_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", broken)
    assert "fails: libcudart.so.12: cannot open" in said(capsys)


def broken() -> bool:
    raise OSError("libcudart.so.12: cannot open shared object file")


def test_a_package_that_is_not_there_has_no_version() -> None:
    with pytest.raises(PackageNotFoundError):
        version("no-such-package")
    assert doctor_command.package_version("no-such-package") is None
