"""What optimizers, schedules and samplers must do, whoever wrote them.

Shapes: B rows, V vocabulary.
"""

import copy
import math
from contextlib import suppress

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from assay.checks.model_contract import SMALL, Looks, begun, check_resume, expect, tokens_of
from assay.disk import MARKS, parse_json
from assay.errors import ConfigError
from assay.family import Variant
from assay.nn.loss import next_token_loss
from assay.nn.model import GPT, ModelConfig
from assay.sampling.filters import FilterVariant
from assay.sampling.temperature import AdaptVariant
from assay.schema import decode, override
from assay.train.config import TrainConfig
from assay.train.loop import train
from assay.train.optim import OptimizerVariant
from assay.train.plan import ExecutionPlan
from assay.train.schedule import ScheduleVariant

_SIZES = (1, 2, 50, 5000)


def of_optimizer(variant: OptimizerVariant) -> Looks:
    """Yield what is looked at of an optimizer."""
    config = decode(ModelConfig, SMALL | {"position": "learned", "norm": "layer", "bias": True})
    fields = {"optimizer": variant, "schedule": "constant"}

    def trained() -> TrainConfig:
        return decode(TrainConfig, fields)

    def read() -> str:
        again = decode(TrainConfig, parse_json(trained().model_dump_json().encode(), marks=MARKS))
        expect(again == trained(), "written as JSON and read again it is another config")
        return "reads back from JSON as it was written"

    yield "config", read
    yield "build", lambda: _check_parts(GPT.create(config), variant)
    yield "rate", lambda: _check_rate(GPT.create(config), variant)
    yield "learning", lambda: _check_learning(config, trained())
    yield "resume", lambda: check_resume(config, trained(), steps=6)


def _check_parts(model: GPT, variant: OptimizerVariant) -> str:
    optimizers = variant.build(model)
    taken = [
        parameter
        for optimizer, _ in optimizers.parts
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    names = [optimizers.names[parameter] for parameter in taken]
    expected = [name for name, _ in model.named_parameters()]
    odd = sorted(set(names) ^ set(expected)) or sorted({n for n in names if names.count(n) > 1})
    expect(not odd, f"{odd[:1]} is not taken exactly once")
    return f"takes each of {len(names)} parameters once"


def _check_rate(model: GPT, variant: OptimizerVariant) -> str:
    optimizers, before = variant.build(model), copy.deepcopy(model.state_dict())
    next_token_loss(model, tokens_of()).backward()  # type: ignore[no-untyped-call]
    optimizers.step(0.0)
    moved = [n for n, value in model.state_dict().items() if not torch.equal(value, before[n])]
    expect(not moved, f"at a rate of 0 it changes {moved[:1]}: no schedule can end it")
    optimizers.step(1.0)
    still = [n for n, value in model.state_dict().items() if torch.equal(value, before[n])]
    expect(not still, f"at its peak rate it leaves {still[:1]} as it was")
    return f"0 changes nothing, the peak of {optimizers.peak_lr:g} every parameter"


def _check_learning(config: ModelConfig, trained: TrainConfig) -> str:
    plan = ExecutionPlan(override(trained, {"steps": 30}), torch.device("cpu"), autocast=False)
    model, optimizers = begun(config, plan)
    tokens = tokens_of()
    losses = [r.loss_nats for r in train(model, lambda step: tokens, optimizers, plan)]
    expect(losses[-1] < losses[0], f"30 steps on one batch: {losses[0]:.3f} to {losses[-1]:.3f}")
    return f"30 steps on one batch take its loss from {losses[0]:.3f} to {losses[-1]:.3f} nats"


def of_schedule(variant: ScheduleVariant) -> Looks:
    """Yield what is looked at of a schedule."""

    def factors() -> str:
        largest = 0.0
        for steps in (1, 2, 7, 100, 10_000):
            for step in (1, 2, steps // 2, steps - 1, steps):
                if not 1 <= step <= steps:
                    continue
                factor = variant.factor(step, steps)
                expect(
                    isinstance(factor, float | int) and math.isfinite(factor) and factor >= 0,
                    f"factor({step}, {steps}) is {factor!r}; expected a number from 0 on",
                )
                expect(
                    variant.factor(step, steps) == factor,
                    f"factor({step}, {steps}) is another number the second time",
                )
                largest = max(largest, factor)
        return f"a function of the step, from 0 on; the largest looked at is {largest:.4g}"

    yield "factors", factors


def of_sampler(variant: FilterVariant | AdaptVariant) -> Looks:
    """Yield what is looked at of a filter or of a rule for the temperature."""

    def look(logits: Float[Tensor, "B V"]) -> Tensor:
        if isinstance(variant, FilterVariant):
            return variant.keep(logits)
        return variant.temperature(logits, 1.0)

    def taken() -> list[Tensor]:
        """Return logits of the vocabularies that it does not refuse by a sentence."""
        found = []
        for logits in map(_logits, _SIZES):
            with suppress(ConfigError):
                look(logits.clone())
                found.append(logits)
        expect(bool(found), "it refuses vocabularies of any size")
        return found

    def sound() -> str:
        sizes = []
        for logits in taken():
            _check_sampled(variant, logits, look(logits.clone()))
            sizes.append(f"{logits.shape[1]:,}")
        return f"sound on vocabularies of {', '.join(sizes)} tokens, flat and certain"

    def alone() -> str:
        for logits in taken():
            each = torch.cat([look(row[None].clone()) for row in logits])
            expect(torch.equal(each, look(logits.clone())), "a row depends on the rows beside it")
        return "a row is the same alone and beside others"

    yield "values", sound
    yield "rows", alone


def _logits(size: int) -> Float[Tensor, "B V"]:
    generator = torch.Generator().manual_seed(size)
    drawn = torch.randn((4, size), generator=generator, dtype=torch.float64) * 3
    drawn[1] = 0.0  # all alike
    drawn[2] = -1e4
    drawn[2, 0] = 0.0  # certain
    return drawn - drawn.amax(-1, keepdim=True)


def _check_sampled(variant: Variant, logits: Tensor, found: Tensor) -> None:
    size = logits.shape[1]
    if isinstance(variant, AdaptVariant):
        expect(tuple(found.shape) == (len(logits), 1), f"of shape {tuple(found.shape)}")
        fine = bool((found.isfinite() & (found > 0)).all())
        expect(fine, f"temperatures {found.flatten().tolist()} over {size} tokens")
        return
    expect(found.shape == logits.shape, f"of shape {tuple(found.shape)}")
    expect(bool((found > -torch.inf).any(-1).all()), f"no token is left of {size}")
    kept = (found == logits) | (found == -torch.inf)
    expect(bool(kept.all()), "a logit that stays is another than before")
    expect(bool(F.softmax(found, -1).isfinite().all()), "the probabilities are not finite")
