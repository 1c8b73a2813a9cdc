from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from noted import Notes
from pretended_ray import PretendedRay, WorkerKilled

from qsci_plugins.cluster import sharing
from qsci_plugins.cluster.sharing import WorkerSpec, on_cluster
from qsci_plugins.errors import UserError

#: how often each item was begun
begun: dict[int, int] = {}


def set_up(shared: int) -> int:
    if shared < 0:
        raise UserError("no such network")
    return shared


def add(state: int, item: int) -> int:
    begun[item] = begun.get(item, 0) + 1
    if item == 13:
        raise UserError("thirteen")
    if item == 100 or (item == 7 and begun[item] < 3):
        raise WorkerKilled
    if item == 200:
        raise ValueError("a mistake of ours")
    return state + item


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedRay]:
    pretended = PretendedRay(2)
    monkeypatch.setattr(sharing, "load_ray", lambda: pretended)
    before = signal.getsignal(signal.SIGINT)
    begun.clear()
    yield pretended
    signal.signal(signal.SIGINT, before)


def run(numbers: list[int], **options: Any) -> list[tuple[str, Any]]:
    spec = WorkerSpec(set_up, options.pop("shared", 1000), add, workers=options.pop("workers", None))
    return list(on_cluster(spec, ((f"item {number}", number) for number in numbers), **options))


@pytest.mark.parametrize("workers", [1, 2, None])
def test_every_item_is_done_once(ray: PretendedRay, workers: int | None) -> None:
    got = run([*range(7), *range(20, 30)], workers=workers)
    assert dict(got) == {f"item {n}": 1000 + n for n in (*range(7), *range(20, 30))}
    assert set(begun.values()) == {1}
    assert len(ray.actors) == (workers or 2)
    assert max(actor.most_waiting for actor in ray.actors) == 2
    assert not any(actor.alive for actor in ray.actors)


def test_results_come_in_order_where_that_is_wanted(ray: PretendedRay) -> None:
    numbers = list(range(20, 40))
    assert [key for key, _ in run(numbers)] != [f"item {n}" for n in numbers]
    assert run(numbers, in_order=True) == [(f"item {n}", 1000 + n) for n in numbers]


def test_items_are_read_no_sooner_than_there_is_room(ray: PretendedRay) -> None:
    read: list[int] = []

    def items() -> Iterator[tuple[int, int]]:
        for number in range(20, 60):
            read.append(number)
            yield number, number

    results = on_cluster(WorkerSpec(set_up, 0, add), items())
    for done, _ in enumerate(results, 1):
        assert len(read) <= done + 2 * 2 + 1


@pytest.mark.parametrize("in_order", [False, True])
def test_a_worker_that_dies_costs_no_item(ray: PretendedRay, in_order: bool) -> None:
    progress = Notes()
    got = run([*range(5, 10), *range(20, 30)], in_order=in_order, progress=progress)
    assert dict(got) == {f"item {n}": 1000 + n for n in (*range(5, 10), *range(20, 30))}
    assert begun[7] == 3
    assert len(ray.actors) >= 4  # two took the place of those that died
    assert any(note.startswith("item 7: its worker ended") for note in progress.notes)


def test_an_item_that_kills_three_workers_is_given_up_alone(ray: PretendedRay) -> None:
    got = dict(run([20, 100, *range(30, 50)]))
    error = got.pop("item 100")
    assert str(error) == (
        "item 100: 3 workers ended while they had it (RayError), perhaps for their memory; use fewer --jobs"
    )
    assert begun[100] == 3
    assert got == {f"item {n}": 1000 + n for n in (20, *range(30, 50))}


def test_what_is_wrong_with_an_item_is_its_result(ray: PretendedRay) -> None:
    got = dict(run([12, 13, 14]))
    assert str(got.pop("item 13")) == "thirteen"
    assert got == {"item 12": 1012, "item 14": 1014}


def test_a_mistake_of_ours_is_raised_as_it_is(ray: PretendedRay) -> None:
    with pytest.raises(ValueError, match="a mistake of ours"):
        run([1, 200])


def test_workers_that_cannot_be_set_up_end_the_run(ray: PretendedRay) -> None:
    with pytest.raises(UserError, match="no such network"):
        run([1, 2], shared=-1)
    assert not any(actor.alive for actor in ray.actors)


def test_other_versions_on_a_machine_are_refused(ray: PretendedRay, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = iter([{"openvino": "1"}, {"openvino": "2"}])
    monkeypatch.setattr(sharing, "_versions", lambda: next(versions))
    with pytest.raises(UserError, match="a machine of the cluster has openvino 2, and this one openvino 1"):
        run([1], workers=1)


def test_nothing_to_do_starts_nobody(ray: PretendedRay) -> None:
    assert run([]) == []
    assert not ray.actors


def test_workers_join_with_the_cluster(ray: PretendedRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_POLL", 0.0)
    results = on_cluster(WorkerSpec(set_up, 0, add), ((n, n) for n in range(20, 60)))
    next(results)
    assert len(ray.actors) == 2
    ray.cores = 5
    assert len(list(results)) == 39
    assert len(ray.actors) == 5
