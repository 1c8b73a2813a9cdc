"""A lock that a killed build left in torch's cache of extensions, for which NNCF's quantizers wait a minute and fail.

That is of torch versions whose lock is a file that is there (FileBaton); later ones lock the file, which stays.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from nncf.torch.quantization.extensions import QuantizedFunctionsCPULoader, QuantizedFunctionsCUDALoader
from torch.utils import cpp_extension

from qsci_plugins.errors import UserError

__all__ = ["check_build_locks"]

#: a build takes minutes on a busy machine; it counts where no list of open files tells who builds
_LONGEST_BUILD_SECONDS = 1800.0


def check_build_locks() -> None:
    """Raises UserError for a lock that no process holds, ahead of NNCF's own quantizers, which compile at first use."""
    if not hasattr(cpp_extension, "FileBaton"):
        return
    loaders = [QuantizedFunctionsCPULoader, *([QuantizedFunctionsCUDALoader] if torch.cuda.is_available() else [])]
    for loader in loaders:
        lock = Path(loader.get_build_dir()) / "lock"
        if _is_left_behind(lock):
            raise UserError(
                f"{lock} was left behind by a build that was killed, and NNCF would wait for it until it gives up; remove"
                " that file and run this again"
            )


def _is_left_behind(lock: Path) -> bool:
    try:
        state = lock.stat()
    except FileNotFoundError:
        return False
    holders = _open_in_processes(state)
    if holders is None:
        return time.time() - state.st_mtime > _LONGEST_BUILD_SECONDS
    return not holders and lock.exists()


def _open_in_processes(state: os.stat_result) -> bool | None:
    """Whether a process has the file open, as who builds has all the time; None where the system does not tell."""
    processes = Path("/proc")
    if not (processes / "self" / "fd").is_dir():
        return None
    hidden = False
    for process in processes.iterdir():
        if not process.name.isdigit():
            continue
        try:
            for descriptor in (process / "fd").iterdir():
                found = descriptor.stat()
                if (found.st_dev, found.st_ino) == (state.st_dev, state.st_ino):
                    return True
        except PermissionError:  # another user's, who may build in a cache that both share
            hidden = hidden or process.stat().st_uid == state.st_uid != os.getuid()
        except OSError:  # ended meanwhile
            continue
    return None if hidden else False
