"""Writes a model folder so that a kill at any moment leaves the old one or the new one."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from qsci_plugins.errors import UserError
from qsci_plugins.openvino.manifest import MANIFEST, Manifest, StoredFile, stored

__all__ = ["name_files", "write_folder"]

#: names carry their content's hash, so that old and new files never share one
_OURS = re.compile(r"[a-z]+-[0-9a-f]{12}\.(xml|bin)")


def name_files(
    graphs: Mapping[str, bytes], constants: bytes
) -> tuple[dict[str, StoredFile], StoredFile, dict[str, bytes]]:
    """The entry of each graph, that of the constants, and everything to be written by file name.

    Each graph's .xml has a .bin of its own name beside it, as OpenVINO and its tools expect; the bytes are one and the
    same, and `write_folder` stores them once.
    """
    entries: dict[str, StoredFile] = {}
    files: dict[str, bytes] = {}
    for name, graph in graphs.items():
        digest = hashlib.sha256(graph + constants).hexdigest()[:12]
        entries[name] = stored(f"{name}-{digest}.xml", graph)
        files[entries[name].name] = graph
        files[f"{name}-{digest}.bin"] = constants
    first = next(iter(entries.values()))
    return entries, stored(first.weights_name, constants), files


def write_folder(folder: Path | str, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Writes the manifest and the files it names. An older model in the folder is replaced.

    All is written into a folder beside the target first. A new target appears by one rename; in an old one the
    manifest is replaced last, in one step, and until then it names the old files, which are removed afterwards. Files of
    equal content are hard links to each other where the file system has them.
    Raises UserError for a folder that holds something else, and where writing fails (a full disk).
    """
    folder = Path(folder).absolute()
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is no model folder; choose another one or remove it")
    staged = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    try:
        _remove_abandoned(folder)
        staged.mkdir(parents=True)
        written: dict[bytes, Path] = {}
        for name, content in files.items():
            if content not in written or not _linked(written[content], staged / name):
                (staged / name).write_bytes(content)
                written[content] = staged / name
        (staged / MANIFEST).write_bytes(manifest.to_bytes())
        if not folder.exists():
            os.rename(staged, folder)
            return
        for name in files:
            os.replace(staged / name, folder / name)
        os.replace(staged / MANIFEST, folder / MANIFEST)
        for file in folder.iterdir():
            if _OURS.fullmatch(file.name) and file.name not in files:
                file.unlink()
    except OSError as error:
        raise UserError(f"cannot write the model to {folder}: {error.strerror}") from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _linked(file: Path, name: Path) -> bool:
    """Whether a file could be given another name."""
    try:
        os.link(file, name)
    except OSError:
        return False
    return True


def _remove_abandoned(folder: Path) -> None:
    """Removes what killed exports to the same folder have left beside it."""
    if os.name != "posix":  # elsewhere there is no harmless way to ask whether a process lives
        return
    for abandoned in folder.parent.glob(f".{glob.escape(folder.name)}.partial-*"):
        pid = abandoned.name.rpartition("-")[2]
        if pid.isdecimal() and not _alive(int(pid)):
            shutil.rmtree(abandoned, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
