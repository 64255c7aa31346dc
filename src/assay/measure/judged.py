"""What a model that did not write some texts thinks of them.

Shapes: N texts, T tokens of the longest.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from assay.measure.ngram import NGramModel
from assay.nn.head import at_least_float32
from assay.nn.model import GPT

Texts = Sequence[Sequence[int]]
_BATCH_TOKENS = 8192
_PADDING = -100


@torch.inference_mode()
def model_bits(model: GPT, texts: Texts, *, start: int) -> NDArray[np.float64]:
    """Return the bits that each text costs, (N,).

    Args:
        model: The judge, in evaluation mode.
        texts: Its token ids; no longer than its context.
        start: The token that every text is taken to follow, and which costs nothing.
    """
    longest = max(map(len, texts), default=0)
    if longest == 0:
        return np.zeros(len(texts))
    size = max(1, _BATCH_TOKENS // longest)
    batches = (texts[first : first + size] for first in range(0, len(texts), size))
    return np.concatenate([_batch_bits(model, batch, longest, start) for batch in batches])


def _batch_bits(model: GPT, texts: Texts, longest: int, start: int) -> NDArray[np.float64]:
    targets = torch.tensor([[*text, *[_PADDING] * (longest - len(text))] for text in texts])
    first = torch.full((len(texts), 1), start)
    inputs = torch.cat([first, targets[:, :-1].clamp(min=0)], dim=1)
    logits = at_least_float32(model(inputs.to(model.embed.weight.device))).cpu()
    losses = F.cross_entropy(
        logits.transpose(1, 2), targets, reduction="none", ignore_index=_PADDING
    )
    return losses.double().sum(1).numpy() / math.log(2)


def ngram_bits(model: NGramModel, texts: Texts, *, start: int) -> NDArray[np.float64]:
    """Return the same of a model of counts."""
    return np.array(
        [-model.log2_probability(np.array([start, *text]))[1:].sum() for text in texts], np.float64
    )
