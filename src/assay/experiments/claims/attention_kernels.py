"""Attention by hand against the fused kernel: the same numbers, faster, in less memory?"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from assay.experiments.claim import Budget, Claim, Figure, Judgement, Number, Part, Table
from assay.experiments.claims.clock import bands, ratio
from assay.experiments.claims.verdicts import above, below, of_answers, whole
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task
from assay.experiments.tasks.kernels import (
    WAYS,
    AttentionMemory,
    AttentionSeconds,
    KernelErrors,
    ModelEquality,
)
from assay.measure.cost import quadratic_term
from assay.presets import llama_like, nanogpt_char
from assay.schema import override
from assay.source import Source

_EXACT = 1e-10  # float64 rounds at 1e-16; sums of a few hundred terms lose four digits at most
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


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Ask for numbers, bytes and times."""
    asked = named(budget)
    return [*asked.equal, *asked.errors, asked.memory, asked.seconds]


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Judge rounding by its size, memory by its bend, time by the ratio at each length."""
    asked = named(budget)
    farthest = max(
        evidence[task].value(kernel) for task in asked.equal for kernel in ("fused", "blocks")
    )
    worse = Number.mean("rounding", _rounding(evidence, asked), of=asked.errors)
    gains = _gains(evidence, asked)
    kept = {way: _pairs_kept(evidence, asked.memory, way) for way in WAYS}
    parts = (
        Part("equal", "confirmed" if farthest < _EXACT else "refuted"),
        Part("rounding", of_answers([below(worse, 2.0)])),
        Part("memory", "confirmed" if kept["fused"] == 0 < kept["by-hand"] else "refuted"),
        Part("time", of_answers([above(gain, 1.0) for gain in gains])),
    )
    return Judgement(
        whole([part.verdict for part in parts]),
        parts,
        numbers=(
            Number("farthest", farthest, of=tuple(asked.equal)),
            worse,
            *(
                Number(f"kept_{way.replace('-', '_')}", kept[way], unit="bytes", of=(asked.memory,))
                for way in WAYS
            ),
            Number("shortest", asked.seconds.seq_lens[0]),
            Number("longest", asked.seconds.seq_lens[-1]),
            _renamed(gains[0], "gain_short"),
            _renamed(gains[-1], "gain_long"),
            Number("faster", sum(above(gain, 1.0) is True for gain in gains), of=(asked.seconds,)),
            Number("lengths", len(gains)),
        ),
        tables=(_table(evidence, asked, gains),),
        figures=(_figure(evidence, asked),),
    )


def _rounding(evidence: Evidence, asked: Tasks) -> list[float]:
    """Return the fused kernel's float32 error over that of attention by hand, seed by seed."""
    pairs = [(evidence[task].value("fused"), evidence[task].value("by-hand")) for task in asked[1]]
    return [fused / by_hand for fused, by_hand in pairs]


def _gains(evidence: Evidence, asked: Tasks) -> list[Number]:
    task = asked.seconds
    return [
        ratio(f"gain_{n}", evidence, task, ("by-hand", "fused"), place=place,
              family=len(task.seq_lens))
        for place, n in enumerate(task.seq_lens)
    ]  # fmt: skip


def _pairs_kept(evidence: Evidence, task: AttentionMemory, way: str) -> float:
    """Return the bytes kept for each pair of tokens and head: what bends the line over T."""
    saved = evidence[task].values[way]["saved"]
    return quadratic_term(task.seq_lens, saved) / task.heads


def _renamed(number: Number, name: str) -> Number:
    return Number(name, number.value, number.low, number.high, number.level, of=number.of)


def _table(evidence: Evidence, asked: Tasks, gains: Sequence[Number]) -> Table:
    found, task = evidence[asked.seconds].values, asked.seconds
    rows: list[tuple[str | Number, ...]] = []
    for place, (n, gain) in enumerate(zip(task.seq_lens, gains, strict=True)):
        medians = {way: 1e3 * float(np.median(found[way], axis=0)[place]) for way in WAYS}
        numbers = [
            Number(f"ms_{way}_{n}", ms, unit="ms", of=(task,)) for way, ms in medians.items()
        ]
        rows.append((str(n), *numbers, gain))
    columns = ("tokens", "by_hand", "fused", "blocks", "gain")
    return Table("seconds", columns, tuple(rows), dict.fromkeys(columns[1:], ".2f"))


def _figure(evidence: Evidence, asked: Tasks) -> Figure:
    rows = bands(asked.seconds.seq_lens, evidence[asked.seconds].values)
    return Figure("seconds", "lines", rows, "size", "ms", "what", low="low", high="high", log="x y")


CLAIM = Claim(
    id="attention-kernels",
    section="beyond",
    tasks=tasks,
    judge=judge,
    sources=(
        Source("Vaswani et al. 2017", "arXiv:1706.03762", "eq. 1"),
        Source("Dao et al. 2022", "arXiv:2205.14135", "sec. 3"),
    ),
)
