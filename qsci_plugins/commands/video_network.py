"""A network for `qsci reconstruct` from whatever holds one; torch is brought in where it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from qsci_plugins.errors import UserError

__all__ = ["MaskedNetwork", "Runtime", "VideoNetwork", "open_network"]

_MANIFEST = "manifest.json"
Runtime = Literal["auto", "openvino", "torch"]


class MaskedNetwork(Protocol):
    """A network and a mask: a measurement (H,W) of frames in 0..1 becomes frames (T,H,W) or (3,T,H,W)."""

    def reconstruct(self, measurement: np.ndarray) -> np.ndarray:
        """Not clamped."""
        ...


class VideoNetwork(Protocol):
    """A network before it is given a mask; `frames` is None where it takes any number, `color` says that it makes RGB."""

    frames: int | None
    color: bool

    def behind(self, mask: np.ndarray) -> MaskedNetwork:
        """The network for measurements through a mask (T,H,W) of 0..1."""
        ...


def open_network(
    model: str | Path,
    runtime: Runtime,
    architecture: str | None,
    threads: int | None,
    streams: int | None = None,
    cache_dir: Path | str | None = None,
) -> VideoNetwork:
    """The exported network of a run or model folder, else (or for the runtime "torch") the one in torch.

    `streams` and `cache_dir` are for the former.

    Raises UserError for what holds no network that reconstructs video.
    """
    folder = next((one for one in (Path(model), Path(model) / "model") if (one / _MANIFEST).is_file()), None)
    if runtime == "openvino" and folder is None:
        raise UserError(
            f"{model} holds no exported network; export it with `qsci run`, or leave out --runtime openvino"
        )
    if folder is not None and runtime != "torch":
        return _Exported(folder, {"threads": threads, "streams": streams, "cache_dir": cache_dir})
    return _InTorch(model, architecture, threads)


class _Exported:
    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        from qsci_plugins.openvino.manifest import load_manifest

        manifest = load_manifest(folder)
        self.frames: int | None = manifest.frames
        self.color = manifest.channels == 3
        self._folder, self._settings = folder, settings
        if manifest.task != "sci":
            raise UserError(f"{folder} holds a network that enlarges images; give it to `qsci upscale`")

    def behind(self, mask: np.ndarray) -> MaskedNetwork:
        from qsci_plugins.openvino.reconstructor import Reconstructor

        return Reconstructor(self._folder, mask, precision="auto", **self._settings)


class _InTorch:
    frames: int | None = None

    def __init__(self, model: str | Path, architecture: str | None, threads: int | None) -> None:
        import torch

        from qsci_plugins.recipes.video_models import load_video_network

        if threads is not None:
            torch.set_num_threads(threads)
        self._network = load_video_network(model, architecture)
        self.color = self._network.channels == 3

    def behind(self, mask: np.ndarray) -> MaskedNetwork:
        from qsci_plugins.evaluation.reconstruction import TorchReconstructor

        return TorchReconstructor(self._network.module, mask, self._network.size_multiple)
