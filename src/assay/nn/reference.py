"""The slow readable twin of `GPT`: every formula written out, one sequence and one head at a time.

Read it from top to bottom to learn how a GPT works; run it to check the fast model. It takes only
the config and the weights of a `GPT`, works in float64 and calls none of the model's own layers.
A variant that is not written out here brings its own `reference`, or is refused.

Shapes: T tokens, D model width, V vocabulary, H query heads, G key and value heads, K = D / H.
Weights are stored as out × in, so a linear layer is x Wᵀ + b. There is no dropout.
"""

import math
from collections.abc import Mapping
from functools import partial

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from assay.errors import ConfigError
from assay.nn.block import Branch, ParallelConfig, PlainConfig, PostConfig, PreConfig
from assay.nn.mixer import AttentionConfig
from assay.nn.mlp import (
    DenseConfig,
    GeGLUConfig,
    GELUConfig,
    MLPVariant,
    ReLU2Config,
    ReLUConfig,
    SwiGLUConfig,
)
from assay.nn.model import GPT, ModelConfig
from assay.nn.norm import (
    LayerNormConfig,
    NoNormConfig,
    NormVariant,
    RMSNormConfig,
    SigmaNormConfig,
)
from assay.nn.position import (
    AlibiConfig,
    LearnedConfig,
    NoPositionConfig,
    RopeConfig,
    SinusoidalConfig,
)

Weights = Mapping[str, Tensor]
Vectors = Float[Tensor, "T D"]
Biases = Float[Tensor, "H T T"]

_QK_NORM_EPS = 1e-6


def reference_logits(model: GPT, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
    """Return the logits of the token after each of `tokens`, in float64.

    Raises:
        ConfigError: If a learned position table is too short.
    """
    weights = {name: value.double() for name, value in model.state_dict().items()}
    return torch.stack([_sequence(row, weights, model.config) for row in tokens])


def reference_greedy(model: GPT, tokens: Int[Tensor, " T"], n: int) -> Int[Tensor, " N"]:
    """Return `tokens` and the `n` most likely ones after them, everything rerun for each.

    Past `max_seq_len` only the last `max_seq_len` tokens are read, their positions counted from 0
    again: the window mode `recompute`. Of equally likely tokens the smallest id is taken.
    """
    for _ in range(n):
        window = tokens[-model.config.max_seq_len :]
        last = reference_logits(model, window[None])[0, -1]
        tokens = torch.cat((tokens, last.argmax()[None]))
    return tokens


# The whole model ---------------------------------------------------------------------------------


def _sequence(tokens: Int[Tensor, " T"], w: Weights, config: ModelConfig) -> Float[Tensor, "T V"]:
    """Embed, add positions, pass the blocks one after another, normalise, unembed."""
    x = w["embed.weight"][tokens] + _position_vectors(tokens.shape[0], w, config)
    if config.block.embed_norm:
        x = _norm(x, _part(w, "embed_norm"), config.norm)
    biases = _position_biases(tokens.shape[0], _part(w, "position"), config).to(x.device)
    for layer in range(config.n_layers):
        x = _block(x, _part(w, f"blocks.{layer}"), config, biases)
    if config.block.final_norm:  # other blocks end on a norm already
        x = _norm(x, _part(w, "final_norm"), config.norm)
    return _head(x, w, config)


def _part(w: Weights, owner: str) -> Weights:
    """Return the weights of one part under their names within it."""
    start = f"{owner}."
    return {name[len(start) :]: value for name, value in w.items() if name.startswith(start)}


def _block(x: Vectors, w: Weights, config: ModelConfig, biases: Biases) -> Vectors:
    """Join the two branches, attention a and feed-forward f, with the norm N.

    pre:       x ← x + a(N x),   x ← x + f(N x)
    post:      x ← N(x + a(x)),  x ← N(x + f(x))
    plain:     x ← N a(x),       x ← N f(x)
    parallel:  x ← x + a(N x) + f(N' x)

    Source: Xiong et al. 2020, arXiv:2002.04745, figure 1, for pre and post; the article, algorithm
    1, for plain; Black et al. 2022, arXiv:2204.06745, section 2.1, for parallel.
    """
    names = config.block.norms(mixes=config.mixer.mixes)
    norms = {n: partial(_norm, w=_part(w, n), norm=config.norm) for n in names}
    branches: dict[str, Branch] = {"mlp": partial(_mlp, w=_part(w, "mlp"), mlp=config.mlp)}
    if config.mixer.mixes:
        mixer = partial(_mixer, w=_part(w, "mixer"), config=config, biases=biases)
        branches = {"mixer": mixer} | branches
    start = x
    for name, branch in branches.items():
        norm = norms.get(f"{name}_norm")
        match config.block:
            case PreConfig() if norm:
                x = x + branch(norm(x))
            case PostConfig() if norm:
                x = norm(x + branch(x))
            case PlainConfig() if norm:
                x = norm(branch(x))
            case ParallelConfig() if norm:
                x = x + branch(norm(start))
            case other:
                return other.reference(start, branches, norms, w)
    return x


def _mixer(x: Vectors, w: Weights, config: ModelConfig, biases: Biases) -> Vectors:
    match config.mixer:
        case AttentionConfig():
            return _attention(x, w, config, biases)
        case other:
            return other.reference(x, w)


def _head(x: Vectors, w: Weights, config: ModelConfig) -> Float[Tensor, "T V"]:
    """Return s·x Wᵀ, under a soft cap c as c·tanh(./c); W is the embedding where they are tied."""
    matrix = w["embed.weight"] if config.tied else w["unembed.weight"]
    logits = x @ matrix.T
    if config.logit_scale == "inv_sqrt_d":
        logits = logits / math.sqrt(config.d_model)
    elif config.logit_scale != "none":
        logits = logits * config.logit_scale
    c = config.soft_cap
    return logits if c is None else c * torch.tanh(logits / c)


# Positions ---------------------------------------------------------------------------------------


def _position_vectors(n_tokens: int, w: Weights, config: ModelConfig) -> Float[Tensor, "T D"]:
    """Return what is added to the token embeddings: zero where positions enter elsewhere."""
    vectors = torch.zeros(n_tokens, config.d_model, dtype=torch.float64)
    match config.position:
        case LearnedConfig():
            if n_tokens > config.max_seq_len:
                raise ConfigError(
                    f"model.max_seq_len: the table of learned positions ends at "
                    f"{config.max_seq_len} tokens; found {n_tokens}. Shorten the text or train "
                    "with a larger max_seq_len."
                )
            return w["position.table.weight"][:n_tokens]
        case SinusoidalConfig():
            for position in range(n_tokens):
                for channel in range(config.d_model):
                    vectors[position, channel] = _wave(position, channel, config.d_model)
        case NoPositionConfig() | RopeConfig() | AlibiConfig():
            pass
        case other:
            vectors = other.reference_vectors(vectors, _part(w, "position"))
    return vectors.to(w["embed.weight"].device)


def _wave(position: int, channel: int, d_model: int) -> float:
    """Return sin(p / 10000^(2i/D)) in channel 2i and the cosine of the same in channel 2i + 1.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
    """
    angle = position / 10_000 ** ((channel - channel % 2) / d_model)
    return math.cos(angle) if channel % 2 else math.sin(angle)


def _turn(x: Float[Tensor, "T K"], rope: RopeConfig) -> Float[Tensor, "T K"]:
    """Turn channel pair i of the token at position p by the angle p·θ^(-2i/R), of R channels.

    Channels i and i + R/2 are one complex number, which e^(i·angle) turns; those from R on stay.

    Source: Su et al. 2021, arXiv:2104.09864, equations 13 and 15.
    """
    half = int(rope.fraction * x.shape[1]) // 2
    pairs = torch.complex(x[:, :half], x[:, half : 2 * half])
    turned = pairs * _turns(x.shape[0], half, rope.theta).to(x.device)
    return torch.cat((turned.real, turned.imag, x[:, 2 * half :]), dim=1)


def _turns(n_tokens: int, n_pairs: int, theta: float) -> Complex[Tensor, "T R"]:
    rates = [theta ** (-i / n_pairs) for i in range(n_pairs)]  # -2i/R is -i/(R/2)
    angles = [[position * rate for rate in rates] for position in range(n_tokens)]
    radians = torch.tensor(angles, dtype=torch.float64)
    return torch.complex(radians.cos(), radians.sin())


def _alibi_slope(head: int, n_heads: int) -> float:
    """Return 2^(-8(h+1)/n) for n heads, a power of two; for others, interpolate as the authors do.

    Then the first p heads, a power of two, have the slopes of p, the rest every other one of 2p.

    Source: Press et al. 2021, arXiv:2108.12409, section 3 and their code.
    """
    power = 1
    while 2 * power <= n_heads:
        power *= 2
    if head < power:
        return float(2 ** (-8 * (head + 1) / power))
    return _alibi_slope(2 * (head - power), 2 * power)


# Attention ---------------------------------------------------------------------------------------


def _attention(x: Vectors, w: Weights, config: ModelConfig, biases: Biases) -> Vectors:
    """Let each head look back with its own query, then mix the heads' findings.

    Query head h reads key and value head ⌊h / (H/G)⌋.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2; Ainslie et al. 2023,
    arXiv:2305.13245, section 2.2, for G < H.
    """
    n_heads, n_kv_heads, d_head = config.n_heads, config.n_kv_heads, config.d_head
    q, k, v = (_linear(x, w, f"{name}_proj").reshape(len(x), -1, d_head) for name in "qkv")
    found = []
    for head in range(n_heads):
        kv_head = head // (n_heads // n_kv_heads)
        scores = _scores(q[:, head], k[:, kv_head], w, config) + biases[head]
        scores[~_visible(x.shape[0], config.window)] = -math.inf
        found.append(_softmax(scores) @ v[:, kv_head])
    return _linear(torch.cat(found, dim=1), w, "out_proj")


def _scores(
    q: Float[Tensor, "T K"], k: Float[Tensor, "T K"], w: Weights, config: ModelConfig
) -> Float[Tensor, "T T"]:
    """Return q·k / √K for every pair of tokens, q and k normalised and turned as configured."""
    if "q_norm.weight" in w:  # Henry et al. 2020, arXiv:2010.04245, with RMS for the ℓ2 norm
        q = _root_mean_square_norm(q, _QK_NORM_EPS) * w["q_norm.weight"]
        k = _root_mean_square_norm(k, _QK_NORM_EPS) * w["k_norm.weight"]
    match config.position:
        case RopeConfig() as rope:
            q, k = _turn(q, rope), _turn(k, rope)
        case NoPositionConfig() | LearnedConfig() | SinusoidalConfig() | AlibiConfig():
            pass
        case other:
            q, k = other.reference_turned(q), other.reference_turned(k)
    return q @ k.T / math.sqrt(q.shape[1])


def _position_biases(n_tokens: int, w: Weights, config: ModelConfig) -> Biases:
    """Return what each head adds to the score of each query (row) and key (column)."""
    distance = _distance(n_tokens)
    biases = torch.zeros(config.n_heads, n_tokens, n_tokens, dtype=torch.float64)
    for head in range(config.n_heads):
        match config.position:
            case AlibiConfig():
                biases[head] = -_alibi_slope(head, config.n_heads) * distance
            case NoPositionConfig() | LearnedConfig() | SinusoidalConfig() | RopeConfig():
                pass
            case other:
                biases[head] = other.reference_bias(distance, head, w)
    return biases


def _distance(n_tokens: int) -> Float[Tensor, "T T"]:
    """Return how far back key s (column) lies from query t (row): t - s."""
    rows = [[t - s for s in range(n_tokens)] for t in range(n_tokens)]
    return torch.tensor(rows, dtype=torch.float64)


def _visible(n_tokens: int, window: int | None) -> Bool[Tensor, "T T"]:
    """Return whether query t sees key s: not the future, nor what the window has left behind."""
    distance = _distance(n_tokens)
    return (distance >= 0) & (distance < (window or n_tokens))


def _softmax(scores: Float[Tensor, "T T"]) -> Float[Tensor, "T T"]:
    """Return exp(s) / Σ exp(s) of each row; taking away the largest first avoids overflow."""
    powers = (scores - scores.max(dim=1, keepdim=True).values).exp()
    return powers / powers.sum(dim=1, keepdim=True)


# The rest of a block -----------------------------------------------------------------------------


def _linear(x: Float[Tensor, "T N"], w: Weights, name: str) -> Float[Tensor, "T M"]:
    y = x @ w[f"{name}.weight"].T
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def _norm(x: Vectors, w: Weights, norm: NormVariant) -> Vectors:
    """Return γ·(normalised x) + β, without γ or β where the norm has none.

    layer: (x - μ) / √(σ² + ε)   Ba et al. 2016, arXiv:1607.06450, equation 4
    sigma: (x - μ) / (σ + ε)     the article, section 2.2
    rms:   x / √(mean x² + ε)    Zhang & Sennrich 2019, arXiv:1910.07467, equation 4
    """
    centred = x - x.mean(dim=1, keepdim=True)
    variance = (centred**2).mean(dim=1, keepdim=True)
    match norm:
        case NoNormConfig():
            return x
        case LayerNormConfig():
            x = centred / torch.sqrt(variance + norm.eps)
        case SigmaNormConfig():
            x = centred / (torch.sqrt(variance) + norm.eps)
        case RMSNormConfig():
            x = _root_mean_square_norm(x, norm.eps)
        case other:
            return other.reference(x, w)
    x = x * w["weight"] if "weight" in w else x
    return x + w["bias"] if "bias" in w else x


def _root_mean_square_norm(x: Float[Tensor, "T N"], eps: float) -> Float[Tensor, "T N"]:
    return x / torch.sqrt((x**2).mean(dim=1, keepdim=True) + eps)


def _mlp(x: Vectors, w: Weights, mlp: MLPVariant) -> Vectors:
    """Return down(act(up x)), or down(act(gate x) ⊙ up x) where there is a gate.

    Source: Vaswani et al. 2017, arXiv:1706.03762, equation 2; Shazeer 2020, arXiv:2002.05202,
    equation 6.
    """
    if not isinstance(mlp, DenseConfig):
        return mlp.reference(x, w)
    up = _linear(x, w, "up")
    if mlp.gated:
        return _linear(_activation(_linear(x, w, "gate"), mlp) * up, w, "down")
    return _linear(_activation(up, mlp), w, "down")


def _activation(x: Float[Tensor, "T F"], mlp: DenseConfig) -> Float[Tensor, "T F"]:
    """Return ReLU, its square, GELU x·Φ(x) (exact or by its tanh formula), or SiLU x / (1 + e⁻ˣ).

    Source: Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2; So et al. 2021, arXiv:2109.08668,
    section 3.2; Shazeer 2020, arXiv:2002.05202, section 2.
    """
    match mlp:
        case ReLUConfig():
            return x * (x > 0)
        case ReLU2Config():
            return (x * (x > 0)) ** 2
        case GELUConfig(approximate="tanh"):
            return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        case GELUConfig() | GeGLUConfig():
            return x / 2 * (1 + torch.erf(x / math.sqrt(2)))
        case SwiGLUConfig():
            return x / (1 + torch.exp(-x))
        case other:
            return other.reference_activation(x)
