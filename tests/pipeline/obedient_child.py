"""A child of `test_child_process`, which does what its request says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from qsci_plugins.pipeline.child_process import EventProgress, Events


def main(place: Path) -> None:
    events = Events(place)
    print("not an event")
    with EventProgress(events).stage("work", 2) as advance:
        advance(1, "half")
    events.step("quick", 5)
    events.step("first", events.request["limit"])
    what = events.request["what"]
    events.send(number=7, process=os.getpid())
    if what == "sleep":
        sleeper = subprocess.Popen(["sleep", "300"])
        events.send(process=sleeper.pid)
        time.sleep(300)
    elif what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "exit":
        os._exit(0)
    events.step(None)
    events.send(done=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
