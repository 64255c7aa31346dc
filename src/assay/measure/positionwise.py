"""Loss by position, the shuffle test, and greedy answers: what a model makes of order and length.

A length at which a model is undefined (its table of learned positions has ended) gives None:
nothing is cropped to fit. Models are judged without dropout and left in the mode they were in.

Tokens are handed in on the CPU, wherever the model is.

Shapes: N windows or problems, T tokens of context; a window holds T + 1 tokens, position t of it
predicts t + 1. P tokens of a prompt, A of its answer, the token that ends it included. M tokens of
a text.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.stats import binomtest
from torch import Tensor

from assay.errors import ConfigError
from assay.nn.head import at_least_float32
from assay.nn.model import GPT

_BATCH_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class OrderLoss:
    """Mean loss of the last token of each window.

    Attributes:
        loss_nats: With its context in order.
        shuffled_nats: With its context permuted, mean over the permutations too.
    """

    loss_nats: float
    shuffled_nats: float

    @property
    def order_nats(self) -> float:
        """What the order of the context is worth to the model."""
        return self.shuffled_nats - self.loss_nats


@dataclass(frozen=True, slots=True)
class Share:
    """A share of successes and Wilson's score interval for it.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, successes: int, n: int, level: float = 0.95) -> "Share":
        """Return `successes / n` and the interval that covers the true share `level` of the time.

        The problems must be independent draws; seeds of a model are not among them.
        """
        interval = binomtest(successes, n).proportion_ci(level, method="wilson")
        return cls(successes / n, float(interval.low), float(interval.high))


def target_losses(model: GPT, windows: Int[Tensor, "N T1"]) -> Float[Tensor, "N T"] | None:
    """Return the loss in nats of every target, in float64; None where T is past what is defined."""
    size = max(1, _BATCH_TOKENS // windows.shape[1])
    starts = range(0, windows.shape[0], size)
    try:
        losses = [_losses(model, windows[first : first + size]) for first in starts]
    except ConfigError:
        return None
    return torch.cat(losses)


def sliding_loss(
    model: GPT, ids: Int[Tensor, " M"], *, length: int, stride: int, first: int
) -> float | None:
    """Return the mean loss of the targets from `first` on, each behind nearly `length` tokens.

    Windows of `length` inputs move by `stride`, and the last `stride` targets of each count: every
    one sees between length - stride + 1 and length tokens. Up to stride - 1 targets at the end are
    left out, so that lengths of one stride are judged on the same targets.

    Args:
        model: Judged.
        ids: The text.
        length: Inputs of a window.
        stride: How far windows move.
        first: Index in `ids` of the first target; the same for all lengths that are compared.

    Raises:
        ValueError: If the stride exceeds the length, or the first target cannot see so far back,
            or not one stride of targets follows it.
    """
    if not 0 < stride <= length < first + stride <= len(ids):
        raise ValueError(
            f"length {length}, stride {stride}, first {first} found for {len(ids)} tokens; "
            "expected stride <= length < first + stride <= tokens."
        )
    ends = torch.arange(first + stride, len(ids) + 1, stride)
    windows = ids[ends[:, None] + torch.arange(-length - 1, 0)]
    losses = target_losses(model, windows)
    return None if losses is None else float(losses[:, -stride:].mean())


def order_loss(
    model: GPT, windows: Int[Tensor, "N T1"], *, keep: int, n_permutations: int, seed: int
) -> OrderLoss | None:
    """Return the loss of each window's last token, with its context in order and permuted.

    Args:
        model: Judged.
        windows: The last token of each is the target, the T before it the context.
        keep: So many tokens at the end of the context stay in place. With 0 the token before the
            target moves too, which alone makes a model lose what pairs of tokens told it.
        n_permutations: Of each window, drawn for it alone.
        seed: Of the permutations.
    """
    context = windows.shape[1] - 1 - keep
    random = torch.Generator().manual_seed(seed)
    inputs = windows.repeat(n_permutations, 1)
    order = torch.rand(inputs.shape[0], context, generator=random).argsort(1)
    shuffled = torch.cat((inputs[:, :context].gather(1, order), inputs[:, context:]), 1)
    straight, permuted = target_losses(model, windows), target_losses(model, shuffled)
    if straight is None or permuted is None:
        return None
    return OrderLoss(float(straight[:, -1].mean()), float(permuted[:, -1].mean()))


def exact_matches(
    model: GPT, prompts: Int[Tensor, "N P"], answers: Int[Tensor, "N A"]
) -> Int[Tensor, " N"] | None:
    """Return 1 where greedy decoding of a prompt gives its whole answer, else 0.

    Greedy decoding gives an answer exactly if each of its tokens is the likeliest after the prompt
    and the tokens before it, so one pass over prompt and answer decides. A tie goes to the smaller
    id, as in sampling.
    """
    try:
        logits = _logits(model, torch.cat((prompts, answers[:, :-1]), 1))
    except ConfigError:
        return None
    likeliest = logits[:, prompts.shape[1] - 1 :].argmax(-1)
    return (likeliest.cpu() == answers).all(1).long()


def _losses(model: GPT, windows: Tensor) -> Tensor:
    logits = _logits(model, windows[:, :-1])
    targets = windows[:, 1:].flatten().to(logits.device)
    losses = F.cross_entropy(logits.flatten(0, 1), targets, reduction="none")
    return losses.view(windows.shape[0], -1).double().cpu()


@torch.inference_mode()
def _logits(model: GPT, tokens: Tensor) -> Tensor:
    was_training = model.training
    model.eval()
    try:
        return at_least_float32(model(tokens.to(model.embed.weight.device)))
    finally:
        model.train(was_training)
