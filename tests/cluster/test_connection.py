from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from qsci_plugins.cluster import connection
from qsci_plugins.cluster.connection import check_cluster, connected
from qsci_plugins.errors import UserError


class RayThatStarts:
    """Notes how it is started and ended; fails to start with `error`."""

    def __init__(self, error: Exception | None = None, running: bool = False) -> None:
        self.error, self.running = error, running
        self.calls: list[str] = []
        self.asked: dict[str, Any] = {}
        self.folder: Path | None = None

    def is_initialized(self) -> bool:
        return self.running

    def init(self, **asked: Any) -> None:
        self.calls.append("init")
        self.asked = asked
        self.folder = Path(asked["_temp_dir"]) if "_temp_dir" in asked else None
        if self.folder:
            assert self.folder.is_dir()
            assert os.environ["TMPDIR"] == str(self.folder)
            (self.folder / "session").mkdir()
        if self.error is not None:
            raise self.error

    def shutdown(self) -> None:
        self.calls.append("shutdown")


def pretend(monkeypatch: pytest.MonkeyPatch, ray: RayThatStarts) -> RayThatStarts:
    monkeypatch.setattr(connection, "load_ray", lambda address="": ray)
    return ray


def test_a_cluster_that_is_started_here_ends_with_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pretend(monkeypatch, RayThatStarts())
    before = os.environ.get("TMPDIR")
    with connected("local", 1000):
        assert ray.calls == ["init"]
        assert ray.asked["num_cpus"] == 1000
        assert not ray.asked["include_dashboard"]
    assert ray.calls == ["init", "shutdown"]
    assert ray.folder is not None
    assert not ray.folder.exists()
    assert os.environ.get("TMPDIR") == before


def test_ray_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pretend(monkeypatch, RayThatStarts(Exception("The node timed out.\nIts log: ...")))
    with pytest.raises(UserError, match=r"^Ray does not start here: The node timed out\.$"), connected("local", 2):
        pass
    assert ray.calls == ["init", "shutdown"]
    assert ray.folder is not None
    assert not ray.folder.exists()


def test_an_address_where_nobody_listens_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pretend(monkeypatch, RayThatStarts())
    for address in ("127.0.0.1:1", "127.0.0.1:99999"):
        with pytest.raises(UserError, match=rf"--cluster {address}: no Ray cluster answers"), connected(address, 2):
            pass
    assert "init" not in ray.calls
    ray.error = ConnectionError("Could not find any running Ray instance.")
    with (
        pytest.raises(UserError, match=r"--cluster auto: no Ray cluster answers \(Could not find"),
        connected("auto", 2),
    ):
        pass
    assert ray.asked["address"] == "auto"


def test_a_program_that_uses_ray_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pretend(monkeypatch, RayThatStarts(running=True))
    with connected("local", 2):
        pass
    assert not ray.calls


@pytest.mark.parametrize("address", ["", "somewhere", "a b:1", "host:", "host:port", "http://host:1"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UserError, match=r"should be local, auto or HOST:PORT"):
        check_cluster(address)
