"""Attention by hand against the fused kernel: the same numbers, faster, in less memory?"""

from collections.abc import Sequence
from dataclasses import replace

from assay.citation import Citation
from assay.experiments.claim import Budget, Claim, Judgement, Number, Part
from assay.experiments.claims.clock import ratio
from assay.experiments.claims.kernel_grid import Tasks, named
from assay.experiments.claims.kernel_pictures import seconds_figure, seconds_table
from assay.experiments.claims.verdicts import above, below, of_answers, whole
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task
from assay.experiments.tasks.kernels import WAYS, AttentionMemory
from assay.measure.cost import quadratic_term

_EXACT = 1e-10  # float64 rounds at 1e-16; sums of a few hundred terms lose four digits at most


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
            replace(gains[0], id="gain_short"),
            replace(gains[-1], id="gain_long"),
            Number("faster", sum(above(gain, 1.0) is True for gain in gains), of=(asked.seconds,)),
            Number("lengths", len(gains)),
        ),
        tables=(seconds_table(evidence, asked.seconds, gains),),
        figures=(seconds_figure(evidence, asked.seconds),),
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


CLAIM = Claim(
    id="attention-kernels",
    section="beyond",
    tasks=tasks,
    judge=judge,
    sources=(
        Citation("Vaswani et al. 2017", "arXiv:1706.03762", "eq. 1"),
        Citation("Dao et al. 2022", "arXiv:2205.14135", "sec. 3"),
    ),
)
