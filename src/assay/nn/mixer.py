"""What moves information between tokens: the `mixer` field of `ModelConfig`.

Shapes: B batch, T tokens, D model width, H heads, C = H · K channels, K width of one head.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from assay.citation import Citation
from assay.errors import NoReferenceError
from assay.family import Family, Variant
from assay.nn.attention import Context, attend
from assay.nn.cache import LayerCache
from assay.nn.norm import RMSNorm
from assay.nn.rotation import Rotation
from assay.schema import Size

Probability = Annotated[float, Field(ge=0, lt=1)]
QK_NORM_EPS = 1e-6
"""Of the norms of queries and keys."""


class Attention(nn.Module):
    r"""Scaled dot-product attention over H heads that share G keys and values.

    $$\mathrm{out}_h = \mathrm{softmax}(Q_h K_{g(h)}^T / \sqrt{K} + M) V_{g(h)}$$

    Normalised queries and keys take an RMS norm per head with a learned scale, as Qwen 3 does.

    Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1; Ainslie et al. 2023, arXiv:2305.13245, for
    G < H; Henry et al. 2020, arXiv:2010.04245, for normalised queries and keys.
    """

    def __init__(self, d_model: int, config: "AttentionConfig", *, bias: bool) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads = config.n_heads, config.kv_heads
        self.dropout = config.dropout
        d_head = d_model // config.n_heads
        d_kv = d_head * config.kv_heads
        self.q_proj = nn.Linear(d_model, d_model, bias=bias)
        self.k_proj = nn.Linear(d_model, d_kv, bias=bias)
        self.v_proj = nn.Linear(d_model, d_kv, bias=bias)
        self.out_proj = nn.Linear(d_model, d_model, bias=bias)
        self.q_norm = RMSNorm(d_head, eps=QK_NORM_EPS) if config.qk_norm else None
        self.k_norm = RMSNorm(d_head, eps=QK_NORM_EPS) if config.qk_norm else None

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context, cache: LayerCache | None = None
    ) -> Float[Tensor, "B T D"]:
        """Mix the tokens of `x` with each other and with those in `cache`, which takes them in."""
        q = self._heads(self.q_proj(x), self.q_norm, context.rotation)
        k = self._heads(self.k_proj(x), self.k_norm, context.rotation)
        v = self._heads(self.v_proj(x), None, None)
        k = k.to(v.dtype)
        if cache is not None:
            k, v = cache.extend(k, v)
        dropout = self.dropout if self.training else 0.0
        mixed = attend(q.to(v.dtype), k, v, context, dropout=dropout)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def _heads(
        self, x: Float[Tensor, "B T C"], norm: nn.Module | None, rotation: Rotation | None
    ) -> Float[Tensor, "B H T K"]:
        d_head = self.q_proj.out_features // self.n_heads
        heads = x.view(*x.shape[:2], -1, d_head).transpose(1, 2)
        heads = heads if norm is None else norm(heads)
        return heads if rotation is None else rotation(heads)


@dataclass(frozen=True, slots=True)
class Heads:
    """What positions, masks, caches and kernels must know of a mixer that is attention.

    Attributes:
        n_heads: H, query heads.
        n_kv_heads: G, key and value heads.
        window: Tokens a query sees, itself included. None: all before it.
        dropout: Probability with which an attention weight is zeroed in training.
    """

    n_heads: int
    n_kv_heads: int
    window: int | None = None
    dropout: float = 0.0


class MixerVariant(Variant):
    """What moves information between tokens."""

    mixes: ClassVar[bool] = True
    """Whether there is anything to build."""

    def check(self, d_model: int) -> None:
        """Raise ValueError for a width it cannot have."""

    def heads(self) -> Heads | None:
        """Return its heads where it calls `assay.nn.attention.attend`; None: it does not."""
        return None

    def build(self, d_model: int, *, bias: bool) -> nn.Module | None:
        """Return the module; called with (x, context, cache), x of shape (B, T, D)."""
        raise NotImplementedError

    def num_params(self, d_model: int, *, bias: bool) -> int | None:
        """Return how many numbers a layer learns, in closed form; None: not counted."""
        return None

    def matrix_flops(self, d_model: int) -> int | None:
        """Return the FLOPs of a token in products with weights, of a layer; None: not counted."""
        return None

    def score_flops(self, d_model: int) -> int | None:
        """Return the FLOPs of a pair of query and key, of a layer; None: not counted."""
        return None

    def reference(
        self, x: Float[Tensor, "T D"], weights: Mapping[str, Tensor]
    ) -> Float[Tensor, "T D"]:
        """Return what a layer computes, written out in float64; `weights` by parameter name."""
        raise NoReferenceError(
            f"mixer={self.kind}: no `reference` found in {type(self).__name__}; expected one that "
            "writes it out in float64, to compare with."
        )


class NoMixerConfig(MixerVariant):
    """No mixing: each token sees itself and its position alone (the article's algorithm 1)."""

    kind: Literal["none"] = "none"
    citation: ClassVar[Citation | None] = Citation("the article", "docs/article.md", "algorithm 1")

    native_kind: ClassVar[int | None] = 0
    mixes: ClassVar[bool] = False

    def build(self, d_model: int, *, bias: bool) -> nn.Module | None:
        """Return nothing."""
        return None

    def num_params(self, d_model: int, *, bias: bool) -> int | None:
        """Return 0."""
        return 0

    def matrix_flops(self, d_model: int) -> int | None:
        """Return 0."""
        return 0

    def score_flops(self, d_model: int) -> int | None:
        """Return 0."""
        return 0


class AttentionConfig(MixerVariant):
    """Causal self-attention."""

    kind: Literal["attention"] = "attention"
    n_heads: Size = 4
    """H, query heads; divides `model.d_model`."""
    n_kv_heads: Size | None = None
    """G, key and value heads; divides `n_heads`. Null: as many as `n_heads`."""
    window: Size | None = None
    """Tokens a query sees, itself included, in each layer. Null: all before it."""
    qk_norm: bool = True
    """Whether queries and keys are RMS-normalised per head before they are turned."""
    dropout: Probability = 0.0
    """Probability with which an attention weight is zeroed in training."""
    citation: ClassVar[Citation | None] = Citation(
        "Vaswani et al. 2017", "arXiv:1706.03762", "eq. 1"
    )
    native_kind: ClassVar[int | None] = 1

    @property
    def kv_heads(self) -> int:
        """G, resolved."""
        return self.n_kv_heads or self.n_heads

    def check(self, d_model: int) -> None:
        """Raise ValueError unless heads divide the width, and groups the heads."""
        if d_model % self.n_heads:
            raise ValueError(
                f"mixer.n_heads: {self.n_heads} found; expected a divisor of d_model = {d_model}."
            )
        if self.n_heads % self.kv_heads:
            raise ValueError(
                f"mixer.n_kv_heads: {self.kv_heads} found; expected a divisor of "
                f"mixer.n_heads = {self.n_heads}."
            )

    def heads(self) -> Heads | None:
        """Return them as configured."""
        return Heads(self.n_heads, self.kv_heads, self.window, self.dropout)

    def build(self, d_model: int, *, bias: bool) -> nn.Module | None:
        """Return an `Attention` of width `d_model`."""
        return Attention(d_model, self, bias=bias)

    def initial(self, name: str) -> float | None:
        """Return 1: what it learns beside its matrices are the scales of `q_norm` and `k_norm`."""
        return 1.0

    def num_params(self, d_model: int, *, bias: bool) -> int | None:
        """Return those of four matrices, their biases and the norms of queries and keys."""
        d_head = d_model // self.n_heads
        biases = 2 * (d_model + d_head * self.kv_heads) if bias else 0
        return self._matrices(d_model) + biases + (2 * d_head if self.qk_norm else 0)

    def matrix_flops(self, d_model: int) -> int | None:
        """Return two FLOPs a number of a matrix."""
        return 2 * self._matrices(d_model)

    def score_flops(self, d_model: int) -> int | None:
        """Return those of a query times a key and of a weight times a value, all heads."""
        return 4 * d_model

    def _matrices(self, d_model: int) -> int:
        return 2 * d_model * (d_model + d_model // self.n_heads * self.kv_heads)


MIXERS = Family(MixerVariant, (NoMixerConfig, AttentionConfig))
MixerConfig = Annotated[MixerVariant, MIXERS]
