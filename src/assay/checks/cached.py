"""Whether a model says the same with its cache as without, on text it was not trained on.

Shapes: B windows of text, T tokens of each, V vocabulary.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from assay.checks.finding import Finding
from assay.data.prepare import Dataset
from assay.data.windows import evaluation_windows
from assay.decode.native_decoder import NativeDecoder
from assay.decode.options import Extent
from assay.decode.quantized import QuantizedModel
from assay.native.build import kernels
from assay.native.kinds import unsupported
from assay.nn.model import GPT

_MOST_LOGITS = 1 << 25  # of one pass, 128 MiB in float32
_MOST_ROWS, _MOST_TOKENS = 4, 1024
_SAFETY = 8


@dataclass(frozen=True, slots=True)
class Apart:
    """How far the logits of a reader are from those of one full pass.

    Attributes:
        largest: The largest difference.
        row: The window it is in.
        position: The token after which it is, counted from 0 in the window.
        agreeing: At how many positions both have the same most probable token.
        positions: How many there are.
    """

    largest: float
    row: int
    position: int
    agreeing: int
    positions: int


def check_cache(model: GPT, dataset: Dataset) -> Iterator[Finding]:
    """Compare, in float32, three ways to read validation text with one full pass over it.

    The ways are PyTorch token by token, PyTorch after half of the text at once, and the C++ kernels
    token by token where they can read the model. A finding is fine if no logit is farther from the
    full pass's than `tolerance`. Weights rounded to bf16 or int8 are another model: not looked at.
    """
    tokens = _tokens(model, dataset)
    with torch.inference_mode():
        full = model(tokens)
        bound = tolerance(model, tokens, full)
        rows, length = tokens.shape
        facts = {"rows": rows, "tokens": length, "tolerance": bound}
        words = f"{rows} windows of {length} tokens of validation text; tolerance {bound:.2g}"
        yield Finding("text", words, facts=facts)
        for name, first in (("token by token", 1), ("after a prompt", max(1, length // 2))):
            yield _finding(name, compare(full, read_cached(model, tokens, first)), bound)
        why_not = unsupported(model) or kernels().lacks("decode_fp32")
        if why_not:
            yield Finding("C++ kernels", f"not looked at: {why_not}")
        else:
            yield _finding("C++ kernels", compare(full, read_native(model, tokens)), bound)


def tolerance(model: GPT, tokens: Int[Tensor, "B T"], full: Float[Tensor, "B T V"]) -> float:
    """Return how far apart two right readings in float32 may be on this model and text.

    Both readings compute the same sums of the same numbers in another order. Each rounds as often
    as the other, by at most 2^-24 of what it rounds, and the same layers carry those roundings on
    to the logits; how much layers amplify them differs from model to model, so it is measured:
    E is the largest error of the full pass against the same pass in float64, whose own rounding
    is 2^-29 of that. The error of the other reading is another draw of the same size, so the two
    are hardly 3 E apart; 8 E leaves room for the few values of a small text and for kernels that
    compute exponentials otherwise. E is taken to be at least one rounding of a dot product of D
    terms, √D · 2^-24 times the largest logit, for models whose errors happen to cancel.
    """
    wide = copy.deepcopy(model).cpu().double()  # not every device has float64
    exact = wide(tokens.cpu())
    error = (full.cpu().double() - exact).abs().max()
    least = model.config.d_model**0.5 * 2**-24 * exact.abs().max()
    return _SAFETY * float(torch.maximum(error, least))


def read_cached(model: GPT, tokens: Int[Tensor, "B T"], first: int) -> Iterator[Tensor]:
    """Yield the logits (B, t, V) of the `first` tokens at once, then of each one after them."""
    cache = model.new_cache()
    for part in (tokens[:, :first], *torch.split(tokens[:, first:], 1, dim=1)):
        if part.shape[1]:
            yield model(part, cache)


def read_native(model: GPT, tokens: Int[Tensor, "B T"]) -> Iterator[Tensor]:
    """Yield the logits (B, 1, V) of each token, by the C++ kernels."""
    rows, length = tokens.shape
    extent = Extent(n_samples=1, longest=length, context=length)
    reader, texts = NativeDecoder(kernels(), QuantizedModel(model), rows, extent), tokens.tolist()
    for end in range(1, length + 1):
        yield reader.logits(range(rows), [text[:end] for text in texts], [[]] * rows)[:, None]


def compare(full: Float[Tensor, "B T V"], parts: Iterator[Tensor]) -> Apart:
    """Compare logits that come in parts of some positions with those of all at once."""
    largest, row, position, agreeing, done = -1.0, 0, 0, 0, 0
    for part in parts:
        expected = full[:, done : done + part.shape[1]]
        gaps = (part - expected).abs().amax(-1).nan_to_num(nan=torch.inf)
        place = int(gaps.argmax())
        if (gap := float(gaps.flatten()[place])) > largest:
            row, column = divmod(place, part.shape[1])
            largest, position = gap, done + column
        agreeing += int((part.argmax(-1) == expected.argmax(-1)).sum())
        done += part.shape[1]
    assert done == full.shape[1], "every position is read"
    return Apart(largest, row, position, agreeing, full.shape[0] * done)


def _finding(name: str, apart: Apart, bound: float) -> Finding:
    words = (
        f"largest difference {apart.largest:.2g}, at token {apart.position} of window {apart.row}; "
        f"the most probable token is the same at {apart.agreeing} of {apart.positions} places"
    )
    fine = apart.largest <= bound
    if fine and apart.agreeing < apart.positions:
        words += ", and elsewhere two are within the tolerance of each other"
    facts: dict[str, Any] = {
        "largest_difference": apart.largest,
        "row": apart.row,
        "position": apart.position,
        "argmax_agrees": apart.agreeing,
        "positions": apart.positions,
    }
    return Finding(name, words, fine, facts)


def _tokens(model: GPT, dataset: Dataset) -> Int[Tensor, "B T"]:
    """Return windows of validation text, spread evenly, as long as the context or memory allows."""
    config = model.config
    length = max(2, min(config.max_seq_len, _MOST_TOKENS, _MOST_LOGITS // config.vocab))
    windows = evaluation_windows(dataset.val.ids, seq_len=length)
    rows = max(1, min(_MOST_ROWS, len(windows), _MOST_LOGITS // (length * config.vocab)))
    chosen = torch.arange(rows) * len(windows) // rows
    return windows[chosen, :-1].to(model.embed.weight.device)
