"""The forms of a run that a benchmark compares, described so that any process can open them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from qsci_plugins.comparing.contenders import plain_graphs_of
from qsci_plugins.comparing.fingerprints import file_fingerprint, fingerprint
from qsci_plugins.comparing.subjects import NetworkShape, Subject
from qsci_plugins.evaluation.complexity import ops
from qsci_plugins.machine import describe_gpu
from qsci_plugins.pipeline.networks import device_of, full_precision, move_networks
from qsci_plugins.pipeline.output import CHECKPOINT
from qsci_plugins.pipeline.prepare import tile_overlap
from qsci_plugins.pipeline.run import MODEL
from qsci_plugins.pipeline.task import Loaded, PieceResult, PieceSet, Task, task_named
from qsci_plugins.progress import Progress
from qsci_plugins.schemes.backend import load_backend

__all__ = ["FormSource", "PieceWork", "SetSource", "close_form", "forms_of", "measure_piece", "write_default_graph"]

Kind = Literal["float", "nncf", "torch", "openvino"]

#: the counts of operations that come with a piece, as `evaluation.complexity` names them
_COUNTS = ("cadyq_bitops", "weight_activation_bitops")


@dataclass(frozen=True)
class OpenForm:
    """A form in memory; `counts` gives the operations at the bits of what was scored last, `fab` bits that never change."""

    form: Any
    counts: Callable[[], Mapping[str, float]] = field(default=dict)
    fab: float | None = None


@dataclass(frozen=True)
class FormSource:
    """A form by its kind, where it comes from, and a fingerprint of everything that decides its output."""

    kind: Kind
    subject: Subject
    fingerprint: str
    #: the folder of NNCF's default INT8
    graph: Path | None = None
    #: where it runs
    device: str = "cpu"

    def open(self) -> OpenForm:
        """Loads it. One thread computes, so that results do not depend on how many processes share the work."""
        task, recipe, run = self.subject.task, self.subject.recipe, self.subject.run
        if self.kind == "openvino":
            return OpenForm(task.exported(run / MODEL, threads=1))
        loaded = task.load(recipe)
        if self.kind == "nncf":
            assert self.graph is not None
            graphs, overlap = plain_graphs_of(task), _overlap(task, loaded)
            return OpenForm(graphs.plain_form(self.graph, loaded, overlap, threads=1, precision="f32"), fab=8.0)
        if self.kind == "float":
            plain = ops(task.macs(loaded).float_network, {})
            known = {name: plain[name] for name in _COUNTS}
            move_networks(self.device, loaded)
            return OpenForm(task.forms(loaded, None, None)["float"], lambda: known)
        macs = task.macs(loaded)  # of the float network, before a backend touches it
        quantized = load_backend(recipe.backend).load(loaded.network.module, run / CHECKPOINT)
        move_networks(self.device, loaded, quantized)
        meter = task.meter(loaded, quantized)

        def at_the_bits_seen() -> Mapping[str, float]:
            counts = task.operations(macs, quantized, meter)["quantized"]
            meter.forget()
            return {name: counts[name] for name in _COUNTS}

        return OpenForm(task.forms(loaded, meter, None)["torch"], at_the_bits_seen)


@dataclass(frozen=True)
class SetSource:
    """Benchmark sets by what they are opened with, for networks of one task and shape."""

    task: str
    shape: NetworkShape
    data: Path | None
    names: tuple[str, ...] | None

    def open(self) -> list[PieceSet]:
        """The sets. Raises UserError for what is not there, or does not suit the network."""
        return task_named(self.task).sets([], self.shape, self.data, self.names)


@dataclass(frozen=True)
class PieceWork:
    """A form and a piece to score with it: the piece of a number, in the set of a number."""

    form: FormSource
    sets: SetSource
    set_number: int
    piece_number: int
    piece_fingerprint: str
    set_name: str


def forms_of(subject: Subject, environment: str, baselines: Path | None) -> list[FormSource]:
    """The forms of a finished run, NNCF's default among them where there is a folder for its graphs."""
    recipe, run = subject.recipe, subject.run
    device = device_of(recipe)
    in_torch = environment if device == "cpu" else fingerprint(environment, describe_gpu(device))
    forms = [FormSource("float", subject, fingerprint("float", in_torch, subject.network), device=device)]
    if baselines is not None:
        export = recipe.export.openvino
        calibration = recipe.model_dump(include={"calibrate", "clips"})
        name = fingerprint("nncf", environment, subject.network, calibration, export.tile, export.overlap)
        forms.append(FormSource("nncf", subject, name, baselines / name))
    checkpoint = file_fingerprint(run / CHECKPOINT)
    patches = recipe.model_dump(include={"inference"}).get("inference")
    name = fingerprint("torch", in_torch, subject.network, checkpoint, patches)
    forms.append(FormSource("torch", subject, name, device=device))
    if (run / MODEL).is_dir():
        model = file_fingerprint(run / MODEL)
        forms.append(FormSource("openvino", subject, fingerprint("openvino", environment, model)))
    return forms


def write_default_graph(source: FormSource) -> None:
    """NNCF's default INT8 of the float network, calibrated on the recipe's inputs, into the source's folder."""
    assert source.graph is not None
    task = source.subject.task
    recipe = source.subject.recipe.model_copy(update={"evaluate": [], "train": None})
    prepared = task.prepare(recipe, None, Progress())
    plain = plain_graphs_of(task)
    source.graph.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=source.graph.parent, prefix="unfinished-") as unfinished:
        folder = Path(unfinished) / "graph"
        plain.write_plain(plain.make_default_int8(prepared), folder, task.signature(prepared), prepared.overlap)
        folder.rename(source.graph)


def _overlap(task: Task, loaded: Loaded) -> int:
    return tile_overlap(loaded.recipe.export.openvino, loaded.float_network, task.signature(loaded).period())


_opened: tuple[FormSource, OpenForm] | None = None
_open_sets: Callable[[SetSource], Sequence[PieceSet]] = lru_cache(maxsize=1)(SetSource.open)


def measure_piece(work: PieceWork) -> PieceResult:
    """PSNR, SSIM, FAB and operations of a piece; the last form stays open in this process, alone."""
    global _opened
    if _opened is None or _opened[0].fingerprint != work.form.fingerprint:
        _opened = None  # before the next form takes memory
        _opened = work.form, work.form.open()
    opened = _opened[1]
    piece = _open_sets(work.sets)[work.set_number].pieces[work.piece_number]
    with full_precision():
        result = work.form.subject.task.score(opened.form, piece)
    fab = opened.fab if result.fab is None else result.fab
    return replace(result, fab=fab, extras={**result.extras, **opened.counts()})


def close_form() -> None:
    """Frees what `measure_piece` keeps open in this process."""
    global _opened
    _opened = None
