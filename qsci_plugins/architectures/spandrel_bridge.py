"""Our networks in spandrel's registry, and spandrel's networks as ours."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

from spandrel import (
    MAIN_REGISTRY,
    Architecture,
    ArchSupport,
    ImageModelDescriptor,
    ModelLoader,
    ModelTiling,
    SizeRequirements,
)
from torch import Tensor, nn

from qsci_plugins.architectures.adapted import adapted, equalise_channels, fold_branches, part_joined
from qsci_plugins.architectures.network import Network, keep_inputs, repeated_blocks
from qsci_plugins.architectures.stock import StateDict, Stock, from_tensors
from qsci_plugins.errors import UserError

__all__ = ["StockArchitecture", "foreign_names", "load_foreign", "recognise_foreign", "register"]


class StockArchitecture(Architecture[nn.Module]):
    """One of our networks as spandrel describes networks: its call takes and returns images in 0..1.

    A video network's descriptor is there for its `model`, which takes a measurement and masks; calling the descriptor
    with an image raises UserError. Where tensors do not tell a scale, it is the network's default.
    """

    def __init__(self, stock: Stock) -> None:
        super().__init__(id=stock.name, detect=stock.detect)
        self.stock = stock

    def load(self, state_dict: dict[str, Any]) -> ImageModelDescriptor[nn.Module]:
        network = from_tensors(self.stock, state_dict, "the state dict")
        return ImageModelDescriptor(
            network.module,
            state_dict,
            architecture=self,
            purpose="SR" if network.scale > 1 else "Restoration",
            tags=[f"{name}={value}" for name, value in network.settings.items()],
            supports_half=False,
            supports_bfloat16=True,
            scale=network.scale,
            input_channels=network.channels if network.task == "sr" else 1,
            output_channels=network.channels,
            size_requirements=SizeRequirements(multiple_of=network.size_multiple),
            call_fn=_caller(network),
        )


def _caller(network: Network) -> Any:
    def upscale(module: nn.Module, image: Tensor) -> Tensor:
        return module(image * network.value_range) / network.value_range

    def refuse(module: nn.Module, image: Tensor) -> Tensor:
        raise UserError(f"{network.architecture} takes no image: call descriptor.model(measurement, mask, mask_sum)")

    return upscale if network.task == "sr" else refuse


def register(stocks: Sequence[Stock]) -> None:
    """Adds those of spandrel_extra_arches, where it is installed, and ours after spandrel's own.

    A second call changes nothing.
    """
    with suppress(ImportError):
        import spandrel_extra_arches

        spandrel_extra_arches.install(ignore_duplicates=True)
    MAIN_REGISTRY.add(
        *(ArchSupport.from_architecture(StockArchitecture(stock)) for stock in stocks), ignore_duplicates=True
    )


def foreign_names(stocks: Sequence[Stock]) -> list[str]:
    """Everything in spandrel's registry but ours, third parties' networks included."""
    ours = {stock.name for stock in stocks}
    return [str(known.architecture.id) for known in MAIN_REGISTRY if known.architecture.id not in ours]


def recognise_foreign(state: StateDict) -> str | None:
    """The first of spandrel's architectures that knows these tensors."""
    for known in MAIN_REGISTRY.architectures("detection"):
        if known.detect(dict(state)):
            return str(known.architecture.id)
    return None


def load_foreign(state: StateDict, scale: int | None, weights: str, settings: dict[str, Any]) -> Network:
    """A network that spandrel recognises. Its range is 0..1 and its hyper-parameters are spandrel's to read.

    Raises UserError for one that needs more than an image, or is of another scale.
    """
    contradicting = [name for name, value in settings.items() if (name, value) != ("value_range", 1.0)]
    if contradicting:
        raise UserError(
            f"{weights}: spandrel reads every setting from the tensors, and its range is 0..1; "
            f"leave out {', '.join(contradicting)}"
        )
    try:
        descriptor = ModelLoader(registry=MAIN_REGISTRY).load_from_state_dict(dict(state))
    except Exception as error:  # each of spandrel's networks fails in its own way on tensors that do not fit
        raise UserError(
            f"{weights} looks like {recognise_foreign(state)}, but spandrel cannot load it: {error}"
        ) from error
    name = str(descriptor.architecture.id)
    if not isinstance(descriptor, ImageModelDescriptor):
        raise UserError(f"{weights} holds {name}, which needs a mask beside the image; nothing here uses it")
    if name in _BY_IMAGE:
        raise UserError(
            f"{weights} holds {name}, which chooses among its layers by the image; no exported graph can do that"
        )
    if scale is not None and descriptor.scale != scale:
        raise UserError(f"{weights} holds {name} for x{descriptor.scale}, but model.scale is {scale}; make them agree")
    need = descriptor.size_requirements
    fold_branches(descriptor.model.eval())
    part_joined(descriptor.model)
    module = keep_inputs(equalise_channels(adapted(descriptor, weights).eval()))
    return Network(
        module=module,
        architecture=name,
        scale=descriptor.scale,
        value_range=1.0,
        blocks=repeated_blocks(module),
        settings={"tags": list(descriptor.tags)},
        size_multiple=need.multiple_of,
        size_minimum=max(1, need.minimum),
        square=need.square,
        tiling=descriptor.tiling is ModelTiling.SUPPORTED,
        batches=name not in _ONE_BY_ONE,
        removes=_REMOVES.get(name, ""),
    )


#: networks whose layers are different ones for different images
_BY_IMAGE = frozenset({"SeemoRe"})

#: what networks are for, where their name says it: of other restoration networks the weights alone decide
_REMOVES: dict[str, Literal["noise", "jpeg"]] = {
    "DnCNN": "noise",
    "DRUNet": "noise",
    "SCUNet": "noise",
    "FBCNN": "jpeg",
}

#: networks whose forward cuts one image into parts
_ONE_BY_ONE = frozenset({"IPT"})
