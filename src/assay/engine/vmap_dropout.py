"""Dropout of stacked replicas: each draws what it would draw alone.

`vmap` would draw one block of random numbers for all. Here each replica has a state of the random
number generator, and while the mode below is entered every dropout draws the mask of each replica
in turn, in the shape and the order that the model alone would.

Shapes: R replicas; `...` the input of a dropout as a model alone sees it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast, final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


@contextmanager
def dropout_per_member(seeds: Sequence[int], device: torch.device) -> Iterator[None]:
    """Let each replica's dropout draw from a generator of its own seed; restore the global ones."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        states = []
        for seed in seeds:
            torch.manual_seed(seed)
            states.append(_state(device))
        with _Apart(_Streams(states, device)):
            yield


@final
class _Streams:
    """The generator states of R replicas."""

    def __init__(self, states: list[Tensor], device: torch.device) -> None:
        self._states = states
        self._device = device

    def masks(self, like: Tensor, p: float) -> Tensor:
        """Return for each replica what dropout makes of ones: (R, ...) of 0 and 1 / (1 - p)."""
        masks = []
        for row, state in enumerate(self._states):
            _set_state(state, self._device)
            ones = torch.ones(like.shape[1:], dtype=like.dtype, device=like.device)
            masks.append(torch.dropout(ones, p, True))
            self._states[row] = _state(self._device)
        return torch.stack(masks)


def _state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_state(state: Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


class _Apart(TorchFunctionMode):
    """Takes the place of the two functions of a model that draw random numbers."""

    def __init__(self, streams: _Streams) -> None:
        super().__init__()
        self._streams = streams

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Call `func`, or do what it does with masks drawn apart."""
        given = dict(kwargs or {})
        if func is F.dropout and given["training"] and given["p"] > 0:
            return _dropped(args[0], given["p"], self._streams)
        if func is F.scaled_dot_product_attention and given.get("dropout_p", 0.0) > 0:
            return self._attention(*args, **given)
        return func(*args, **given)

    def _attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        attn_mask: Tensor | None,
        dropout_p: float,
        is_causal: bool,
    ) -> Tensor:
        """Return attention by plain products: with dropout PyTorch's kernel does it so as well."""
        scores = q @ k.mT * q.shape[-1] ** -0.5
        if is_causal:
            seen = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
            attn_mask = seen
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        return _dropped(scores.softmax(-1), dropout_p, self._streams) @ v


def _dropped(x: Tensor, p: float, streams: _Streams) -> Tensor:
    return cast(Tensor, _Dropped.apply(x, p, streams))  # type: ignore[no-untyped-call]


class _Dropped(torch.autograd.Function):
    """Dropout that sees all replicas at once: only `vmap` may call it."""

    @staticmethod
    def forward(x: Tensor, p: float, streams: _Streams) -> Tensor:
        """Never comes to this."""
        raise AssertionError("drawn apart outside vmap")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401
        """Keep nothing: the products below are recorded by autograd themselves."""

    @staticmethod
    def vmap(
        info: Any,  # noqa: ANN401
        in_dims: tuple[int | None, ...],
        x: Tensor,
        p: float,
        streams: _Streams,
    ) -> tuple[Tensor, int]:
        """Multiply with the masks of all replicas."""
        assert in_dims[0] is not None
        x = x.movedim(in_dims[0], 0)
        return x * streams.masks(x, p), 0
