r"""The training loss: mean cross-entropy of the next token.

With a large vocabulary the logits, their softmax and its gradient are the largest tensors of a step
by far: at 4,096 tokens of GPT-2's 50,257 each takes 823 MB. `ChunkedLoss` makes them for a few
rows at a time, and since the gradient of a cross-entropy is softmax minus one-hot, it needs no
second visit: the gradients of features and output matrix are summed up in the same pass.

Shapes: B sequences, T tokens of context, N = B·T rows, D model width, V vocabulary.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from assay.nn.head import at_least_float32
from assay.nn.model import GPT

CHUNK_LOGITS = 1 << 24
"""Most logits held at once: 64 MB in float32. A loss over no more of them takes the plain path."""


def next_token_loss(model: GPT, tokens: Int[Tensor, "B T1"]) -> Float[Tensor, ""]:
    """Return the mean cross-entropy, in nats, of each token given those before it.

    Equal, to rounding, whether the logits are taken whole or in chunks.
    """
    targets = tokens[:, 1:].flatten()
    if targets.shape[0] * model.config.vocab <= CHUNK_LOGITS:
        logits = at_least_float32(model(tokens[:, :-1]))
        return F.cross_entropy(logits.flatten(0, 1), targets)
    features = model.features(tokens[:, :-1]).flatten(0, 1)
    factor, cap = model.logit_factor, model.config.soft_cap
    features = features if factor == 1.0 else features * factor
    return chunked_loss(features, model.output_matrix, targets, soft_cap=cap)


def chunked_loss(
    features: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    targets: Int[Tensor, " N"],
    *,
    soft_cap: float | None,
    chunk_logits: int = CHUNK_LOGITS,
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of `features` times `weight`, never holding all logits.

    Products are taken in autocast's precision where it is on; the loss, the softmax and the sums
    over chunks in at least float32. The gradient has no gradient of its own.
    """
    kind = features.device.type
    narrow = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    rows = max(1, chunk_logits // weight.shape[0])
    learns = torch.is_grad_enabled()  # whether an input requires a gradient, vmap does not tell
    with torch.autocast(kind, enabled=False):
        parts = ChunkedLoss.apply(  # type: ignore[no-untyped-call]
            features.to(narrow), weight, targets, soft_cap, rows, learns
        )
    return cast(Tensor, parts[0])


class ChunkedLoss(torch.autograd.Function):
    """The loss, and with it the gradients that its backward pass only has to scale.

    Its inputs are features in the precision of the products, the output matrix in that of its
    gradient, targets, soft cap, rows in a chunk, and whether gradients are wanted.
    """

    @staticmethod
    def forward(
        features: Tensor,
        weight: Tensor,
        targets: Tensor,
        soft_cap: float | None,
        rows: int,
        learns: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss and the gradients of features and weight, empty if not wanted."""
        n_rows, matrix = features.shape[0], weight.to(features.dtype)
        losses, d_features = [], []
        d_weight = torch.zeros_like(weight) if learns else weight.new_empty(0)
        for first in range(0, n_rows, rows):
            x, target = features[first : first + rows], targets[first : first + rows]
            log_p, bend = _log_softmax(x @ matrix.mT, soft_cap)
            losses.append(-log_p.gather(1, target[:, None]).sum())
            if not learns:
                continue
            d_logits = _minus_one_hot(log_p.exp_(), target).mul_(1 / n_rows)
            d_logits = (d_logits if bend is None else d_logits.mul_(bend)).to(x.dtype)
            d_features.append(d_logits @ matrix)
            d_weight = _plus_product(d_weight, d_logits.mT, x)
        loss = torch.stack(losses).sum() / n_rows
        return loss, torch.cat(d_features) if learns else features.new_empty(0), d_weight

    @staticmethod
    def setup_context(
        ctx: Any,  # noqa: ANN401 (vmap has a context of its own)
        inputs: tuple[object, ...],
        output: tuple[Tensor, ...],
    ) -> None:
        """Keep the gradients; nothing else is needed."""
        _, d_features, d_weight = output
        ctx.mark_non_differentiable(d_features, d_weight)
        ctx.save_for_backward(d_features, d_weight)
        ctx.set_materialize_grads(False)  # else zeros as large as the gradients

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401
        *grads: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        """Scale the gradients by that of the loss."""
        d_features, d_weight = ctx.saved_tensors
        d_loss = grads[0]
        if d_loss is None:
            return (None,) * 6
        return d_features * d_loss, d_weight * d_loss, None, None, None, None

    @staticmethod
    def vmap(
        info: Any,  # noqa: ANN401
        in_dims: tuple[int | None, ...],
        *inputs: Any,  # noqa: ANN401
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """Let stacked models take turns, so that one chunk exists at a time."""
        turns = [
            ChunkedLoss.apply(  # type: ignore[no-untyped-call]
                *(
                    x if dim is None else x.select(dim, i)
                    for x, dim in zip(inputs, in_dims, strict=True)
                )
            )
            for i in range(info.batch_size)
        ]
        return tuple(torch.stack(parts) for parts in zip(*turns, strict=True)), (0, 0, 0)


def _log_softmax(logits: Tensor, soft_cap: float | None) -> tuple[Tensor, Tensor | None]:
    """Return log p of capped logits, and the derivative of the cap, 1 - tanh²."""
    logits = at_least_float32(logits)
    if soft_cap is None:
        return logits.log_softmax(-1), None
    bent = (logits / soft_cap).tanh_()
    return (bent * soft_cap).log_softmax(-1), bent.mul_(bent).neg_().add_(1)


def _minus_one_hot(p: Tensor, target: Tensor) -> Tensor:
    """Take 1 from the probability of each row's target, in place."""
    return p.scatter_add_(1, target[:, None], -torch.ones_like(p[:, :1]))


def _plus_product(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Add a b to a total of at least their precision, in place."""
    return total.addmm_(a, b) if total.dtype == a.dtype else total.add_(a @ b)
