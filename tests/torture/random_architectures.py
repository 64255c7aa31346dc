"""Random legal architectures, each checked against float64 autograd in every way it is computed.

    python tests/torture/random_architectures.py 17          # one, as the test draws it
    python tests/torture/random_architectures.py 0 50 --ways=fp32,eager

prints a JSON line as each begins and another as it ends, so that a crash is told from its seed.

An error is measured against `noise`: what the float64 gradients (or logits) themselves move by when
every weight and every module's output is moved by one rounding of the precision in question. A
random model with large weights may be so ill-conditioned that nothing is left to compare; this is
counted as `no digits`, not hidden.

Shapes: B sequences, T tokens, V vocabulary.
"""

import copy
import json
import math
import random
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F

from assay.decode.native_model import NativeModel, TokenBatch
from assay.decode.quantized import QuantizedModel
from assay.errors import ConfigError
from assay.native.build import kernels
from assay.nn.loss import next_token_loss
from assay.nn.model import GPT, ModelConfig
from assay.nn.reference import reference_logits
from assay.schema import decode
from assay.train.model_view import TrainModelView
from assay.train.muon import Muon, _by_matrix, orthogonalised
from assay.train.native_backend import NativeWorkspace, gradients, multiplies_bf16, token_losses
from assay.train.optim import AdamWConfig, MuonConfig

sys.path.append(str(Path(__file__).parents[1] / "train"))
from dropout_masks import SEED, Masks

ROUNDING = {"fp32": 2.0**-24, "bf16": 2.0**-9, "int8": 2.0**-15}
"""Half a unit of a number; with int8 weights, of the largest number of a row, cut into 2 bytes."""
FLOOR = {"fp32": 2e-5, "bf16": 0.01}
"""What gradients may err by whatever the noise, as in tests/train/test_kernels.py."""
TIMES = {"fp32": 16, "bf16": 4, "int8": 16}
"""Noises allowed. A draw of it may come out at a third, and a sum of K terms is rounded K times; in
bfloat16 what is rounded are the terms, which is what is moved. Where that allows an error of the
whole size, no digit is left to compare."""
DRAWS = {"fp32": 1, "bf16": 4, "int8": 3}
"""Of the noise of logits: one of them near zero under a soft cap makes for a heavy tail."""
MANY_DRAWS = 16
"""Where few say that a reading errs: of two moves that are equally frequent all but one in 32,768
sets of draws have both."""
HUGE = 1e15
"""Of a number on its way: beyond, squares come near the end of float32, and exp is cut at e^88."""
SCALES = (0.5, 1.0)
"""Of the gradients in an optimizer's two steps, as by clipping."""
WIDTHS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 16, 17, 20, 24, 31, 32, 33, 40]


# Drawing -----------------------------------------------------------------------------------------


@dataclass
class Case:
    """A config, a model of it with its weights moved, and a batch; all from one seed."""

    seed: int
    rng: random.Random
    config: ModelConfig
    model: GPT
    tokens: torch.Tensor
    threads: int
    lost: set = field(default_factory=set)
    noises: dict = field(default_factory=dict)

    @cached_property
    def exact(self):
        """Loss and gradients of autograd in float64."""
        return learnt_by_pytorch(doubled(self.model), self.tokens)

    @cached_property
    def finite(self):
        """Whether there is a right answer: a row of equal numbers has no gradient under sigma."""
        return all(torch.isfinite(g).all() and g.abs().max() < HUGE for g in self.exact[1].values())

    def noise(self, rounding):
        """What `measured_noise` found, once."""
        if rounding not in self.noises:
            self.noises[rounding] = self.measured_noise(rounding)
        return self.noises[rounding]

    def measured_noise(self, rounding):
        """Loss and gradients by how much they move: the larger of two draws, by name."""
        found = []
        for draw in (0, 1):
            twin, mode = moved(self.model, rounding, self.seed + draw)
            found.append(errors(learnt_by_pytorch(twin, self.tokens, mode), self.exact))
            if not mode.by.largest < HUGE:
                return math.inf, math.inf, ""
        return tuple(max(pair) for pair in zip(*found, strict=True))


def log_uniform(rng, low, high):
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def draw_mixer(rng, n_heads, seq_len):
    mixer = {
        "kind": "attention",
        "n_heads": n_heads,
        "n_kv_heads": rng.choice([None, *(g for g in range(1, n_heads + 1) if n_heads % g == 0)]),
        "qk_norm": rng.random() < 0.5,
        "dropout": rng.choice([0.0, 0.0, 0.0, 0.1, 0.5, 0.9]),
    }
    if rng.random() < 0.4:
        mixer["window"] = rng.choice([1, 2, rng.randint(1, 2 * seq_len), max(1, seq_len - 1)])
    return mixer


def draw_position(rng, d_head):
    kind = rng.choice(["none", "learned", "sinusoidal", "rope", "rope", "alibi"])
    if kind != "rope" or rng.random() < 0.3:
        return kind
    n_pairs = rng.randint(1, max(1, d_head // 2))
    fraction = min(1.0, (2 * n_pairs + 0.01) / d_head)
    return {"kind": "rope", "theta": log_uniform(rng, 0.5, 1e6), "fraction": fraction}


def draw_norm(rng):
    kind = rng.choice(["none", "layer", "sigma", "rms", "rms"])
    if kind == "none" or rng.random() < 0.25:
        return kind
    affine = rng.choice(["scale", "none"] if kind == "rms" else ["scale_shift", "scale", "none"])
    return {"kind": kind, "affine": affine, "eps": log_uniform(rng, 1e-8, 0.3)}


def draw_mlp(rng, d_model):
    kind = rng.choice(["gelu", "gelu", "relu", "relu2", "swiglu", "geglu"])
    mlp = {"kind": kind}
    if kind == "gelu":
        mlp["approximate"] = rng.choice(["none", "tanh"])
    if d_model > 120 or rng.random() < 0.7:
        mlp["d_ff"] = rng.choice([1, 2, 5, 37, 63, 64, 65, 129, rng.randint(1, 260)])
    return mlp


def draw_sizes(rng):
    """Return rows, tokens of context and vocabulary; the three are not all large at once."""
    seq_len = rng.choice([1, 2, 3, rng.randint(1, 40), rng.randint(1, 40), rng.randint(41, 90)])
    if rng.random() < 0.1:
        seq_len = rng.randint(91, 200)
    rows = rng.choice([1, 2, 3, 5, 7]) if seq_len < 60 else rng.choice([1, 1, 2])
    vocab = rng.choice([2, 3, 17, 37, 64, rng.randint(2, 200), rng.randint(2, 200)])
    if rng.random() < 0.05:
        vocab = rng.randint(1000, 7000)
    return rows, seq_len, vocab


def draw_fields(rng, seq_len, vocab):
    n_heads, d_head = rng.choice([1, 1, 2, 3, 4, 4, 5, 6, 8]), rng.choice(WIDTHS)
    if n_heads * d_head > 160:
        n_heads = rng.choice([1, 2, 3])
    d_model = n_heads * d_head
    attends = rng.random() < 0.9
    init = rng.choice(["gpt2", "xavier", "torch", "gaussian", "gaussian"])
    scale = rng.choice(["none", "none", "inv_sqrt_d", log_uniform(rng, 0.05, 3.0)])
    return {
        "vocab_size": vocab,
        "max_seq_len": seq_len + rng.choice([0, 0, 1, 7, 50]),
        "d_model": d_model,
        "n_layers": rng.choice([1, 2, 2, 3]),
        "position": draw_position(rng, d_head),
        "norm": draw_norm(rng),
        "block": rng.choice(["pre", "post", "parallel", "plain"]),
        "mixer": draw_mixer(rng, n_heads, seq_len) if attends else "none",
        "mlp": draw_mlp(rng, d_model),
        "tie_embeddings": rng.random() < 0.5,
        "logit_scale": scale,
        "soft_cap": rng.choice([None, None, log_uniform(rng, 0.5, 30.0)]),
        "bias": rng.random() < 0.5,
        "dropout": rng.choice([0.0, 0.0, 0.0, 0.1, 0.4]),
        "init": {"kind": "gaussian", "std": log_uniform(rng, 0.01, 1.0)}
        if init == "gaussian"
        else init,
    }


def draw_config(rng, seq_len, vocab):
    """Draw until the pieces fit; few draws do not."""
    while True:
        fields = draw_fields(rng, seq_len, vocab)
        try:
            config = decode(ModelConfig, fields)
        except ConfigError:
            continue
        if config.d_model > 1 or config.norm.kind in ("none", "rms"):
            return config  # a single channel less its mean is nothing but a rounding


def shake(model, rng, seed):
    """Move every weight, so that no norm is the identity; one model in ten gets large ones."""
    generator = torch.Generator().manual_seed(seed)
    by = rng.choice([0.0, 0.02, 0.1, 0.1, 0.3, 0.5])
    times = log_uniform(rng, 2.0, 30.0) if rng.random() < 0.1 else 1.0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
            parameter *= times


def case_of(seed):
    """Return the case of a seed."""
    rng = random.Random(seed)
    rows, seq_len, vocab = draw_sizes(rng)
    config = draw_config(rng, seq_len, vocab)
    model = GPT.create(config, seed=seed)
    shake(model, rng, seed)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(vocab, (rows, seq_len + 1), generator=generator)
    model.kernel = rng.choice(["fused", "fused", "fused", "blocks"])
    return Case(seed, rng, config, model, tokens, rng.choice([1, 2, 3]))


# Measuring ---------------------------------------------------------------------------------------


def doubled(model):
    return copy.deepcopy(model).double()


def gradients_of(model):
    """By name, in float64; a weight that nothing depends on has none from autograd."""
    return {
        name: (torch.zeros_like(p) if p.grad is None else p.grad.clone()).double()
        for name, p in model.named_parameters()
    }


def learnt_by_pytorch(model, tokens, mode=None, *, bf16=False):
    """Return loss and gradients by autograd, in training mode with the kernels' dropout."""
    model.zero_grad()
    if mode is None and model.training and model.config.drops:
        model.kernel, mode = "fused", Masks(model.config)
    with mode or nullcontext(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = next_token_loss(model, tokens)
    loss.backward()
    return loss.item(), gradients_of(model)


def learnt_by_kernels(case, *, bf16):
    case.model.zero_grad()
    torch.set_num_threads(case.threads)
    loss = gradients(case.model, case.tokens, bf16=bf16, seed=SEED, pieces=1, apart=True)
    torch.set_num_threads(1)
    return loss.item(), gradients_of(case.model)


def errors(found, expected):
    """Return how far a loss is off, against 1 nat or itself, and the worst gradient, by name.

    A gradient's error is told against its norm and a hundredth of that of all: a bias of keys has
    a gradient of zero, of which nothing but rounding is left.
    """
    loss, value = found[0], expected[0]
    whole = torch.stack([g.norm() for g in expected[1].values()]).norm()
    each = {
        name: float((found[1][name] - g).norm() / (g.norm() + 0.01 * whole).clamp_min(1e-30))
        for name, g in expected[1].items()
    }
    worst = max(each.items(), key=lambda item: math.inf if math.isnan(item[1]) else item[1])
    return abs(loss - value) / max(1.0, abs(value)), worst[1], worst[0]


class Rounding:
    """Moves numbers by a rounding at random, where a computation rounds them.

    A backward pass that takes nearly equal numbers from each other leaves the rounding of those:
    in a softmax, a norm, a soft cap and the loss, which are written out for that.
    """

    def __init__(self, unit, seed, *, of_row):
        self.unit, self.of_row, self.largest = unit, of_row, 0.0
        self.draw = torch.Generator().manual_seed(seed)

    def like(self, x):
        return self.unit * torch.randn(x.shape, generator=self.draw, dtype=x.dtype)

    def of(self, x):
        size = x.abs()
        self.largest = max(self.largest, float(size.max()))
        scale = size.amax(-1, keepdim=True) if self.of_row else size
        return x + scale * self.like(x)


class Moved(torch.autograd.Function):
    """x; its gradient's own scale is told to what comes before in `told`."""

    @staticmethod
    def forward(ctx, x, by, told):
        ctx.by, ctx.told = by, told
        return by.of(x)

    @staticmethod
    def backward(ctx, grad):
        if ctx.told is not None:
            ctx.told["grad"] = grad.square().mean(-1, keepdim=True).sqrt()
        return grad * (1 + ctx.by.like(grad)), None, None


class Entering(torch.autograd.Function):
    """What enters a norm, whose gradient is a difference of numbers of a size that is told."""

    @staticmethod
    def forward(ctx, x, by, told):
        ctx.by, ctx.told = by, told
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return grad + ctx.told["gain"] * ctx.told["grad"] * ctx.by.like(grad), None, None


class Mixing(torch.autograd.Function):
    """Attention weights times values; tells the size of the terms of the weights' gradients."""

    @staticmethod
    def forward(ctx, weights, v, told):
        ctx.told = told
        ctx.save_for_backward(weights, v)
        return weights @ v

    @staticmethod
    def backward(ctx, grad):
        weights, v = ctx.saved_tensors
        ctx.told["terms"] = (grad.square() @ v.mT.square()).sqrt()
        return grad @ v.mT, weights.mT @ grad, None


class Softmax(torch.autograd.Function):
    """Of scores; its gradient less its mean, each a sum of terms of a size that is told.

    Where all keys of a row say the same, a gradient is a difference of equal numbers, and what is
    left of it is by how much the weights do not sum to 1: an error that all keys share and that a
    sum over them does not average out.
    """

    @staticmethod
    def forward(ctx, scores, by, told):
        seen = scores.isfinite()
        p = by.of(by.of(scores.where(seen, 0.0)).where(seen, -torch.inf).softmax(-1))
        p = p * (1 + by.like(p[..., :1]))  # the sum they are divided by, rounded: alike in a row
        ctx.by, ctx.told = by, told
        ctx.save_for_backward(p)
        return p

    @staticmethod
    def backward(ctx, grad):
        (p,), by, terms = ctx.saved_tensors, ctx.by, ctx.told["terms"]
        mean = (p * grad).sum(-1, keepdim=True)
        of_mean = (p * terms).norm(dim=-1, keepdim=True)
        return p * (grad + terms * by.like(grad) - mean - of_mean * by.like(mean)), None, None


class Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, by):
        ctx.by, y = by, by.of(x.tanh())
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, grad):
        (y,) = ctx.saved_tensors
        return grad * (1 - y * y * (1 + ctx.by.like(y))), None


class CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, targets, by):
        p = by.of(logits.log_softmax(-1)).exp()
        ctx.save_for_backward(p - F.one_hot(targets, logits.shape[-1]) * (1 + by.like(p)))
        return F.cross_entropy(by.of(logits), targets)

    @staticmethod
    def backward(ctx, grad):
        (d_logits,) = ctx.saved_tensors
        return grad * d_logits / len(d_logits), None, None


class Rounded(Masks):
    """Functions of PyTorch with their numbers moved, and the kernels' dropout if any."""

    def __init__(self, config, by):
        super().__init__(config)
        self.by = by

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            return self.attention(*args, **kwargs)
        if func is torch.Tensor.tanh:
            return Tanh.apply(*args, self.by)
        if func is F.cross_entropy:
            return CrossEntropy.apply(*args, self.by)
        return super().__torch_function__(func, types, args, kwargs)

    def softmax(self, scores):
        self.told = {}
        return Softmax.apply(scores, self.by, self.told)

    def product(self, weights, v):
        return Mixing.apply(weights, v, self.told)


def rounding_hooks(module, by):
    """Have a module round what it gives; a norm's gradient, also what it is a difference of."""
    told = {}

    def enter(module, arguments):
        return (Entering.apply(arguments[0], by, told), *arguments[1:])

    def leave(module, arguments, y):
        if not isinstance(y, torch.Tensor):
            return y
        x = arguments[0].detach()
        if is_norm:
            spread = (x - centre * x.mean(-1, keepdim=True)).square().mean(-1, keepdim=True).sqrt()
            told["gain"] = y.detach().square().mean(-1, keepdim=True).sqrt() / spread
            told["gain"] = told["gain"].nan_to_num(0.0, 0.0, 0.0)
        return Moved.apply(y, by, told if is_norm else None)

    is_norm = "Norm" in type(module).__name__
    centre = 0.0 if "RMS" in type(module).__name__ else 1.0
    if is_norm:
        module.register_forward_pre_hook(enter)
    module.register_forward_hook(leave)


def moved(model, unit, seed, *, of_row=False, weights=True):
    """Return a twin that rounds its weights and what is computed, at random, and its mode.

    The mode is for one pass.
    """
    by, twin = Rounding(unit, seed, of_row=of_row), doubled(model)
    twin.kernel = "fused"
    with torch.no_grad():
        for parameter in twin.parameters() if weights else ():
            parameter.copy_(parameter * (1 + by.like(parameter)))
    for module in twin.modules():
        if module is not twin:
            rounding_hooks(module, by)
    embedded = twin.embedded
    twin.embedded = lambda *arguments: Moved.apply(embedded(*arguments), by, None)
    return twin, Rounded(twin.config, by)


def judged(case, found, noise, precision):
    """Return what is wrong with a loss and gradients, in a list of at most one sentence."""
    loss, gradient, name = errors(found, case.exact)
    loss_noise, gradient_noise = noise
    floor, times = FLOOR[precision], TIMES[precision]
    if not (times * gradient_noise < 1 and times * loss_noise < 1):
        case.lost.add(precision)
        return []
    allowed = times * gradient_noise + floor
    if not gradient <= allowed:
        return [f"{precision}: gradient of {name} errs by {gradient:.3g}, {allowed:.3g} allowed"]
    allowed = times * loss_noise + 0.1 * floor
    if not loss <= allowed:
        return [f"{precision}: the loss errs by {loss:.3g}, {allowed:.3g} allowed"]
    return []


# Ways --------------------------------------------------------------------------------------------


def fp32(case):
    """Loss and gradients by the kernels in float32."""
    wrong, found = [], learnt_by_kernels(case, bf16=False)
    if case.finite:
        theirs = errors(learnt_by_pytorch(copy.deepcopy(case.model), case.tokens), case.exact)
        noise = zip(case.noise(ROUNDING["fp32"])[:2], theirs, strict=False)
        wrong = judged(case, found, [max(pair) for pair in noise], "fp32")
    if not case.finite or wrong or case.config.drops:
        return wrong
    with torch.inference_mode():
        told = token_losses(case.model, case.tokens, bf16=False, rows=len(case.tokens)).mean()
    close = math.isclose(told, found[0], rel_tol=1e-5, abs_tol=1e-5) or math.isnan(found[0])
    return [] if close else [f"token_losses: mean {told}, loss {found[0]}"]


def bf16(case):
    """Loss and gradients by the kernels in bfloat16, beside PyTorch's own autocast."""
    if not multiplies_bf16():
        return []
    found = learnt_by_kernels(case, bf16=True)
    if not case.finite:
        return []
    theirs = errors(
        learnt_by_pytorch(copy.deepcopy(case.model), case.tokens, bf16=True), case.exact
    )
    noise = case.noise(ROUNDING["bf16"])
    return judged(case, found, [max(pair) for pair in zip(noise[:2], theirs, strict=False)], "bf16")


def eager(case):
    """PyTorch's own passes in float32, without dropout; and its logits beside the slow twin's."""
    still = case
    if case.config.drops:
        still = replace(case, model=copy.deepcopy(case.model).eval(), noises={})
    if not still.finite:
        return []
    found = learnt_by_pytorch(copy.deepcopy(still.model), case.tokens)
    wrong = judged(still, found, still.noise(ROUNDING["fp32"])[:2], "fp32")
    row = case.tokens[:1, :-1][:, :24]
    with torch.no_grad():
        ours, slow = doubled(still.model)(row), reference_logits(still.model, row)
        twin, mode = moved(still.model, 2.0**-53, case.seed)
        with mode:
            noise = float((twin(row) - ours).abs().max())
    allowed = 100 * noise + 1e-11 * float(slow.abs().max() + 1)
    apart = float((ours - slow).abs().max())
    return wrong if apart <= allowed else [*wrong, f"reference: logits {apart:.3g} apart"]


def feed_of(*parts):
    feed = TokenBatch()
    for row, first, tokens in parts:
        feed.add(row, first, tokens, n_wanted=len(tokens))
    return feed


def at_once(packed, texts):
    """Return the logits of all texts, read in one pass."""
    program = NativeModel(kernels(), packed, n_rows=len(texts), room=max(map(len, texts)))
    logits = program.logits(feed_of(*((row, 0, text) for row, text in enumerate(texts))))
    return logits.split([len(text) for text in texts])


def in_steps(packed, texts, n_prompt, room):
    """Return the same, read as prompts and then token by token, the rows side by side."""
    program = NativeModel(kernels(), packed, n_rows=len(texts), room=room)
    prompts = [text[:n] for text, n in zip(texts, n_prompt, strict=True)]
    fed = feed_of(*((row, 0, prompt) for row, prompt in enumerate(prompts)))
    found = [[part] for part in program.logits(fed).split(n_prompt)]
    for position in range(min(n_prompt), max(map(len, texts))):
        rows = [r for r, text in enumerate(texts) if n_prompt[r] <= position < len(text)]
        if rows:
            parts = ((row, position, [texts[row][position]]) for row in rows)
            for row, logits in zip(rows, program.logits(feed_of(*parts)), strict=True):
                found[row].append(logits[None])
    return [torch.cat(parts) for parts in found]


def moved_often(case, packed, twin, draws):
    """Return so many twins whose numbers are moved, each by draws of its own."""
    kind = packed.weights
    options = {"of_row": kind == "int8", "weights": False}
    return [moved(twin, ROUNDING[kind], case.seed + n, **options) for n in range(draws)]


def decoding_noise(packed, others, read, expected):
    """Return the largest move of a logit, by PyTorch in float32 or by a rounding here and there."""
    found = [packed.twin(read)[0]]
    for other, mode in others:
        with Rounded(other.config, mode.by):
            found.append(other(read)[0])
        if not mode.by.largest < HUGE:
            return math.inf
    return max(float((logits - expected).abs().max()) for logits in found)


def wrong_logits(case, packed, twin, text, ways):
    """Return which ways to read a text err by more than they may, by few draws and then by many.

    Where two keys are nearly alike to a query, a rounding decides which it reads, and logits move
    by a little or by a hundred times that (seeds 1153 and 1898: half of the draws each).
    """
    few, many = DRAWS[packed.weights], MANY_DRAWS
    return wrong_by(case, packed, twin, text, ways, few) and wrong_by(
        case, packed, twin, text, ways, many
    )


def wrong_by(case, packed, twin, text, ways, draws):
    read, kind = torch.tensor([text]), packed.weights
    expected = twin(read)[0]
    if not expected.isfinite().all():
        return []
    others = moved_often(case, packed, twin, draws)
    noise = decoding_noise(packed, others, read, expected)
    largest = float(expected.abs().max())
    if not TIMES[kind] * noise < largest + 1e-30:
        case.lost.add(f"decode {kind}")
        return []
    range_ = max(largest, (case.config.soft_cap or 0.0) / 16)  # tanh is right to some 2^-23
    allowed = TIMES[kind] * noise + 64 * torch.finfo(torch.float32).eps * range_
    off = {way: float((found - expected).abs().max()) for way, found in ways.items()}
    return [
        f"decode {kind}: {way} errs by {error:.3g}, {allowed:.3g} allowed"
        for way, error in off.items()
        if not error <= allowed
    ]


@torch.no_grad()
def decoded(case, kind, texts, n_prompt):
    packed = QuantizedModel(copy.deepcopy(case.model).eval(), kind)
    window, longest = case.config.mixer.window, max(map(len, texts))
    ring = longest if window is None else min(longest, window - 1 + max(n_prompt))
    torch.set_num_threads(case.threads)
    whole = at_once(packed, texts)
    stepped = in_steps(packed, texts, n_prompt, longest)
    turned = in_steps(packed, texts, n_prompt, ring) if ring < longest else stepped
    torch.set_num_threads(1)
    twin, wrong = doubled(packed.twin), []
    for row, text in enumerate(texts):
        ways = {f"row {row} at once": whole[row], f"row {row} in a ring": turned[row]}
        wrong += wrong_logits(case, packed, twin, text, ways)
        if not torch.equal(whole[row], stepped[row]) and bool(whole[row].isfinite().all()):
            wrong.append(f"decode {kind}: row {row} has other bits token by token")
    return wrong


def decoding(case):
    """Logits by the kernels that decode, over rows of unequal length."""
    longest = min(case.tokens.shape[1], 40)
    if case.config.position.kind == "learned":
        longest = min(longest, case.config.max_seq_len)
    texts = [
        row[: case.rng.randint(1, longest)].tolist()
        for row in case.tokens[: 3 if longest < 20 else 2]
    ]
    n_prompt = [case.rng.randint(1, len(text)) for text in texts]
    return [w for kind in ROUNDING for w in decoded(case, kind, texts, n_prompt)]


def muon_bound(direction, *, bf16):
    """Return what an orthogonalised direction may err by, as in tests/train/test_muon.py."""
    if not bf16:
        return 2**-24 * 3.4445**6
    wide = direction if direction.shape[0] <= direction.shape[1] else direction.mT
    norm = wide.norm().clamp_min(1e-7)
    theirs = _by_matrix((wide / norm).bfloat16()[None])[0].double()
    exact = orthogonalised(wide.double()[None])[0]
    return 1.5 * float(torch.linalg.matrix_norm(theirs - exact, 2)) + 0.02


def give_gradients(model, case, dtype, scale):
    for name, parameter in model.named_parameters():
        parameter.grad = scale * case.exact[1][name].float().to(dtype)


def stepped(case, config, *, bf16):
    """Return what is wrong with two steps of the kernels beside the same ones in float64."""
    ours, theirs = copy.deepcopy(case.model), doubled(case.model)
    mine, exact = config.build(ours), config.build(theirs)
    give_gradients(ours, case, torch.float32, 1.0)
    for scale in SCALES:
        torch.set_num_threads(case.threads)
        mine.step_natively(1.0, scale=scale, bf16=bf16)
        torch.set_num_threads(1)
        give_gradients(theirs, case, torch.float64, scale)
        exact.step(1.0)
    by_muon = {p for p, optimizer in owners(mine) if isinstance(optimizer, Muon)}
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        apart = one.detach().double() - other.detach()
        if one in by_muon:
            error = float(apart.norm())
            allowed = muon_allowed(one, config, bf16=bf16) + 2**-21 * float(other.detach().norm())
        else:
            error = float((apart.abs() - 1e-6 * other.detach().abs()).max())
            allowed = len(SCALES) * 1e-5 * config.lr
        if not error <= allowed:
            told = f"{error:.3g} off, {allowed:.3g} allowed"
            return [f"{config.kind}, bf16={bf16}: {name} {told}"]
    return []


def muon_allowed(parameter, config, *, bf16):
    """Return the norm of what the steps may err by: each by a share of an orthogonal matrix."""
    m, mean, bound = config.momentum, 0.0, 0.0
    for scale in SCALES:
        mean = m * mean + (1 - m) * scale  # of the gradient, as all of a direction is
        direction = ((1 - m) * scale + m * mean) * parameter.grad
        bound += muon_bound(direction, bf16=bf16)
    return 0.2 * config.lr * bound * math.sqrt(parameter.numel())


def owners(optimizers):
    return [
        (parameter, optimizer)
        for optimizer, _ in optimizers.parts
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]


def optimizer(case):
    """A step of each optimizer by the kernels."""
    if not case.finite:
        return []
    wrong = stepped(case, AdamWConfig(), bf16=False) + stepped(case, MuonConfig(), bf16=False)
    return wrong + (stepped(case, MuonConfig(), bf16=True) if multiplies_bf16() else [])


def spoilt(case):
    """Return the model with numbers among its weights that are none."""
    model = copy.deepcopy(case.model)
    weights = case.rng.choice(list(model.parameters()))
    bad = case.rng.choice([math.nan, math.inf, -math.inf])
    with torch.no_grad():
        if case.rng.random() < 0.5:
            weights.fill_(bad)
        else:
            weights.view(-1)[case.rng.randrange(weights.numel())] = bad
    return model


def learnt_after(case, before, *, bf16):
    """Return loss and gradients by passes that took those of other models before."""
    passes, loss = NativeWorkspace(bf16=bf16), 0.0
    for model in (*before, case.model):
        model.zero_grad()
        described = TrainModelView(model, tuple(case.tokens.shape))
        job = described.job(model, case.tokens, seed=SEED, pieces=1)
        passes.together(job)
        loss = job.loss
    return loss, [p.grad.clone() for p in case.model.parameters()]


def after(case, *, bf16):
    """The bits of a pass, and of texts read, after others whose numbers were none."""
    if bf16 and not multiplies_bf16():
        return []
    bad = [spoilt(case) for _ in range(2)]
    loss, expected = learnt_after(case, [], bf16=bf16)
    told, found = learnt_after(case, bad, bf16=bf16)
    same = all(torch.equal(a, b) or a.isnan().any() for a, b in zip(expected, found, strict=True))
    wrong = (
        []
        if same and (loss == told or loss != loss)
        else [f"bf16={bf16}: other bits after a bad pass"]
    )
    text = case.tokens[0, : case.config.max_seq_len][:20].tolist()
    for kind in ("bf16", "int8") if bf16 else ("fp32",):
        sound, other = (QuantizedModel(m.eval(), kind) for m in (copy.deepcopy(case.model), bad[0]))
        read = [
            NativeModel(kernels(), packed, n_rows=1, room=len(text)).logits(feed_of((0, 0, text)))
            for packed in (sound, other, sound)
        ]
        if read[0].isfinite().all() and not torch.equal(read[0], read[2]):
            wrong.append(f"decode {kind}: other bits after a bad text")
    return wrong


WAYS = {
    "fp32": fp32,
    "bf16": bf16,
    "eager": eager,
    "decoding": decoding,
    "optimizer": optimizer,
    "after-fp32": lambda case: after(case, bf16=False),
    "after-bf16": lambda case: after(case, bf16=True),
}


def faults_of(seed, ways):
    """Return what is wrong with the case of a seed, and in what nothing could be compared."""
    case = case_of(seed)
    wrong = [fault for way in ways for fault in WAYS[way](case)]
    lost = sorted(case.lost) if case.finite else ["no gradient"]
    return wrong, lost


def main(arguments):
    torch.set_num_threads(1)
    chosen = [a.removeprefix("--ways=") for a in arguments if a.startswith("--ways=")]
    ways = chosen[0].split(",") if chosen else list(WAYS)
    first, *last = (int(a) for a in arguments if not a.startswith("--"))
    for seed in range(first, last[0] if last else first + 1):
        print(json.dumps({"begins": seed}), flush=True)
        wrong, lost = faults_of(seed, ways)
        print(json.dumps({"seed": seed, "wrong": wrong, "lost": lost}), flush=True)
    if not last:
        print(case_of(first).config.model_dump_json())


if __name__ == "__main__":
    main(sys.argv[1:])
