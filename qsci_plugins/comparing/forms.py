"""The forms of a run that a benchmark compares, described so that any process can open them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from qsci_plugins.comparing.baseline import default_int8_form
from qsci_plugins.comparing.fingerprints import file_fingerprint, fingerprint
from qsci_plugins.comparing.subjects import NetworkShape, Subject
from qsci_plugins.pipeline.output import CHECKPOINT
from qsci_plugins.pipeline.run import MODEL, backend
from qsci_plugins.pipeline.task import PieceResult, PieceSet, Task, task_named

__all__ = ["FormSource", "PieceWork", "SetSource", "close_form", "forms_of", "measure_piece"]

Kind = Literal["float", "nncf", "torch", "openvino"]

#: the counts of operations that come with a piece, as `evaluation.complexity` names them
_COUNTS = ("cadyq_bitops", "weight_activation_bitops")


@dataclass(frozen=True)
class OpenForm:
    """A form in memory; `counts` gives the operations at the bits of what was scored last."""

    form: Any
    counts: Callable[[], Mapping[str, float]] = field(default=dict)


@dataclass(frozen=True)
class FormSource:
    """A form by its kind, where it comes from, and a fingerprint of everything that decides its output."""

    kind: Kind
    subject: Subject
    fingerprint: str
    #: NNCF's default INT8, an IR file
    graph: Path | None = None

    def open(self) -> OpenForm:
        """Loads it. One thread computes, so that results do not depend on how many processes share the work."""
        task, recipe, run = self.subject.task, self.subject.recipe, self.subject.run
        if self.kind == "openvino":
            return OpenForm(task.exported(run / MODEL, threads=1))
        loaded = task.load(recipe)
        if self.kind == "nncf":
            assert self.graph is not None
            return OpenForm(default_int8_form(task, loaded, self.graph, threads=1))
        if self.kind == "float":
            counts = self.subject.metrics.get("operations", {}).get("float", {})
            known = {name: counts[name] for name in _COUNTS if name in counts}
            return OpenForm(task.forms(loaded, None, None)["float"], lambda: known)
        quantized = backend(recipe.backend).load(loaded.network.module, run / CHECKPOINT)
        meter = task.meter(loaded, quantized)

        def at_the_bits_seen() -> Mapping[str, float]:
            counts = task.operations(loaded, quantized, meter)["quantized"]
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
    forms = [FormSource("float", subject, fingerprint("float", environment, subject.network))]
    if baselines is not None:
        export = recipe.export.openvino
        calibration = recipe.model_dump(include={"calibrate", "clips"})
        name = fingerprint("nncf", environment, subject.network, calibration, export.tile, export.overlap)
        forms.append(FormSource("nncf", subject, name, baselines / f"{name}.xml"))
    checkpoint = file_fingerprint(run / CHECKPOINT)
    patches = recipe.model_dump(include={"inference"}).get("inference")
    forms.append(FormSource("torch", subject, fingerprint("torch", environment, subject.network, checkpoint, patches)))
    if (run / MODEL).is_dir():
        model = file_fingerprint(run / MODEL)
        forms.append(FormSource("openvino", subject, fingerprint("openvino", environment, model)))
    return forms


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
    result = work.form.subject.task.score(opened.form, piece)
    return replace(result, extras={**result.extras, **opened.counts()})


def close_form() -> None:
    """Frees what `measure_piece` keeps open in this process."""
    global _opened
    _opened = None
