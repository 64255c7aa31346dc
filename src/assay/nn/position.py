"""Position information: the `position` field of `ModelConfig`.

Shapes: B batch, H heads, T tokens, D model width, K width of one head.
Positions are counted in tokens from the start of the sequence, so a cached step passes its true
position and needs no offset; `B` is 1 where all rows of a batch share their positions.
"""

import functools
import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from assay.citation import Citation
from assay.errors import NoReferenceError
from assay.family import Family, Variant
from assay.nn.init import blank_table
from assay.nn.rotation import Rotation, angles_of

_ROUNDING = 1e-6  # of a distance: one that is a whole number but for it is one
_SINUSOID_BASE = 10_000.0  # Vaswani et al. 2017, section 3.5


class Position(nn.Module):
    """No position information, and the three places where a variant may add some.

    A variant is one subclass that overrides `embed`, `rotation` or `score_bias`. There is no second
    level: to change a variant a little, write another.
    """

    def embed(
        self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "P T"]
    ) -> Float[Tensor, "B T D"]:
        """Add position vectors to the token embeddings; P is 1 or B."""
        return x

    def rotation(self, positions: Int[Tensor, "P T"], dtype: torch.dtype) -> Rotation | None:
        """Return by which angles queries and keys at these positions are turned."""
        return None

    def score_bias(
        self, distances: Int[Tensor, " N"], dtype: torch.dtype
    ) -> Float[Tensor, "H N"] | None:
        """Return what each head adds to a score, before the softmax, by how far back the key is.

        Args:
            distances: In tokens, from a query back to a key; 0 is the query's own token.
            dtype: At least float32.
        """
        return None

    def learned_vectors(self) -> Tensor | None:
        """Return the vectors that `embed` adds, by position, where they are learned."""
        return None


class Learned(Position):
    """A table of one vector per position, added to the token embeddings; it ends at its length."""

    def __init__(self, d_model: int, *, max_seq_len: int) -> None:
        super().__init__()
        self.table = blank_table(max_seq_len, d_model)

    def embed(
        self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "P T"]
    ) -> Float[Tensor, "B T D"]:
        """Add row `positions` of the table."""
        return x + self.table(positions)

    def learned_vectors(self) -> Tensor | None:
        """Return the table."""
        return self.table.weight


class Sinusoidal(Position):
    """Sines in the even channels and cosines in the odd ones, added to the token embeddings."""

    def embed(
        self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "P T"]
    ) -> Float[Tensor, "B T D"]:
        """Add unit-amplitude waves; computed for the positions at hand, so there is no table."""
        d_model = x.shape[-1]
        angles = angles_of(positions, width=d_model, base=_SINUSOID_BASE)
        waves = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)[..., :d_model]
        return x + waves.to(x.dtype)


class Rope(Position):
    """Rotary embedding: channel pair i of each head turns by `position * theta**(-2i/width)`.

    The pairs are (i, i + width/2), the layout of GPT-NeoX and of Hugging Face's Llama, not the
    interleaved (2i, 2i + 1) of the paper; the two differ by a fixed permutation of the channels.
    Angles are computed on every forward pass, in float64: there is no table to outgrow in
    extrapolation, to round to bfloat16 with the weights, or to lose on the meta device.
    """

    def __init__(self, width: int, *, theta: float) -> None:
        super().__init__()
        self.width = width
        self.theta = theta

    def rotation(self, positions: Int[Tensor, "P T"], dtype: torch.dtype) -> Rotation | None:
        """Return cosines and sines of `width / 2` angles for each position, in `dtype`."""
        return Rotation.by(angles_of(positions, width=self.width, base=self.theta), dtype)


class Alibi(Position):
    """A penalty on each score, linear in the distance from query to key, steeper in some heads."""

    def __init__(self, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads

    def score_bias(
        self, distances: Int[Tensor, " N"], dtype: torch.dtype
    ) -> Float[Tensor, "H N"] | None:
        """Return the slopes of the paper times the distance; no weights to keep in the model."""
        return _slopes_there(self.n_heads, dtype, distances.device)[:, None] * -distances


class RelativeBias(Position):
    """A learned number added to each score, by head and by how far back the key is, in buckets.

    The nearest half of the buckets holds one distance each; the others grow geometrically up to
    `max_distance`, beyond which all share the last. One table serves all layers.
    """

    def __init__(self, n_heads: int, *, buckets: int, max_distance: int) -> None:
        super().__init__()
        self.max_distance = max_distance
        self.table = blank_table(buckets, n_heads)

    def score_bias(
        self, distances: Int[Tensor, " N"], dtype: torch.dtype
    ) -> Float[Tensor, "H N"] | None:
        """Return the entries of the table of each distance's bucket."""
        starts = _starts_there(self.table.num_embeddings, self.max_distance, distances.device)
        return self.table(torch.bucketize(distances, starts, right=True) - 1).T.to(dtype)


@functools.cache
def _starts_there(buckets: int, max_distance: int, device: torch.device) -> Int[Tensor, " N"]:
    """Return the least distance of each bucket: 0, 1, ... h - 1, then h·(max / h)^(i / h)."""
    half = buckets // 2
    wide = [half * (max_distance / half) ** (i / half) for i in range(half)]
    starts = [*range(half), *(math.ceil(one - _ROUNDING) for one in wide)]
    with torch.inference_mode(mode=False):
        return torch.tensor(starts, device=device)


@functools.cache
def _slopes_there(n_heads: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, " H"]:
    """Return the slopes, sent to a device once: a CUDA graph cannot record the journey."""
    with torch.inference_mode(mode=False):
        return alibi_slopes(n_heads).to(dtype).to(device)


def alibi_slopes(n_heads: int) -> Float[Tensor, " H"]:
    """Return 2^(-8/n), 2^(-16/n), ... for n heads, in float64; other n than 2^i interpolate.

    >>> alibi_slopes(2).tolist()
    [0.0625, 0.00390625]
    """
    n = 2 ** int(math.log2(n_heads))
    exact = [2 ** (-8 * i / n) for i in range(1, n + 1)]
    between = [2 ** (-4 * i / n) for i in range(1, 2 * (n_heads - n), 2)]
    return torch.tensor(exact + between, dtype=torch.float64)


def needs_attention(what: str, n_heads: int) -> None:
    """Raise ValueError where a model has no attention, of which a position is `what`."""
    if not n_heads:
        raise ValueError(
            f"position: {what} of attention, and there is none with mixer=none. Choose none, "
            "learned or sinusoidal."
        )


class PositionVariant(Variant):
    """A way for tokens to know where they are.

    Attributes:
        bounded: Whether it ends at `max_seq_len`, as a table does.
        native_kind: Any number: the kernels take vectors, angles and the slopes of ALiBi.
    """

    bounded: ClassVar[bool] = False

    def check(self, *, d_model: int, n_heads: int) -> None:
        """Raise ValueError for a model it cannot be part of; `n_heads` is 0 without attention."""

    def build(self, *, d_model: int, n_heads: int, max_seq_len: int) -> Position:
        """Return the module."""
        raise NotImplementedError

    def num_params(self, *, d_model: int, n_heads: int, max_seq_len: int) -> int | None:
        """Return how many numbers it learns, in closed form; None: not counted."""
        return None

    def reference_vectors(
        self, zeros: Float[Tensor, "T D"], weights: Mapping[str, Tensor]
    ) -> Float[Tensor, "T D"]:
        """Return what `embed` adds to the embeddings of T tokens, in float64: zeros, unless told.

        Args:
            zeros: Of the shape wanted.
            weights: By parameter name.
        """
        self._check_told("embed", "reference_vectors")
        return zeros

    def reference_turned(self, q_or_k: Float[Tensor, "T K"]) -> Float[Tensor, "T K"]:
        """Return the queries or keys of T tokens as `rotation` turns them, in float64."""
        self._check_told("rotation", "reference_turned")
        return q_or_k

    def reference_bias(
        self, distances: Float[Tensor, "T T"], head: int, weights: Mapping[str, Tensor]
    ) -> Float[Tensor, "T T"]:
        """Return what `score_bias` adds to the scores of a head, in float64.

        Args:
            distances: In tokens, from query (row) back to key (column); below 0 for later keys.
            head: Counted from 0.
            weights: By parameter name.
        """
        self._check_told("score_bias", "reference_bias")
        return torch.zeros_like(distances)

    def _check_told(self, hook: str, twin: str) -> None:
        module = type(self.build(d_model=32, n_heads=2, max_seq_len=2))
        if getattr(module, hook) is not getattr(Position, hook):
            raise NoReferenceError(
                f"position={self.kind}: no `{twin}` found in {type(self).__name__}; expected one "
                f"that writes out in float64 what its {hook} computes, to compare with."
            )


class NoPositionConfig(PositionVariant):
    """No position information; causality alone breaks the symmetry."""

    kind: Literal["none"] = "none"
    citation: ClassVar[Citation | None] = Citation(
        "Kazemnejad et al. 2023", "arXiv:2305.19466", "sec. 2"
    )
    native_kind: ClassVar[int | None] = 0

    def build(self, *, d_model: int, n_heads: int, max_seq_len: int) -> Position:
        """Return the base, which adds nothing."""
        return Position()

    def num_params(self, *, d_model: int, n_heads: int, max_seq_len: int) -> int | None:
        """Return 0."""
        return 0


class LearnedConfig(PositionVariant):
    """One learned vector per position, up to `max_seq_len`."""

    kind: Literal["learned"] = "learned"
    bounded: ClassVar[bool] = True
    citation: ClassVar[Citation | None] = Citation("the article", "docs/article.md", "section 2.1")
    native_kind: ClassVar[int | None] = 1

    def build(self, *, d_model: int, n_heads: int, max_seq_len: int) -> Position:
        """Return a table of `max_seq_len` rows."""
        return Learned(d_model, max_seq_len=max_seq_len)

    def num_params(self, *, d_model: int, n_heads: int, max_seq_len: int) -> int | None:
        """Return a number per channel and position."""
        return max_seq_len * d_model


class SinusoidalConfig(PositionVariant):
    """Fixed waves of geometrically growing length, of amplitude 1."""

    kind: Literal["sinusoidal"] = "sinusoidal"
    citation: ClassVar[Citation | None] = Citation(
        "Vaswani et al. 2017", "arXiv:1706.03762", "sec. 3.5"
    )
    native_kind: ClassVar[int | None] = 2

    def build(self, *, d_model: int, n_heads: int, max_seq_len: int) -> Position:
        """Return the waves, which hold no parameters."""
        return Sinusoidal()

    def num_params(self, *, d_model: int, n_heads: int, max_seq_len: int) -> int | None:
        """Return 0."""
        return 0


class RopeConfig(PositionVariant):
    """Rotary embedding."""

    kind: Literal["rope"] = "rope"
    theta: PositiveFloat = 10_000.0
    """Base of the geometric series of wavelengths, 2π tokens to nearly 2π·theta tokens."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of each head's channels that turns (GPT-NeoX: 0.25); rounded down to whole channels."""
    citation: ClassVar[Citation | None] = Citation("Su et al. 2021", "arXiv:2104.09864", "eq. 15")
    native_kind: ClassVar[int | None] = 3

    def check(self, *, d_model: int, n_heads: int) -> None:
        """Raise ValueError without attention, or if the channels to turn cannot be paired."""
        needs_attention("rope turns the queries and keys", n_heads)
        d_head = d_model // n_heads
        width = int(self.fraction * d_head)
        if width % 2 or not width:
            raise ValueError(
                f"position: rope turns pairs of channels and needs an even number; found {width} "
                f"(fraction {self.fraction} of heads {d_head} wide). Change d_model, mixer.n_heads "
                "or position.fraction."
            )

    def build(self, *, d_model: int, n_heads: int, max_seq_len: int) -> Position:
        """Return a `Rope` over `fraction` of each head."""
        return Rope(int(self.fraction * (d_model // n_heads)), theta=self.theta)

    def num_params(self, *, d_model: int, n_heads: int, max_seq_len: int) -> int | None:
        """Return 0."""
        return 0


class AlibiConfig(PositionVariant):
    """Attention with linear biases."""

    kind: Literal["alibi"] = "alibi"
    citation: ClassVar[Citation | None] = Citation(
        "Press et al. 2021", "arXiv:2108.12409", "sec. 3"
    )
    native_kind: ClassVar[int | None] = 4

    def check(self, *, d_model: int, n_heads: int) -> None:
        """Raise ValueError if there is no attention to bias."""
        needs_attention("alibi biases the scores", n_heads)

    def build(self, *, d_model: int, n_heads: int, max_seq_len: int) -> Position:
        """Return an `Alibi` for `n_heads` heads."""
        return Alibi(n_heads)

    def num_params(self, *, d_model: int, n_heads: int, max_seq_len: int) -> int | None:
        """Return 0."""
        return 0


class T5Config(PositionVariant):
    """Learned biases of the scores by distance, as in T5's decoder (scores stay over √K here)."""

    kind: Literal["t5"] = "t5"
    buckets: Annotated[int, Field(ge=4, le=1 << 16, multiple_of=2)] = 32
    """Numbers a head learns."""
    max_distance: Annotated[int, Field(gt=0, lt=1 << 31)] = 128
    """Tokens back from which all distances share a bucket; over half of `buckets`."""
    citation: ClassVar[Citation | None] = Citation(
        "Raffel et al. 2019", "arXiv:1910.10683", "sec. 2.1"
    )

    def check(self, *, d_model: int, n_heads: int) -> None:
        """Raise ValueError if there is no attention to bias, or no distance for the far buckets."""
        needs_attention("t5 biases the scores", n_heads)
        if self.max_distance <= self.buckets // 2:
            raise ValueError(
                f"position.max_distance: {self.max_distance} found; expected over half of "
                f"buckets = {self.buckets}, since that many distances have a bucket each. Raise it."
            )

    def build(self, *, d_model: int, n_heads: int, max_seq_len: int) -> Position:
        """Return a `RelativeBias` for `n_heads` heads."""
        return RelativeBias(n_heads, buckets=self.buckets, max_distance=self.max_distance)

    def num_params(self, *, d_model: int, n_heads: int, max_seq_len: int) -> int | None:
        """Return a number per bucket and head."""
        return self.buckets * n_heads

    def reference_bias(
        self, distances: Float[Tensor, "T T"], head: int, weights: Mapping[str, Tensor]
    ) -> Float[Tensor, "T T"]:
        """Return the table's entry for each distance; any for later keys, which none sees."""
        column = weights["table.weight"][:, head]
        rows = [[column[self._bucket(int(one))] for one in row] for row in distances.tolist()]
        return torch.tensor(rows, dtype=torch.float64)

    def _bucket(self, distance: int) -> int:
        """Return the last bucket i whose least distance, h·(max / h)^(i / h), is not beyond."""
        half = self.buckets // 2
        if distance < half:
            return max(distance, 0)
        growth = math.log(distance / half) / math.log(self.max_distance / half)
        return min(half + math.floor(half * growth + _ROUNDING), self.buckets - 1)


POSITIONS = Family(
    PositionVariant,
    (NoPositionConfig, LearnedConfig, SinusoidalConfig, RopeConfig, AlibiConfig, T5Config),
)
PositionConfig = Annotated[PositionVariant, POSITIONS]
