"""CADyQ's bit selector: a bit-width for each sample from its image gradient and the deviation of its features."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.schemes.bit_width import current_ledger
from qsci_plugins.schemes.content import current_content
from qsci_plugins.schemes.fused.choice import fused_functions, unless_triton_fails
from qsci_plugins.schemes.mixture import hard_forward_soft_backward
from qsci_plugins.schemes.pams import SymmetricActivation
from qsci_plugins.schemes.quantizer import QParams, per_sample
from qsci_plugins.schemes.rounding import fake_quantize

__all__ = ["BitSelector"]


class BitSelector(SymmetricActivation):
    """scores = W [mean |dI/dx|, mean |dI/dy|, std of each channel of x] + b; the candidate with the highest is taken.

    Backward, bits and quantized tensor are the softmax mixture of all candidates (CADyQ, Eq. 4 to 6). `channels` is
    what x has along `channel_axis`. W starts at 1 and b at 0 but 1 for the widest candidate, which is therefore
    chosen at first.
    """

    input_dependent: ClassVar[bool] = True

    def __init__(
        self, channels: int, candidates: tuple[int, ...] = (4, 6, 8), *, integer: bool = False, channel_axis: int = 1
    ) -> None:
        super().__init__(tuple(candidates), integer=integer)
        self.channels = channels
        self.candidates = tuple(candidates)
        self.channel_axis = channel_axis
        #: always the widest candidate, as an ordinary PAMS quantizer: CADyQ's warm-up and its teacher
        self.widest_only = False
        self.weight = nn.Parameter(torch.ones(len(candidates), channels + 2))
        self.bias = nn.Parameter(torch.zeros(len(candidates)))
        with torch.no_grad():
            self.bias[-1] = 1.0

    def scores(self, x: Tensor) -> Tensor:
        """The score of every candidate for every sample, (N,K). Raises what `sensitivity` does."""
        sensitivity = self.sensitivity(x)
        # no matrix product: its rounding may depend on the number of rows, and a sample's bits must not
        if torch.jit.is_tracing():
            # the bias as one more term: where N = K, OpenVINO 2026.4's CPU plugin adds a bias behind a sum along N
            ones = torch.ones_like(sensitivity[:, :1])
            weight = torch.cat([self.weight, self.bias.unsqueeze(1)], 1)
            return (torch.cat([sensitivity, ones], 1).unsqueeze(1) * weight).sum(-1)
        return (sensitivity.unsqueeze(1) * self.weight).sum(-1) + self.bias

    def sensitivity(self, x: Tensor) -> Tensor:
        """What the selector looks at: the image's gradient along x and y and each channel's deviation, (N,C+2).

        Raises UserError outside of a network whose input module measured the images.
        """
        content = current_content()
        if content is None:
            raise UserError(
                "CADyQ's bit selector found no image statistics, which are measured on the network's input: complete"
                " a Brevitas model of CADyQAct layers by qsci_plugins.brevitas.attach_scheme(model, scheme), or run the"
                " network that a backend's quantize() or apply() returned"
            )
        gradients = content.gradient_xy
        samples = gradients.shape[0]
        # several rows of x may belong to one image (windows, or places of a video)
        features = x.detach()
        channel = self.channel_axis % features.dim()
        if not (torch.jit.is_tracing() and samples == features.shape[0]):
            # not where it changes nothing, as OpenVINO then moves the whole tensor into another memory layout
            features = features.reshape(samples, -1, *x.shape[1:])
            channel += 1
        return torch.cat([gradients, _deviations(features, channel)], dim=1)

    def expected_bits(self, scores: Tensor) -> Tensor:
        """The mean bit-width under softmax(scores), (N,)."""
        return (scores.softmax(1) * self.bits).sum(1)

    @torch.no_grad()
    def spread(self, sensitivity: Tensor) -> None:
        """Sets W and b so that each candidate is chosen by an equal share of these samples (M,C+2), wider ones by the more
        sensitive: score_k = k t - theta_1 - ... - theta_k, with t the mean of the standardised sensitivities, itself
        scaled to a deviation of 1, and theta its quantiles. k and k-1 meet at t = theta_k.
        """
        mean, deviation = sensitivity.mean(0), sensitivity.std(0)
        direction = torch.where(deviation > 1e-6, 1 / deviation.clamp_min(1e-6), 0.0)
        direction = direction / ((sensitivity - mean) @ direction).std().clamp_min(1e-6)
        t = (sensitivity - mean) @ direction
        count = len(self.candidates)
        thresholds = torch.quantile(t, torch.arange(1, count, device=t.device) / count)
        rank = torch.arange(count, device=t.device, dtype=t.dtype)
        self.weight.copy_(rank[:, None] * direction)
        self.bias.copy_(-rank * (mean @ direction))
        self.bias[1:] -= thresholds.cumsum(0)

    def choices(self, x: Tensor) -> QParams:
        """Scale, levels and bits of each candidate, (K,)."""
        return super().qparams(x)

    def qparams(self, x: Tensor) -> QParams:
        if self.widest_only:
            p = super().qparams(x)
            return QParams(p.scale[-1], None, p.low[-1], p.high[-1], p.bit_width[-1])
        choice = self.scores(x).argmax(1)
        p = super().qparams(x)
        return QParams(
            per_sample(p.scale[choice], x),
            None,
            per_sample(p.low[choice], x),
            per_sample(p.high[choice], x),
            per_sample(self.bits[choice], x),
        )

    def fused(self, x: Tensor, functions: Any) -> tuple[Tensor, Tensor] | None:
        return None  # of the widest candidate alone, which is one of several

    def simulate(self, x: Tensor) -> Tensor:
        if self.widest_only:
            return super().simulate(x)
        scores = self.scores(x)
        choice = scores.argmax(1)
        ledger = current_ledger()
        if ledger is not None:
            expected = self.expected_bits(scores)
            ledger.add(self, expected + (self.bits[choice] - expected).detach(), expected)
        functions = fused_functions(x) if x.is_cuda and self.integer else None
        if functions is not None:
            arguments = self, x, scores.softmax(1), self.alpha, self.bits, self.signed, choice
            fused = unless_triton_fails(functions.mixture, *arguments)
            if fused is not None:
                quantized: Tensor = fused
                return quantized
        p = super().qparams(x)
        if torch.is_grad_enabled() and (x.requires_grad or self.alpha.requires_grad or scores.requires_grad):
            rows = x.shape[0] // scores.shape[0]
            probabilities = scores.softmax(1)
            if rows > 1:
                probabilities, choice = probabilities.repeat_interleave(rows, 0), choice.repeat_interleave(rows, 0)
            return hard_forward_soft_backward(x, probabilities, p.scale, p.low, p.high, choice)
        chosen = (per_sample(bound[choice], x) for bound in (p.scale, p.low, p.high))
        scale, low, high = chosen
        return fake_quantize(x, scale, None, low, high)


def _deviations(features: Tensor, channel: int) -> Tensor:
    """The standard deviation of each sample's channels, (N,C).

    Tensor.std takes ten times as long as the mean and the norm of what is left, sample by sample in the cache.
    """
    axes = [axis for axis in range(1, features.dim()) if axis != channel]
    if torch.compiler.is_compiling() or features.device.type != "cpu":
        return features.std(axes)
    if torch.jit.is_tracing():
        # two sums that OpenVINO takes in passing; the deviations from the mean would be a tensor of their own
        # no int(), which would write the size of the traced image into graphs that run at others
        count = math.prod(features.shape[axis] for axis in axes)
        mean, norm = features.mean(axes), torch.linalg.vector_norm(features, dim=axes)
        return ((norm.square() - count * mean.square()).clamp_min(0) / (count - 1)).sqrt()
    deviations = []
    for sample in features:
        rows = sample.movedim(channel - 1, 0).flatten(1)
        centred = rows - rows.mean(1, keepdim=True)
        deviations.append(torch.linalg.vector_norm(centred, dim=1) / math.sqrt(rows.shape[1] - 1))
    return torch.stack(deviations)
