"""A process for `watched` to watch, which does what its request says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from qsci_plugins.comparing.watched import Telling, TellingProgress


def main(place: Path) -> None:
    telling = Telling(place)
    print("not an event")
    with TellingProgress(telling).stage("work", 2) as advance:
        advance(1, "half")
    telling.step("quick", 5)
    telling.step("first", telling.request["limit"])
    what = telling.request["what"]
    telling.event(number=7, process=os.getpid())
    if what == "sleep":
        sleeper = subprocess.Popen(["sleep", "300"])
        telling.event(process=sleeper.pid)
        time.sleep(300)
    elif what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "exit":
        os._exit(0)
    telling.step(None)
    telling.event(done=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
