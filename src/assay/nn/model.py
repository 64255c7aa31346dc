"""The model: `ModelConfig`, in which every architecture choice is one field, and `GPT`.

Shapes: B batch, T new tokens, D model width, V vocabulary, H heads.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from assay.errors import ConfigError
from assay.nn.attention import Context, Kernel
from assay.nn.attention_mask import MaskSpec
from assay.nn.block import BlockConfig, Parts, PreConfig
from assay.nn.cache import KVCache, LayerCache
from assay.nn.head import LogitScale, logit_factor, unembed
from assay.nn.init import (
    GPT2InitConfig,
    InitConfig,
    Piece,
    blank_table,
    initialise,
    stream_seed,
)
from assay.nn.mixer import AttentionConfig, MixerConfig, Probability
from assay.nn.mlp import MLPConfig, SwiGLUConfig
from assay.nn.norm import NormConfig, RMSNormConfig
from assay.nn.position import Position, PositionConfig, RopeConfig
from assay.schema import Config, Size

_ROUNDING = 1e-6  # of a number of steps
Share = Annotated[float, Field(gt=0, lt=1)]


class ModelConfig(Config):
    """The architecture. Every choice is one field; every field has one owner."""

    vocab_size: Size | None = None
    """V, in tokens. Null: the tokenizer's, when training."""
    max_seq_len: Size = 256
    """In tokens: length of a learned position table, bound of the context when generating."""
    d_model: Size = 128
    """D, the width of the residual stream."""
    n_layers: Size = 4
    """Blocks."""
    position: PositionConfig = RopeConfig()
    """How tokens know where they are."""
    norm: NormConfig = RMSNormConfig()
    """What normalises activations."""
    block: BlockConfig = PreConfig()
    """How a layer joins its mixer and its MLP."""
    mixer: MixerConfig = AttentionConfig()
    """What moves information between tokens."""
    mlp: MLPConfig = SwiGLUConfig()
    """What works on each token by itself."""
    tie_embeddings: bool | Share = True
    """Whether the output matrix is the token embedding. A share of the training steps, such as 0.5:
    the two are equal for so long, then each learns by itself."""
    logit_scale: LogitScale = "none"
    """Factor of the logits: none, inv_sqrt_d (1/√D) or a number."""
    soft_cap: PositiveFloat | None = None
    """c of c·tanh(logits / c). Null: no cap."""
    bias: bool = False
    """Whether the linear layers of mixer and MLP have biases."""
    dropout: Probability = 0.0
    """Probability with which a channel of the embedding or of a branch is zeroed in training."""
    init: InitConfig = GPT2InitConfig()
    """How weights start."""

    @model_validator(mode="after")
    def _pieces_fit(self) -> "ModelConfig":
        self.mixer.check(self.d_model)
        self.position.check(d_model=self.d_model, n_heads=self.n_heads)
        self.block.check(mixes=self.mixer.mixes)
        return self

    @property
    def vocab(self) -> int:
        """V, known.

        Raises:
            ConfigError: If `vocab_size` was left to a tokenizer.
        """
        if self.vocab_size is None:
            raise ConfigError(
                "model.vocab_size: null found; expected the number of tokens, since no tokenizer "
                "is at hand to tell it. Set it, such as model.vocab_size=50257."
            )
        return self.vocab_size

    @property
    def tied(self) -> bool:
        """Whether the output matrix is the token embedding, so that there is only one matrix."""
        return self.tie_embeddings is True

    def equal_until(self, steps: int) -> int:
        """Return the last of so many steps in which two matrices are kept equal, or 0."""
        share = self.tie_embeddings
        return 0 if isinstance(share, bool) else int(share * steps + _ROUNDING)

    @property
    def drops(self) -> bool:
        """Whether training draws random numbers."""
        return self.dropout > 0 or self.attention_dropout > 0

    @property
    def n_heads(self) -> int:
        """H, query heads; 0 without attention."""
        return 0 if (heads := self.mixer.heads()) is None else heads.n_heads

    @property
    def n_kv_heads(self) -> int:
        """G, key and value heads; 0 without attention."""
        return 0 if (heads := self.mixer.heads()) is None else heads.n_kv_heads

    @property
    def d_head(self) -> int:
        """K, the width of one head; 0 without attention."""
        return self.d_model // self.n_heads if self.n_heads else 0

    @property
    def window(self) -> int | None:
        """Tokens a query sees, itself included. None: all before it."""
        return None if (heads := self.mixer.heads()) is None else heads.window

    @property
    def attention_dropout(self) -> float:
        """Probability with which an attention weight is zeroed in training."""
        return 0.0 if (heads := self.mixer.heads()) is None else heads.dropout


class GPT(nn.Module):
    """A decoder-only transformer, or what is left of it when pieces are switched off.

    Parameters are named `embed`, `position`, `embed_norm`, `blocks.i.{mixer_norm, mixer, mlp_norm,
    mlp}`, `final_norm`, `unembed`. Tied means no `unembed`: one Parameter, used twice. Tied for a
    share of the training means two that start equal and share their gradients for so long.

    How a model is executed is not what it computes, so that is no part of its config:

    Attributes:
        config: The architecture.
        kernel: What computes the attention; see `attention`.
        recompute: Whether training keeps only what enters each block and runs the block again for
            its gradients, dropout included: less memory for about a third more time.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.kernel: Kernel = "fused"
        self.recompute = False
        d_model, block = config.d_model, config.block
        self.embed = blank_table(config.vocab, d_model)
        self.position = _position(config)
        self.embed_norm = config.norm.build(d_model) if block.embed_norm else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(block.build(_parts(config)) for _ in range(config.n_layers))
        self.final_norm = config.norm.build(d_model) if block.final_norm else None
        self.unembed = None if config.tied else nn.Linear(d_model, config.vocab, bias=False)

    @classmethod
    def create(
        cls, config: ModelConfig, *, seed: int = 0, device: torch.device | str = "cpu"
    ) -> "GPT":
        """Build on the meta device, take memory on `device`, draw the weights from `seed`."""
        with torch.device("meta"):
            model = cls(config)
        _take_memory(model, device)
        piece_of = partial(_piece_of, config)
        initialise(model, config.init, piece_of, n_layers=config.n_layers, seed=seed)
        if model.unembed is not None and config.tie_embeddings:
            with torch.no_grad():
                model.unembed.weight.copy_(model.embed.weight)
        return model

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        cache: KVCache | None = None,
        padding: Int[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Return the logits of the token after each of `tokens`; see `features`."""
        return self.logits(self.features(tokens, cache, padding))

    def features(
        self,
        tokens: Int[Tensor, "B T"],
        cache: KVCache | None = None,
        padding: Int[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Return the last hidden state of each token, normalised as the block asks.

        Args:
            tokens: Ids; with a cache, those that come after what it holds.
            cache: Keys and values of earlier tokens; takes in the new ones.
            padding: How many tokens at the start of each row (of the first call, with a cache) are
                filling to make rows equally long. They are never attended to; their own features
                mean nothing.

        Raises:
            ConfigError: If a learned position table is too short.
        """
        start = cache.length if cache is not None else 0
        columns = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        positions = columns[None] if padding is None else columns - padding[:, None]
        positions = positions.clamp_min(0)
        self._check_length(start + tokens.shape[1])
        x = self.embedded(tokens, positions)
        wide = torch.promote_types(x.dtype, torch.float32)
        rotation = self.position.rotation(positions, wide)
        context = Context.of(rotation, self._sight(tokens, start, padding, wide), self.kernel, x)
        x = self.through_blocks(x, context, None if cache is None else cache.layers)
        if cache is not None:
            cache.length += tokens.shape[1]
        return x

    def embedded(
        self, tokens: Int[Tensor, "B T"], positions: Int[Tensor, "P T"]
    ) -> Float[Tensor, "B T D"]:
        """Return what enters the first block; P is 1 or B."""
        x = self.dropout(self.position.embed(self.embed(tokens), positions))
        return x if self.embed_norm is None else self.embed_norm(x)

    def through_blocks(
        self, x: Float[Tensor, "B T D"], context: Context, caches: Sequence[LayerCache] | None
    ) -> Float[Tensor, "B T D"]:
        """Return the last hidden state of what enters the first block; a cache for each of them."""
        for index, block in enumerate(self.blocks):
            x = self._through(block, x, context, None if caches is None else caches[index])
        return x if self.final_norm is None else self.final_norm(x)

    def logits(self, features: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Multiply with the output matrix, scale and cap."""
        return unembed(
            features, self.output_matrix, factor=self.logit_factor, soft_cap=self.config.soft_cap
        )

    @property
    def output_matrix(self) -> Float[Tensor, "V D"]:
        """What features are multiplied with: the embedding where the two are tied."""
        return self.embed.weight if self.unembed is None else self.unembed.weight

    @property
    def logit_factor(self) -> float:
        """What multiplies the logits."""
        return logit_factor(self.config.logit_scale, self.config.d_model)

    def new_cache(self) -> KVCache:
        """Return an empty cache for this model."""
        return KVCache.empty(self.config.n_layers, window=self.config.window)

    @torch.no_grad()
    def fill_unsaved_buffers(self) -> None:
        """Give the buffers that no checkpoint holds what their constructors give them."""
        saved = self.state_dict().keys()
        for name, _ in list(self.named_buffers()):
            if name not in saved:
                owner, _, leaf = name.rpartition(".")
                start = torch.as_tensor(_piece_of(self.config, name).initial(stream_seed(0, name)))
                setattr(self.get_submodule(owner), leaf, start)

    def _check_length(self, length: int) -> None:
        limit = self.config.max_seq_len
        if self.config.position.bounded and length > limit:
            raise ConfigError(
                f"model.max_seq_len: the table of learned positions ends at {limit} tokens; found "
                f"{length}. Shorten the text or train with a larger max_seq_len."
            )

    def _sight(
        self, tokens: Tensor, start: int, padding: Tensor | None, dtype: torch.dtype
    ) -> MaskSpec:
        """Return what the new tokens see of themselves and of what a cache holds."""
        window, n_new = self.config.window, tokens.shape[1]
        held = start if window is None else min(start, window - 1)
        distances = torch.arange(held + n_new, device=tokens.device)
        return MaskSpec(
            n_queries=n_new,
            n_keys=held + n_new,
            first_key=start - held,
            window=window,
            padding=padding,
            by_distance=self.position.score_bias(distances, dtype),
        )

    def _through(
        self, block: nn.Module, x: Tensor, context: Context, cache: LayerCache | None
    ) -> Tensor:
        if self.recompute and self.training and cache is None and torch.is_grad_enabled():
            drops = self.config.drops  # or a generator's state is read, which no graph records
            return checkpoint(block, x, context, use_reentrant=False, preserve_rng_state=drops)
        return block(x, context, cache)


def _position(config: ModelConfig) -> Position:
    return config.position.build(
        d_model=config.d_model, n_heads=config.n_heads, max_seq_len=config.max_seq_len
    )


def _parts(config: ModelConfig) -> Parts:
    return Parts(
        norm=lambda: config.norm.build(config.d_model),
        mixer=config.mixer.build(config.d_model, bias=config.bias),
        mlp=config.mlp.build(config.d_model, bias=config.bias),
        dropout=config.dropout,
    )


def _take_memory(model: GPT, device: torch.device | str) -> None:
    """Replace what lies on the meta device; `to_empty` would load sympy."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            blank = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
            setattr(module, name, nn.Parameter(blank, requires_grad=parameter.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=device))


def _piece_of(config: ModelConfig, name: str) -> Piece:
    """Return the piece of a `GPT` that a parameter or buffer belongs to."""
    top, _, within = name.partition(".")
    norm = partial(config.norm.build, config.d_model)
    if top == "position":
        return Piece(config.position, lambda: _position(config), within)
    if top != "blocks":
        return Piece(config.norm, norm, within)
    _, _, local = within.partition(".")  # without the number of the block
    part, _, within = local.partition(".")
    if part == "mixer":
        return Piece(config.mixer, lambda: _parts(config).mixer, within)
    if part == "mlp":
        return Piece(config.mlp, lambda: _parts(config).mlp, within)
    if part in config.block.norms(mixes=config.mixer.mixes):
        return Piece(config.norm, norm, within)
    return Piece(config.block, lambda: config.block.build(_parts(config)), local)
