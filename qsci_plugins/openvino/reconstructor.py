"""Reconstructs video from snapshot measurements of any size with a model folder; needs openvino, numpy and Pillow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from qsci_plugins.data.snapshots import mask_sum
from qsci_plugins.errors import UserError
from qsci_plugins.openvino.compiling import compile_graph, device_settings, openvino_errors, read_graph
from qsci_plugins.openvino.gradient import measurement_gradient, route_factor
from qsci_plugins.openvino.graphs import Requests
from qsci_plugins.openvino.manifest import StoredFile, load_manifest, read_stored
from qsci_plugins.openvino.precisions import Precision, allowed
from qsci_plugins.openvino.tiling import DEFAULT_BLEND, cut_tile, join, plan_axis, video_period

__all__ = ["Reconstructor"]

Floats = NDArray[np.float32]


class Reconstructor:
    """A model folder of the task "sci" and a mask, ready to run.

    `mask` is (T,H,W) of 0..1, T the model's `frames`, H and W of any size. `threads`, `streams`, `precision` and
    `cache_dir` are those of `device_settings`. `overlap`: context around a tile in pixels, default the manifest's. A
    measurement of another size than the model's tile is cut into overlapping tiles that fade into each other, or
    mirrored up to one tile; the tiles of a row run at once. Several threads may use one at the same time: their
    tiles share its requests, and each gets what it would get alone. Raises UserError for a folder that `load_manifest`
    refuses or that holds another network, and for a mask of another number of frames.

    >>> import numpy as np
    >>> import qsci_plugins
    >>> recipe = qsci_plugins.make_recipe(
    ...     {
    ...         "version": 1,
    ...         "model": {"weights": "builtin:efficientsci_small"},
    ...         "scheme": {"name": "adabm", "weight_bits": 8, "activation_bits": 8, "reconstruct_weights": False},
    ...         "clips": {"frames": 8, "size": 32},
    ...         "calibrate": {"count": 1, "patch": 32, "batch": 1},
    ...         "export": {"openvino": {"mode": "static", "tile": [32, 32]}},
    ...     }
    ... )
    >>> model = qsci_plugins.run(recipe, "runs/video") / "model"
    >>> reconstructor = qsci_plugins.Reconstructor(model, mask=np.ones((8, 32, 32)))
    >>> reconstructor.reconstruct(np.full((32, 32), 4.0)).shape
    (8, 32, 32)
    """

    def __init__(
        self,
        folder: Path | str,
        mask: NDArray[np.floating],
        device: str = "CPU",
        threads: int | None = None,
        precision: Precision | None = None,
        overlap: int | None = None,
        streams: int | None = None,
        cache_dir: Path | str | None = None,
    ) -> None:
        self.manifest = load_manifest(folder)
        if self.manifest.task != "sci":
            raise UserError(f"{folder} holds a network that enlarges images; give it to `qsci upscale`")
        if mask.ndim != 3 or len(mask) != self.manifest.frames:
            raise UserError(
                f"the mask is for {len(mask) if mask.ndim == 3 else 1} frames in one measurement,"
                f" the model in {folder} for {self.manifest.frames}"
            )
        self.overlap = self.manifest.overlap if overlap is None else overlap
        self.size = (mask.shape[1], mask.shape[2])
        multiple = video_period(self.manifest.tile)
        self._padded = (-(-self.size[0] // multiple) * multiple, -(-self.size[1] // multiple) * multiple)
        self._rows, self._columns = (
            plan_axis(length, tile, self.overlap, DEFAULT_BLEND, multiple)
            for length, tile in zip(self._padded, self.manifest.tile, strict=True)
        )
        # (H,W,T), as tiles are cut from images
        self._mask = mask.transpose(1, 2, 0).astype(np.float32)
        core = openvino.Core()
        settings = device_settings(
            self.manifest, device, threads=threads, streams=streams, precision=precision, cache_dir=cache_dir
        )
        weights = read_stored(folder, self.manifest.weights)
        self._requests = {}
        for entry in {route.graph for route in self.manifest.routes}:
            file = Path(folder) / entry.name
            graph = read_graph(core, file, read_stored(folder, entry), weights, self.manifest)
            with openvino_errors(file):
                compiled = compile_graph(
                    core,
                    graph,
                    device,
                    precision=allowed(precision, self.manifest.precision),
                    hint="LATENCY" if self.tiles == 1 else "THROUGHPUT",
                    settings=settings,
                    # in a comparison graphs that are no scheme's run as OpenVINO alone runs them
                    exact="scheme" in self.manifest.about,
                )
                self._requests[entry] = Requests(compiled, file)

    @property
    def tiles(self) -> int:
        """How many tiles a measurement is cut into."""
        return len(self._rows.starts) * len(self._columns.starts)

    def reconstruct(self, measurement: Floats, progress: Callable[[int, int], None] | None = None) -> Floats:
        """The frames (T,H,W), or in colour (3,T,H,W), of a measurement (H,W) of frames in 0..1. Not clamped.

        `progress(done, total)` is called after every tile. Raises UserError for another size than the mask's.
        """
        if measurement.shape != self.size:
            raise UserError(
                f"the measurement is {_size(measurement.shape)} pixels, the mask {_size(self.size)};"
                " they must be of one camera"
            )
        rows = list(join(self._tile_rows(measurement, progress or _ignore), self._rows, 1, 0))
        pixels = np.concatenate(rows)[: self.size[0], : self.size[1]]
        frames = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
        return frames if self.manifest.channels == 1 else frames.reshape(3, -1, *self.size)

    def stream(self, measurements: Iterable[Floats]) -> Iterator[Floats]:
        """The frames of one measurement after the other, as they come; holds one at a time."""
        for measurement in measurements:
            yield self.reconstruct(measurement)

    def _tile_rows(self, measurement: Floats, progress: Callable[[int, int], None]) -> Iterator[Floats]:
        """Each row of tiles (H,W,T), joined along its columns."""
        scene = np.concatenate([self._mask, measurement[..., None].astype(np.float32)], axis=2)
        scene = cut_tile(scene, 0, 0, *self._padded)
        for index, y in enumerate(self._rows.starts):
            tiles = [cut_tile(scene, y, x, *self.manifest.tile) for x in self._columns.starts]
            before = index * len(tiles)
            row = self._run(tiles, lambda done, before=before: progress(before + done, self.tiles))  # type: ignore[misc]
            yield np.concatenate(list(join(row, self._columns, 1, 1)), axis=1)

    def _run(self, tiles: list[Floats], on_tiles: Callable[[int], None]) -> list[Floats]:
        """The reconstructions (H,W,T) or (H,W,3*T) of tiles (H,W,T+1) of mask and measurement, route by route."""
        by_graph: dict[StoredFile, list[tuple[int, dict[str, Floats]]]] = {}
        for index, tile in enumerate(tiles):
            graph, inputs = self._inputs(tile)
            by_graph.setdefault(graph, []).append((index, inputs))
        results: dict[int, Floats] = {}
        for graph, jobs in by_graph.items():
            finished = self._requests[graph].run(inputs for _, inputs in jobs)
            for (index, _), request in zip(jobs, finished, strict=True):
                output = request.get_output_tensor(0).data[0]
                pixels = np.moveaxis(output.reshape(-1, *output.shape[-2:]), 0, -1)
                results[index] = np.ascontiguousarray(pixels / np.float32(self.manifest.value_range))
                on_tiles(len(results))
        return [results[index] for index in range(len(tiles))]

    def _inputs(self, tile: Floats) -> tuple[StoredFile, dict[str, Floats]]:
        """The graph for a tile, and what it takes."""
        white, thresholds = self.manifest.value_range, self.manifest.thresholds
        mask = np.ascontiguousarray(tile[..., :-1].transpose(2, 0, 1))
        measurement = np.ascontiguousarray(tile[..., -1] * np.float32(white))
        factor = 0 if thresholds is None else route_factor(measurement_gradient(measurement, white), *thresholds)
        inputs = {"measurement": measurement[None], "mask": mask[None], "mask_sum": mask_sum(mask)[None]}
        return self.manifest.route(factor).graph, inputs


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, reversed(shape)))


def _ignore(done: int, total: int) -> None:
    pass
