"""Low-bit, content-adaptive quantization of image restoration networks for NNCF and Brevitas.

Every command of `qsci` is a function here: `run`, `quantize_file`, `train`, `upscale`, `upscale_video`, `upscale_raw`,
`reconstruct`, `evaluate`, `bench`, `benchmark`, `sweep`, `make_report`, `cost`, `doctor`, `shipped_recipes` and
`read_recipe` (which validates).
`quantize`, `export`, `save` and `load` are for networks in a program of one's own. Importing the package is light; each
name brings in what it needs when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qsci_plugins.errors import UserError
from qsci_plugins.extras import missing_extra

if TYPE_CHECKING:
    from qsci_plugins.api import export, load, quantize, save
    from qsci_plugins.architectures.network import Network
    from qsci_plugins.architectures.registry import load_network
    from qsci_plugins.commands.bench import bench, bench_tiled
    from qsci_plugins.commands.benchmark import benchmark
    from qsci_plugins.commands.cost import cost
    from qsci_plugins.commands.doctor import doctor
    from qsci_plugins.commands.evaluate import evaluate
    from qsci_plugins.commands.quantize import quantize_file
    from qsci_plugins.commands.reconstruct import reconstruct
    from qsci_plugins.commands.report import make_report
    from qsci_plugins.commands.run import run
    from qsci_plugins.commands.sweep import sweep
    from qsci_plugins.commands.train import train
    from qsci_plugins.commands.upscale import upscale
    from qsci_plugins.commands.upscale_raw import upscale_raw
    from qsci_plugins.commands.upscale_video import upscale_video
    from qsci_plugins.openvino.reconstructor import Reconstructor
    from qsci_plugins.openvino.runtime import Upscaler
    from qsci_plugins.progress import Progress
    from qsci_plugins.recipes.library import find_recipe, shipped_recipes
    from qsci_plugins.recipes.reading import make_recipe, read_recipe, write_recipe
    from qsci_plugins.recipes.schema import FloatRecipe, Recipe
    from qsci_plugins.schemes.placement import Placement
    from qsci_plugins.schemes.registry import make_scheme
    from qsci_plugins.schemes.scheme import QuantizedNetwork

__version__ = "0.1.0"

__all__ = [
    "FloatRecipe",
    "Network",
    "Placement",
    "Progress",
    "QuantizedNetwork",
    "Recipe",
    "Reconstructor",
    "Upscaler",
    "UserError",
    "__version__",
    "bench",
    "bench_tiled",
    "benchmark",
    "cost",
    "doctor",
    "evaluate",
    "export",
    "find_recipe",
    "load",
    "load_network",
    "make_recipe",
    "make_report",
    "make_scheme",
    "quantize",
    "quantize_file",
    "read_recipe",
    "reconstruct",
    "run",
    "save",
    "shipped_recipes",
    "sweep",
    "train",
    "upscale",
    "upscale_raw",
    "upscale_video",
    "write_recipe",
]

#: where the names that are not imported yet come from
_HOMES = {
    "FloatRecipe": "recipes.schema",
    "Network": "architectures.network",
    "Placement": "schemes.placement",
    "Progress": "progress",
    "QuantizedNetwork": "schemes.scheme",
    "Recipe": "recipes.schema",
    "Reconstructor": "openvino.reconstructor",
    "Upscaler": "openvino.runtime",
    "bench": "commands.bench",
    "bench_tiled": "commands.bench",
    "benchmark": "commands.benchmark",
    "cost": "commands.cost",
    "doctor": "commands.doctor",
    "evaluate": "commands.evaluate",
    "export": "api",
    "find_recipe": "recipes.library",
    "load": "api",
    "load_network": "architectures.registry",
    "make_recipe": "recipes.reading",
    "make_report": "commands.report",
    "make_scheme": "schemes.registry",
    "quantize": "api",
    "quantize_file": "commands.quantize",
    "read_recipe": "recipes.reading",
    "reconstruct": "commands.reconstruct",
    "run": "commands.run",
    "save": "api",
    "shipped_recipes": "recipes.library",
    "sweep": "commands.sweep",
    "train": "commands.train",
    "upscale": "commands.upscale",
    "upscale_raw": "commands.upscale_raw",
    "upscale_video": "commands.upscale_video",
    "write_recipe": "recipes.reading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        raise missing_extra(error) from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
