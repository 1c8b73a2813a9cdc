"""One network at some bits: runs of its recipe that keep a loss, with layers that cost most at more bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qsci_plugins.comparing.fingerprints import fingerprint
from qsci_plugins.comparing.held_back import FLOAT_OUTPUT
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.bit_meter import costliest, layer_errors
from qsci_plugins.evaluation.complexity import FLOAT_BITS
from qsci_plugins.evaluation.estimates import expected_loss
from qsci_plugins.pipeline.metrics import read_metrics
from qsci_plugins.pipeline.networks import full_precision
from qsci_plugins.pipeline.output import CHECKPOINT, METRICS_FILE
from qsci_plugins.pipeline.run import RunResult, run_recipe
from qsci_plugins.pipeline.task import Prepared
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.making import at_bits
from qsci_plugins.recipes.reading import recipe_text
from qsci_plugins.recipes.schema import Recipe
from qsci_plugins.schemes.backend import load_backend

__all__ = ["Trial", "Trials"]

#: how often layers are raised at one bit-width
_ROUNDS = 3

#: of the error that the loss allows, what raising aims at
_MARGIN = 0.8

#: images that the cost of layers is measured on
_IMAGES = 4


@dataclass(frozen=True)
class Trial:
    """A finished run, its bits, and the layers that got 8 or stayed in float."""

    bits: int
    raised: tuple[str, ...]
    left: tuple[str, ...]
    recipe: Recipe
    folder: Path
    metrics: dict[str, Any]
    #: the set that the loss is measured on; None: it follows from `psnr`
    truth: str | None = None

    @property
    def psnr(self) -> float | None:
        """dB of the exported network's luma from the float one's, mean over images; None where they are equal."""
        found: float | None = self.metrics["sets"][FLOAT_OUTPUT]["openvino"]["psnr"]
        return found

    @property
    def least_psnr(self) -> float | None:
        """That of the worst image."""
        pieces = self.metrics["sets"][FLOAT_OUTPUT]["openvino"]["pieces"].values()
        return min((piece["psnr"] for piece in pieces if piece["psnr"] is not None), default=None)

    def quality(self, name: str) -> dict[str, float | None]:
        """dB of the float and the exported network on a set, None where they are equal to it."""
        forms = self.metrics["sets"][name]
        return {"float": forms["float"]["psnr"], "quantized": forms["openvino"]["psnr"]}

    @property
    def loss(self) -> float:
        """dB on the `truth`; without one what follows from `psnr` (`evaluation.estimates.expected_loss`).

        Networks that draw textures are no nearer to photos than blurred ones: their PSNR would reward fewer bits.
        """
        if self.truth is None:
            return 0.0 if self.psnr is None else expected_loss(self.psnr)
        before, after = self.quality(self.truth).values()
        if before is None or after is None:
            raise UserError(f"--truth: the network's output is equal to {self.truth}; there is nothing to lose")
        return before - after

    @property
    def cost(self) -> float:
        """Multiply-accumulates by the bits of both factors; where nobody counted, bits of layers, float ones included."""
        if self.metrics["operations"] is not None:
            return float(self.metrics["operations"]["quantized"]["weight_activation_bitops"])
        bits = self.metrics["bits"].values()
        return sum(layer["weight"] * layer["activation"] for layer in bits) + FLOAT_BITS**2 * len(self.left)

    def described(self) -> str:
        """A line."""
        more = [f"{len(self.raised)} layers at 8 bits"] if self.raised else []
        more += [f"{len(self.left)} layers in float"] if self.left else []
        exact = "equal to" if self.psnr is None else f"{self.psnr:.1f} dB from"
        what = ", ".join([f"W{self.bits}A{self.bits}", *more])
        return f"{what}: loss {self.loss:.3f} dB, {exact} the float network's own output"


class Trials:
    """Runs of one recipe of `network_recipe`, each in a folder of its own that a later call finds again.

    `inputs` are fingerprints of all that decides a run besides its recipe; `truth` is the set to measure the loss on.
    """

    def __init__(
        self,
        recipe: Recipe,
        prepared: Prepared,
        inputs: Mapping[str, str],
        folder: Path,
        progress: Progress,
        report: Callable[[RunResult, Path], None] | None,
        truth: str | None = None,
    ) -> None:
        self._recipe, self._prepared, self._folder = recipe, prepared, folder
        self._progress, self._report, self._truth = progress, report, truth
        self._inputs = dict(inputs)
        #: every one so far
        self.done: list[Trial] = []

    def cheapest(self, bits: Sequence[int], limit: float | None) -> Trial:
        """The cheapest trial that keeps the limit in dB, trying bit-widths in this order until one does not.

        Without a limit the first. Raises UserError where none keeps it.
        """
        if limit is None:
            return self._run(bits[0], (), ())
        best: Trial | None = None
        for width in bits:
            trial = self._keeping(width, limit, best)
            if trial is None or (best is not None and trial.cost >= best.cost):
                break
            best = trial
        if best is not None:
            return best
        least = min(self.done, key=lambda trial: trial.loss)
        raise UserError(
            f"nothing tried loses at most {limit} dB; the least, {least.loss:.3f}, is {least.described().split(':')[0]};"
            " what was tried is kept: raise --max-loss, or take more --bits, and the same output goes on"
        )

    def _keeping(self, bits: int, limit: float, best: Trial | None) -> Trial | None:
        """At these bits, with layers raised to 8 or left in float until the loss is kept or saving is over."""
        raised: tuple[str, ...] = ()
        left: tuple[str, ...] = ()
        for last in range(_ROUNDS, -1, -1):
            trial = self._run(bits, raised, left)
            if trial.loss <= limit:
                return trial
            if not last or (best is not None and trial.cost >= best.cost):
                break
            costly = self._costly(trial, _MARGIN * limit / trial.loss)
            wide = {name for name, layer in trial.metrics["bits"].items() if min(layer.values()) >= 8}
            raised += tuple(name for name in costly if name not in wide)
            left += tuple(name for name in costly if name in wide)
            if wide <= set(costly) and len(wide) == len(trial.metrics["bits"]):
                break  # nothing would be left to quantize
        return None

    def _costly(self, trial: Trial, share: float) -> list[str]:
        """The layers that have to go for the error to come down to a share of what it is."""
        network = self._prepared.network
        images = self._prepared.batches[0][:_IMAGES]
        quantized = load_backend(trial.recipe.backend).load(network.module, trial.folder / CHECKPOINT)
        with self._progress.stage("what each layer costs", 1) as advance, full_precision():
            whole, errors = layer_errors(quantized, network.module, images)
            advance(1)
        return costliest(errors, whole, share)

    def _run(self, bits: int, raised: tuple[str, ...], left: tuple[str, ...]) -> Trial:
        recipe = at_bits(self._recipe, bits, raised, left)
        key = fingerprint(recipe_text(recipe), self._inputs)[:8]
        folder = self._folder / f"w{bits}a{bits}-{key}"
        if not (folder / METRICS_FILE).is_file():
            run_recipe(recipe, folder, progress=self._progress, report=self._report, latency=False)
        trial = Trial(bits, raised, left, recipe, folder, read_metrics(folder / METRICS_FILE), self._truth)
        self.done.append(trial)
        self._progress.note(trial.described())
        return trial
