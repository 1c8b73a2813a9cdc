"""What a method is to a backend: it makes quantizers for layers, and fits them to calibration batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.schemes.attention import AttentionQuantizers
from qsci_plugins.schemes.bit_width import record_bits
from qsci_plugins.schemes.block_skip import attach_skips
from qsci_plugins.schemes.content import InputModule
from qsci_plugins.schemes.placement import Placement, Precision, first_argument, place, with_first_argument
from qsci_plugins.schemes.quantizer import Mode, ObservingQuantizer, Quantizer
from qsci_plugins.schemes.weight import limit_weights

__all__ = [
    "LayerQuantizers",
    "Plan",
    "QuantizedNetwork",
    "Scheme",
    "SchemeConfig",
    "attach_block",
    "check_batches",
    "complete_observation",
    "finish_observation",
    "first_inputs",
    "inputs_of",
    "module_device",
    "note_batch_images",
    "refine_pass",
    "set_mode",
]


class SchemeConfig(BaseModel):
    """The settings of a scheme as a recipe gives them; unknown keys and wrong types ("4" for 4, 1 for true) are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    name: str


@dataclass
class QuantizedNetwork:
    """A stock network with a scheme's quantizers in place, whichever backend put them there.

    `model(x)` is the quantized network; `layers`, `blocks` and `attentions` are those of its `Plan`; `input_module`
    (where the scheme has one) sees every input and sets the content. All parameters are shared with `model`.

    >>> import torch
    >>> from qsci_plugins import Placement, load_network, make_scheme
    >>> from qsci_plugins.brevitas import quantize
    >>> model = load_network("edsr", None, 2, blocks=1, width=8).module
    >>> images = torch.arange(2 * 3 * 16 * 16).view(2, 3, 16, 16) % 256.0
    >>> scheme = make_scheme({"name": "adabm", "weight_bits": 4, "activation_bits": 8, "form": "integer"})
    >>> network = quantize(model, scheme, Placement(targets=("body.*",)), [images], 255.0)
    >>> network.backend, tuple(network.fab(images).shape), network.calibrated()
    ('brevitas', (2,), True)
    """

    model: nn.Module
    backend: str
    scheme: Scheme
    layers: dict[str, LayerQuantizers]
    input_module: nn.Module | None = None
    value_range: float = 255.0
    blocks: dict[str, Quantizer] = field(default_factory=dict)
    attentions: dict[str, AttentionQuantizers] = field(default_factory=dict)
    #: makes the stock network once more, with this one's weights and no quantizer; None where its backend cannot
    float_form: Callable[[], nn.Module] | None = None
    #: what another algorithm of the host quantized in it, by the host's names
    foreign: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.skipped:
            attach_skips(self.model, self.skipped)

    @property
    def device(self) -> torch.device:
        """Where the network is, and its inputs have to be."""
        return module_device(self.model)

    def counted(self) -> list[Quantizer]:
        """The activation quantizers that FAB averages over."""
        inputs = [q.activation for q in self.layers.values() if q.counted and q.activation is not None]
        return [*inputs, *self.blocks.values()]

    def quantizers(self) -> list[Quantizer]:
        """Every quantizer: those of the layers in their order, then of blocks and attentions."""
        layers = [q for layer in self.layers.values() for q in layer]
        return [*layers, *self.blocks.values(), *(q for attention in self.attentions.values() for q in attention)]

    @torch.no_grad()
    def fab(self, x: Tensor | Sequence[Tensor]) -> Tensor:
        """Feature average bit-width of each image of a batch, (N,); several tensors for a network of several inputs.

        The images may be on another device than the network.
        """
        arguments = inputs_of(x, self.device)
        with record_bits() as ledger:
            self.model(*arguments)
        return ledger.mean(self.counted()).expand(arguments[0].shape[0])

    def thresholds(self) -> tuple[float, float] | None:
        """The image gradients between which an image has its usual bits; None where bits do not depend on them so."""
        return self.input_module.thresholds() if isinstance(self.input_module, InputModule) else None

    @property
    def skipped(self) -> tuple[str, ...]:
        """Names of the residual blocks that images of the lowest image factor skip."""
        return self.input_module.skipped if isinstance(self.input_module, InputModule) else ()

    def calibrated(self) -> bool:
        """Whether every quantizer has had its parameters set."""
        return all(bool(q.calibrated) for q in self.quantizers())


class Scheme(ABC):
    """A method. Framework-free: backends call `plan` and `input_module` once per network."""

    #: the config class that a recipe's `scheme:` mapping is read with
    Config: ClassVar[type[SchemeConfig]]

    def __init__(self, config: SchemeConfig) -> None:
        self.config = config
        #: called with what is under way, the steps done and their total; a backend may show it
        self.on_progress: Callable[[str, int, int], None] = lambda title, done, total: None

    @property
    def base_bits(self) -> float:
        """The bits of an activation before anything adapts them."""
        return 8.0

    @property
    def possible_bits(self) -> tuple[int, ...]:
        """The bit-widths that a layer's activation can get, the smallest first; () where there is no list of them."""
        return ()

    @abstractmethod
    def layer(self, module: nn.Module, precision: Precision) -> LayerQuantizers:
        """New quantizers for a layer of the stock network (its weight may be looked at, never changed)."""

    def plan(self, model: nn.Module, placement: Placement, example: Tensor | Sequence[Tensor]) -> Plan:
        """The quantizers of a whole network; `example` is an input that it runs with (or several, for several).

        A scheme that quantizes more than layers overrides it. Raises UserError for a placement that does not fit.
        """
        precisions = place(model, placement)
        return Plan({name: self.layer(model.get_submodule(name), kind) for name, kind in precisions.items()})

    def input_module(self, value_range: float) -> nn.Module | None:
        """A module that sees every network input (N,C,H,W) in 0..value_range and returns it unchanged, or None.

        Where bits depend on the image's gradient, it is an `InputModule` with `thresholds`.
        """
        return None

    def after_observation(self, layers: Mapping[str, LayerQuantizers]) -> None:  # noqa: B027
        """What needs all layers at once, after every quantizer is initialised (layer-to-bit ranks them)."""

    def static(self) -> Scheme | None:
        """W8A8 of the same kind, in integers: nothing adapts to the image or shifts, and no weight is reconstructed.

        What others would get of this network at the same placement, to compare with. None, as here, for a scheme that
        has no such form; comparisons then say so.
        """
        return None

    def is_same(self, other: Scheme | None) -> bool:
        """Whether both are the same method with the same settings."""
        return type(self) is type(other) and other is not None and self.config == other.config

    @property
    def thresholds_follow_size(self) -> bool:
        """Whether image thresholds are to be fitted to images of the size that will be asked about."""
        return False

    @property
    def skips_blocks(self) -> bool:
        """Whether images of the lowest image factor skip blocks, for which they need a graph of their own."""
        return False

    #: whether quantizers want one REFINE pass over the first inputs
    refines: ClassVar[bool] = False

    @property
    def batch_images(self) -> int:
        """How many images a calibration batch should have: smaller ones count together; 1 takes all as they are."""
        return 1

    def complete(self, network: QuantizedNetwork, inputs: tuple[Tensor, ...]) -> None:
        """The last step of calibration, on `first_inputs`: each layer fits its range to what reaches it."""
        if self.refines:
            refine_pass(network, inputs)


def set_mode(quantizers: Iterable[Quantizer], mode: Mode) -> None:
    """Puts quantizers into one mode."""
    for quantizer in quantizers:
        quantizer.mode = mode


@torch.no_grad()
def refine_pass(network: QuantizedNetwork, inputs: tuple[Tensor, ...]) -> None:
    """Runs the quantized network once while each quantizer fits itself to the tensor that reaches it."""
    set_mode(network.quantizers(), Mode.REFINE)
    try:
        network.model(*inputs)
    finally:
        set_mode(network.quantizers(), Mode.ON)


#: numbers in the inputs that are joined for `Scheme.complete`: patches, not whole photos
_JOINED = 1 << 20


def first_inputs(batches: Iterable[Sequence[Tensor]], images: int) -> tuple[Tensor, ...]:
    """The first batch of inputs, and those behind it of the same shape, until there are so many images (or 2^20 numbers).

    The first batch alone where an input has no axis of images.
    """
    first, *others = [tuple(batch) for batch in batches]
    count, numbers = first[0].shape[0], sum(tensor.numel() for tensor in first)
    wanted = min(-(-images // max(1, count)), _JOINED // max(1, numbers))
    if any(tensor.dim() == 0 or tensor.shape[0] != count for tensor in first):
        wanted = 1
    shapes = [tensor.shape for tensor in first]
    joined = [
        first,
        *takewhile(lambda batch: [tensor.shape for tensor in batch] == shapes, others[: max(0, wanted - 1)]),
    ]
    return first if len(joined) == 1 else tuple(torch.cat(parts) for parts in zip(*joined, strict=True))


def note_batch_images(network: QuantizedNetwork, images: int) -> None:
    """Lets quantizers know that batches have so many images, before they are initialised."""
    for quantizer in network.quantizers():
        if isinstance(quantizer, ObservingQuantizer):
            quantizer.batches_together = -(-network.scheme.batch_images // max(1, images))


def finish_observation(network: QuantizedNetwork, images: int) -> None:
    """Initialises every quantizer from what it observed of batches of so many images, then lets the scheme look at all."""
    note_batch_images(network, images)
    for quantizer in network.quantizers():
        quantizer.initialise()
    complete_observation(network)


def complete_observation(network: QuantizedNetwork) -> None:
    """What needs all quantizers initialised: the scheme's own part, and weights that are exact on every CPU."""
    network.scheme.after_observation(network.layers)
    if getattr(network.scheme.config, "form", "integer") == "integer":
        limit_weights(network.layers, network.model)


def inputs_of(batch: Tensor | Sequence[Tensor], device: torch.device | None = None) -> tuple[Tensor, ...]:
    """The network's arguments, on `device` where it is given: one tensor, or those of a network that takes several."""
    arguments = (batch,) if isinstance(batch, Tensor) else tuple(batch)
    return arguments if device is None else tuple(tensor.to(device) for tensor in arguments)


def module_device(module: nn.Module, default: torch.device | None = None) -> torch.device:
    """Where a module's first parameter or buffer is; `default`, or the CPU, for a module without any."""
    tensors = (*module.parameters(), *module.buffers())
    return tensors[0].device if tensors else default or torch.device("cpu")


def check_batches(batches: Sequence[Tensor | Sequence[Tensor]], value_range: float) -> None:
    """Raises UserError unless the batches look like images of a network that takes 0..value_range.

    Of several inputs the first is looked at, but not its range: a snapshot measurement is a sum of frames.
    """
    if not batches:
        raise UserError("calibration got no images; give at least one batch")
    for batch in (inputs_of(batch)[0] for batch in batches):
        if batch.dim() < 3:
            raise UserError(
                f"calibration images must be (N,C,H,W), got a tensor of shape {tuple(batch.shape)};"
                " stack them into batches"
            )
        if not torch.isfinite(batch).all():
            raise UserError("calibration images hold NaN or infinite values")
    images = [batch for batch in batches if isinstance(batch, Tensor)]
    if not images:
        return
    top = max(float(image.max()) for image in images)
    if value_range <= 1.0 and top > 2.0:
        raise UserError(f"calibration images reach {top:.0f}, but this network takes 0..1; divide them by 255")
    if value_range > 2.0 and top <= 1.0:
        raise UserError(f"calibration images end at {top:.2f}, but this network takes 0..{value_range:.0f}; scale them")


#: the name under which a residual block holds the quantizer of its input
CHILD = "qsci_input"


@dataclass
class LayerQuantizers:
    """The quantizers of one layer: of its input, its weight and, where a scheme asks for it, its output."""

    activation: Quantizer | None
    weight: Quantizer | None
    output: Quantizer | None = None
    #: whether FAB counts the activation (8-bit head and tail are not counted, in the papers)
    counted: bool = True

    def __iter__(self) -> Iterator[Quantizer]:
        return (q for q in (self.activation, self.weight, self.output) if q is not None)


@dataclass
class Plan:
    """All quantizers of a network, by the stock network's module names.

    `layers`: convolutions and linear layers. `blocks`: residual blocks whose input is quantized once per forward, for
    the branch and the skip alike; the layers that read it have no activation quantizer of their own. `attentions`:
    modules whose matrix products are quantized.
    """

    layers: dict[str, LayerQuantizers]
    blocks: dict[str, Quantizer] = field(default_factory=dict)
    attentions: dict[str, AttentionQuantizers] = field(default_factory=dict)

    def beside(self, model: nn.Module) -> Plan:
        """Moves each quantizer to the device of the layer, block or attention that it serves; returns the plan itself."""
        device = module_device(model)
        served: list[tuple[str, nn.Module]] = [
            (name, quantizer) for name, layer in self.layers.items() for quantizer in layer
        ]
        for name, module in (*served, *self.blocks.items(), *self.attentions.items()):
            module.to(module_device(model.get_submodule(name), device))
        return self


def attach_block(module: nn.Module, quantizer: Quantizer) -> None:
    """Quantizes the first input of a module before it runs; the quantizer becomes its child `qsci_input`."""
    module.add_module(CHILD, quantizer)
    module.register_forward_pre_hook(_quantize_input, with_kwargs=True)


def _quantize_input(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return with_first_argument(args, kwargs, getattr(module, CHILD)(first_argument(args, kwargs)))
