"""Well-known architectures as functions of their free sizes.

Every preset is a plain `ModelConfig`: change one field of it and it is an experiment. `PRESETS`
names those that need no argument, for the command line.
"""

from collections.abc import Callable
from typing import Literal

from assay.nn.block import PlainConfig
from assay.nn.head import LogitScale
from assay.nn.init import GaussianConfig, TorchConfig
from assay.nn.mixer import AttentionConfig, NoMixerConfig
from assay.nn.mlp import GELUConfig, SwiGLUConfig
from assay.nn.model import ModelConfig
from assay.nn.norm import LayerNormConfig, RMSNormConfig
from assay.nn.position import LearnedConfig, RopeConfig

GPT2Size = Literal["124M", "355M", "774M", "1.5B"]
_GPT2_SIZES: dict[GPT2Size, tuple[int, int, int]] = {  # d_model, layers, heads
    "124M": (768, 12, 12),
    "355M": (1024, 24, 16),
    "774M": (1280, 36, 20),
    "1.5B": (1600, 48, 25),
}


def tiny() -> ModelConfig:
    """Return the default: about 0.8 million parameters beside the embedding, quick on a laptop."""
    return ModelConfig()


def article_mlp(
    *,
    vocab_size: int | None = None,
    max_seq_len: int = 256,
    d_model: int = 128,
    n_layers: int = 4,
    logit_scale: LogitScale = "inv_sqrt_d",
) -> ModelConfig:
    """Return the article's attention-free GPT: section 3.1 and algorithm 1.

    A norm after the embeddings and after every MLP, no residual, tied output. Section 3.1 divides
    the logits by √d; algorithm 1 does not: `logit_scale="none"` is algorithm 1 to the letter.
    """
    return ModelConfig(
        vocab_size=vocab_size,
        max_seq_len=max_seq_len,
        d_model=d_model,
        n_layers=n_layers,
        position=LearnedConfig(),
        norm=LayerNormConfig(),
        block=PlainConfig(),
        mixer=NoMixerConfig(),
        mlp=GELUConfig(),
        logit_scale=logit_scale,
        bias=True,
        init=GaussianConfig(),
    )


def minigpt(
    *,
    vocab_size: int | None = None,
    max_seq_len: int = 256,
    d_model: int = 128,
    n_heads: int = 4,
    n_layers: int = 4,
) -> ModelConfig:
    """Return the `MiniGPT` of the article's appendix A.3, PyTorch's default weights included.

    Its initial loss is far above ln V: the embedding is N(0, 1), tied and unscaled.
    """
    return ModelConfig(
        vocab_size=vocab_size,
        max_seq_len=max_seq_len,
        d_model=d_model,
        n_layers=n_layers,
        position=LearnedConfig(),
        norm=LayerNormConfig(),
        mixer=AttentionConfig(n_heads=n_heads, qk_norm=False, dropout=0.1),
        mlp=GELUConfig(),
        bias=True,
        init=TorchConfig(),
    )


def gpt2(size: GPT2Size = "124M") -> ModelConfig:
    """Return GPT-2 at one of its four published sizes.

    Source: Radford et al. 2019, GPT-2 report, table 2; the parameter counts are those of the
    released models.
    """
    d_model, n_layers, n_heads = _GPT2_SIZES[size]
    return ModelConfig(
        vocab_size=50_257,
        max_seq_len=1024,
        d_model=d_model,
        n_layers=n_layers,
        position=LearnedConfig(),
        norm=LayerNormConfig(),
        mixer=AttentionConfig(n_heads=n_heads, qk_norm=False, dropout=0.1),
        mlp=GELUConfig(approximate="tanh"),
        bias=True,
        dropout=0.1,
    )


def nanogpt_char() -> ModelConfig:
    """Return the character model of nanoGPT's recipe for a CPU: no biases, no dropout."""
    return ModelConfig(
        max_seq_len=64,
        d_model=128,
        n_layers=4,
        position=LearnedConfig(),
        norm=LayerNormConfig(affine="scale"),
        mixer=AttentionConfig(n_heads=4, qk_norm=False),
        mlp=GELUConfig(),
    )


def llama_like(
    *,
    vocab_size: int | None = None,
    max_seq_len: int = 512,
    d_model: int = 256,
    n_heads: int = 8,
    n_kv_heads: int = 4,
    n_layers: int = 6,
) -> ModelConfig:
    """Return a Llama: rotary positions, RMSNorm, SwiGLU, shared keys and values, untied.

    Source: Touvron et al. 2023, arXiv:2302.13971, section 2.2.
    """
    return ModelConfig(
        vocab_size=vocab_size,
        max_seq_len=max_seq_len,
        d_model=d_model,
        n_layers=n_layers,
        position=RopeConfig(),
        norm=RMSNormConfig(eps=1e-5),
        mixer=AttentionConfig(n_heads=n_heads, n_kv_heads=n_kv_heads, qk_norm=False),
        mlp=SwiGLUConfig(),
        tie_embeddings=False,
        init=GaussianConfig(),
    )


PRESETS: dict[str, Callable[[], ModelConfig]] = {
    "tiny": tiny,
    "article-mlp": article_mlp,
    "minigpt": minigpt,
    "nanogpt-char": nanogpt_char,
    "llama-like": llama_like,
    "gpt2": gpt2,
    "gpt2-medium": lambda: gpt2("355M"),
    "gpt2-large": lambda: gpt2("774M"),
    "gpt2-xl": lambda: gpt2("1.5B"),
}
