"""From a float torch network to a quantized one, and on to a model folder, in one call each.

For networks in a program of one's own; a recipe (`qsci run`) does the same, and trains and measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.safe_load import load_without_code
from qsci_plugins.schemes.placement import Placement, place
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork, Scheme, inputs_of, module_device

if TYPE_CHECKING:
    from nncf import IgnoredScope

    from qsci_plugins.openvino.export import Mode
    from qsci_plugins.openvino.manifest import Manifest

__all__ = ["export", "load", "quantize", "save"]

#: images of one calibration batch, where they come as one tensor
_BATCH = 16

Backend = Literal["nncf", "brevitas"]


def quantize(
    model: nn.Module,
    images: Tensor | Sequence[Tensor | Sequence[Tensor]],
    *,
    scheme: str | Mapping[str, Any] | Scheme = "adabm",
    backend: Backend = "nncf",
    targets: Sequence[str] = ("*",),
    eight_bit: Sequence[str] = (),
    ignored: IgnoredScope | Sequence[str] = (),
    value_range: float = 255.0,
) -> QuantizedNetwork:
    """A quantized copy of a float network, calibrated on `images`: (N,C,H,W) in 0..value_range, or batches of them.

    A network of several inputs takes batches that are sequences of tensors. `scheme` is a name, a mapping of its settings
    as in a recipe, or a scheme. `targets` and `eight_bit` are name patterns of layers. `ignored` layers stay in float:
    names or patterns, a module's name standing for all layers inside, or an `nncf.IgnoredScope`.
    A network on a GPU is calibrated there and its copy stays there; the images may be on the CPU.
    Raises UserError where the network, a pattern or the images do not fit.

    NNCF shows its progress:

    >>> import torch, qsci_plugins
    >>> model = qsci_plugins.load_network("edsr", None, 2, blocks=1, width=8).module
    >>> images = torch.randint(0, 256, (4, 3, 24, 24)).float()
    >>> scheme = {"name": "adabm", "activation_bits": 6}
    >>> quantized = qsci_plugins.quantize(model, images, scheme=scheme, ignored=["*_mean"])  # doctest: +ELLIPSIS
    Statistics collection ...
    >>> sorted(quantized.layers)
    ['body.0.body.0', 'body.0.body.2', 'body.1', 'head.0', 'tail.0.0', 'tail.1']
    """
    if isinstance(scheme, str):
        scheme = make_scheme({"name": scheme})
    elif isinstance(scheme, Mapping):
        scheme = make_scheme(dict(scheme))
    batches = list(images.split(_BATCH)) if isinstance(images, Tensor) else list(images)
    if not batches:
        raise UserError("quantize got no images; give at least one batch")
    left = _ignored(model, inputs_of(batches[0], module_device(model)), ignored)
    placement = Placement(tuple(targets), tuple(eight_bit), left)
    return _backend(backend).quantize(model, scheme, placement, batches, value_range)  # type: ignore[no-any-return]


def export(
    quantized: QuantizedNetwork,
    folder: Path | str,
    *,
    tile: tuple[int, int],
    mode: Mode = "routed",
    overlap: int | None = None,
    frames: int | None = None,
    stock: nn.Module | None = None,
) -> Manifest:
    """Writes a network as a folder of OpenVINO models that compute in INT8; `qsci upscale` and `Upscaler` take it.

    `tile` is the height and width of the input, `mode` and `overlap` are those of
    `qsci_plugins.openvino.export.export_upscaler`. With `frames` it is a network that reconstructs as many frames from a
    snapshot measurement. `stock`, the float network, is taken out of the quantized one where it is not given.
    A network on a GPU is on the CPU meanwhile. Raises UserError for what cannot run in integers, and where the folder
    cannot be written.

    >>> import numpy as np, torch, qsci_plugins
    >>> model = qsci_plugins.load_network("edsr", None, 2, blocks=1, width=8).module
    >>> images = torch.randint(0, 256, (4, 3, 24, 24)).float()
    >>> quantized = qsci_plugins.quantize(model, images, backend="brevitas", ignored=["*_mean"])
    >>> qsci_plugins.export(quantized, "exported", tile=(32, 48), overlap=8).scale
    2
    >>> qsci_plugins.Upscaler("exported").upscale(np.zeros((40, 40, 3), np.uint8)).shape
    (80, 80, 3)
    """
    from qsci_plugins.openvino.export import export_reconstructor, export_upscaler

    device = quantized.device
    quantized.model.cpu()
    try:
        if frames is not None:
            return export_reconstructor(quantized, stock, folder, tile=tile, frames=frames, mode=mode, overlap=overlap)
        with torch.no_grad():
            side = quantized.model(torch.zeros(1, 3, *tile)).shape[-1]
        return export_upscaler(quantized, stock, folder, tile=tile, scale=side // tile[1], mode=mode, overlap=overlap)
    finally:
        quantized.model.to(device)


def save(quantized: QuantizedNetwork, file: Path | str) -> None:
    """Writes a calibrated network into one file for `load`. Raises UserError before calibration.

    >>> import torch, qsci_plugins
    >>> model = qsci_plugins.load_network("edsr", None, 2, blocks=1, width=8).module
    >>> quantized = qsci_plugins.quantize(model, torch.rand(2, 3, 24, 24) * 255, backend="brevitas")
    >>> qsci_plugins.save(quantized, "quantized.pt")
    """
    _backend(quantized.backend).save(quantized, file)


def load(model: nn.Module, file: Path | str) -> QuantizedNetwork:
    """The network that `save` wrote, in a copy of the same float network (whose own weights do not matter).

    It is where `model` is, wherever the saved one was. Raises UserError for another kind of file, and for another
    network's.

    >>> import torch, qsci_plugins
    >>> model = qsci_plugins.load_network("edsr", None, 2, blocks=1, width=8).module
    >>> quantized = qsci_plugins.quantize(model, torch.rand(2, 3, 24, 24) * 255, backend="brevitas")
    >>> qsci_plugins.save(quantized, "saved.pt")
    >>> image = torch.rand(1, 3, 24, 24) * 255
    >>> torch.equal(qsci_plugins.load(model, "saved.pt").model(image), quantized.model(image))
    True
    """
    content = load_without_code(Path(file))
    form = str(content.get("format", "")) if isinstance(content, dict) else ""
    name = form.removeprefix("qsci_plugins.").partition("/")[0]
    if name not in ("nncf", "brevitas"):
        raise UserError(f"{file} was not written by qsci_plugins.save; give such a file, or a run's checkpoint.pt")
    return _backend(name).load(model, file)  # type: ignore[no-any-return]


def _backend(name: str) -> Any:
    if name == "nncf":
        import qsci_plugins.nncf.backend as nncf_backend

        return nncf_backend
    if name == "brevitas":
        import qsci_plugins.brevitas.backend as brevitas_backend

        return brevitas_backend
    raise UserError(f"there is no backend {name!r}; take nncf or brevitas")


def _ignored(model: nn.Module, inputs: tuple[Tensor, ...], ignored: IgnoredScope | Sequence[str]) -> tuple[str, ...]:
    """Patterns of the layers to leave in float."""
    if isinstance(ignored, str):
        ignored = [ignored]
    if not isinstance(ignored, Sequence):
        from qsci_plugins.nncf.placement import ignored_layers

        return ignored_layers(model, tuple(tensor[:1] for tensor in inputs), ignored)
    names = list(place(model, Placement()))
    patterns: list[str] = []
    for pattern in ignored:
        inside = f"{pattern}.*"
        found = [p for p in (pattern, inside) if any(fnmatchcase(name, p) for name in names)]
        patterns += found or [pattern]  # a pattern that names nothing is an error of the placement's
    return tuple(patterns)
