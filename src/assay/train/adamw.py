"""AdamW and the norm of gradients by the C++ kernels, over all tensors of a model in one call.

`torch.optim.AdamW` keeps parameters, groups and state, so checkpoints of either go on with the
other; a step is that of its `fused=True` to rounding. Bits do not depend on the number of threads.
"""

from collections.abc import Sequence
from ctypes import CDLL, Array, byref, c_double
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from assay.native.abi import GradientOf, UpdateOf
from assay.native.build import Part, kernels
from assay.train.optimizer import KernelOptimizer


def norm_natively(gradients: Sequence[Tensor]) -> Float[Tensor, ""]:
    """Return the L2 norm of contiguous float32 tensors, all taken together."""
    listed, norm = _listed(gradients), c_double()
    _library().assay_norm(listed, len(listed), torch.get_num_threads(), byref(norm))
    return torch.tensor(norm.value)


@final
class AdamW(KernelOptimizer, torch.optim.AdamW):
    """PyTorch's, with a step of the kernels beside its own."""

    def kernel_part(self, *, bf16: bool) -> Part:
        """Return AdamW's, which has no products."""
        return "adamw"

    def state_like(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Return the count of steps and both means, as PyTorch names them."""
        return {"step": torch.empty(()), "exp_avg": parameter, "exp_avg_sq": parameter}

    @torch.no_grad()
    def step_natively(self, *, scale: float, bf16: bool) -> None:
        """Take a step by `scale` times the gradients, in float32 whatever `bf16` is."""
        gradients, updates, changed = [], [], list[nn.Parameter]()
        for group in self.param_groups:
            rates = (group["lr"], *group["betas"], group["eps"], group["weight_decay"])
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state |= _blank(parameter)
                held = (parameter, state["exp_avg"], state["exp_avg_sq"], state["step"])
                changed.append(parameter)
                gradients.append(parameter.grad)
                updates.append(UpdateOf(*(tensor.data_ptr() for tensor in held), *rates))
        listed, n_threads = _listed(gradients), torch.get_num_threads()
        ready = (UpdateOf * len(updates))(*updates)
        _library().assay_adamw(ready, listed, len(listed), scale, n_threads)
        torch.autograd.graph.increment_version(changed)  # which PyTorch cannot see for itself


def _blank(parameter: nn.Parameter) -> dict[str, Tensor]:
    """Return a parameter's state before its first step."""
    means = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
    return {"step": torch.zeros(()), **means}


def _listed(gradients: Sequence[Tensor]) -> "Array[GradientOf]":
    places = [GradientOf(gradient.data_ptr(), gradient.numel()) for gradient in gradients]
    return (GradientOf * len(places))(*places)


def _library() -> CDLL:
    library = kernels().library
    assert library is not None, kernels().note
    return library
