"""Models that the C++ kernels train beside each other: each thread takes one after another.

A thread that has a model to itself waits for nobody and keeps it in its own cache, and whoever is
trained beside it changes none of its bits. Models share the memory of activations, not their own.

Shapes: B sequences, T1 = T + 1 tokens.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor

from assay.errors import ConfigError, DivergedError
from assay.native.abi import TrainingJob
from assay.nn.model import GPT
from assay.train.gradients import share_tied
from assay.train.loop import StepReport, conclude
from assay.train.model_view import TrainModelView
from assay.train.native_backend import NativeWorkspace
from assay.train.nonfinite import gradient_norm
from assay.train.optim import Optimizers
from assay.train.plan import ExecutionPlan

Outcome = StepReport | DivergedError | None


@dataclass(frozen=True, slots=True)
class EnsembleMember:
    """What one replica trains with: the arguments of `assay.train.loop.train`."""

    model: GPT
    batch_at: Callable[[int], Int[Tensor, "B T1"]]
    optimizers: Optimizers
    plan: ExecutionPlan
    start: int = 0


def check_one_size(batches: Sequence[Tensor]) -> None:
    """Refuse batches that differ in shape.

    Raises:
        ConfigError: With all shapes.
    """
    if len({batch.shape for batch in batches}) > 1:
        sizes = ", ".join(str(tuple(batch.shape)) for batch in batches)
        raise ConfigError(
            f"replicas: batches of {sizes} found; expected one size. Give all the same "
            "train.batch_size and train.seq_len, or train them apart."
        )


@final
class NativeEnsemble:
    """Members of one architecture that step together."""

    def __init__(self, members: Sequence[EnsembleMember]) -> None:
        self.members = members
        self._passes = NativeWorkspace(bf16=members[0].plan.autocast)
        self._described: dict[int, TrainModelView] = {}

    def step(self, steps: Sequence[int]) -> list[StepReport | DivergedError]:
        """Take the given step of each member."""
        began = time.perf_counter()
        batches = [m.batch_at(step) for m, step in zip(self.members, steps, strict=True)]
        check_one_size(batches)
        losses = self._gradients(batches, steps)
        outcomes = [
            self._conclude(row, batch, step, loss)
            for row, (batch, step, loss) in enumerate(zip(batches, steps, losses, strict=True))
        ]
        elapsed_s = (time.perf_counter() - began) / len(steps)
        return [
            replace(outcome, elapsed_s=elapsed_s) if isinstance(outcome, StepReport) else outcome
            for outcome in outcomes
        ]

    def release(self) -> None:
        """Nothing is shared that a model would have to be given back."""

    def _gradients(
        self, batches: Sequence[Int[Tensor, "B T1"]], steps: Sequence[int]
    ) -> list[Tensor]:
        """Leave in each model the gradients of its mean loss; return the losses, in nats."""
        n_pieces = self.members[0].plan.config.micro_batches
        totals = [torch.zeros(()) for _ in batches]
        cut = zip(*(batch.chunk(n_pieces) for batch in batches), strict=True)
        for index, pieces in enumerate(cut):
            places = [(step, index) for step in steps]
            jobs = [self._job(row, *at) for row, at in enumerate(zip(pieces, places, strict=True))]
            for row, loss in enumerate(self._passes.apart(jobs)):
                totals[row] = totals[row] + torch.tensor(loss / n_pieces)
        return totals

    def _job(self, row: int, tokens: Int[Tensor, "B T1"], place: tuple[int, int]) -> TrainingJob:
        model, plan = self.members[row].model, self.members[row].plan
        described = self._described.get(row)
        if described is None or described.moved(model):
            described = self._described[row] = TrainModelView(model, tokens.shape)
        seed, pieces = plan.dropout_seed(*place), plan.config.micro_batches
        return described.job(model, tokens, seed=seed, pieces=pieces)

    def _conclude(
        self, row: int, batch: Tensor, step: int, total: Tensor
    ) -> StepReport | DivergedError:
        member = self.members[row]
        try:
            share_tied(member.model, member.plan, step)
            found = total, gradient_norm(member.model, member.plan, step)
            return conclude(member.model, batch, member.optimizers, member.plan, step, found)
        except DivergedError as error:
            return error
