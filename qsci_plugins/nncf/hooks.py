"""The modules that NNCF calls between a stock network's operations: our quantizers, and what looks at the input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nncf.torch.layer_utils import StatefulModuleInterface
from torch import Tensor, nn
from torch._C import DisableTorchFunction
from torch.overrides import handle_torch_function, has_torch_function_unary

from qsci_plugins.schemes.content import set_content
from qsci_plugins.schemes.registry import describe, rebuild

__all__ = ["InputHook", "QuantizerHook", "SharedQuantizerHook"]


class QuantizerHook(nn.Module, StatefulModuleInterface):
    """Passes a tensor on its way into (or out of) an operation through a quantizer.

    `layer` is the module's name in the stock network and `role` says which of its quantizers this is, so that a wrapped
    network tells everything about itself; `details` has what else belongs to the role, as JSON.
    """

    def __init__(
        self,
        quantizer: nn.Module,
        layer: str,
        role: str,
        *,
        counted: bool = True,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.layer = layer
        self.role = role
        self.counted = counted
        self.details = dict(details or {})

    def forward(self, x: Tensor) -> Tensor:
        # One operation to NNCF, under the name by which it knows quantizers: its own algorithms then put nothing
        # inside, see a weight through it, and no time goes into naming every operation of a forward.
        def asymmetric_quantize(x: Tensor) -> Tensor:
            return self.quantizer(x)

        if has_torch_function_unary(x):
            return handle_torch_function(asymmetric_quantize, (x,), x)
        return asymmetric_quantize(x)

    def get_config(self) -> dict[str, Any]:
        return {
            "layer": self.layer,
            "role": self.role,
            "counted": self.counted,
            "details": self.details,
            "quantizer": describe(self.quantizer),
        }

    @classmethod
    def from_config(cls, state: Mapping[str, Any]) -> QuantizerHook:
        return cls(
            rebuild(state["quantizer"]),
            str(state["layer"]),
            str(state["role"]),
            counted=bool(state["counted"]),
            details=state["details"],
        )


class SharedQuantizerHook(QuantizerHook):
    """Quantizes once what several operations read: the input of a residual block, for its branch and its skip.

    `details["readers"]` is how many read it; the last one lets go of the tensors.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._held = _Held()

    def forward(self, x: Tensor) -> Tensor:
        held = self._held
        if held.given is not x:
            held.given, held.quantized, held.left = x, super().forward(x), self.details["readers"]
        quantized = held.quantized
        held.left -= 1
        if held.left == 0:
            held.given = held.quantized = None
        assert quantized is not None
        return quantized


class _Held:
    """A tensor and its quantized form while a forward is under way; a copied or saved network has none."""

    given: Tensor | None = None
    quantized: Tensor | None = None
    left = 0

    def __reduce__(self) -> tuple[type[_Held], tuple[()]]:
        return _Held, ()


class InputHook(nn.Module, StatefulModuleInterface):
    """Sees every network input before any layer runs: sets the content that the quantizers of this forward read.

    A network without an `input_module` clears it, so that another network's content is never taken for its own. The
    hook also carries what belongs to the network as a whole: the scheme's settings and the range of its images.
    """

    def __init__(self, input_module: nn.Module | None, scheme: Mapping[str, Any], value_range: float) -> None:
        super().__init__()
        self.input_module = input_module
        self.scheme = dict(scheme)
        self.value_range = value_range

    def forward(self, image: Tensor) -> Tensor:
        with DisableTorchFunction():  # NNCF's graph must not show these operations, or it would quantize them
            if self.input_module is None:
                set_content(None)
            else:
                self.input_module(image)
        return image

    def get_config(self) -> dict[str, Any]:
        described = None if self.input_module is None else describe(self.input_module)
        return {"input_module": described, "scheme": self.scheme, "value_range": self.value_range}

    @classmethod
    def from_config(cls, state: Mapping[str, Any]) -> InputHook:
        described = state["input_module"]
        module = None if described is None else rebuild(described)
        return cls(module, state["scheme"], float(state["value_range"]))
