"""Muon over stacks of matrices: every matrix of one shape is orthogonalised in the same products.

`torch.optim.Muon` takes the same steps one matrix at a time and in bfloat16 everywhere, which many
a CPU multiplies slowly. Here matrices of one shape, of one model or of several, share each product,
in float32 on a CPU. Where the C++ kernels train there, they take Muon's step too, a matrix to a
thread and in the precision of the run (`native/muon.cpp`). The state has PyTorch's names, so
checkpoints of each go on with the others.

Shapes: N matrices of A rows and B columns; S = min(A, B).

Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon; Liu et al. 2025, arXiv:2502.16982,
eq. 4, for the scale of an update.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, final, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from assay.native.abi import MatrixOf
from assay.native.build import Part, kernels
from assay.train.optimizer import KernelOptimizer

ITERATIONS = 5
_A, _B, _C = 3.4445, -4.7750, 2.0315  # Jordan: steepest at 0 of those that stay near 1
_LEAST_NORM = 1e-7
_RMS = 0.2  # of an update at rate 1: about that of AdamW
_STACK_NUMBERS = 1 << 24  # in one stack, so that its few copies stay under some hundred megabytes
_WIDE = 2  # B / A from which products of the S x S Gram matrix come cheaper


class Update(NamedTuple):
    """What is to be made orthogonal and then added to a parameter."""

    parameter: nn.Parameter
    direction: Float[Tensor, "A B"]
    group: dict[str, Any]


@final
class Muon(KernelOptimizer, Optimizer):
    """Nesterov momentum, made orthogonal, with decoupled decay; for matrices alone."""

    def __init__(
        self, params: Iterable[nn.Parameter], *, lr: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.step_many([self])
        return loss

    @classmethod
    @torch.no_grad()
    def step_many(cls, optimizers: Sequence["Muon"]) -> None:
        """Step several optimizers, of a model each, with one orthogonalisation per shape."""
        updates = [update for optimizer in optimizers for update in optimizer.updates()]
        for alike in _stackable(updates):
            found = orthogonalised(torch.stack([update.direction for update in alike]))
            for update, direction in zip(alike, found, strict=True):
                _apply(update, direction)

    def kernel_part(self, *, bf16: bool) -> Part:
        """Return Muon's in one precision."""
        return "muon_bf16" if bf16 else "muon_fp32"

    def state_like(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Return the mean of gradients, as PyTorch names it."""
        return {"momentum_buffer": parameter}

    def updates(self) -> Iterator[Update]:
        """Take the gradients into the momentum and yield the directions that come of it."""
        for parameter, gradient, mean, group in self._learning():
            mean.lerp_(gradient, 1 - group["momentum"])
            yield Update(parameter, gradient.lerp(mean, group["momentum"]), group)

    @torch.no_grad()
    def step_natively(self, *, scale: float, bf16: bool) -> None:
        """Take a step by `scale` times the gradients; sums of products are of float32."""
        library = kernels().library
        assert library is not None, kernels().note
        largest_first = sorted(self._learning(), key=lambda one: -one[0].numel())
        matrices = [
            MatrixOf(
                *(tensor.data_ptr() for tensor in (parameter, mean, gradient)),
                *parameter.shape,
                group["momentum"],
                *_kept_and_rate(parameter, group),
            )
            for parameter, gradient, mean, group in largest_first
        ]
        listed = (MatrixOf * len(matrices))(*matrices)
        library.assay_muon(listed, len(listed), scale, bf16, torch.get_num_threads())
        torch.autograd.graph.increment_version([parameter for parameter, *_ in largest_first])

    def _learning(self) -> Iterator[tuple[nn.Parameter, Tensor, Tensor, dict[str, Any]]]:
        """Yield parameters that have a gradient, with it, its mean so far, and their group."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter.grad)
                yield parameter, parameter.grad, state["momentum_buffer"], group


def _stackable(updates: Iterable[Update]) -> Iterator[list[Update]]:
    """Yield lists of updates of one shape, dtype and device, of a bounded size each."""
    by_kind: dict[tuple[object, ...], list[Update]] = {}
    for update in updates:
        d = update.direction
        by_kind.setdefault((d.shape, d.dtype, d.device), []).append(update)
    for alike in by_kind.values():
        size = max(1, _STACK_NUMBERS // alike[0].direction.numel())
        for start in range(0, len(alike), size):
            yield alike[start : start + size]


def _apply(update: Update, direction: Float[Tensor, "A B"]) -> None:
    """Decay the parameter and add the direction, scaled to a root mean square of 0.2 lr."""
    parameter = update.parameter
    kept, rate = _kept_and_rate(parameter, update.group)
    parameter.mul_(kept).add_(direction.to(parameter.dtype), alpha=-rate)


def _kept_and_rate(parameter: nn.Parameter, group: dict[str, Any]) -> tuple[float, float]:
    """Return the share of a parameter that decay leaves, and the rate of its direction."""
    lr = group["lr"]
    return 1 - lr * group["weight_decay"], lr * _RMS * math.sqrt(max(parameter.shape))


def orthogonalised(matrices: Float[Tensor, "N A B"]) -> Float[Tensor, "N A B"]:
    r"""Return matrices of the same singular vectors with singular values near 1.

    $$\sigma \mapsto p(p(p(p(p(\sigma / \lVert M \rVert_F))))), \quad
    p(\sigma) = 3.4445\,\sigma - 4.7750\,\sigma^3 + 2.0315\,\sigma^5$$

    which brings all between 0.0016 and 1 into [0.68, 1.21]. In bfloat16 on a CUDA device, in at
    least float32 elsewhere.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalised(matrices.mT).mT
    dtype = torch.promote_types(matrices.dtype, torch.float32)
    if matrices.is_cuda and dtype == torch.float32:
        dtype = torch.bfloat16
    norm = matrices.norm(dim=(1, 2), keepdim=True).clamp_min(_LEAST_NORM)
    x = (matrices / norm).to(dtype)
    cheaper = x.shape[2] >= _WIDE * x.shape[1]
    return _by_gram(x) if cheaper and dtype != torch.bfloat16 else _by_matrix(x)


def _by_matrix(x: Float[Tensor, "N S B"]) -> Float[Tensor, "N S B"]:
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x


def _by_gram(x: Float[Tensor, "N S B"]) -> Float[Tensor, "N S B"]:
    """Return the same by products of S x S matrices alone, but for the first and the last.

    With G = X X^T an iteration is X <- P X, G <- P G P, where P = a + b G + c G^2. All these
    matrices commute. A rounding in G grows by a^2 an iteration where G is small: by 2e4 over four,
    to 2e-3 in float32 and to nonsense in bfloat16.
    """
    gram = x @ x.mT
    product = factor = _polynomial(gram)
    for _ in range(ITERATIONS - 1):
        gram = factor @ (factor @ gram)
        factor = _polynomial(gram)
        product = factor @ product
    return product @ x


def _polynomial(gram: Float[Tensor, "N S S"]) -> Float[Tensor, "N S S"]:
    factor = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
    factor.diagonal(dim1=1, dim2=2).add_(_A)
    return factor
