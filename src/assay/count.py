"""Parameters, FLOPs and bytes of a model in closed form, part by part, from its config alone.

Nothing is built, so a model too large for any machine is counted in microseconds. A FLOP is a
floating-point operation: a multiply-add is two. Only matrix products are counted, by the convention
of `torch.utils.flop_counter`; norms, activations, softmax, rotations and look-ups are left out.
Letters: T tokens of one sequence, D width, L layers, V vocabulary, G key and value heads, K width
of one head, W window, N parameters.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch

from assay.errors import ConfigError
from assay.nn.model import GPT, ModelConfig

Kernel = Literal["dense", "causal"]
"""`dense` computes all T² scores and masks some; `causal` only those that the mask leaves visible,
T (T + 1) / 2 of them, or fewer under a window."""

_FP32_BYTES, _BF16_BYTES = 4, 2
NOT_COUNTED = "not counted"
"""What stands in place of a number that no variant says."""


class UncountedError(ConfigError):
    """A variant does not say what it costs."""


@dataclass(frozen=True, slots=True)
class Part:
    """One component of the model, in all its copies.

    Attributes:
        name: Name of the submodule, `blocks.*` standing for every block.
        copies: How many the model holds.
        parameters: Of all copies; a tied output matrix has none of its own.
        matrix_flops: Forward, one sequence, in products with weights; linear in T.
        score_flops: Forward, one sequence, in products of queries with keys and of weights with
            values, all T² of them.
    """

    name: str
    copies: int
    parameters: int
    matrix_flops: int = 0
    score_flops: int = 0

    @property
    def weight_bytes_fp32(self) -> int:
        """Of all copies, in float32; half of it in bfloat16."""
        return _FP32_BYTES * self.parameters

    @property
    def forward_flops(self) -> int:
        """Of one sequence, with dense attention."""
        return self.matrix_flops + self.score_flops


class Row(NamedTuple):
    """One line of the table of a `Count`; shares are of the total, 0 to 1."""

    part: str
    copies: int
    parameters: int
    parameter_share: float
    weight_bytes_fp32: int
    forward_flops: int
    flop_share: float


@dataclass(frozen=True, slots=True)
class Count:
    """What a model costs at one sequence length; made by `count`.

    Attributes:
        seq_len: T, in tokens.
        parts: In the order of the forward pass.
        visible_pairs: Pairs of a query and a key, of T² in all, that causal mask and window leave.
        kv_numbers: Numbers cached per token and model: 2 L G K.
        cached_tokens: Tokens a cache holds at T: min(T, W).
    """

    seq_len: int
    parts: tuple[Part, ...]
    visible_pairs: int
    kv_numbers: int
    cached_tokens: int

    @property
    def parameters(self) -> int:
        """N, a tied matrix once."""
        return sum(part.parameters for part in self.parts)

    @property
    def table_parameters(self) -> int:
        """Parameters looked up by row: token embedding (also when tied) and position table."""
        return sum(part.parameters for part in self.parts if part.name in ("embed", "position"))

    @property
    def score_flops(self) -> int:
        """Forward FLOPs of one sequence in the T² term: 4 L T² D."""
        return sum(part.score_flops for part in self.parts)

    @property
    def forward_flops(self) -> int:
        """Of one sequence, with dense attention: what `FlopCounterMode` reports."""
        return sum(part.forward_flops for part in self.parts)

    @property
    def causal_forward_flops(self) -> int:
        """Of one sequence, with a kernel that skips what the causal mask and the window hide."""
        hidden_pairs = self.seq_len**2 - self.visible_pairs
        return self.forward_flops - self._pair_flops * hidden_pairs

    @property
    def forward_flops_per_token(self) -> float:
        """Mean over the sequence, with dense attention."""
        return self.forward_flops / self.seq_len

    @property
    def decode_flops(self) -> int:
        """Of the T-th token, the keys and values of those before it being cached."""
        matrices = sum(part.matrix_flops for part in self.parts) // self.seq_len
        return matrices + self._pair_flops * self.cached_tokens

    @property
    def score_share(self) -> float:
        """The T² term over all FLOPs of the blocks, the output matrix left out."""
        blocks = sum(part.forward_flops for part in self.parts if part.name != "unembed")
        return self.score_flops / blocks

    @property
    def training_flops(self) -> int:
        """Forward and backward of one sequence: 3 times forward, nothing being recomputed."""
        return 3 * self.forward_flops

    @property
    def six_n_flops(self) -> int:
        """6 N T, the usual estimate of `training_flops`, N being all parameters.

        Source: Kaplan et al. 2020, arXiv:2001.08361, section 2.1.
        """
        return 6 * self.parameters * self.seq_len

    @property
    def six_n_without_tables_flops(self) -> int:
        """6 N T with Kaplan's own N, which leaves out token embedding and position table."""
        return 6 * (self.parameters - self.table_parameters) * self.seq_len

    @property
    def weight_bytes_fp32(self) -> int:
        """4 bytes a parameter."""
        return _FP32_BYTES * self.parameters

    @property
    def weight_bytes_bf16(self) -> int:
        """2 bytes a parameter."""
        return _BF16_BYTES * self.parameters

    @property
    def gradient_bytes(self) -> int:
        """In float32."""
        return _FP32_BYTES * self.parameters

    @property
    def adamw_bytes(self) -> int:
        """Two moments in float32."""
        return 2 * _FP32_BYTES * self.parameters

    @property
    def training_bytes(self) -> int:
        """Float32 weights, gradients and AdamW: 16 N; activations come on top."""
        return self.weight_bytes_fp32 + self.gradient_bytes + self.adamw_bytes

    @property
    def cache_bytes_fp32(self) -> int:
        """Keys and values of one sequence of T tokens: 2 L min(T, W) G K numbers."""
        return _FP32_BYTES * self.kv_numbers * self.cached_tokens

    @property
    def cache_bytes_bf16(self) -> int:
        """The same in bfloat16."""
        return _BF16_BYTES * self.kv_numbers * self.cached_tokens

    @property
    def cache_bytes_per_token_bf16(self) -> int:
        """What one more token adds to the cache, up to the window."""
        return _BF16_BYTES * self.kv_numbers

    @property
    def _pair_flops(self) -> int:
        return self.score_flops // self.seq_len**2

    def rows(self) -> list[Row]:
        """Return the table, a row for each part and the total last."""
        n_total, flops_total = self.parameters, self.forward_flops
        total = Part("total", 1, n_total, flops_total)
        return [
            Row(
                part.name,
                part.copies,
                part.parameters,
                part.parameters / n_total,
                part.weight_bytes_fp32,
                part.forward_flops,
                part.forward_flops / flops_total,
            )
            for part in (*self.parts, total)
        ]

    def figures(self) -> dict[str, int | float]:
        """Return every total under its name, which carries its unit."""
        names = [name for name, value in vars(Count).items() if isinstance(value, property)]
        public = [name for name in names if not name.startswith("_")]
        return {"seq_len": self.seq_len} | {name: getattr(self, name) for name in public}

    def as_dict(self) -> dict[str, Any]:
        """Return figures and parts as plain numbers, strings and lists, ready for JSON."""
        derived = ("weight_bytes_fp32", "forward_flops")
        parts = [
            asdict(part) | {name: getattr(part, name) for name in derived} for part in self.parts
        ]
        return {**self.figures(), "parts": parts}


def count(config: ModelConfig, *, seq_len: int | None = None) -> Count:
    """Count a model for one sequence of `seq_len` tokens; left out, of `max_seq_len`.

    Raises:
        ConfigError: If the vocabulary is not known, or `seq_len` is below 1 or beyond a learned
            table.
        UncountedError: If a variant does not say what it costs.
    """
    n_tokens = config.max_seq_len if seq_len is None else seq_len
    _check_length(config, n_tokens)
    window = config.window
    return Count(
        seq_len=n_tokens,
        parts=tuple(_parts(config, n_tokens)),
        visible_pairs=_visible_pairs(n_tokens, window),
        kv_numbers=2 * config.n_layers * config.n_kv_heads * config.d_head,
        cached_tokens=n_tokens if window is None else min(n_tokens, window),
    )


def count_or_none(config: ModelConfig, *, seq_len: int | None = None) -> Count | None:
    """Count as `count` does; None where a variant does not say what it costs."""
    try:
        return count(config, seq_len=seq_len)
    except UncountedError:
        return None


def built_parameters(config: ModelConfig) -> int:
    """Return N of any model, by building it without memory."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in GPT(config).parameters())


def attention_overtakes_at(config: ModelConfig, *, kernel: Kernel = "dense") -> float | None:
    """Return the T at which the T² term costs as much as the rest of the blocks.

    It is 6 D for the standard block with dense attention. None where that never happens: without
    attention, or with a causal kernel under a narrow window.
    """
    if not config.n_heads:
        return None
    one = count(config, seq_len=1)
    rest = sum(part.matrix_flops for part in one.parts if part.name != "unembed")
    scores = rest / one.score_flops  # per token, at the crossing
    if kernel == "dense":
        return scores
    window = config.window
    if window is None or 2 * scores - 1 <= window:
        return 2 * scores - 1  # (T + 1) / 2 scores per token
    if window <= scores:
        return None
    return window * (window - 1) / (2 * (window - scores))  # W - W (W - 1) / 2T per token


@dataclass(frozen=True, slots=True)
class TyingSaving:
    """What a shared token embedding and output matrix save.

    Attributes:
        parameters: V D.
        share_of_untied: V D over the parameters of the untied model.
        share_of_tied: V D over the parameters of the tied model.
    """

    parameters: int
    share_of_untied: float
    share_of_tied: float


def tying_saving(config: ModelConfig) -> TyingSaving:
    """Return what tying saves, or would save, in this model."""
    saved = config.vocab * config.d_model
    n_model = count(config, seq_len=1).parameters
    untied = n_model + saved if config.tied else n_model
    return TyingSaving(saved, saved / untied, saved / (untied - saved))


def tying_region(
    vocab_size: int, *, low: float = 0.3, high: float = 0.4, table_rows: int = 0
) -> tuple[float, float]:
    """Return between which L·D tying saves `low` to `high` of the untied count.

    From share = V / (2 V + R + 12 L D) for a standard model with R rows of learned positions,
    norms and biases left out.
    """
    at_high, at_low = ((vocab_size * (1 / share - 2) - table_rows) / 12 for share in (high, low))
    return at_high, at_low


def _parts(config: ModelConfig, n_tokens: int) -> Iterator[Part]:
    """Yield the parts in the order of the forward pass, norms before what they belong to."""
    d_model, n_layers, vocab = config.d_model, config.n_layers, config.vocab
    norm = _counted(config, "norm", config.norm.num_params(d_model))
    names = config.block.norms(mixes=config.mixer.mixes)
    output = vocab * d_model
    yield Part("embed", 1, output)
    if position := _position(config):
        yield Part("position", 1, position)
    if config.block.embed_norm:
        yield Part("embed_norm", 1, norm)
    for name in names:
        if name.startswith("mixer"):
            yield Part(f"blocks.*.{name}", n_layers, n_layers * norm)
    if config.mixer.mixes:
        yield _mixer(config, n_tokens)
    for name in names:
        if not name.startswith("mixer"):
            yield Part(f"blocks.*.{name}", n_layers, n_layers * norm)
    yield _mlp(config, n_tokens)
    if own := _counted(config, "block", config.block.num_params(d_model)):
        yield Part("blocks.*", n_layers, n_layers * own)
    if config.block.final_norm:
        yield Part("final_norm", 1, norm)
    own = 0 if config.tied else output
    yield Part("unembed", 1, own, matrix_flops=2 * n_tokens * output)


def _position(config: ModelConfig) -> int:
    n_params = config.position.num_params(
        d_model=config.d_model, n_heads=config.n_heads, max_seq_len=config.max_seq_len
    )
    return _counted(config, "position", n_params)


def _mixer(config: ModelConfig, n_tokens: int) -> Part:
    mixer, n_layers = config.mixer, config.n_layers
    n_params = _counted(config, "mixer", mixer.num_params(config.d_model, bias=config.bias))
    matrix = _counted(config, "mixer", mixer.matrix_flops(config.d_model))
    score = _counted(config, "mixer", mixer.score_flops(config.d_model))
    return Part(
        "blocks.*.mixer",
        n_layers,
        n_layers * n_params,
        matrix_flops=n_tokens * n_layers * matrix,
        score_flops=n_tokens**2 * n_layers * score,
    )


def _mlp(config: ModelConfig, n_tokens: int) -> Part:
    mlp, n_layers = config.mlp, config.n_layers
    n_params = _counted(config, "mlp", mlp.num_params(config.d_model, bias=config.bias))
    matrix = _counted(config, "mlp", mlp.matrix_flops(config.d_model))
    return Part(
        "blocks.*.mlp", n_layers, n_layers * n_params, matrix_flops=n_tokens * n_layers * matrix
    )


def _counted(config: ModelConfig, field: str, n: int | None) -> int:
    if n is None:
        variant = getattr(config, field)
        raise UncountedError(
            f"model.{field}={variant.kind}: not counted, since {type(variant).__name__} does not "
            "say what it costs. Give it num_params (a mixer or an MLP also its FLOPs) to count it."
        )
    return n


def _visible_pairs(n_tokens: int, window: int | None) -> int:
    """Return how many (query, key) pairs of a causal mask with a window are visible."""
    width = n_tokens if window is None else min(n_tokens, window)
    return width * n_tokens - width * (width - 1) // 2


def _check_length(config: ModelConfig, n_tokens: int) -> None:
    if n_tokens < 1:
        raise ConfigError(f"seq_len: {n_tokens} found; expected at least one token to count for.")
    if config.position.bounded and n_tokens > config.max_seq_len:
        raise ConfigError(
            f"seq_len: {n_tokens} found; the table of learned positions ends at "
            f"model.max_seq_len = {config.max_seq_len}. Count for fewer tokens or enlarge it."
        )
