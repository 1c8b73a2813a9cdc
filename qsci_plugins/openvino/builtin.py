"""The exported networks inside the package: what `builtin:NAME` means where a model folder goes.

`qsci_plugins/weights/NAME/` is the model folder, with the recipe that made it beside the manifest:
`qsci run edsr_x4_adabm_w8a8 -o OUT`, whose OUT/model is copied.
"""

from __future__ import annotations

from pathlib import Path

from qsci_plugins.errors import UserError
from qsci_plugins.openvino.manifest import MANIFEST

__all__ = ["BUILTIN", "builtin_models", "find_model_folder"]

BUILTIN = "builtin:"
_FOLDER = Path(__file__).resolve().parent.parent / "weights"


def builtin_models() -> list[str]:
    """Names of the exported networks, with `builtin:`."""
    return sorted(BUILTIN + file.parent.name for file in _FOLDER.glob(f"*/{MANIFEST}"))


def find_model_folder(model: str | Path) -> Path:
    """The model folder that a run's output holds, the one of `builtin:NAME`, or `model` itself.

    Raises UserError for a folder that does not exist and an unknown name.
    """
    path = Path(model)
    if str(model).startswith(BUILTIN) and not path.exists():
        if str(model) not in builtin_models():
            raise UserError(
                f"there is no built-in model {model}; in this installation there are: {', '.join(builtin_models()) or 'none'}"
            )
        return _FOLDER / str(model).removeprefix(BUILTIN)
    if not path.is_dir():
        raise UserError(
            f"there is no model folder {path}; give the output of `qsci run`, the model folder in it, or"
            f" {' or '.join(builtin_models())}"
        )
    return path / "model" if (path / "model").is_dir() else path
