"""What is counted for the claim on complexity: FLOPs, caches, bytes kept for a backward pass."""

import numpy as np

from assay.count import count
from assay.experiments.claim import Number
from assay.experiments.claims.cost_grid import Tasks
from assay.experiments.evidence import Evidence
from assay.experiments.tasks.cost import Axis, Pass, pass_flops
from assay.measure.cost import exact_slope, quadratic_term
from assay.presets import gpt2


def counted(asked: Tasks, what: Pass, axis: Axis) -> float:
    """Return the exponent of the counted FLOPs over the points of an axis."""
    grid = asked.seconds[axis].grid
    flops = [pass_flops(what, count(model, seq_len=n)) for model, n in grid.points()]
    return exact_slope(grid.sizes, flops)


def exact_counts(evidence: Evidence, asked: Tasks) -> list[bool]:
    """Return of each point whether PyTorch counts 24 L T d² + 4 L T² d + 2 T d V."""
    exact = []
    for task in asked.flops.values():
        found = evidence[task].values
        for place, (model, n_tokens) in enumerate(task.grid.points()):
            d, pairs = model.d_model, 4 * model.n_layers * n_tokens**2 * model.d_model
            rest = 24 * model.n_layers * n_tokens * d**2 + 2 * n_tokens * d * model.vocab
            exact.append((found["attention"][place], found["matrices"][place]) == (pairs, rest))
    return exact


def exact_caches(evidence: Evidence, asked: Tasks) -> list[bool]:
    """Return of each point whether a full cache holds 2 L T d float32 numbers."""
    return [
        held == 4 * 2 * model.n_layers * n_tokens * model.d_model
        for task in asked.memory.values()
        for held, (model, n_tokens) in zip(
            evidence[task].values["cache"], task.grid.points(), strict=True
        )
    ]


def bend(evidence: Evidence, asked: Tasks) -> float:
    """Return the largest quadratic term, along T, L or d, in what a fused model keeps."""
    return max(
        quadratic_term(task.grid.sizes, evidence[task].values["saved"])
        for task in asked.memory.values()
    )


def pairs_kept(evidence: Evidence, asked: Tasks) -> float:
    """Return the bytes that attention as the article calls it keeps for each pair and head."""
    task = asked.attention
    return quadratic_term(task.seq_lens, evidence[task].values["as-called"]["saved"]) / task.heads


def times_more(evidence: Evidence, asked: Tasks) -> float:
    """Return how many times more attention as called keeps than fused, at the longest."""
    found = evidence[asked.attention].values
    return float(found["as-called"]["saved"][-1] / found["fused"]["saved"][-1])


def bytes_per_number(evidence: Evidence, asked: Tasks) -> Number:
    """Return what one layer more keeps for each token and channel."""
    task = asked.memory["n_layers"]
    saved, sizes, grid = evidence[task].values["saved"], task.grid.sizes, task.grid
    per_layer = (saved[-1] - saved[0]) / (sizes[-1] - sizes[0])
    per_number = per_layer / (grid.seq_len * grid.model.d_model)
    return Number("bytes_per_number", per_number, unit="bytes", of=(task,))


def step_is_straight(evidence: Evidence, asked: Tasks) -> bool:
    """Return whether a token with a cache costs a + b·T FLOPs, as the closed form says."""
    task = asked.flops["seq_len"]
    found = evidence[task].values
    exact = bool(found["step"] == found["closed_step"])
    return exact and quadratic_term(task.grid.sizes, found["step"]) == 0


def counts_of(evidence: Evidence, asked: Tasks) -> tuple[Number, ...]:
    """Return what may be quoted of it."""
    exact, caches = exact_counts(evidence, asked), exact_caches(evidence, asked)
    crossing = evidence[asked.crossover].values["at"][-1] or np.nan
    width = asked.crossover.d_models[-1]
    memory, attention, crossover = tuple(asked.memory.values()), (asked.attention,), asked.crossover
    return (
        Number("points", len(exact)),
        Number("points_exact", sum(exact), of=tuple(asked.flops.values())),
        Number("cache_exact", sum(caches), of=memory),
        Number("bend", bend(evidence, asked), unit="bytes", of=memory),
        Number("gpt2_share", count(gpt2(), seq_len=1024).score_share),
        Number("crossing", crossing, of=(crossover,)),
        Number("crossing_d", width),
        Number("crossing_ratio", crossing / width, of=(crossover,)),
        Number("flops_in_d", counted(asked, "forward", "d_model")),
        bytes_per_number(evidence, asked),
        Number("pairs_kept", pairs_kept(evidence, asked), unit="bytes", of=attention),
        Number("times_more", times_more(evidence, asked), of=attention),
    )
