"""Normalisation: the `norm` field of `ModelConfig`.

Shapes: `...` any leading dimensions, D the model width. Statistics are taken over D, per token.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import PositiveFloat
from torch import Tensor, nn

from assay.citation import Citation
from assay.errors import NoReferenceError
from assay.family import Family, Variant

Affine = Literal["scale_shift", "scale", "none"]
_AFFINE_VECTORS = {"none": 0, "scale": 1, "scale_shift": 2}


class NormVariant(Variant):
    """A norm: a layer that maps activations of width D to activations of width D, per token.

    Attributes:
        native_kind: As in native/abi.h.
    """

    def build(self, d_model: int) -> nn.Module:
        """Return the layer for activations of width `d_model`."""
        raise NotImplementedError

    def num_params(self, d_model: int) -> int | None:
        """Return how many numbers it learns, in closed form; None: not counted."""
        return None

    def reference(
        self, x: Float[Tensor, "T D"], weights: Mapping[str, Tensor]
    ) -> Float[Tensor, "T D"]:
        """Return what `build(D)` computes, written out in float64; `weights` by parameter name."""
        raise NoReferenceError(
            f"norm={self.kind}: no `reference` found in {type(self).__name__}; expected one that "
            "writes its formula out in float64, to compare with."
        )


class SigmaNorm(nn.Module):
    r"""Layer normalisation that adds ε to σ itself, not to σ² under the root.

    $$y = \gamma \frac{x - \mu}{\sigma + \varepsilon} + \beta$$

    `nn.LayerNorm` divides by $\sqrt{\sigma^2 + \varepsilon}$ instead. They part where σ < √ε: there
    `nn.LayerNorm` damps a token, and this still raises it to unit variance until σ nears ε. At
    σ = 0 (all channels equal) its gradient is not a number.
    """

    def __init__(self, d_model: int, *, eps: float, affine: Affine) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model)) if affine != "none" else None  # γ
        self.bias = nn.Parameter(torch.zeros(d_model)) if affine == "scale_shift" else None  # β

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Normalise over D in at least float32 and return the dtype of `x`."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        centred = wide - wide.mean(-1, keepdim=True)
        y = centred / (centred.square().mean(-1, keepdim=True).sqrt() + self.eps)
        y = y if self.weight is None else self.weight * y
        y = y if self.bias is None else y + self.bias
        return y.to(x.dtype)


class RMSNorm(nn.RMSNorm):
    """PyTorch's own layer, but for eager mode on a CPU, where it is no kernel but a dozen of them.

    Under autocast a branch hands on bfloat16 while weights stay float32: its input is given the
    dtype of its weight, since PyTorch would warn and leave its fused kernel.
    """

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Normalise over D and return the dtype of `x`."""
        wide = x if self.weight is None else x.to(self.weight.dtype)
        if self.weight is None or self.eps is None or not _in_eager_cpu(wide):
            return super().forward(wide).to(x.dtype)
        return RootMeanSquare.apply(wide, self.weight, self.eps)[0].to(x.dtype)  # type: ignore[no-untyped-call]


def _in_eager_cpu(x: Tensor) -> bool:
    wide = x.dtype in (torch.float32, torch.float64)
    return wide and x.device.type == "cpu" and not torch.compiler.is_compiling()


class RootMeanSquare(torch.autograd.Function):
    r"""$y = \gamma x r$ with $r = (\mathrm{mean}\,x^2 + \varepsilon)^{-1/2}$, in few passes.

    With $h = x \odot dy$, the gradients are $d\gamma = \sum r h$ over tokens and
    $dx = r \gamma \odot dy - x r^3 (h \cdot \gamma) / D$: two products of h with a vector.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Return y and r. The second is an output so that a gradient of a gradient finds it."""
        r = ((x * x).sum(-1, keepdim=True) / x.shape[-1] + eps).rsqrt()
        return x * r * weight, r

    @staticmethod
    def setup_context(
        ctx: Any,  # noqa: ANN401 (vmap has a context of its own)
        inputs: tuple[Tensor, Tensor, float],
        output: tuple[Tensor, Tensor],
    ) -> None:
        """Keep x, γ and r."""
        ctx.save_for_backward(*inputs[:2], output[1])

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401
        *grads: Tensor,
    ) -> tuple[Tensor, Tensor, None]:
        """Return the gradients of x and γ."""
        x, weight, r = ctx.saved_tensors
        dy, dr = grads
        h = dy * x
        along = (h @ weight)[..., None] + dr
        d_weight = h.reshape(-1, x.shape[-1]).mT @ r.flatten()
        return torch.addcmul(dy * weight * r, x, along * r**3 / -x.shape[-1]), d_weight, None


class NoNormConfig(NormVariant):
    """No normalisation: the control arm of the stability experiment."""

    kind: Literal["none"] = "none"
    native_kind: ClassVar[int | None] = 0

    def build(self, d_model: int) -> nn.Module:
        """Return the identity."""
        return nn.Identity()

    def num_params(self, d_model: int) -> int | None:
        """Return 0."""
        return 0


class LayerNormConfig(NormVariant):
    """Centre, scale to unit variance, then an affine map per channel."""

    kind: Literal["layer"] = "layer"
    eps: PositiveFloat = 1e-5
    """Added to the variance, under the root."""
    affine: Affine = "scale_shift"
    """Learned per channel: a scale and a shift, a scale alone, or none."""
    citation: ClassVar[Citation | None] = Citation("Ba et al. 2016", "arXiv:1607.06450", "eq. 4")
    native_kind: ClassVar[int | None] = 1

    def build(self, d_model: int) -> nn.Module:
        """Return PyTorch's own layer; ours would be no better."""
        scale, shift = self.affine != "none", self.affine == "scale_shift"
        return nn.LayerNorm(d_model, eps=self.eps, elementwise_affine=scale, bias=shift)

    def num_params(self, d_model: int) -> int | None:
        """Return a number per channel for each of scale and shift."""
        return _AFFINE_VECTORS[self.affine] * d_model


class SigmaNormConfig(NormVariant):
    """Layer normalisation as the article writes it, ε outside the root."""

    kind: Literal["sigma"] = "sigma"
    eps: PositiveFloat = 1e-5
    """Added to the standard deviation, outside the root."""
    affine: Affine = "scale_shift"
    """Learned per channel: a scale and a shift, a scale alone, or none."""
    citation: ClassVar[Citation | None] = Citation("the article", "docs/article.md", "section 2.2")
    native_kind: ClassVar[int | None] = 2

    def build(self, d_model: int) -> nn.Module:
        """Return a `SigmaNorm` of width `d_model`."""
        return SigmaNorm(d_model, eps=self.eps, affine=self.affine)

    def num_params(self, d_model: int) -> int | None:
        """Return a number per channel for each of scale and shift."""
        return _AFFINE_VECTORS[self.affine] * d_model


class RMSNormConfig(NormVariant):
    """Scale by the root mean square; no centring, no shift."""

    kind: Literal["rms"] = "rms"
    eps: PositiveFloat = 1e-6
    """Added to the mean square, under the root."""
    affine: Literal["scale", "none"] = "scale"
    """Learned per channel: a scale, or nothing."""
    citation: ClassVar[Citation | None] = Citation(
        "Zhang & Sennrich 2019", "arXiv:1910.07467", "eq. 4"
    )
    native_kind: ClassVar[int | None] = 3

    def build(self, d_model: int) -> nn.Module:
        """Return an `RMSNorm` of width `d_model`."""
        return RMSNorm(d_model, eps=self.eps, elementwise_affine=self.affine == "scale")

    def num_params(self, d_model: int) -> int | None:
        """Return a number per channel for each of scale and shift."""
        return _AFFINE_VECTORS[self.affine] * d_model


class DynamicTanh(nn.Module):
    r"""A squashing in place of a norm: $y = \gamma \tanh(\alpha x) + \beta$, without statistics."""

    def __init__(self, d_model: int, *, alpha: float) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), alpha))
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Squash in at least float32 and return the dtype of `x`."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return (torch.tanh(self.alpha * wide) * self.weight + self.bias).to(x.dtype)


class DyTConfig(NormVariant):
    """Dynamic tanh: squash each channel by itself, with a learned slope; then scale and shift."""

    kind: Literal["dyt"] = "dyt"
    alpha: PositiveFloat = 0.5
    """The slope at the start."""
    citation: ClassVar[Citation | None] = Citation("Zhu et al. 2025", "arXiv:2503.10622", "sec. 4")

    def build(self, d_model: int) -> nn.Module:
        """Return a `DynamicTanh` of width `d_model`."""
        return DynamicTanh(d_model, alpha=self.alpha)

    def num_params(self, d_model: int) -> int | None:
        """Return a scale and a shift per channel, and the slope."""
        return 2 * d_model + 1

    def reference(
        self, x: Float[Tensor, "T D"], weights: Mapping[str, Tensor]
    ) -> Float[Tensor, "T D"]:
        """Return the tanh by exponentials, 1 - 2 / (e^2z + 1), scaled and shifted."""
        tanh = 1 - 2 / (torch.exp(2 * weights["alpha"] * x) + 1)
        return weights["weight"] * tanh + weights["bias"]


NORMS = Family(
    NormVariant, (NoNormConfig, LayerNormConfig, SigmaNormConfig, RMSNormConfig, DyTConfig)
)
NormConfig = Annotated[NormVariant, NORMS]
