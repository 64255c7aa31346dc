"""What is asked of attention by hand and of the kernels: numbers, bytes, times over lengths."""

from collections.abc import Mapping
from typing import NamedTuple

from assay.experiments.claim import Budget
from assay.experiments.tasks.kernels import (
    AttentionMemory,
    AttentionSeconds,
    KernelErrors,
    ModelEquality,
)
from assay.presets import llama_like, nanogpt_char
from assay.schema import override

_HEADS, _D_HEAD = 4, 32


class Extent(NamedTuple):
    """How much a budget buys."""

    seq_lens: tuple[int, ...]
    rounds: int
    seeds: int


_EXTENTS: Mapping[Budget, Extent] = {
    "quick": Extent((64, 128, 256), 8, 3),
    "laptop": Extent((128, 256, 512, 1024, 2048), 12, 10),
    "full": Extent((512, 1024, 2048, 4096, 8192), 12, 10),
}
_MODELS = (
    override(nanogpt_char(), {"vocab_size": 65, "d_model": 64, "max_seq_len": 300}),
    llama_like(vocab_size=65, d_model=64, n_layers=2, n_heads=4, n_kv_heads=2),
)


class Tasks(NamedTuple):
    """What is asked for at a budget."""

    equal: list[ModelEquality]
    errors: list[KernelErrors]
    memory: AttentionMemory
    seconds: AttentionSeconds


def named(budget: Budget) -> Tasks:
    """Return the tasks by what they are for."""
    lengths, rounds, n_seeds = _EXTENTS[budget]
    h, k = _HEADS, _D_HEAD
    return Tasks(
        equal=[ModelEquality(model=model, seq_len=300, seed=0) for model in _MODELS],
        errors=[KernelErrors(heads=h, d_head=k, seq_len=256, seed=seed) for seed in range(n_seeds)],
        memory=AttentionMemory(heads=h, d_head=k, seq_lens=lengths[:4]),
        seconds=AttentionSeconds(heads=h, d_head=k, seq_lens=lengths, rounds=rounds),
    )
