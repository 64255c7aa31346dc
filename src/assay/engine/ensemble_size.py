"""How many replicas to train at once here: as many as memory holds and a timing finds fastest.

A processor whose cores are busy with one model gains little from a second beside it, or loses, once
what a layer hands to the next no longer fits its cache; a GPU that waits for small models gains
much. So nothing is assumed: 1, 2, 4, 8, ... replicas are timed on random tokens.
"""

import itertools
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from assay.config import RunConfig
from assay.count import built_parameters
from assay.engine.device import free_bytes
from assay.engine.native_ensemble import EnsembleMember
from assay.engine.vmap_ensemble import train_members
from assay.nn.model import GPT
from assay.train.loop import train
from assay.train.plan import ExecutionPlan

_TIMED_STEPS = 3  # after one to warm up
_MARGIN = 0.95  # more replicas are taken only if fewer reach less than this share of their speed
_MEMORY_SHARE = 0.5  # of what is free
_SAVED_BYTES = 60  # per token, layer and channel, for the backward pass: measured 50 to 56
_LOGIT_COPIES = 4


@dataclass(frozen=True, slots=True)
class Speed:
    """One number of replicas, timed.

    Attributes:
        replicas: R; 1 is a model by itself, not a stack of one.
        tokens_per_s: Of all together.
    """

    replicas: int
    tokens_per_s: float


def choose_replicas(
    config: RunConfig, plan: ExecutionPlan, *, most: int
) -> tuple[int, list[Speed]]:
    """Return how many replicas of a run to train at once, at most `most`, and what was timed.

    The fewest that come within 5 % of the fastest; 1 says that runs go faster one after another.
    Growing stops at the first number that is slower than half as many.
    """
    free = free_bytes(plan.device)  # where nobody tells, only the time decides
    room = most if free is None else free * _MEMORY_SHARE // replica_bytes(config)
    speeds: list[Speed] = []
    for replicas in itertools.takewhile(lambda n: n <= min(most, max(1, room)), _doubling()):
        speeds.append(Speed(replicas, _tokens_per_s(config, plan, replicas)))
        if len(speeds) > 1 and speeds[-1].tokens_per_s < _MARGIN * speeds[-2].tokens_per_s:
            break
    best = max(speed.tokens_per_s for speed in speeds)
    chosen = next(s.replicas for s in speeds if s.tokens_per_s >= _MARGIN * best)
    return chosen, speeds


def replica_bytes(config: RunConfig) -> float:
    """Return the memory one replica takes in training: closed form for all but activations."""
    model, train_config = config.model, config.train
    tokens = config.seq_len * train_config.batch_size / train_config.micro_batches
    per_token = _SAVED_BYTES * model.d_model * model.n_layers + 4 * _LOGIT_COPIES * model.vocab
    return 16 * built_parameters(model) + tokens * per_token


def _doubling() -> Iterator[int]:
    return (2**n for n in itertools.count())


def _tokens_per_s(config: RunConfig, plan: ExecutionPlan, replicas: int) -> float:
    """Train new models on random tokens for a few steps."""
    rows, width = config.train.batch_size, config.seq_len + 1
    batch = torch.randint(config.model.vocab, (rows, width), generator=torch.Generator())
    short = replace(plan, config=plan.config.model_copy(update={"steps": _TIMED_STEPS + 1}))
    members = [_member(config, short, batch, seed) for seed in range(replicas)]
    if replicas == 1:
        one = members[0]
        elapsed = [r.elapsed_s for r in train(one.model, one.batch_at, one.optimizers, short)]
    else:
        elapsed = [
            sum(getattr(outcome, "elapsed_s", 0.0) for outcome in outcomes)
            for outcomes in train_members(members)
        ]
    return replicas * rows * config.seq_len / statistics.median(elapsed[1:])


def _member(config: RunConfig, plan: ExecutionPlan, batch: Tensor, seed: int) -> EnsembleMember:
    model = GPT.create(config.model, seed=seed, device=plan.device)
    plan.prepare(model)
    return EnsembleMember(model, lambda step: batch, config.train.optimizer.build(model), plan)
