"""The settings of `qsci upscale` besides its files, for images, clips and raw frames alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qsci_plugins.openvino.runtime import Precision, Tile, Upscaler

__all__ = ["UpscaleSettings", "model_folder"]


@dataclass(frozen=True)
class UpscaleSettings:
    """The options of `upscale`, `upscale_video` and `upscale_raw`; each takes them as keywords too.

    `force`: replace existing files. `threads`, `streams`, `cache_dir`, `precision` and `tile` are `Upscaler`'s; by default
    tiles are fitted to each image. `preview`: enlarge this many seconds of a clip, to learn how long the whole would take.
    `cluster`: "local", "auto" or "HOST:PORT" of a Ray cluster, whose workers take `threads` cores each, by default one;
    `jobs`: how many workers, by default as many as it has cores for.
    """

    force: bool = False
    threads: int | None = None
    streams: int | None = None
    cache_dir: str | Path | None = None
    precision: Precision = "auto"
    tile: Tile | None = "fit"
    preview: float | None = None
    cluster: str | None = None
    jobs: int | None = None

    def changed(self, options: dict[str, Any]) -> UpscaleSettings:
        """These settings with some options replaced; TypeError for one that does not exist."""
        unknown = sorted(set(options) - set(self.__dataclass_fields__))
        if unknown:
            raise TypeError(
                f"unexpected keyword argument {unknown[0]!r}; options are {', '.join(self.__dataclass_fields__)}"
            )
        return UpscaleSettings(**{**self.__dict__, **options})

    def upscaler(self, model: str | Path) -> Upscaler:
        """The network in a run's output, or in the model folder itself.

        Raises UserError where there is none.
        """
        from qsci_plugins.openvino.runtime import Upscaler

        return Upscaler(
            model_folder(Path(model)),
            precision=self.precision,
            threads=self.threads,
            streams=self.streams,
            cache_dir=self.cache_dir,
            tile=self.tile,
        )


def model_folder(path: Path) -> Path:
    """The model folder that a run's output holds, that of builtin:NAME, or `path` itself."""
    from qsci_plugins.openvino.builtin import find_model_folder

    return find_model_folder(path)
