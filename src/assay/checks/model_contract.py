"""What every model must do, whatever part of it is somebody's own.

Float64 is compared to 1e-9: both sides round some thousand times by 2^-53 on numbers up to 10^3,
and a wrong formula is off by far more.

Shapes: B sequences, T tokens.
"""

import copy
import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from assay.count import UncountedError, built_parameters, count
from assay.disk import MARKS, parse_json
from assay.errors import NoReferenceError
from assay.family import Variant
from assay.native.kinds import unknown
from assay.nn.loss import next_token_loss
from assay.nn.mixer import MixerVariant
from assay.nn.model import GPT, ModelConfig
from assay.nn.reference import reference_logits
from assay.schema import decode, override
from assay.train.checkpoint import read_model, read_optim, write_checkpoint
from assay.train.config import TrainConfig
from assay.train.loop import train
from assay.train.optim import Optimizers
from assay.train.plan import ExecutionPlan

VOCAB, LENGTH, ROWS = 29, 11, 3
Looks = Iterator[tuple[str, Callable[[], str]]]
"""What is looked at, with what says it in words or raises BrokenError."""
_CLOSE = 1e-9
SMALL = {"vocab_size": VOCAB, "max_seq_len": 16, "d_model": 24, "n_layers": 2}
_SLOPE = 1e-5  # of a gradient, relative to central differences


class BrokenError(Exception):
    """What is not as it must be, in words."""


def expect(fine: bool, words: str) -> None:
    """Raise BrokenError unless it is fine."""
    if not fine:
        raise BrokenError(words)


def of_model(variant: Variant, field: str) -> Looks:
    """Yield what is looked at where a variant is part of a model."""
    made: list[ModelConfig] = []

    def config() -> ModelConfig:
        return made[0]

    def make() -> str:
        alone = field == "mixer" and isinstance(variant, MixerVariant) and not variant.heads()
        fields = SMALL | ({"position": "none"} if alone else {})  # rope turns queries and keys
        made.append(decode(ModelConfig, fields | {field: variant}))
        return _check_config(config())

    yield "config", make
    yield "build", lambda: _check_build(config())
    yield "initial values", lambda: _check_initial(config(), field)
    yield "count", lambda: _check_count(config())
    yield "causality", lambda: _check_causality(_shaken(config()))
    yield "cache", lambda: _check_cache(_shaken(config()).double())
    yield "batch", lambda: _check_batch(_shaken(config()).double())
    yield "float64 twin", lambda: _check_twin(_shaken(config()).double())
    yield "gradients", lambda: _check_gradients(_shaken(config()).double())
    yield "bfloat16", lambda: _check_bfloat16(_shaken(config()))
    yield "save and load", lambda: _check_saved(_shaken(config()))
    yield "resume", lambda: check_resume(config(), decode(TrainConfig, {"optimizer": "adamw"}))
    yield "kernels", lambda: _say_kernels(config())


def tokens_of(seed: int = 0) -> Int[Tensor, "B T"]:
    """Return a batch of random tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCAB, (ROWS, LENGTH), generator=generator)


def _shaken(config: ModelConfig) -> GPT:
    """Return a model whose every weight is moved at random: no norm is the identity."""
    model = GPT.create(config, seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


def _check_config(config: ModelConfig) -> str:
    again = decode(ModelConfig, parse_json(config.model_dump_json().encode(), marks=MARKS))
    expect(again == config, "written as JSON and read again it is another config")
    return "reads back from JSON as it was written"


def _check_build(config: ModelConfig) -> str:
    with torch.device("meta"):
        blank = {name: value.shape for name, value in GPT(config).state_dict().items()}
    made = {name: value.shape for name, value in GPT.create(config).state_dict().items()}
    expect(blank == made, f"other tensors on the meta device: {_differing(blank, made)}")
    return f"{len(made)} tensors, the same on the meta device"


def _differing(one: dict[str, torch.Size], other: dict[str, torch.Size]) -> str:
    return next((n for n in (*one, *other) if one.get(n) != other.get(n)), "")


def _check_initial(config: ModelConfig, field: str) -> str:
    first = GPT.create(config, seed=3).state_dict()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        second = GPT.create(config, seed=3).state_dict()
    for name, value in first.items():
        expect(bool(value.isfinite().all()), f"{name} starts with numbers that are not finite")
        expect(
            torch.equal(value, second[name]),
            f"{name} starts otherwise under the same seed: it draws from a generator of its own",
        )
    plain = GPT.create(override(config, {field: type(config).model_fields[field].default}))
    own = {name: value for name, value in first.items() if name not in plain.state_dict()}
    told = {name.rpartition(".")[2]: _in_words(value) for name, value in own.items()}
    return "a function of the seed" + "".join(f"; {name} {words}" for name, words in told.items())


def _in_words(value: Tensor) -> str:
    if bool((value == value.flatten()[0]).all()):
        return f"{value.flatten()[0].item():.4g}"
    return f"of mean {value.float().mean().item():.2g} and deviation {value.float().std():.2g}"


def _check_count(config: ModelConfig) -> str:
    built = built_parameters(config)
    try:
        counted = count(config, seq_len=LENGTH).parameters
    except UncountedError as error:
        return f"not counted ({error}); {built} parameters are built"
    expect(counted == built, f"{counted} parameters by the closed form, {built} are built")
    return f"{built} parameters, as the closed form says"


def _check_causality(model: GPT) -> str:
    tokens = tokens_of()
    with torch.no_grad():
        before = model(tokens)
        for place in range(LENGTH):
            changed = tokens.clone()
            changed[:, place] = (changed[:, place] + 1) % VOCAB
            after = model(changed)
            expect(
                torch.equal(after[:, :place], before[:, :place]),
                f"to change token {place} changes what is predicted before it",
            )
    return "no token changes a bit of what is predicted before it"


def _check_cache(model: GPT) -> str:
    tokens = tokens_of()
    with torch.no_grad():
        whole = model(tokens)
        for sizes in ((1,) * LENGTH, (4, 1, LENGTH - 5)):
            cache = model.new_cache()
            parts = [model(part, cache) for part in torch.split(tokens, list(sizes), dim=1)]
            _close(torch.cat(parts, dim=1), whole, "read in parts through the cache it")
    return "read through the cache, token by token or in parts, it says the same"


def _close(found: Tensor, expected: Tensor, what: str) -> None:
    gap = float((found - expected).abs().max().nan_to_num(nan=math.inf))
    bound = _CLOSE * max(1.0, float(expected.abs().max()))
    expect(gap <= bound, f"{what} is {gap:.2g} away in float64; at most {bound:.2g} is rounding")


def _check_batch(model: GPT) -> str:
    tokens, lengths = tokens_of(), (LENGTH, 6, 1)
    with torch.no_grad():
        rows = [model(tokens[i : i + 1]) for i in range(ROWS)]
        _close(model(tokens), torch.cat(rows), "a sequence beside others")
        filled = model(tokens, padding=torch.tensor([LENGTH - n for n in lengths]))
        for row, n in enumerate(lengths):
            alone = model(tokens[row : row + 1, LENGTH - n :])[0]
            _close(filled[row, LENGTH - n :], alone, "a sequence with padding before it")
    return "a sequence says the same alone, beside others and with padding before it"


def _check_twin(model: GPT) -> str:
    tokens = tokens_of()
    try:
        expected = reference_logits(model, tokens)
    except NoReferenceError as error:
        return f"none given, so the formula is not compared ({error})"
    with torch.no_grad():
        _close(model(tokens), expected, "the formula of `reference`")
    return "the same as its formula written out in float64"


def _check_gradients(model: GPT) -> str:
    tokens, generator = tokens_of(), torch.Generator().manual_seed(4)
    model.train()
    next_token_loss(model, tokens).backward()  # type: ignore[no-untyped-call]
    slope, along = 0.0, {}
    for name, parameter in model.named_parameters():
        expect(parameter.grad is not None, f"{name} has no gradient: it takes no part in the loss")
        assert parameter.grad is not None
        expect(bool(parameter.grad.isfinite().all()), f"the gradient of {name} is not finite")
        along[name] = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        slope += float((parameter.grad * along[name]).sum())
    step, ends = 1e-6, []
    for sign in (1, -1):
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for name, parameter in moved.named_parameters():
                parameter.add_(along[name], alpha=sign * step)
            ends.append(float(next_token_loss(moved, tokens)))
    found = (ends[0] - ends[1]) / (2 * step)
    expect(
        abs(found - slope) <= _SLOPE * max(1.0, abs(slope)),
        f"along a random direction the loss rises by {found:.6g}, by its gradient {slope:.6g}",
    )
    return (
        f"every parameter has a finite one; along a random direction it is the slope, {slope:.3g}"
    )


def _check_bfloat16(model: GPT) -> str:
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = next_token_loss(model, tokens_of())
    loss.backward()  # type: ignore[no-untyped-call]
    bad = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    expect(math.isfinite(loss.item()) and not bad, f"loss {loss.item()}, gradients of {bad[:1]}")
    return "under autocast loss and gradients are finite"


def _check_saved(model: GPT) -> str:
    with tempfile.TemporaryDirectory(prefix="assay-check-") as name:
        path = write_checkpoint(Path(name), model, {}, {"step": 1})
        again = read_model(path, model.config).eval()
    with torch.no_grad():
        same = torch.equal(again(tokens_of()), model(tokens_of()))
    expect(same, "read from a checkpoint it says something else: what else does its module hold?")
    return "read from a checkpoint it says the same to the bit"


def check_resume(config: ModelConfig, trained: TrainConfig, steps: int = 4) -> str:
    """Train at once, and in two halves with a checkpoint between them; compare the bits."""
    plan = ExecutionPlan(
        override(trained, {"steps": steps, "seed": 5}), torch.device("cpu"), autocast=False
    )
    whole, optimizers = begun(config, plan)
    _all(whole, optimizers, plan)
    first, optimizers = begun(config, plan)
    with tempfile.TemporaryDirectory(prefix="assay-check-") as name:
        for report in train(first, _batch_at, optimizers, plan):
            if report.step == steps // 2:
                break
        path = write_checkpoint(Path(name), first, optimizers.state(), {"step": steps // 2})
        second, state = read_model(path, config), read_optim(path)
    optimizers = plan.config.optimizer.build(second)
    optimizers.load(state)
    _all(second, optimizers, plan, start=steps // 2)
    for name, value in whole.state_dict().items():
        same = torch.equal(value, second.state_dict()[name])
        expect(same, f"broken off and resumed, {name} ends with other bits")
    return "broken off and resumed from a checkpoint it ends with the same bits"


def begun(config: ModelConfig, plan: ExecutionPlan) -> tuple[GPT, Optimizers]:
    """Return a new model and its optimizers."""
    model = GPT.create(config, seed=6)
    return model, plan.config.optimizer.build(model)


def _all(model: GPT, optimizers: Optimizers, plan: ExecutionPlan, start: int = 0) -> list[float]:
    return [report.loss_nats for report in train(model, _batch_at, optimizers, plan, start=start)]


def _batch_at(step: int) -> Int[Tensor, "B T"]:
    return tokens_of(step)


def _say_kernels(config: ModelConfig) -> str:
    choice = unknown(config)
    return "known to the C++ kernels" if choice is None else f"{choice} is PyTorch's to compute"
