"""Muon over stacks of matrices: every matrix of one shape is orthogonalised in the same products.

`torch.optim.Muon` takes the same steps one matrix at a time and in bfloat16 everywhere, which many
a CPU multiplies slowly. Here matrices of one shape, of one model or of several, share each product,
in float32 on a CPU, or are handed to the C++ kernels where a run takes its products in bfloat16
there. The state has PyTorch's names, so checkpoints of either go on with the other.

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

from assay.native.build import kernels

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
class Muon(Optimizer):
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
        step_together([self])
        return loss

    def scale_gradients(self, factor: float) -> None:
        """Multiply the gradients of all parameters that have one."""
        parameters = (p for group in self.param_groups for p in group["params"])
        gradients = [p.grad for p in parameters if p.grad is not None]
        if factor != 1 and gradients:
            torch._foreach_mul_(gradients, factor)

    def updates(self) -> Iterator[Update]:
        """Take the gradients into the momentum and yield the directions that come of it."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    direction = self._direction(parameter, group["momentum"])
                    yield Update(parameter, direction, group)

    def _direction(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter.grad)
        mean: Tensor = state["momentum_buffer"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(mean, momentum)


@torch.no_grad()
def step_together(optimizers: Sequence[Muon], *, native: bool = False) -> None:
    """Step several optimizers, each at its own rate, with one orthogonalisation per shape.

    Args:
        optimizers: Of one model each.
        native: Whether the C++ kernels make float32 directions orthogonal, in bfloat16.
    """
    updates = [update for optimizer in optimizers for update in optimizer.updates()]
    for alike in _stackable(updates):
        stack = torch.stack([update.direction for update in alike])
        found = orthogonalised_natively(stack) if native else orthogonalised(stack)
        for update, direction in zip(alike, found, strict=True):
            _apply(update, direction)


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
    parameter, lr = update.parameter, update.group["lr"]
    parameter.mul_(1 - lr * update.group["weight_decay"])
    scale = _RMS * math.sqrt(max(parameter.shape))
    parameter.add_(direction.to(parameter.dtype), alpha=-lr * scale)


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


def orthogonalised_natively(matrices: Float[Tensor, "N A B"]) -> Float[Tensor, "N A B"]:
    """Do the same in place with the C++ kernels, by products of bfloat16 summed in float32."""
    library = kernels().library
    assert library is not None, kernels().note
    assert matrices.dtype == torch.float32
    assert matrices.is_contiguous()
    library.assay_orthogonalise(matrices.data_ptr(), *matrices.shape, torch.get_num_threads())
    return matrices


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
