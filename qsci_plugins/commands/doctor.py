"""`qsci doctor`: what this machine has, and what follows from it, for a network too."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qsci_plugins.errors import UserError
from qsci_plugins.machine import cpu_flags, describe_machine, package_version

__all__ = ["add", "doctor"]

#: what a missing package takes away, and the extra that brings it; those without one belong to every installation
_PACKAGES = {
    "torch": ("all but upscale and reconstruct", "nncf,train"),
    "nncf": ("backend: nncf, and NNCF's default INT8 in tables", "nncf"),
    "brevitas": ("backend: brevitas", "brevitas"),
    "openvino": ("export, upscale, reconstruct, bench", ""),
    "numpy": ("everything", ""),
    "pillow": ("image files", ""),
    "pydantic": ("recipes", ""),
    "pyyaml": ("recipes", ""),
    "rich": ("progress bars", ""),
    "tifffile": ("TIFF files of several pages or 16 bits", ""),
    "accelerate": ("training", "train"),
    "safetensors": ("checkpoints", "train"),
    "spandrel": ("networks recognised by their checkpoints", "train"),
    "scikit-image": ("builtin:photos", "train"),
    "scikit-learn": ("builtin:photos", "train"),
    "av": ("video files", "video"),
    "scipy": (".mat files", "matlab"),
    "h5py": (".mat files of MATLAB v7.3", "matlab"),
    "onnx": ("ONNX files", "onnx"),
    "onnxscript": ("ONNX by Brevitas' exporters", "onnx"),
    "onnxoptimizer": ("ONNX by Brevitas' exporters", "onnx"),
    "tensorboard": ("curves and pictures of trainings", "tensorboard"),
    "ray": ("--cluster", "cluster"),
    "onnxruntime": ("its row in `qsci bench`", ""),
}

#: those whose versions decide what works, in their order
_VERSIONS = ("torch", "nncf", "brevitas", "openvino", "numpy", "accelerate", "spandrel", "onnx")

#: of x86 and ARM, what integer or bf16 arithmetic asks for
_FEATURES = (
    ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    ("asimd", "asimddp", "i8mm", "bf16"),
)
_DOT_PRODUCTS = {"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"}
_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = commands.add_parser("doctor", help="what this machine has, and what follows from it, also for a network")
    parser.add_argument(
        "weights", nargs="?", metavar="FILE", help="weights: what of the network can be quantized, and estimates"
    )
    parser.set_defaults(execute=_execute)


def doctor(weights: str | Path | None = None) -> dict[str, Any]:
    """What the machine has: `machine`, CPU `features` (there or not), `gpus`, `packages` (versions) and `missing` ones.

    `missing` says what each is for and how to get it; `conclusions` are sentences. A package that is missing, or fails to
    load, is reported and raises nothing. With `weights` there is `network` too: what of it can be quantized, and estimates
    (`evaluation.estimates.estimate`). Raises UserError for a file that holds no network of images.

    >>> import qsci_plugins
    >>> found = qsci_plugins.doctor()
    >>> sorted(found)
    ['conclusions', 'features', 'gpus', 'machine', 'missing', 'packages']
    >>> found["packages"]["torch"] is not None
    True
    """
    flags = cpu_flags()
    known = next((names for names in _FEATURES if flags & set(names)), ())
    features = {name: name in flags for name in known}
    packages = {name: package_version(name) for name in _VERSIONS}
    missing = {
        name: f"{purpose}: pip install {_installed(name, extra)}"
        for name, (purpose, extra) in _PACKAGES.items()
        if package_version(name) is None
    }
    gpus, trouble = _gpus(packages["torch"])
    machine = {key: value for key, value in describe_machine().items() if key not in packages}
    conclusions = [*_of_the_cpu(features, machine), *_of_gpus(gpus, trouble)]
    network = {} if weights is None else {"network": _network(Path(weights), features)}
    return {
        "machine": machine,
        "features": features,
        "gpus": gpus,
        "packages": packages,
        "missing": missing,
        "conclusions": conclusions,
        **network,
    }


def _network(weights: Path, features: Mapping[str, bool]) -> dict[str, Any]:
    from qsci_plugins.architectures.registry import load_network  # a machine without torch hears what it lacks
    from qsci_plugins.evaluation.estimates import estimate

    if not weights.is_file():
        raise UserError(f"there is no file {weights}; give the weights of a network")
    network = load_network(None, weights)
    if network.task != "sr":
        raise UserError(f"{weights} holds {network.architecture}, which reconstructs video; estimates are for images")
    there = {name for name, has in features.items() if has}
    about = {"architecture": network.architecture, "scale": network.scale}
    return {**about, **estimate(network, bool(there & _DOT_PRODUCTS))}


def _installed(name: str, extra: str) -> str:
    """What pip is given."""
    return f"'qsci-plugins[{extra}]'" if extra else name


def _gpus(torch_version: str | None) -> tuple[list[dict[str, Any]], str]:
    """What torch can compute on besides the CPU, or why there is nothing."""
    if torch_version is None:
        return [], "torch is not installed: no training, calibration or evaluation in torch"
    try:
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        gpus = []
        for index in range(count):
            about = torch.cuda.get_device_properties(index)
            with torch.cuda.device(index):
                bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
            memory = round(about.total_memory / 2**30, 1)
            gpus.append({"device": f"cuda:{index}", "name": about.name, "memory_gib": memory, "bf16": bf16})
    except (ImportError, OSError, RuntimeError) as error:
        return [], f"torch {torch_version} fails: {(str(error).splitlines() or [type(error).__name__])[0]}"
    if gpus:
        return gpus, ""
    if not Path("/proc/driver/nvidia/version").exists():
        return [], "no GPU: training, calibration and evaluation in torch run on the CPU"
    built = "is built for CPUs alone" if torch.version.cuda is None else f"(CUDA {torch.version.cuda}) cannot use it"
    return [], f"there is an NVIDIA driver, but torch {torch_version} {built}: install a torch for this driver's CUDA"


def _of_the_cpu(features: Mapping[str, bool], machine: Mapping[str, Any]) -> list[str]:
    there = {name for name, has in features.items() if has}
    if not features:
        return ["this system does not tell what its CPU can do; `qsci bench` measures what OpenVINO makes of it"]
    found = []
    if there & _DOT_PRODUCTS:
        found.append("u8/i8 convolutions run natively; exported models are exact, whatever their manifests say")
    else:
        found.append(
            "no VNNI: exported models are exact, and slower than with it; attention and grouped 3-d convolutions run in"
            " float32. A program that opens their graphs without our runtime is exact where a manifest says `exact_on: all`"
        )
    if "amx_int8" in there:
        found.append("integer convolutions run in AMX tiles")
    if there & _BF16:
        found.append("what stays in float may run in bf16 on the CPU, and fine-tuning there does")
    else:
        found.append("no bf16 on the CPU: what stays in float runs in float32 there")
    if machine["cores"] and machine["cores"] < 4:
        found.append(f"{machine['cores']} cores: another busy program beside a run costs it much of its speed")
    return found


def _of_gpus(gpus: list[dict[str, Any]], trouble: str) -> list[str]:
    if not gpus:
        return [trouble]
    first = gpus[0]
    precision = "bf16" if first["bf16"] else "float32 (this GPU has no bf16)"
    found = [
        f"training: {precision} on {first['device']}; calibration and evaluation in torch run there too, unless `device` or"
        " --device says cpu",
        "exported models run on the CPU: OpenVINO does not compute on these GPUs",
    ]
    if len(gpus) > 1:
        found.append(
            f"{len(gpus)} GPUs: `accelerate launch --num_processes {len(gpus)} -m qsci_plugins train ...` takes all"
        )
    return found


def _execute(arguments: argparse.Namespace) -> int:
    found = doctor(arguments.weights)
    if arguments.weights is None:
        print(_text(found))
        return 0
    from qsci_plugins.report.quantize_table import estimate_text

    print(estimate_text(found["network"]))
    return 0


def _text(found: Mapping[str, Any]) -> str:
    machine, features = found["machine"], found["features"]
    memory = "" if machine["memory_gib"] is None else f", {machine['memory_gib']} GiB"
    rows = [("processor", f"{machine['processor']}, {machine['cores']} cores{memory}; {machine['system']}")]
    there = [name for name, has in features.items() if has]
    lacking = [name for name, has in features.items() if not has]
    if features:
        rows.append(("features", ", ".join(there) + (f"; without {', '.join(lacking)}" if lacking else "")))
    for gpu in found["gpus"]:
        bf16 = "bf16" if gpu["bf16"] else "no bf16"
        rows.append((gpu["device"], f"{gpu['name']}, {gpu['memory_gib']} GiB, {bf16}"))
    rows.append(("python", machine["python"]))
    rows += [(name, version or "missing") for name, version in found["packages"].items()]
    rows += [(f"no {name}", needed) for name, needed in found["missing"].items()]
    width = max(len(title) for title, _ in rows)
    lines = [f"{title:<{width}}  {text}" for title, text in rows]
    return "\n".join([*lines, "", *(f"- {sentence}" for sentence in found["conclusions"])])
