"""What torch.save wrote, read back without running any code that the file may hold."""

from __future__ import annotations

import pickle
import re
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qsci_plugins.errors import UserError
from qsci_plugins.files import check_regular

__all__ = ["first_line", "load_without_code"]

#: what torch raises for files that are something else, or damaged
_DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


def _plain_dict(*_: Any) -> dict[Any, Any]:
    return {}


def _harmless() -> list[Any]:
    """What training programs save beside tensors and that runs nothing: numpy's scalars, and mappings with a default."""
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
    kinds = [
        (kind, f"{module}.{kind.__name__}")
        for kind in (dict, list, int, float)
        for module in ("builtins", "__builtin__")
    ]
    scalars = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    dtypes = [np.dtype, *(getattr(np.dtypes, name) for name in np.dtypes.__all__)]
    return [*dtypes, *scalars, (_plain_dict, "collections.defaultdict"), *kinds]


def load_without_code(path: Path, device: str | torch.device = "cpu") -> Any:
    """The content of a file of torch.save: tensors, numbers (numpy's too), texts, and lists and mappings of them.

    Raises UserError where the file cannot be read, is damaged or of another kind, and where it holds Python code, which
    does not run.
    """
    check_regular(path)
    try:
        # warnings of what becomes an error below
        with warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()), path.open("rb") as file:
            warnings.simplefilter("ignore")
            # by what is in it: given a name, torch goes by the suffix
            return torch.load(file, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: permission denied") from error
    except pickle.UnpicklingError as error:
        raise _refusal(path, error) from error
    except _DAMAGE as error:
        if "TorchScript" in str(error):
            raise UserError(
                f"{path} is a TorchScript program, which is code; give its weights: "
                "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
            ) from error
        raise UserError(f"{path} is not a checkpoint, or a damaged one: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """What an error says, as short as a line of ours."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _refusal(path: Path, error: Exception) -> UserError:
    code = re.search(r"GLOBAL ([\w.]+)", str(error))
    if code is None and not re.search(r"Unsupported (class|global)|unrecognized function|Can only", str(error)):
        return UserError(f"{path} is not a checkpoint, or a damaged one: {first_line(error)}")
    what = f" ({code.group(1)})" if code else ""
    return UserError(
        f"{path} is refused: it holds Python code{what} that would run when it is loaded. "
        "Save the weights alone: torch.save(model.state_dict(), 'weights.pth')"
    )
