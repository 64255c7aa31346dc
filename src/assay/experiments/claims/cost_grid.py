"""The grids of the claim on complexity: one model at their middle, sizes along T, L and d."""

from collections.abc import Mapping
from typing import NamedTuple

from assay.experiments.claim import Budget
from assay.experiments.tasks.cost import (
    Axis,
    CountedFlops,
    CountedMemory,
    Crossover,
    Grid,
    Pass,
    PassSeconds,
)
from assay.experiments.tasks.kernels import AttentionMemory
from assay.nn.model import ModelConfig
from assay.presets import nanogpt_char
from assay.schema import override

_SHORT: tuple[Pass, ...] = ("forward", "training")
_ALL: tuple[Pass, ...] = (*_SHORT, "cached", "uncached")


class Extent(NamedTuple):
    """How much a budget buys: the middle of the grid, its axes, the rounds."""

    d_model: int
    n_layers: int
    n_heads: int
    seq_len: int
    sizes: Mapping[Axis, tuple[int, ...]]
    rounds: int


EXTENTS: Mapping[Budget, Extent] = {
    "quick": Extent(32, 2, 2, 64, {
        "seq_len": (32, 64, 128, 256), "n_layers": (1, 2, 4), "d_model": (16, 32, 64)}, 8),
    "laptop": Extent(128, 4, 4, 256, {
        "seq_len": (64, 128, 256, 512, 1024, 2048), "n_layers": (1, 2, 4, 8, 16),
        "d_model": (32, 64, 128, 256, 512)}, 12),
    "full": Extent(768, 12, 12, 1024, {
        "seq_len": (256, 512, 1024, 2048, 4096, 8192), "n_layers": (3, 6, 12, 24),
        "d_model": (192, 384, 768, 1536)}, 12),
}  # fmt: skip
_MEMORY_LENGTHS = (128, 256, 512, 1024)


class Tasks(NamedTuple):
    """What is asked for at a budget."""

    flops: dict[Axis, CountedFlops]
    memory: dict[Axis, CountedMemory]
    seconds: dict[Axis, PassSeconds]
    crossover: Crossover
    attention: AttentionMemory


def model_of(extent: Extent) -> ModelConfig:
    """Return a GPT-2 without biases over 65 characters, at the middle of the grid."""
    fields = {
        "vocab_size": 65,
        "d_model": extent.d_model,
        "n_layers": extent.n_layers,
        "mixer.n_heads": extent.n_heads,
        "max_seq_len": max(extent.sizes["seq_len"]),
    }
    return override(nanogpt_char(), fields)


def named(budget: Budget) -> Tasks:
    """Return the tasks by what they are for."""
    extent = EXTENTS[budget]
    model = model_of(extent)
    grids = {
        axis: Grid(model=model, seq_len=extent.seq_len, along=axis, sizes=sizes)
        for axis, sizes in extent.sizes.items()
    }
    seconds = {
        axis: PassSeconds(
            grid=grid, passes=_ALL if axis == "seq_len" else _SHORT, rounds=extent.rounds
        )
        for axis, grid in grids.items()
    }
    return Tasks(
        flops={axis: CountedFlops(grid=grid) for axis, grid in grids.items()},
        memory={axis: CountedMemory(grid=grid) for axis, grid in grids.items()},
        seconds=seconds,
        crossover=Crossover(model=model, d_models=extent.sizes["d_model"]),
        attention=AttentionMemory(heads=4, d_head=32, seq_lens=_MEMORY_LENGTHS),
    )
