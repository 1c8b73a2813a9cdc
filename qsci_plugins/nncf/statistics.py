"""The statistics that NNCF collects for us: one vector for every batch that passes a point, in order."""

from __future__ import annotations

from collections.abc import Callable

from nncf.common.tensor_statistics.collectors import AggregatorBase, TensorCollector, TensorReducerBase
from nncf.tensor import Tensor as NNCFTensor
from torch import Tensor
from torch._C import DisableTorchFunction

from qsci_plugins.nncf.attention_hooks import note_operand, take_operands
from qsci_plugins.nncf.hooks import QuantizerHook
from qsci_plugins.nncf.placement import FusedSite
from qsci_plugins.schemes.attention import ShiftedQuantizer, attend
from qsci_plugins.schemes.quantizer import Mode, Quantizer
from qsci_plugins.schemes.scheme import set_mode

__all__ = [
    "attention_reducer",
    "batch_collector",
    "batches_of",
    "first_collector",
    "operand_reducer",
    "quantizer_and_reducer",
]

_KEY = "batches"


class _Reducer(TensorReducerBase):
    """Applies a function of ours, out of sight of NNCF's hooks."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._function = function

    def _reduce_out_of_place(self, x: list[NNCFTensor]) -> list[NNCFTensor]:
        with DisableTorchFunction():
            return [NNCFTensor(self._function(x[0].data))]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reducer) and self._function == other._function

    def __hash__(self) -> int:
        return hash(self._function)


class _Batches(AggregatorBase):
    """Keeps what the reducer gave for each batch, or for the first ones, until they have `images` images.

    (NNCF's own `num_samples` would not do: it also says how many batches the whole pipeline step runs.)
    """

    def __init__(self, images: int | None) -> None:
        super().__init__()
        self._images = images

    def _register_reduced_input_impl(self, x: NNCFTensor) -> None:
        if self._images is None or sum(kept.shape[0] if kept.dim() else 1 for kept in self._container) < self._images:
            self._container.append(x.data)

    def _aggregate_impl(self) -> list[Tensor]:
        return list(self._container)


def batch_collector(reduce: Callable[[Tensor], Tensor]) -> TensorCollector:
    """Collects `reduce` of every batch; at several points at once, in the order in which the network reaches them."""
    return _collector(reduce, None)


def first_collector(images: int) -> TensorCollector:
    """Keeps the first batches themselves, until they have so many images."""
    return _collector(Tensor.clone, images)


def _collector(reduce: Callable[[Tensor], Tensor], images: int | None) -> TensorCollector:
    collector = TensorCollector()
    collector.register_statistic_branch(_KEY, _Reducer(reduce), _Batches(images))
    return collector


def batches_of(collector: TensorCollector) -> list[Tensor]:
    """What a collector of this module holds; empty where no batch passed."""
    statistics = collector.get_statistics()
    assert isinstance(statistics, dict)
    return list(statistics[_KEY] or [])


def quantizer_and_reducer(hook: QuantizerHook) -> tuple[Quantizer, Callable[[Tensor], Tensor]]:
    """A hook's quantizer, and what reduces the tensor that reaches the hook to the quantizer's statistics."""
    module = hook.quantizer
    if isinstance(module, ShiftedQuantizer):
        quantizer, shifted = module.quantizer, module.shifted
        return quantizer, lambda x: quantizer.reduce(shifted(x))
    assert isinstance(module, Quantizer)
    return module, module.reduce


def operand_reducer(site: FusedSite, parameter: str) -> Callable[[Tensor], Tensor]:
    """Notes one tensor of a fused attention's call for `attention_reducer`."""

    def note(x: Tensor) -> Tensor:
        note_operand(site.hook.layer, parameter, x)
        return x.new_zeros(1)

    return note


def attention_reducer(site: FusedSite) -> Callable[[Tensor], Tensor]:
    """Shows a fused attention's quantizers their tensors; the softmax map exists nowhere else."""

    def observe(output: Tensor) -> Tensor:
        quantizers = site.hook.quantizers
        set_mode(quantizers, Mode.OBSERVE)
        attend(quantizers, **site.constants, **take_operands(site.hook.layer))
        set_mode(quantizers, Mode.ON)
        return output.new_zeros(1)

    return observe
