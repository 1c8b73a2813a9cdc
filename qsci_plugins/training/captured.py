"""A training step's forward and backward pass as one CUDA graph, which a GPU runs without waiting for Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["CapturedStep", "repeatable_algorithms"]

#: graphs kept at a time, each with the memory of its activations: AdaBM's turns are three
_KEPT = 4

#: eager steps ahead of a capture, which let cuDNN and cuBLAS choose and allocate
_WARM_UP = 3

#: relative difference of the losses that a step and its graph's replay may have
_TOLERANCE = 0.02


@contextmanager
def repeatable_algorithms() -> Iterator[None]:
    """Inside, cuDNN takes the same algorithms each time, and none that adds up in a random order."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


class CapturedStep:
    """Calls `run(batch)`, which makes a row of scalars, the loss first, and gradients; from its graph where that exists.

    Gradients are those of `model` and of the optimizer's `groups`.
    A graph belongs to the batch's shapes, to what in the batch is no tensor, and to which parameters want gradients; for
    another of these another one is captured, and the oldest of more than four is dropped. Where a capture fails, as
    of a network whose Python decides by what it computes, or a replay computes another loss, `note` gets one line and all
    steps from then on are eager. `run` must take everything that changes from step to step from its batch.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Iterable[dict[str, Any]],
        run: Callable[[Any], Tensor],
        note: Callable[[str], None],
    ) -> None:
        self._model, self._run, self._note = model, run, note
        self._parameters = list(
            {id(p): p for p in (*model.parameters(), *(p for group in groups for p in group["params"]))}.values()
        )
        self._graphs: dict[Any, _Graph] = {}
        self._works = True

    def __call__(self, batch: Any) -> Tensor:
        """The scalars of the batch; gradients are in the parameters' `grad`, which were None before."""
        if not self._works:
            return self._run(batch)
        key = (_form(batch), tuple(p.requires_grad for p in self._parameters))
        if key not in self._graphs:
            stream = torch.cuda.current_stream()
            try:
                while len(self._graphs) >= _KEPT:
                    del self._graphs[next(iter(self._graphs))]
                self._graphs[key] = _Graph(self._model, self._parameters, self._run, batch)
            except (RuntimeError, ValueError, NotImplementedError) as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                torch.cuda.set_stream(stream)  # a capture that fails leaves its own behind
                self._give_up(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
                return self._run(batch)
        return self._graphs[key].replay(batch)

    def _give_up(self, reason: str) -> None:
        self._works = False
        self._graphs.clear()
        _forget(self._parameters)
        torch.cuda.synchronize()
        self._note(f"train.compile: this step cannot be one CUDA graph ({reason[:200]}); it runs as without")


class _Graph:
    """One captured step, its own memory for a batch, and for what it computes."""

    def __init__(self, model: nn.Module, parameters: list[Tensor], run: Callable[[Any], Tensor], batch: Any) -> None:
        self._batch = _copied(batch)
        kept = [(tensor, tensor.clone()) for tensor in model.buffers()]
        random = torch.cuda.get_rng_state()
        # what steps leave in the network besides gradients must not be left three times
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                _forget(parameters)
                expected = run(self._batch).clone()
                self._put_back(kept, random)
        torch.cuda.current_stream().wait_stream(stream)
        _forget(parameters)
        self._graph = torch.cuda.CUDAGraph()
        # the thread that pins batches may allocate meanwhile
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._scalars = run(self._batch)
        self._gradients = [(p, p.grad) for p in parameters if p.grad is not None]
        if not self._gradients:
            raise ValueError("no parameter gets a gradient")
        self._graph.replay()
        first = self._scalars[0].item()
        self._put_back(kept, random)
        if abs(first - expected[0].item()) > _TOLERANCE * abs(expected[0].item()):
            raise ValueError(f"its replay gives the loss {first:.4g} instead of {expected[0].item():.4g}")

    @staticmethod
    def _put_back(kept: list[tuple[Tensor, Tensor]], random: Tensor) -> None:
        with torch.no_grad():
            for tensor, value in kept:
                tensor.copy_(value)
        torch.cuda.set_rng_state(random)

    def replay(self, batch: Any) -> Tensor:
        _fill(self._batch, batch)
        self._graph.replay()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        return self._scalars.clone()


def _forget(parameters: list[Tensor]) -> None:
    for parameter in parameters:
        parameter.grad = None


def _form(batch: Any) -> Any:
    if isinstance(batch, Tensor):
        return (tuple(batch.shape), batch.dtype, batch.stride())
    if isinstance(batch, tuple | list):
        return tuple(_form(item) for item in batch)
    return batch


def _copied(batch: Any) -> Any:
    if isinstance(batch, Tensor):
        return batch.clone()
    return tuple(_copied(item) for item in batch) if isinstance(batch, tuple | list) else batch


def _fill(kept: Any, batch: Any) -> None:
    if isinstance(kept, Tensor):
        kept.copy_(batch)
    elif isinstance(kept, tuple):
        for own, given in zip(kept, batch, strict=True):
            _fill(own, given)
