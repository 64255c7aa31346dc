"""The feed-forward layer: the `mlp` field of `ModelConfig`.

Shapes: `...` any leading dimensions, D the model width, F the inner width `d_ff`.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from assay.citation import Citation
from assay.errors import NoReferenceError
from assay.family import Family, Variant
from assay.schema import Size

Activation = Callable[[Tensor], Tensor]


class MLP(nn.Module):
    r"""Two layers: $\mathrm{down}(a(\mathrm{up}(x)))$."""

    def __init__(self, d_model: int, d_ff: int, activation: Activation, *, bias: bool) -> None:
        super().__init__()
        self.activation = activation
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.down = nn.Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Map each token by itself."""
        return self.down(self.activation(self.up(x)))


class GatedMLP(nn.Module):
    r"""Three layers: $\mathrm{down}(a(\mathrm{gate}(x)) \odot \mathrm{up}(x))$."""

    def __init__(self, d_model: int, d_ff: int, activation: Activation, *, bias: bool) -> None:
        super().__init__()
        self.activation = activation
        self.gate = nn.Linear(d_model, d_ff, bias=bias)
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.down = nn.Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Map each token by itself."""
        return self.down(self.activation(self.gate(x)) * self.up(x))


def gelu_tanh(x: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """GELU by its tanh formula.

    Source: Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2.
    """
    return F.gelu(x, approximate="tanh")


def relu2(x: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """Square of the positive part.

    Source: So et al. 2021, arXiv:2109.08668, section 3.2.
    """
    return F.relu(x).square()


def plain_width(d_model: int) -> int:
    """Return 4 D, the inner width of the original transformer."""
    return 4 * d_model


def gated_width(d_model: int) -> int:
    """Return 8/3 D rounded up to a multiple of 8: the parameters of a plain layer of 4 D.

    Source: Shazeer 2020, arXiv:2002.05202, section 2.
    """
    return 8 * -(-d_model // 3)


class MLPVariant(Variant):
    """What works on each token by itself.

    Attributes:
        gated: Whether its module holds a third matrix, `gate`.
        native_kind: Its activation, as in native/abi.h.
    """

    gated: ClassVar[bool] = False

    def width(self, d_model: int) -> int:
        """Return the inner width, or whatever stands for it."""
        return plain_width(d_model)

    def build(self, d_model: int, *, bias: bool) -> nn.Module:
        """Return the module, which maps (..., D) to (..., D)."""
        raise NotImplementedError

    def num_params(self, d_model: int, *, bias: bool) -> int | None:
        """Return how many numbers a layer learns, in closed form; None: not counted."""
        return None

    def matrix_flops(self, d_model: int) -> int | None:
        """Return the FLOPs of a token in products with weights, of a layer; None: not counted."""
        return None

    def reference(
        self, x: Float[Tensor, "T D"], weights: Mapping[str, Tensor]
    ) -> Float[Tensor, "T D"]:
        """Return what a layer computes, written out in float64; `weights` by parameter name."""
        raise NoReferenceError(
            f"mlp={self.kind}: no `reference` found in {type(self).__name__}; expected one that "
            "writes it out in float64, to compare with."
        )


class DenseConfig(MLPVariant):
    """What all variants of assay share: two or three matrices and an activation."""

    d_ff: Size | None = None
    """Inner width."""

    @abstractmethod
    def activation(self) -> Activation:
        """Return the function of the inner layer, or of its gate."""

    def reference_activation(self, x: Float[Tensor, "T F"]) -> Float[Tensor, "T F"]:
        """Return what `activation()` computes, written out in float64."""
        raise NoReferenceError(
            f"mlp={self.kind}: no `reference_activation` found in {type(self).__name__}; expected "
            "one that writes its formula out in float64, to compare with."
        )

    def num_params(self, d_model: int, *, bias: bool) -> int | None:
        """Return those of the matrices and of their biases."""
        biases = (1 + self.gated) * self.width(d_model) + d_model if bias else 0
        return self._matrices(d_model) + biases

    def matrix_flops(self, d_model: int) -> int | None:
        """Return two FLOPs a number of a matrix."""
        return 2 * self._matrices(d_model)

    def _matrices(self, d_model: int) -> int:
        return (2 + self.gated) * d_model * self.width(d_model)


class PlainConfig(DenseConfig):
    """What the plain layers share: a variant names its kind and its activation."""

    d_ff: Size | None = None
    """Inner width. Null: 4 d_model."""

    def width(self, d_model: int) -> int:
        """Return the inner width."""
        return self.d_ff or plain_width(d_model)

    def build(self, d_model: int, *, bias: bool) -> nn.Module:
        """Return an `MLP`."""
        return MLP(d_model, self.width(d_model), self.activation(), bias=bias)


class GatedConfig(DenseConfig):
    """What the gated layers share: a variant names its kind and the activation of its gate."""

    d_ff: Size | None = None
    """Inner width. Null: 8/3 d_model, rounded up to a multiple of 8."""
    gated: ClassVar[bool] = True

    def width(self, d_model: int) -> int:
        """Return the inner width."""
        return self.d_ff or gated_width(d_model)

    def build(self, d_model: int, *, bias: bool) -> nn.Module:
        """Return a `GatedMLP`."""
        return GatedMLP(d_model, self.width(d_model), self.activation(), bias=bias)


class GELUConfig(PlainConfig):
    """Gaussian error linear unit, exact or by the tanh formula that GPT-2 uses."""

    kind: Literal["gelu"] = "gelu"
    approximate: Literal["none", "tanh"] = "none"
    """`none` is x Φ(x) exactly; `tanh` its approximation."""
    citation: ClassVar[Citation | None] = Citation(
        "Hendrycks & Gimpel 2016", "arXiv:1606.08415", "sec. 2"
    )
    native_kind: ClassVar[int | None] = 0

    def activation(self) -> Activation:
        """Return GELU."""
        return F.gelu if self.approximate == "none" else gelu_tanh

    def kernel_kind(self) -> int | None:
        """Return the number of the formula."""
        return 0 if self.approximate == "none" else 1


class ReLUConfig(PlainConfig):
    """Rectified linear unit."""

    kind: Literal["relu"] = "relu"
    citation: ClassVar[Citation | None] = Citation(
        "Vaswani et al. 2017", "arXiv:1706.03762", "eq. 2"
    )
    native_kind: ClassVar[int | None] = 2

    def activation(self) -> Activation:
        """Return ReLU."""
        return F.relu


class ReLU2Config(PlainConfig):
    """Square of the rectified linear unit."""

    kind: Literal["relu2"] = "relu2"
    citation: ClassVar[Citation | None] = Citation("So et al. 2021", "arXiv:2109.08668", "sec. 3.2")
    native_kind: ClassVar[int | None] = 3

    def activation(self) -> Activation:
        """Return ReLU squared."""
        return relu2


class SwiGLUConfig(GatedConfig):
    """A linear layer gated by SiLU."""

    kind: Literal["swiglu"] = "swiglu"
    citation: ClassVar[Citation | None] = Citation("Shazeer 2020", "arXiv:2002.05202", "eq. 6")
    native_kind: ClassVar[int | None] = 4

    def activation(self) -> Activation:
        """Return SiLU."""
        return F.silu


class GeGLUConfig(GatedConfig):
    """A linear layer gated by GELU."""

    kind: Literal["geglu"] = "geglu"
    citation: ClassVar[Citation | None] = Citation("Shazeer 2020", "arXiv:2002.05202", "eq. 6")
    native_kind: ClassVar[int | None] = 0

    def activation(self) -> Activation:
        """Return GELU."""
        return F.gelu


MLPS = Family(MLPVariant, (GELUConfig, ReLUConfig, ReLU2Config, SwiGLUConfig, GeGLUConfig))
MLPConfig = Annotated[MLPVariant, MLPS]
