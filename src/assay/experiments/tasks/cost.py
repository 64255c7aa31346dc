"""What a model costs along a grid of one size: FLOPs and bytes counted, seconds measured."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, final

import torch
from jaxtyping import Int
from pydantic import Field, PositiveInt
from torch import Tensor

from assay.count import Count, count
from assay.experiments.tasks.task import Task, Values
from assay.measure.cost import (
    Prepared,
    cached_step,
    counted_flops,
    counted_step_flops,
    crossover,
    filled_cache,
    forward_pass,
    interleaved_seconds,
    last_logits,
    training_step,
)
from assay.measure.memory import training_memory
from assay.nn.loss import next_token_loss
from assay.nn.model import GPT, ModelConfig
from assay.runs.run import Run
from assay.schema import Config, override

Axis = Literal["seq_len", "n_layers", "d_model"]
Pass = Literal["forward", "training", "cached", "uncached"]
Sizes = Annotated[tuple[PositiveInt, ...], Field(strict=False)]


class Grid(Config):
    """Models and lengths that differ in one size."""

    model: ModelConfig
    """Its vocabulary known, its context as long as the longest length."""
    seq_len: PositiveInt
    """T, where it is not what is varied."""
    along: Axis
    """What is varied."""
    sizes: Sizes
    """Its values."""

    def points(self) -> list[tuple[ModelConfig, int]]:
        """Return model and length of each point."""
        if self.along == "seq_len":
            return [(self.model, size) for size in self.sizes]
        return [(override(self.model, {self.along: size}), self.seq_len) for size in self.sizes]


@final
class CountedFlops(Task):
    """FLOPs of a forward pass and of a cached step by PyTorch's counter, and by closed form."""

    kind: Literal["counted-flops"] = "counted-flops"
    grid: Grid

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Count on the meta device."""
        forward = [counted_flops(*point) for point in self.grid.points()]
        step = [counted_step_flops(*point) for point in self.grid.points()]
        closed = [count(model, seq_len=n) for model, n in self.grid.points()]
        return {
            "attention": [found.attention for found in forward],
            "matrices": [found.matrices for found in forward],
            "step": [found.total for found in step],
            "closed_forward": [found.forward_flops for found in closed],
            "closed_step": [found.decode_flops for found in closed],
        }


@final
class Crossover(Task):
    """The first T at which attention's T² term costs what all else in the blocks does."""

    kind: Literal["crossover"] = "crossover"
    model: ModelConfig
    """Of any width."""
    d_models: Sizes
    """Widths to search it for."""

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Search by bisection over PyTorch's counter."""
        models = [override(self.model, {"d_model": width}) for width in self.d_models]
        return {"at": [crossover(model) for model in models]}


@final
class CountedMemory(Task):
    """Bytes of one training step and of a full cache, for one sequence."""

    kind: Literal["counted-memory"] = "counted-memory"
    grid: Grid

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Count every tensor; no clock and no allocator is asked."""
        models = [(GPT.create(model), _tokens(model, n)) for model, n in self.grid.points()]
        found = [
            training_memory(model, lambda m=model, t=tokens: next_token_loss(m, t))  # type: ignore[misc]
            for model, tokens in models
        ]
        caches = [
            filled_cache(model, tokens[:, :-1], room=tokens.shape[1] - 1)
            for model, tokens in models
        ]
        return {
            "saved": [memory.saved for memory in found],
            "peak": [memory.peak for memory in found],
            "cache": [cache.nbytes for cache in caches],
        }


@final
class PassSeconds(Task):
    """Seconds of several kinds of pass at every point of a grid, in interleaved rounds."""

    kind: Literal["pass-seconds"] = "pass-seconds"
    timed: ClassVar[bool] = True
    grid: Grid
    passes: Annotated[tuple[Pass, ...], Field(strict=False)]
    """`cached` and `uncached` are the T-th token of a text, with and without a cache."""
    rounds: PositiveInt
    """Each times every point once."""

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Time all; rounds are lists of one number a point."""
        points = self.grid.points()
        prepared = [_prepared(what, model, n) for what in self.passes for model, n in points]
        seconds = interleaved_seconds(prepared, rounds=self.rounds)
        n = len(points)
        return {
            what: seconds[:, place * n : (place + 1) * n].tolist()
            for place, what in enumerate(self.passes)
        }


def _prepared(what: Pass, model_config: ModelConfig, n_tokens: int) -> Prepared:
    model, tokens = GPT.create(model_config), _tokens(model_config, n_tokens)
    if what == "training":
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        return training_step(model, tokens, optimizer)
    passes = {"forward": forward_pass, "cached": cached_step, "uncached": last_logits}
    return passes[what](model, tokens[:, :-1])


def pass_flops(what: Pass, counted: Count) -> int:
    """Return what a pass must compute where the kernel skips what the causal mask hides.

    Without a cache the T-th token asks for all features, and for the last logits alone.
    """
    output = sum(part.matrix_flops for part in counted.parts if part.name == "unembed")
    return {
        "forward": counted.causal_forward_flops,
        "training": 3 * counted.causal_forward_flops,
        "cached": counted.decode_flops,
        "uncached": counted.causal_forward_flops - output + output // counted.seq_len,
    }[what]


def _tokens(model: ModelConfig, n_tokens: int) -> Int[Tensor, "B T1"]:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(model.vocab, (1, n_tokens + 1), generator=draw)


def along(model: ModelConfig, seq_len: int, sizes: dict[Axis, Sequence[int]]) -> dict[Axis, Grid]:
    """Return a grid along each axis through one model."""
    return {
        axis: Grid(model=model, seq_len=seq_len, along=axis, sizes=tuple(values))
        for axis, values in sizes.items()
    }
