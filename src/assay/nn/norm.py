"""Normalisation: the `norm` field of `ModelConfig`.

Shapes: `...` any leading dimensions, D the model width. Statistics are taken over D, per token.
"""

from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import BeforeValidator, Field, PositiveFloat
from torch import Tensor, nn

from assay.schema import Config, kind_alone
from assay.source import Source

Affine = Literal["scale_shift", "scale", "none"]


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


class NoNormConfig(Config):
    """No normalisation: the control arm of the stability experiment."""

    kind: Literal["none"] = "none"
    source: ClassVar[Source | None] = None

    def build(self, d_model: int) -> nn.Module:
        """Return the identity."""
        return nn.Identity()


class LayerNormConfig(Config):
    """Centre, scale to unit variance, then an affine map per channel."""

    kind: Literal["layer"] = "layer"
    eps: PositiveFloat = 1e-5
    """Added to the variance, under the root."""
    affine: Affine = "scale_shift"
    """Learned per channel: a scale and a shift, a scale alone, or none."""
    source: ClassVar[Source | None] = Source("Ba et al. 2016", "arXiv:1607.06450", "eq. 4")

    def build(self, d_model: int) -> nn.Module:
        """Return PyTorch's own layer; ours would be no better."""
        scale, shift = self.affine != "none", self.affine == "scale_shift"
        return nn.LayerNorm(d_model, eps=self.eps, elementwise_affine=scale, bias=shift)


class SigmaNormConfig(Config):
    """Layer normalisation as the article writes it, ε outside the root."""

    kind: Literal["sigma"] = "sigma"
    eps: PositiveFloat = 1e-5
    """Added to the standard deviation, outside the root."""
    affine: Affine = "scale_shift"
    """Learned per channel: a scale and a shift, a scale alone, or none."""
    source: ClassVar[Source | None] = Source("the article", "docs/article.md", "section 2.2")

    def build(self, d_model: int) -> nn.Module:
        """Return a `SigmaNorm` of width `d_model`."""
        return SigmaNorm(d_model, eps=self.eps, affine=self.affine)


class RMSNormConfig(Config):
    """Scale by the root mean square; no centring, no shift."""

    kind: Literal["rms"] = "rms"
    eps: PositiveFloat = 1e-6
    """Added to the mean square, under the root."""
    affine: Literal["scale", "none"] = "scale"
    """Learned per channel: a scale, or nothing."""
    source: ClassVar[Source | None] = Source("Zhang & Sennrich 2019", "arXiv:1910.07467", "eq. 4")

    def build(self, d_model: int) -> nn.Module:
        """Return an `RMSNorm` of width `d_model`."""
        return RMSNorm(d_model, eps=self.eps, elementwise_affine=self.affine == "scale")


# A variant joins the laboratory by being named here, twice, and nowhere else.
NORMS = (NoNormConfig, LayerNormConfig, SigmaNormConfig, RMSNormConfig)
NormConfig = Annotated[
    NoNormConfig | LayerNormConfig | SigmaNormConfig | RMSNormConfig,
    Field(discriminator="kind"),
    BeforeValidator(kind_alone),
]
