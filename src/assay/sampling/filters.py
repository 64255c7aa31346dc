"""What is done to logits beside the temperature: a penalty, and filters.

Shapes: B rows, V vocabulary, L tokens so far. A filter sets the logits it removes to -inf and
leaves the others as they are.
"""

import math
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import PositiveFloat
from torch import Tensor

from assay.citation import Citation
from assay.errors import ConfigError
from assay.family import Family, Variant


def penalise(
    logits: Float[Tensor, "B V"], history: Int[Tensor, "B L"] | None, penalty: float
) -> Float[Tensor, "B V"]:
    """Divide the positive logits of the tokens in `history` by `penalty`, multiply the negative.

    The paper divides whatever the sign, which would favour a token of negative logit; Hugging Face
    does as here. The only step that depends on where the logits have their zero.

    Raises:
        ConfigError: If a penalty has no history to act on.

    Source: Keskar et al. 2019, arXiv:1909.05858, section 4.1.
    """
    if penalty == 1:
        return logits
    if history is None:
        raise ConfigError(
            f"sampling.repetition_penalty: {penalty} found without the tokens so far; expected "
            "them in `history`. Pass them, or set the penalty to 1."
        )
    n_rows, vocab_size = logits.shape
    seen = torch.zeros(n_rows, vocab_size + 1, dtype=torch.bool, device=logits.device)
    ids = history.to(logits.device, torch.long)
    seen.scatter_(
        1, ids.where(ids >= 0, vocab_size), True
    )  # padding falls into a column of its own
    penalised = torch.where(logits > 0, logits / penalty, logits * penalty)
    return penalised.where(seen[:, :vocab_size], logits)


def keep_top_k(logits: Float[Tensor, "B V"], k: int) -> Float[Tensor, "B V"]:
    """Set all but the `k` largest logits to -inf; those equal to the k-th stay; 0 keeps all.

    Source: Fan et al. 2018, arXiv:1805.04833, section 5.4.
    """
    if k == 0 or k >= logits.shape[-1]:
        return logits
    kth = logits.topk(k, dim=-1).values[:, -1:]
    return logits.masked_fill(logits < kth, -torch.inf)


def keep_top_p(logits: Float[Tensor, "B V"], p: float) -> Float[Tensor, "B V"]:
    """Keep the fewest tokens whose probability reaches `p`: the likeliest, then the lowest id.

    Source: Holtzman et al. 2019, arXiv:1904.09751, section 3.1.
    """
    if p == 1:
        return logits
    ordered, index = logits.sort(dim=-1, descending=True, stable=True)
    probability = ordered.softmax(-1)
    before = probability.cumsum(-1) - probability  # the mass of the tokens taken earlier
    return logits.scatter(-1, index, ordered.masked_fill(before >= p, -torch.inf))


def keep_min_p(logits: Float[Tensor, "B V"], p: float) -> Float[Tensor, "B V"]:
    """Keep the tokens at least `p` times as likely as the likeliest; 0 keeps all.

    Source: Nguyen et al. 2024, arXiv:2407.01082, section 3; for doubts about its gain over top-p,
    Schaeffer et al. 2025, arXiv:2506.13681.
    """
    if p == 0:
        return logits
    threshold = logits.amax(-1, keepdim=True) + math.log(p)
    return logits.masked_fill(logits < threshold, -torch.inf)


class FilterVariant(Variant):
    """A filter that sees every token of the vocabulary, since it is the first."""

    def keep(self, logits: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
        """Set the logits of the tokens that it removes to -inf; it leaves one in each row.

        Args:
            logits: Divided by the temperature, in float64, the largest of each row 0.
        """
        raise NotImplementedError


class NoFilterConfig(FilterVariant):
    """Every token stays."""

    kind: Literal["none"] = "none"

    def keep(self, logits: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
        """Return the logits."""
        return logits


class TopNSigmaConfig(FilterVariant):
    """Keep the tokens whose logit is at most n standard deviations of all under the largest.

    The same tokens at every temperature, which divides the deviation too.
    """

    kind: Literal["top_n_sigma"] = "top_n_sigma"
    n: PositiveFloat = 1.0
    """Standard deviations of the row's logits."""
    citation: ClassVar[Citation | None] = Citation("Tang et al. 2024", "arXiv:2411.07641", "alg. 1")

    def keep(self, logits: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
        """Set those under the threshold to -inf."""
        deviation = logits.std(-1, correction=0, keepdim=True)
        threshold = logits.amax(-1, keepdim=True) - self.n * deviation
        return logits.masked_fill(logits < threshold, -torch.inf)


FILTERS = Family(FilterVariant, (NoFilterConfig, TopNSigmaConfig))
FilterConfig = Annotated[FilterVariant, FILTERS]
