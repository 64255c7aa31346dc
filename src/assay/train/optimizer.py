"""What an optimizer may offer beyond `torch.optim.Optimizer`; none of it is required of one.

A torch optimizer that offers nothing works as it is: PyTorch takes its steps, models trained at
once are stepped one after the other, and what state it keeps is found by a trial (`state_like`).
"""

import copy
from collections.abc import Mapping, Sequence
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from assay.native.build import Part

State = Mapping[str, Any]


class NoDynamo:
    """First among the bases of an optimizer that is made without loading PyTorch's compiler.

    `torch.optim.Optimizer` keeps its compiler from tracing how parameters are taken in, and loads
    it to say so: seconds, in each process that trains, whether or not anything is compiled.
    """

    add_param_group = unwrap(Optimizer.add_param_group)


class KernelOptimizer(NoDynamo):
    """First among the bases of an optimizer that has a step by the C++ kernels too.

    Its parameters are contiguous float32 there, and so are their gradients.
    """

    def kernel_part(self, *, bf16: bool) -> Part:
        """Return the part of the kernels that `step_natively` needs, which may be unfit here."""
        raise NotImplementedError

    def step_natively(self, *, scale: float, bf16: bool) -> None:
        """Take a step by `scale` times the gradients.

        Args:
            scale: Of the gradients.
            bf16: Whether products may be of bfloat16.
        """
        raise NotImplementedError

    def state_like(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Return tensors like those that it keeps of a parameter once it has updated it."""
        raise NotImplementedError

    @classmethod
    def step_many(cls, optimizers: Sequence[Any]) -> None:
        """Take a step of several optimizers of this class, each over a model of its own."""
        for optimizer in optimizers:
            optimizer.step()


def states_like(optimizer: Optimizer) -> dict[nn.Parameter, State]:
    """Return, by parameter, entries like those of `optimizer.state` after a first step.

    One that does not say takes a step on a copy of its parameters, with gradients of 0.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if isinstance(optimizer, KernelOptimizer):
        return {parameter: optimizer.state_like(parameter) for parameter in parameters}
    twin = copy.deepcopy(optimizer)
    copies = [p for group in twin.param_groups for p in group["params"]]
    for parameter in copies:
        parameter.grad = torch.zeros_like(parameter)
    twin.step()
    return {p: twin.state.get(c, {}) for p, c in zip(parameters, copies, strict=True)}
