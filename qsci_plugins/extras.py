"""Which extra of ours brings a package: the base runs exported networks, and what does more is asked for by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from qsci_plugins.errors import UserError

__all__ = ["EXTRAS", "MissingExtraError", "missing_extra", "naming_extras"]

#: by the name that is imported: the distribution, and the extra of pyproject.toml that brings it
EXTRAS = {
    "torch": ("torch", ""),
    "torchvision": ("torchvision", ""),
    "safetensors": ("safetensors", ""),
    "spandrel": ("spandrel", ""),
    "nncf": ("nncf", "nncf"),
    "brevitas": ("brevitas", "brevitas"),
    "pkg_resources": ("setuptools below 81", "brevitas"),
    "accelerate": ("accelerate", "train"),
    "skimage": ("scikit-image", "train"),
    "sklearn": ("scikit-learn", "train"),
    "av": ("av", "video"),
    "scipy": ("scipy", "matlab"),
    "h5py": ("h5py", "matlab"),
    "onnx": ("onnx", "onnx"),
    "onnxscript": ("onnxscript", "onnx"),
    "onnxoptimizer": ("onnxoptimizer", "onnx"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "jinja2": ("jinja2", "report"),
    "markupsafe": ("jinja2", "report"),
    "matplotlib": ("matplotlib", "report"),
    "ray": ("ray", "cluster"),
}
#: every extra that computes with torch brings these; recipes take a backend and `train`
_WITH_TORCH = "nncf,train"


class MissingExtraError(UserError, ImportError):
    """A package is not installed; the message is the line that installs it."""


def missing_extra(error: ImportError, extra: str | None = None) -> ImportError:
    """The failed import of a package that an extra brings, as the line that installs it; any other error as it is.

    `extra` brings torch for whoever asks.
    """
    name = (error.name or "").partition(".")[0]
    if isinstance(error, MissingExtraError) or name not in EXTRAS:
        return error
    distribution, its_own = EXTRAS[name]
    wanted = its_own or extra or _WITH_TORCH
    return MissingExtraError(f"this needs {distribution}: pip install 'qsci-plugins[{wanted}]'", name=error.name)


@contextmanager
def naming_extras() -> Iterator[None]:
    """Raises what `missing_extra` makes of imports that fail inside."""
    try:
        yield
    except ModuleNotFoundError as error:
        explained = missing_extra(error)
        if explained is error:
            raise
        raise explained from None
