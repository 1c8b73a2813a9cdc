"""A Ray cluster: started here for a while, or found."""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from qsci_plugins.errors import UserError
from qsci_plugins.extras import naming_extras
from qsci_plugins.machine import usable_threads
from qsci_plugins.progress import Progress

__all__ = ["check_cluster", "connected", "load_ray"]


def check_cluster(address: str) -> None:
    """Raises UserError for what is neither "local", "auto" nor HOST:PORT, and where Ray is not installed."""
    if not re.fullmatch(r"local|auto|[^\s:/]+:\d{1,5}", address):
        raise UserError(f"--cluster {address}: should be local, auto or HOST:PORT, such as 10.0.0.1:6379")
    load_ray(address)


@contextmanager
def connected(address: str, cores: int, progress: Progress | None = None) -> Iterator[None]:
    """Ray within the block: started here ("local"), the one that runs on this machine ("auto"), or at HOST:PORT.

    One that is started here has the cores of this machine for workers, or `cores` if that is more. It is a folder of
    temporary files and some processes, all of which end with the block; it shows no dashboard, reports to nobody, and asks
    for a password that no other user knows. A program that uses Ray already keeps its own.
    Raises UserError as `check_cluster`, and where there is no cluster at the address.
    """
    check_cluster(address)
    ray, local = load_ray(), address == "local"
    with ExitStack() as stack:
        if ray.is_initialized():
            yield
            return
        if local:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="qsci-", dir=_short_folder()))
            stack.enter_context(_temporary_files(folder))
        quiet = {"include_dashboard": False, "logging_level": "error", "log_to_driver": False}
        where = {"num_cpus": max(cores, usable_threads()), "_temp_dir": folder} if local else {"address": address}
        stack.callback(ray.shutdown)  # of what has started, too, when an error or Ctrl-C comes in the midst
        try:
            if ":" in address:
                _check_answers(address)
            with (progress or Progress()).stage("starting Ray" if local else "connecting to Ray", 1) as advance:
                ray.init(**where, **quiet, configure_logging=False)
                advance(1)
        except Exception as error:  # of which Ray raises plain ones, too
            if local:
                raise UserError(f"Ray does not start here: {_first_line(error)}") from error
            raise UserError(
                f"--cluster {address}: no Ray cluster answers ({_first_line(error)}); start one with `ray start --head`,"
                " or use --cluster local"
            ) from error
        yield


def _check_answers(address: str) -> None:
    """Ray itself tries for minutes. Raises OSError where nobody listens."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=5).close()


def load_ray(address: str = "") -> Any:
    """The package, quiet, reporting to nobody, and with no password in the home folder where a cluster is started here."""
    if "ray" not in sys.modules:  # which reads these when it is imported, and hands them on to its processes
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # it prints on standard output, among results
        if address == "local" and "RAY_AUTH_MODE" not in os.environ:
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    with naming_extras():
        import ray
    return ray


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _short_folder() -> str | None:
    """Where the temporary folder goes: below a long path, Ray's sockets would have names longer than systems allow."""
    return "/tmp" if os.name == "posix" and len(os.fsencode(tempfile.gettempdir())) > 24 else None


@contextmanager
def _temporary_files(folder: str) -> Iterator[None]:
    """Those of the processes that are started in the block lie in `folder`."""
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before
