"""The process of a bench in which NNCF's default INT8 takes ten minutes to make, and torch crashes at its third run."""

from __future__ import annotations

import os
import signal
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

from qsci_plugins.comparing import contenders
from qsci_plugins.comparing.bench_isolated import make_table
from qsci_plugins.evaluation import baselines


def sleep(*_: object) -> Any:
    time.sleep(600)


def crashing(*_: object) -> contenders.Contender:
    runs = count(1)

    def run() -> None:
        if next(runs) == 3:
            os.kill(os.getpid(), signal.SIGSEGV)

    return contenders.Contender("torch", "torch eager", run, None)


if __name__ == "__main__":
    baselines.default_int8_graph = sleep
    contenders._torch = crashing
    make_table(Path(sys.argv[1]))
