"""NNCF as a backend: puts a scheme into a stock network, calibrates it, saves it, loads it."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nncf
import nncf.torch
import torch
from nncf.quantization.algorithms.pipeline import Pipeline
from nncf.torch.function_hook.wrapper import get_hook_storage, is_wrapped, wrap_model
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.files import replacing
from qsci_plugins.nncf.algorithm import SchemeQuantization
from qsci_plugins.nncf.build_lock import check_build_locks
from qsci_plugins.nncf.hooks import network
from qsci_plugins.nncf.placement import insert, make_plan
from qsci_plugins.nncf.tracing import TracedModel
from qsci_plugins.safe_load import load_without_code
from qsci_plugins.schemes.placement import Placement, copy_folded
from qsci_plugins.schemes.scheme import QuantizedNetwork, Scheme, check_batches, inputs_of, module_device

__all__ = ["apply", "default_int8", "load", "quantize", "save"]

_FORMAT = "qsci_plugins.nncf/1"
_OURS = ("nncf.*", "qsci_plugins.*")


def apply(
    model: nn.Module, scheme: Scheme, placement: Placement, example: Tensor | Sequence[Tensor], value_range: float
) -> QuantizedNetwork:
    """Puts a scheme's quantizers into a copy of a stock network; nothing is calibrated.

    `example` (N,C,H,W) is an input that the network accepts, or all of its inputs; layers that it does not reach, or
    whose weight NNCF's graph does not show, stay float. Raises UserError where the network
    or the placement does not fit.
    """
    arguments = inputs_of(example, module_device(model))
    wrapper = TracedModel(_wrapped_copy(model), arguments[0] if isinstance(example, Tensor) else arguments)
    insert(make_plan(wrapper, wrapper.get_graph(), scheme, placement, value_range), wrapper)
    return network(wrapper.model, scheme)


def quantize(
    model: nn.Module,
    scheme: Scheme,
    placement: Placement,
    batches: Sequence[Tensor | Sequence[Tensor]],
    value_range: float,
) -> QuantizedNetwork:
    """Quantizes a copy of a stock network, calibrated on inputs (N,C,H,W) in 0..value_range by an NNCF pipeline.

    The copy is where the network is; the inputs may be elsewhere, and are moved there batch by batch.
    Raises UserError where the network, the placement or the images do not fit.
    """
    check_batches(batches, value_range)
    arguments = [inputs_of(batch) for batch in batches]
    example = inputs_of([tensor[:1].clone() for tensor in arguments[0]], module_device(model))
    wrapper = TracedModel(_wrapped_copy(model), example)
    algorithm = SchemeQuantization(scheme, placement, value_range)
    # a network may write into its input
    dataset = nncf.Dataset(arguments, lambda inputs: tuple(tensor.clone() for tensor in inputs))
    quantized = Pipeline([[algorithm]]).run(wrapper, dataset).model
    quantized.train(model.training)
    return network(quantized, scheme)


def save(quantized: QuantizedNetwork, file: Path | str) -> None:
    """Writes a calibrated network into one file, which `load` and `torch.load(weights_only=True)` read.

    Raises UserError before calibration, and where the file cannot be written; no half of it is left.
    """
    if not quantized.calibrated():
        raise UserError(f"this network is not calibrated yet, so there is nothing to save to {file}")
    content = {
        "format": _FORMAT,
        "config": json.dumps(nncf.torch.get_config(quantized.model)),
        "state_dict": quantized.model.state_dict(),
    }
    with replacing(file) as unfinished:
        torch.save(content, unfinished)


def load(model: nn.Module, file: Path | str) -> QuantizedNetwork:
    """The network that `save` wrote, in a copy of the same stock network (whose own weights do not matter).

    Raises UserError for another kind of file, and for another network's.
    """
    content = _read(Path(file))
    copied = _wrapped_copy(model)
    restored = nncf.torch.load_from_config(copied, json.loads(content["config"]), allowed_modules=_OURS)
    try:
        restored.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise UserError(f"{file} holds another network's quantizers: {error}") from None
    return network(restored)


def default_int8(model: nn.Module, batches: Sequence[Tensor | Sequence[Tensor]]) -> nn.Module:
    """What `nncf.quantize` makes of a copy of a torch network without any setting.

    Tables show what it makes of the OpenVINO model instead (`evaluation.baselines.default_int8_graph`), which loses less.
    Raises UserError for a lock on which NNCF's quantizers would wait.
    """
    check_build_locks()
    copied, device = copy.deepcopy(model).eval(), module_device(model)
    dataset = nncf.Dataset(batches, lambda batch: inputs_of(batch, device))
    return nncf.quantize(copied, dataset, subset_size=len(batches))


def _wrapped_copy(model: nn.Module) -> nn.Module:
    """A copy that NNCF can put hooks into, after everything that would make it fail later."""
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version >= (2, 15):
        raise UserError(f"NNCF 3.4 does not work with torch {torch.__version__}: pip install 'torch<2.15'")
    if is_wrapped(model) and not get_hook_storage(model).is_empty():
        raise UserError("this network is quantized already; start from the float network")
    if type(model).forward is nn.Sequential.forward:
        raise UserError(
            "NNCF cannot wrap an nn.Sequential itself, which would run NNCF's hooks as one more layer; put it into a module"
            " whose forward calls it"
        )
    if any(type(module).__module__.startswith(("brevitas.", "qsci_plugins.brevitas.")) for module in model.modules()):
        raise UserError("this network is quantized by Brevitas; start from the float network")
    return wrap_model(copy_folded(model))


def _read(file: Path) -> dict[str, Any]:
    content = load_without_code(file)
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise UserError(
            f"{file} was not written by qsci_plugins.nncf.backend.save; give the checkpoint.pt of a run with"
            " `backend: nncf`"
        )
    return content
