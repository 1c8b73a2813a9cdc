"""The forms of a run that a benchmark compares, described so that any process can open them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import openvino

from qsci_plugins.architectures.network import Network
from qsci_plugins.comparing.log import file_fingerprint, fingerprint
from qsci_plugins.comparing.subjects import Subject
from qsci_plugins.evaluation.baselines import TiledGraph, default_int8, float_graph, inference, tile_samples
from qsci_plugins.evaluation.benchmark import BenchmarkImage, BenchmarkSet, ImageResult, evaluate_image
from qsci_plugins.evaluation.bit_meter import Form, float_form, macs_720p, quantized_operations
from qsci_plugins.evaluation.complexity import ops
from qsci_plugins.evaluation.latency import open_graph
from qsci_plugins.files import replacing
from qsci_plugins.pipeline.image_forms import bit_meter, openvino_form
from qsci_plugins.pipeline.image_prepare import Prepared, prepare, tile_overlap
from qsci_plugins.pipeline.networks import load_recipe_network
from qsci_plugins.pipeline.output import CHECKPOINT
from qsci_plugins.pipeline.run import MODEL
from qsci_plugins.recipes.schema import Recipe
from qsci_plugins.schemes.backend import load_backend

__all__ = ["FormSource", "ImageTask", "close_form", "forms_of", "measure_image", "write_default_graph"]

Kind = Literal["float", "nncf", "torch", "openvino"]

#: the counts of operations that come with an image, as `evaluation.complexity` names them
_COUNTS = ("cadyq_bitops", "weight_activation_bitops")


@dataclass(frozen=True)
class FormSource:
    """A form by its kind, where it comes from, and a fingerprint of everything that decides its output."""

    kind: Kind
    subject: Subject
    fingerprint: str
    #: NNCF's default INT8, an IR file
    graph: Path | None = None

    def open(self) -> Form:
        """Loads it. One thread computes, so that results do not depend on how many processes share the work."""
        if self.kind == "openvino":
            return openvino_form(self.subject.run / MODEL, threads=1)
        recipe = self.subject.recipe
        network = load_recipe_network(recipe.model, recipe.seed)
        if self.kind == "torch":
            return _torch_form(self.subject, network)
        if self.kind == "nncf":
            assert self.graph is not None
            compiled = open_graph(openvino.Core().read_model(self.graph), threads=1)
            tiled = TiledGraph(inference(compiled), network, _tile(recipe), tile_overlap(recipe, network))
            return Form(tiled.upscale, lambda: {"fab": 8.0})
        counts = ops(macs_720p(network)[1], {})
        plain = float_form(network)
        return Form(plain.upscale, lambda: {"fab": 32.0, **{name: counts[name] for name in _COUNTS}})


@dataclass(frozen=True)
class ImageTask:
    """One form on one image of a set."""

    form: FormSource
    image: BenchmarkImage
    set_name: str
    scale: int
    image_fingerprint: str


def forms_of(subject: Subject, environment: str, baselines: Path | None) -> list[FormSource]:
    """The forms of a finished run, NNCF's default among them where there is a folder for its graphs."""
    checkpoint = file_fingerprint(subject.run / CHECKPOINT)
    patches = None if subject.recipe.inference is None else subject.recipe.inference.model_dump()
    forms = [FormSource("float", subject, fingerprint("float", environment, subject.network))]
    if baselines is not None:
        recipe = subject.recipe
        export = recipe.export.openvino
        name = fingerprint(
            "nncf", environment, subject.network, recipe.calibrate.model_dump(), export.tile, export.overlap
        )
        forms.append(FormSource("nncf", subject, name, baselines / f"{name}.xml"))
    forms.append(FormSource("torch", subject, fingerprint("torch", environment, subject.network, checkpoint, patches)))
    if (subject.run / MODEL).is_dir():
        model = file_fingerprint(subject.run / MODEL)
        forms.append(FormSource("openvino", subject, fingerprint("openvino", environment, model)))
    return forms


def write_default_graph(source: FormSource) -> None:
    """NNCF's default INT8 of the float network, calibrated on the recipe's patches, into the source's file."""
    assert source.graph is not None
    recipe = source.subject.recipe
    prepared = prepare(recipe.model_copy(update={"evaluate": []}))
    tile, patch = _tile(recipe), recipe.calibrate.patch
    graph = _default_graph(prepared, (patch, patch))
    try:
        graph.reshape([1, prepared.network.channels, *tile])
    except RuntimeError:  # a network whose course depends on its input's size: patches are mirrored up to the tile
        graph = _default_graph(prepared, tile)
    source.graph.parent.mkdir(parents=True, exist_ok=True)
    # what is looked for, the .xml, gets its name last
    with replacing(source.graph) as structure, replacing(source.graph.with_suffix(".bin")) as weights:
        openvino.serialize(graph, structure, weights)


def _default_graph(prepared: Prepared, tile: tuple[int, int]) -> openvino.Model:
    return default_int8(float_graph(prepared.network, tile), tile_samples(prepared.patches, tile))


_opened: tuple[FormSource, Form] | None = None


def measure_image(task: ImageTask) -> ImageResult:
    """PSNR-Y, SSIM, FAB and operations of one image; the last form stays open in this process, alone."""
    global _opened
    if _opened is None or _opened[0].fingerprint != task.form.fingerprint:
        _opened = None  # before the next one takes memory
        _opened = task.form, task.form.open()
    form = _opened[1]
    images = BenchmarkSet(task.set_name, task.scale, (task.image,))
    return evaluate_image(form.upscale, task.image, images, form.extras)


def close_form() -> None:
    """Frees what `measure_image` keeps open in this process."""
    global _opened
    _opened = None


def _torch_form(subject: Subject, network: Network) -> Form:
    """The quantized network; its counts are those of the last image's bits."""
    macs = macs_720p(network)[1]  # of the float network, before a backend touches it
    quantized = load_backend(subject.recipe.backend).load(network.module, subject.run / CHECKPOINT)
    meter = bit_meter(subject.recipe, quantized, network)

    def extras() -> Mapping[str, float]:
        counts = quantized_operations(macs, quantized, meter)
        found = {"fab": meter.fab(), **{name: counts[name] for name in _COUNTS}}
        meter.forget()
        return found

    return Form(meter.upscale, extras)


def _tile(recipe: Recipe) -> tuple[int, int]:
    height, width = recipe.export.openvino.tile
    return height, width
