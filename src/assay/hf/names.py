"""Which of their tensors holds which of our parameters, and in what layout.

An entry works both ways: `split` takes their tensor apart into ours, `join` is its inverse.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

HEAD = "lm_head.weight"


@dataclass(frozen=True, slots=True)
class Layout:
    """How one of their tensors is made of some of ours.

    Attributes:
        split: From theirs to ours.
        join: From ours to theirs.
    """

    split: Callable[[Tensor], Sequence[Tensor]]
    join: Callable[[Sequence[Tensor]], Tensor]


SAME = Layout(split=lambda theirs: (theirs,), join=lambda ours: ours[0])
TRANSPOSED = Layout(split=lambda theirs: (theirs.T,), join=lambda ours: ours[0].T)
"""GPT-2's `Conv1D`, which stores in × out."""

STACKED = Layout(split=lambda theirs: theirs.chunk(3), join=lambda ours: torch.cat(list(ours)))
"""Query, key and value rows one after the other."""

STACKED_TRANSPOSED = Layout(
    split=lambda theirs: theirs.T.chunk(3), join=lambda ours: torch.cat(list(ours)).T
)


def per_head(n_heads: int) -> Layout:
    """Return GPT-NeoX's layout: query, key and value rows of head 0, then those of head 1, ..."""

    def split(theirs: Tensor) -> Sequence[Tensor]:
        heads = theirs.reshape(n_heads, 3, -1, *theirs.shape[1:])
        return [part.flatten(0, 1) for part in heads.unbind(1)]

    def join(ours: Sequence[Tensor]) -> Tensor:
        heads = [part.reshape(n_heads, -1, *part.shape[1:]) for part in ours]
        return torch.stack(heads, dim=1).flatten(0, 2)

    return Layout(split, join)


@dataclass(frozen=True, slots=True)
class Entry:
    """One of their tensors.

    Attributes:
        theirs: Its name in the model with its head, such as `transformer.wte.weight`.
        ours: Names of our parameters in it, in the order of `layout`.
        layout: How they are put together.
    """

    theirs: str
    ours: tuple[str, ...]
    layout: Layout = SAME


def alike(
    pairs: Iterable[tuple[str, str]], *, bias: bool, weight_layout: Layout = SAME
) -> Iterator[Entry]:
    """Yield weight, and bias where there is one, of modules that correspond one to one."""
    for theirs, ours in pairs:
        yield Entry(f"{theirs}.weight", (f"{ours}.weight",), weight_layout)
        if bias:
            yield Entry(f"{theirs}.bias", (f"{ours}.bias",))


def packed(theirs: str, mixer: str, *, weight: Layout, bias: Layout) -> Iterator[Entry]:
    """Yield weight and bias of a module that computes queries, keys and values at once."""
    parts = [f"{mixer}.{name}_proj" for name in "qkv"]
    yield Entry(f"{theirs}.weight", tuple(f"{part}.weight" for part in parts), weight)
    yield Entry(f"{theirs}.bias", tuple(f"{part}.bias" for part in parts), bias)


def head(tied: bool) -> Iterator[Entry]:
    """Yield the output matrix, unless it is the token embedding."""
    if not tied:
        yield Entry(HEAD, ("unembed.weight",))
