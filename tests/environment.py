"""What every test needs before torch, OpenVINO and NNCF are imported."""

from __future__ import annotations

import os
from pathlib import Path

from qsci_plugins.telemetry import switch_off_telemetry

# OpenVINO reports each conversion from processes that it forks; copying a process of tests took three quarters of their time
switch_off_telemetry()

# threads that wait for the next small layer by spinning keep the others from computing theirs
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# pytest-xdist runs a process for each core
os.environ.setdefault("OMP_NUM_THREADS", "1")

# without a GPU, its kernels are checked in Triton's interpreter
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# NNCF compiles its CPU extension at first use, which takes minutes on a busy machine; it gives up after 60 seconds
os.environ.setdefault("NNCF_EXTENSION_LOAD_TIMEOUT", "900")
