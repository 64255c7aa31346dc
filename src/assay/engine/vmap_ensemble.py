"""Replicas: several models of one architecture train in one process, over stacked parameters.

    for outcomes in train_together([Member(model, windows.batch, optimizers, plan), ...]):
        for outcome in outcomes: ...  # a report, the error it ended with, or None once it has ended

Every replica stays a `GPT` whose parameters are views into tensors that hold those of all replicas
one behind another, so that evaluating it, saving it and updating it are the ordinary code. The loss
of all is one `torch.func.vmap` of the loss of one: a product with R weights is one batched product.
Seeds, data, rates, schedules and clipping are each replica's own; shapes are common to all.

A replica equals the same model trained alone to rounding, not to the bit: its products are the
same, and its sums are taken in another order. A replica that diverges or ends leaves the stack.
Where the C++ kernels train there is no stack and no such difference: `engine/native_ensemble.py`.

Shapes: R replicas, B sequences, T1 = T + 1 tokens.
"""

import math
import time
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap

from assay.cuda_graph import GraphedCallable
from assay.engine.native_ensemble import EnsembleMember, NativeEnsemble, Outcome, check_one_size
from assay.engine.vmap_dropout import dropout_per_member
from assay.errors import ConfigError, DivergedError
from assay.nn.attention import Kernel
from assay.nn.head import at_least_float32
from assay.nn.model import GPT
from assay.train.gradients import differentiate, repeatable
from assay.train.loop import CLIP_EPS, StepReport
from assay.train.nonfinite import diagnose
from assay.train.optim import step_all


def train_members(members: Sequence[EnsembleMember]) -> Generator[list[Outcome], None, None]:
    """Take a step of every replica and yield what came of each, until all have ended.

    In each list, place i is that of member i: a report, the error in the one round in which the
    replica diverged (nothing of it was updated in that round), None once it has ended. The time in
    a report is the replica's share of the round.

    Raises:
        ConfigError: If the members differ in what must be common to all.
    """
    check_alike(members)
    steps = [member.start for member in members]
    group: VmapEnsemble | NativeEnsemble | None = None
    try:
        while going := [i for i, m in enumerate(members) if steps[i] < m.plan.config.steps]:
            chosen = [members[i] for i in going]
            if group is None or group.members != chosen:
                _release(group)
                group = NativeEnsemble(chosen) if chosen[0].plan.native else VmapEnsemble(chosen)
            outcomes: list[Outcome] = [None] * len(members)
            for i, found in zip(going, group.step([steps[i] + 1 for i in going]), strict=True):
                outcomes[i] = found
                ended = isinstance(found, DivergedError)
                steps[i] = members[i].plan.config.steps if ended else steps[i] + 1
            yield outcomes
    finally:
        _release(group)


def _release(group: "VmapEnsemble | NativeEnsemble | None") -> None:
    if group is not None:
        group.release()


@final
class VmapEnsemble:
    """Replicas that step together.

    Attributes:
        members: In the order of the stack.
        stacked: Each parameter of all replicas, (R, ...), by name.
    """

    def __init__(self, members: Sequence[EnsembleMember]) -> None:
        self.members = members
        self.stacked = _stack([member.model for member in members])
        self._plan = members[0].plan
        with torch.device("meta"):
            self._one = _Loss(GPT(members[0].model.config))
        _share_buffers(members[0].model, self._one.model)
        self._one.model.kernel = _kernel(members[0])
        self._one.train()
        losses = vmap(self._loss_of_one)
        self._drops = members[0].model.config.drops
        compiled = self._plan.compiled and not self._drops
        self._losses = torch.compile(losses, dynamic=False) if compiled else losses
        self._recorded = GraphedCallable(self._passes) if self._plan.graphs else None

    def step(self, steps: Sequence[int]) -> list[StepReport | DivergedError]:
        """Take the given step of each replica."""
        began = time.perf_counter()
        for member in self.members:
            member.model.train()
        batches = self._batches(steps)
        losses = self._backward(batches, steps)
        norms = self._norms()
        found = list(zip(steps, losses.tolist(), norms.tolist(), strict=True))
        good = [math.isfinite(loss) and math.isfinite(norm) for _, loss, norm in found]
        troubles = {
            row: diagnose(member.model, batches[row], member.plan, found[row])
            for row, member in enumerate(self.members)
            if not good[row]
        }
        self._clip(norms)
        factors = self._update(steps, good)
        elapsed_s = (time.perf_counter() - began) / len(steps)
        tokens = batches[0, :, 1:].numel()
        outcomes: list[StepReport | DivergedError] = []
        for row, member in enumerate(self.members):
            trouble = troubles.get(row)
            if trouble is not None and member.plan.config.on_nonfinite == "stop":
                outcomes.append(DivergedError(trouble.message))
                continue
            lr = factors[row] * member.optimizers.peak_lr
            outcomes.append(StepReport(*found[row], lr, tokens, elapsed_s, trouble))
        return outcomes

    def release(self) -> None:
        """Give each model parameters of its own again."""
        for member in self.members:
            for parameter in member.model.parameters():
                parameter.data = parameter.data.clone()

    def _batches(self, steps: Sequence[int]) -> Int[Tensor, "R B T1"]:
        batches = [m.batch_at(step) for m, step in zip(self.members, steps, strict=True)]
        check_one_size(batches)
        return torch.stack(batches).to(self._plan.device, non_blocking=True)

    def _backward(self, batches: Int[Tensor, "R B T1"], steps: Sequence[int]) -> Float[Tensor, "R"]:
        """Leave in each parameter the gradient of its replica's mean loss; return those losses."""
        recorded = self._recorded
        losses, found = recorded(batches) if recorded else self._passes(batches, steps)
        for (name, leaf), gradient in zip(self.stacked.items(), found, strict=True):
            leaf.grad = gradient
            for member, own in zip(self.members, gradient, strict=True):
                member.model.get_parameter(name).grad = own
        return losses

    def _passes(
        self, batches: Int[Tensor, "R B T1"], steps: Sequence[int] = ()
    ) -> tuple[Float[Tensor, "R"], list[Float[Tensor, "R ..."]]]:
        """Return the mean losses and their gradients; only dropout asks for the steps."""

        def losses_of(index: int, piece: Tensor) -> Tensor:
            with self._draws(steps, index), self._plan.precision():
                losses: Tensor = self._losses(self.stacked, piece)
            return losses

        pieces = batches.chunk(self._plan.config.micro_batches, dim=1)
        with repeatable(self._plan):
            return differentiate(losses_of, list(self.stacked.values()), pieces)

    def _draws(self, steps: Sequence[int], micro_batch: int) -> AbstractContextManager[None]:
        if not self._drops:
            return nullcontext()
        seeds = [
            member.plan.dropout_seed(step, micro_batch)
            for member, step in zip(self.members, steps, strict=True)
        ]
        return dropout_per_member(seeds, self._plan.device)

    def _loss_of_one(
        self, parameters: dict[str, Tensor], tokens: Int[Tensor, "B T1"]
    ) -> Float[Tensor, ""]:
        named = {f"model.{name}": value for name, value in parameters.items()}
        loss: Tensor = functional_call(self._one, named, (tokens,))
        return loss

    def _gradients(self) -> list[Float[Tensor, "R ..."]]:
        return [leaf.grad for leaf in self.stacked.values() if leaf.grad is not None]

    def _norms(self) -> Float[Tensor, "R"]:
        """Return the L2 norm of all gradients of each replica."""
        each = [torch.linalg.vector_norm(g.flatten(1), dim=1) for g in self._gradients()]
        return torch.linalg.vector_norm(torch.stack(each), dim=0)

    def _clip(self, norms: Float[Tensor, "R"]) -> None:
        bounds = [member.plan.config.clip_norm or math.inf for member in self.members]
        factors = (norms.new_tensor(bounds) / (norms + CLIP_EPS)).clamp(max=1.0)
        for gradient in self._gradients():
            gradient.mul_(factors.view(-1, *[1] * (gradient.ndim - 1)))

    def _update(self, steps: Sequence[int], good: Sequence[bool]) -> list[float]:
        """Update the replicas whose numbers are finite; return the factor of each one's rate."""
        configs = [member.plan.config for member in self.members]
        factors = [c.schedule.factor(s, c.steps) for c, s in zip(configs, steps, strict=True)]
        chosen = [row for row, fine in enumerate(good) if fine]
        step_all([self.members[row].optimizers for row in chosen], [factors[row] for row in chosen])
        for member in self.members:
            member.optimizers.zero_grad()
        for leaf in self.stacked.values():
            leaf.grad = None
        return factors


class _Loss(nn.Module):
    """The loss of a model, as a module, which is what `functional_call` can give parameters to.

    Never in chunks: those are an autograd function of one model's own.
    """

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Int[Tensor, "B T1"]) -> Float[Tensor, ""]:
        """Return the mean loss in nats."""
        logits = at_least_float32(self.model(tokens[:, :-1]))
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def _stack(models: Sequence[GPT]) -> dict[str, Tensor]:
    """Move the parameters of equal names into one tensor each, of which they become views."""
    stacked = {}
    for name, _ in models[0].named_parameters():
        own = [model.get_parameter(name) for model in models]
        leaf = torch.stack([parameter.detach() for parameter in own])
        for parameter, row in zip(own, leaf, strict=True):
            parameter.data = row
        stacked[name] = leaf.requires_grad_()
    return stacked


def _share_buffers(model: GPT, other: GPT) -> None:
    """Give a model the buffers of another: constants, since `check_alike` refuses all others."""
    for name, buffer in model.named_buffers():
        owner, _, leaf = name.rpartition(".")
        setattr(other.get_submodule(owner), leaf, buffer)


def _kernel(member: EnsembleMember) -> Kernel:
    """Return the attention kernel that `vmap` knows how to stack.

    On a CPU that is `blocks`. Where attention weights are dropped, `fused` stays `fused`, since
    each kernel draws in an order of its own; `dropout_per_member` takes its place.
    """
    fused = member.plan.attention == "fused"
    if member.plan.device.type == "cuda" or (fused and member.model.config.attention_dropout):
        return "fused"
    return "blocks"


def check_alike(members: Sequence[EnsembleMember]) -> None:
    """Refuse members that differ in a shape or in how they are executed.

    Raises:
        ConfigError: Naming the first of them, the place and both values.
    """
    for index, member in enumerate(members):
        if member.plan.config.exact_rows is not None:
            raise ConfigError(
                f"replica {index}: train.exact_rows = {member.plan.config.exact_rows} found; "
                "expected null, since the sums of stacked models are taken in another order. Train "
                "this one by itself."
            )
        if not member.plan.native and member.model.config.equal_until(1 << 62):
            raise ConfigError(
                f"replica {index}: model.tie_embeddings = {member.model.config.tie_embeddings} "
                "found; expected true or false, since stacked models do not share gradients. Train "
                "this one by itself."
            )
        if not member.plan.native and (name := _state_of_its_own(member.model)):
            raise ConfigError(
                f"replica {index}: {name} is a buffer that its checkpoints hold; expected "
                "parameters alone, since stacked models share their buffers. Train this one by "
                "itself."
            )
    for index, member in enumerate(members[1:], start=1):
        first = _common(members[0])
        for place, value in _common(member).items():
            if value != first[place]:
                raise ConfigError(
                    f"replica {index}: {place} = {value!r} found; expected {first[place]!r} as in "
                    "replica 0. Replicas differ in seeds, rates and weights alone: train this one "
                    "apart."
                )


def _state_of_its_own(model: GPT) -> str | None:
    """Return the first buffer that may be another in each model: one that checkpoints hold."""
    saved = model.state_dict().keys()
    return next((name for name, _ in model.named_buffers() if name in saved), None)


def _common(member: EnsembleMember) -> dict[str, object]:
    """Return what all replicas must have in common, by the place where a user sets it."""
    model = member.model.config.model_dump(exclude={"init"})
    train, plan = member.plan.config, member.plan
    return {f"model.{name}": value for name, value in model.items()} | {
        "train.batch_size": train.batch_size,
        "train.micro_batches": train.micro_batches,
        "train.device": str(plan.device),
        "train.backend": plan.backend,
        "train.precision": "bf16" if plan.autocast else "fp32",
        "train.attention": plan.attention,
        "train.compile": "on" if plan.compiled else "off",
    }
