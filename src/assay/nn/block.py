"""How a layer joins its mixer and its MLP: the `block` field of `ModelConfig`.

Shapes: B batch, T tokens, D model width. Every block holds `mixer_norm`, `mixer`, `mlp_norm`, `mlp`
(the first two only where tokens are mixed), so a weight has one name whatever the order.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from assay.citation import Citation
from assay.errors import NoReferenceError
from assay.family import Family, Variant
from assay.nn.attention import Context
from assay.nn.cache import LayerCache


@dataclass(frozen=True, slots=True)
class Parts:
    """What a block is made of.

    Attributes:
        norm: Makes one normalisation.
        mixer: Attention, or None.
        mlp: The feed-forward layer.
        dropout: Probability with which a channel of a branch is zeroed in training.
    """

    norm: Callable[[], nn.Module]
    mixer: nn.Module | None
    mlp: nn.Module
    dropout: float


Branch = Callable[[Tensor], Tensor]
"""What maps the states of all tokens, (T, D)."""


class Block(nn.Module):
    """The parts of a layer; a variant is one subclass that says how they are joined."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.mixer_norm = parts.norm() if parts.mixer is not None else None
        self.mixer = parts.mixer
        self.mlp_norm = parts.norm()
        self.mlp = parts.mlp
        self.dropout = nn.Dropout(parts.dropout)

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "B T D"], context: Context, cache: LayerCache | None = None
    ) -> Float[Tensor, "B T D"]:
        """Return the next state of every token."""


class PreBlock(Block):
    """x + mixer(norm(x)), then x + mlp(norm(x))."""

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context, cache: LayerCache | None = None
    ) -> Float[Tensor, "B T D"]:
        """Normalise what enters each branch; the residual stream itself is never normalised."""
        if self.mixer is not None and self.mixer_norm is not None:
            x = x + self.dropout(self.mixer(self.mixer_norm(x), context, cache))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class PostBlock(Block):
    """norm(x + mixer(x)), then norm(x + mlp(x))."""

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context, cache: LayerCache | None = None
    ) -> Float[Tensor, "B T D"]:
        """Normalise each sum."""
        if self.mixer is not None and self.mixer_norm is not None:
            x = self.mixer_norm(x + self.dropout(self.mixer(x, context, cache)))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))


class ParallelBlock(Block):
    """x + mixer(norm(x)) + mlp(norm'(x)), both reading the same x."""

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context, cache: LayerCache | None = None
    ) -> Float[Tensor, "B T D"]:
        """Add both branches at once."""
        assert self.mixer is not None
        assert self.mixer_norm is not None  # the config refuses a parallel block without a mixer
        mixed = self.dropout(self.mixer(self.mixer_norm(x), context, cache))
        return x + mixed + self.dropout(self.mlp(self.mlp_norm(x)))


class PlainBlock(Block):
    """norm(mixer(x)), then norm(mlp(x)): no residual stream."""

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context, cache: LayerCache | None = None
    ) -> Float[Tensor, "B T D"]:
        """Replace x by each branch in turn."""
        if self.mixer is not None and self.mixer_norm is not None:
            x = self.mixer_norm(self.dropout(self.mixer(x, context, cache)))
        return self.mlp_norm(self.dropout(self.mlp(x)))


class PeriBlock(Block):
    """x + norm'(mixer(norm(x))), then x + norm'(mlp(norm(x)))."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.mixer_out_norm = parts.norm() if parts.mixer is not None else None
        self.mlp_out_norm = parts.norm()

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context, cache: LayerCache | None = None
    ) -> Float[Tensor, "B T D"]:
        """Normalise what enters each branch and what leaves it, but not the residual stream."""
        if self.mixer is not None:
            assert self.mixer_norm is not None
            assert self.mixer_out_norm is not None
            mixed = self.mixer(self.mixer_norm(x), context, cache)
            x = x + self.dropout(self.mixer_out_norm(mixed))
        return x + self.dropout(self.mlp_out_norm(self.mlp(self.mlp_norm(x))))


class BlockVariant(Variant):
    """How a layer joins its mixer and its MLP.

    Attributes:
        embed_norm: Whether the token embeddings are normalised.
        final_norm: Whether the last state is.
        native_kind: As in native/abi.h.
    """

    embed_norm: ClassVar[bool] = False
    final_norm: ClassVar[bool] = True

    def check(self, *, mixes: bool) -> None:
        """Raise ValueError for a model it cannot be part of; `mixes` is false with mixer=none."""

    def build(self, parts: Parts) -> Block:
        """Return one layer made of `parts`."""
        raise NotImplementedError

    def norms(self, *, mixes: bool) -> tuple[str, ...]:
        """Return the names of a layer's norms, those made by `Parts.norm`."""
        return ("mixer_norm", "mlp_norm") if mixes else ("mlp_norm",)

    def num_params(self, d_model: int) -> int | None:
        """Return how many numbers a layer learns beside its norms, mixer and MLP; None: unknown."""
        return None

    def reference(
        self,
        x: Float[Tensor, "T D"],
        branches: Mapping[str, Branch],
        norms: Mapping[str, Branch],
        weights: Mapping[str, Tensor],
    ) -> Float[Tensor, "T D"]:
        """Return what the layer does, written out in float64.

        Args:
            x: The state of each token.
            branches: `mixer` (absent with mixer=none) and `mlp`.
            norms: By the names that `norms` returns.
            weights: Of the layer, by parameter name.
        """
        raise NoReferenceError(
            f"block={self.kind}: no `reference` found in {type(self).__name__}; expected one that "
            "writes it out in float64, to compare with."
        )


class PreConfig(BlockVariant):
    """Pre-norm: the order of GPT-2 and of nearly everything after it."""

    kind: Literal["pre"] = "pre"
    embed_norm: ClassVar[bool] = False
    final_norm: ClassVar[bool] = True
    citation: ClassVar[Citation | None] = Citation(
        "Xiong et al. 2020", "arXiv:2002.04745", "fig. 1b"
    )
    native_kind: ClassVar[int | None] = 0

    def build(self, parts: Parts) -> Block:
        """Return a `PreBlock`."""
        return PreBlock(parts)

    def num_params(self, d_model: int) -> int | None:
        """Return 0."""
        return 0


class PostConfig(BlockVariant):
    """Post-norm: the order of the first transformer and of GPT-1; no norm after the last block."""

    kind: Literal["post"] = "post"
    embed_norm: ClassVar[bool] = False
    final_norm: ClassVar[bool] = False
    citation: ClassVar[Citation | None] = Citation(
        "Vaswani et al. 2017", "arXiv:1706.03762", "sec. 3.1"
    )
    native_kind: ClassVar[int | None] = 1

    def build(self, parts: Parts) -> Block:
        """Return a `PostBlock`."""
        return PostBlock(parts)

    def num_params(self, d_model: int) -> int | None:
        """Return 0."""
        return 0


class ParallelConfig(BlockVariant):
    """Attention and MLP side by side, each with its own norm, as in GPT-NeoX."""

    kind: Literal["parallel"] = "parallel"
    embed_norm: ClassVar[bool] = False
    final_norm: ClassVar[bool] = True
    citation: ClassVar[Citation | None] = Citation(
        "Black et al. 2022", "arXiv:2204.06745", "sec. 2.1"
    )
    native_kind: ClassVar[int | None] = 2

    def check(self, *, mixes: bool) -> None:
        """Raise ValueError where there is nothing beside the MLP."""
        if not mixes:
            raise ValueError(
                "block: parallel joins a mixer and an MLP, and there is no mixer with mixer=none. "
                "Choose pre, which is the same without a mixer."
            )

    def build(self, parts: Parts) -> Block:
        """Return a `ParallelBlock`."""
        return ParallelBlock(parts)

    def num_params(self, d_model: int) -> int | None:
        """Return 0."""
        return 0


class PlainConfig(BlockVariant):
    """No residual: a norm after the embeddings and after every layer, as in algorithm 1."""

    kind: Literal["plain"] = "plain"
    embed_norm: ClassVar[bool] = True
    final_norm: ClassVar[bool] = False
    citation: ClassVar[Citation | None] = Citation("the article", "docs/article.md", "algorithm 1")
    native_kind: ClassVar[int | None] = 3

    def build(self, parts: Parts) -> Block:
        """Return a `PlainBlock`."""
        return PlainBlock(parts)

    def num_params(self, d_model: int) -> int | None:
        """Return 0."""
        return 0


class PeriConfig(BlockVariant):
    """Norms before and after each branch: sandwich or peri-norm, the order of Gemma 2."""

    kind: Literal["peri"] = "peri"
    citation: ClassVar[Citation | None] = Citation("Kim et al. 2025", "arXiv:2502.02732", "sec. 3")

    def build(self, parts: Parts) -> Block:
        """Return a `PeriBlock`."""
        return PeriBlock(parts)

    def norms(self, *, mixes: bool) -> tuple[str, ...]:
        """Return the names of two norms a branch."""
        mlp = ("mlp_norm", "mlp_out_norm")
        return ("mixer_norm", "mixer_out_norm", *mlp) if mixes else mlp

    def num_params(self, d_model: int) -> int | None:
        """Return 0."""
        return 0

    def reference(
        self,
        x: Float[Tensor, "T D"],
        branches: Mapping[str, Branch],
        norms: Mapping[str, Branch],
        weights: Mapping[str, Tensor],
    ) -> Float[Tensor, "T D"]:
        """Return x + N'(b(N x)) for each branch b in turn."""
        for name, branch in branches.items():
            x = x + norms[f"{name}_out_norm"](branch(norms[f"{name}_norm"](x)))
        return x


BLOCKS = Family(BlockVariant, (PreConfig, PostConfig, ParallelConfig, PlainConfig, PeriConfig))
BlockConfig = Annotated[BlockVariant, BLOCKS]
