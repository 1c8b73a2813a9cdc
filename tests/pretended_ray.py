"""What `qsci_plugins.cluster.sharing` asks of Ray, in this process and in a known order, for tests without Ray."""

from __future__ import annotations

import pickle
import random
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["PretendedRay", "WorkerKilled"]


class WorkerKilled(BaseException):
    """Raised by work that takes its worker with it."""


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Exceptions:
    RayError = RayError
    RayTaskError = RayTaskError


class Reference:
    """A value that is put, or that an actor is still to compute."""

    def __init__(self, value: Any = None, actor: Actor | None = None) -> None:
        self.value, self.actor, self.error = value, actor, None


class Actor:
    """Computes what it is asked one after another, until it dies."""

    def __init__(self, instance: Any) -> None:
        self._instance = instance
        self.alive = True
        self.waiting: deque[tuple[Reference, str, tuple[Any, ...]]] = deque()
        self.most_waiting = 0

    def __getattr__(self, name: str) -> Any:
        return _Method(self, name)

    def step(self) -> Reference | None:
        """The next answer, computed; of a dead one, that there is none."""
        if not self.waiting:
            return None
        reference, name, arguments = self.waiting.popleft()
        if not self.alive:
            reference.error = RayError("dead")
            return reference
        try:
            values = [argument.value if isinstance(argument, Reference) else argument for argument in arguments]
            reference.value = getattr(self._instance, name)(*pickle.loads(pickle.dumps(values)))
        except WorkerKilled:
            self.alive, reference.error = False, RayError("dead")
        except Exception as error:
            reference.error = RayTaskError(error)
        return reference


class _Method:
    def __init__(self, actor: Actor, name: str) -> None:
        self._actor, self._name = actor, name

    def remote(self, *arguments: Any) -> Reference:
        reference = Reference(actor=self._actor)
        self._actor.waiting.append((reference, self._name, arguments))
        self._actor.most_waiting = max(self._actor.most_waiting, len(self._actor.waiting))
        return reference


class PretendedRay:
    """A cluster of `cores`; `actors` are all that were ever started."""

    exceptions = _Exceptions

    def __init__(self, cores: int) -> None:
        self.cores = cores
        self.actors: list[Actor] = []
        self._random = random.Random(0)

    def put(self, value: Any) -> Reference:
        return Reference(value)

    def get(self, reference: Reference) -> Any:
        if reference.error is not None:
            raise reference.error
        return reference.value

    def wait(self, references: list[Reference], num_returns: int, timeout: float) -> tuple[list[Reference], Any]:
        """One answer, of any actor, so that results come out of order."""
        for actor in self._random.sample(self.actors, len(self.actors)):
            answer = actor.step()
            if answer in references:
                assert answer is not None
                return [answer], None
        return [], None

    def kill(self, actor: Actor) -> None:
        actor.alive = False

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(self.cores)}

    def remote(self, kind: Callable[[], Any]) -> Any:
        outer = self

        class Start:
            def options(self, num_cpus: int, **others: Any) -> Start:
                return self

            def remote(self) -> Actor:
                outer.actors.append(Actor(kind()))
                return outer.actors[-1]

        return Start()
