"""Claims on cost, kernels, repetition and limits: each verdict out of planted evidence."""

import json

import numpy as np
import pytest
from planted import record, verdicts

from assay.count import count
from assay.experiments.charts import draw
from assay.experiments.claims import (
    attention_kernels,
    complexity,
    cost_grid,
    kernel_grid,
    overfitting_scale,
    reproducibility,
)
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import read_task
from assay.experiments.tasks.cost import Grid, pass_flops
from assay.experiments.words import LANGUAGES, words_of

MODULES = (complexity, attention_kernels, reproducibility, overfitting_scale)
BUDGET = "quick"


def with_noise(costs, rounds=8, spread=0.02, seed=0):
    rng = np.random.default_rng([seed, len(costs)])
    return (np.array(costs) * np.exp(spread * rng.normal(size=(rounds, len(costs))))).tolist()


# Complexity --------------------------------------------------------------------------------------


def cost_evidence(*, power=1.0, flops_off=0, saved=lambda x: 100 + 7 * x, gain=20.0, spread=0.02):
    """Counts as the closed forms have them, and times that are a power of those counts."""
    asked, records = cost_grid.named(BUDGET), []
    for task in asked.flops.values():
        closed = [count(model, seq_len=n) for model, n in task.grid.points()]
        values = {
            "attention": [c.score_flops for c in closed],
            "matrices": [c.forward_flops - c.score_flops + flops_off for c in closed],
            "step": [c.decode_flops for c in closed],
            "closed_step": [c.decode_flops for c in closed],
        }
        records.append(record(task, values))
    for task in asked.memory.values():
        cache = [2 * 4 * m.n_layers * n * m.d_model for m, n in task.grid.points()]
        records.append(record(task, {"saved": list(map(saved, task.grid.sizes)), "cache": cache}))
    for place, task in enumerate(asked.seconds.values()):
        values = {
            what: with_noise(
                [
                    pass_flops(what, count(model, seq_len=n)) ** power
                    * (1 / gain if what == "cached" else 1)
                    for model, n in task.grid.points()
                ],
                seed=place,
                spread=spread,
            )
            for what in task.passes
        }
        records.append(record(task, values))
    at = [6 * width for width in asked.crossover.d_models]
    records.append(record(asked.crossover, {"at": at}))
    lengths = asked.attention.seq_lens
    kept = {
        "as-called": [8 * 4 * n**2 for n in lengths],
        "fused": [50 * n for n in lengths],
        "by-hand": [9 * 4 * n**2 for n in lengths],
        "without-weights": [60 * n for n in lengths],
    }
    return Evidence([*records, record(asked.attention, {n: {"saved": s} for n, s in kept.items()})])


def test_costs_as_the_closed_forms_have_them_hold_beyond_the_crossing():
    found = complexity.judge(BUDGET, cost_evidence())
    assert found.verdict == "holds only when"
    assert verdicts(found) == {
        "count": "confirmed",
        "order": "holds only when",
        "memory": "confirmed",
        "as_called": "refuted",
        "cache": "confirmed",
        "decode": "confirmed",
        "time": "confirmed",
    }
    numbers = {number.id: number.value for number in found.numbers}
    assert numbers["points"] == numbers["points_exact"] == 10
    assert numbers["crossing_ratio"] == 6
    assert numbers["pairs_kept"] == 8
    assert numbers["gpt2_share"] == pytest.approx(1024 / (6 * 768 + 1024))


def test_one_flop_too_many_refutes_the_count():
    found = complexity.judge(BUDGET, cost_evidence(flops_off=1))
    assert verdicts(found)["count"] == "refuted"


def test_memory_that_bends_is_not_linear():
    found = complexity.judge(BUDGET, cost_evidence(saved=lambda x: 7 * x + x * x / 1024))
    assert verdicts(found)["memory"] == "refuted"


def test_times_that_grow_more_slowly_than_their_counts_are_told_so():
    assert verdicts(complexity.judge(BUDGET, cost_evidence(power=0.5)))["time"] == "refuted"


def test_times_too_noisy_to_tell_are_not_resolved():
    noisy = cost_evidence(spread=0.6)
    assert verdicts(complexity.judge(BUDGET, noisy))["time"] == "not resolved"


def test_a_cache_that_makes_decoding_slower_is_told_so():
    assert verdicts(complexity.judge(BUDGET, cost_evidence(gain=1e-3)))["decode"] == "refuted"


def test_a_grid_varies_one_size_alone():
    model = cost_grid.model_of(cost_grid.EXTENTS[BUDGET])
    for axis, sizes in (("n_layers", (1, 3)), ("d_model", (16, 32))):
        points = Grid(model=model, seq_len=64, along=axis, sizes=sizes).points()
        assert [getattr(m, axis) for m, _ in points] == list(sizes)
        assert {m.model_copy(update={axis: 0}) for m, _ in points} == {
            model.model_copy(update={axis: 0})
        }
        assert {n for _, n in points} == {64}
    assert Grid(model=model, seq_len=64, along="seq_len", sizes=(8, 9)).points() == [
        (model, 8),
        (model, 9),
    ]


# Kernels -----------------------------------------------------------------------------------------


def kernel_evidence(*, apart=1e-15, rounding=1.0, gains=(3.0, 3.0, 3.0), pairs=0.0, spread=0.02):
    asked = kernel_grid.named(BUDGET)
    equal = [record(task, {"fused": apart, "blocks": 1e-16}) for task in asked.equal]
    errors = [
        record(task, {"fused": 1e-7 * rounding * (1 + 0.01 * seed), "by-hand": 1e-7})
        for seed, task in enumerate(asked.errors)
    ]
    lengths = asked.memory.seq_lens
    kept = {
        "by-hand": [8 * 4 * n**2 for n in lengths],
        "fused": [9 * n + pairs * n**2 for n in lengths],
        "blocks": [9 * n for n in lengths],
    }
    memory = record(asked.memory, {way: {"saved": saved} for way, saved in kept.items()})
    seconds = {
        "by-hand": with_noise(gains, spread=spread),
        "fused": with_noise([1.0] * 3, spread=spread, seed=1),
        "blocks": with_noise([1.0] * 3, seed=2),
    }
    return Evidence([*equal, *errors, memory, record(asked.seconds, seconds)])


@pytest.mark.parametrize(
    ("planted", "part", "verdict"),
    [
        ({}, "equal", "confirmed"),
        ({"apart": 1e-9}, "equal", "refuted"),
        ({}, "rounding", "confirmed"),
        ({"rounding": 5.0}, "rounding", "refuted"),
        ({"rounding": 1.98}, "rounding", "not resolved"),
        ({}, "memory", "confirmed"),
        ({"pairs": 1.0}, "memory", "refuted"),
        ({}, "time", "confirmed"),
        ({"gains": (0.3, 0.3, 0.3)}, "time", "refuted"),
        ({"gains": (0.3, 3.0, 3.0)}, "time", "holds only when"),
        ({"gains": (1.0, 1.0, 1.0)}, "time", "not resolved"),
        ({"spread": 3.0}, "time", "not resolved"),
    ],
)
def test_each_part_on_kernels_says_what_was_planted(planted, part, verdict):
    found = attention_kernels.judge(BUDGET, kernel_evidence(**planted))
    assert verdicts(found)[part] == verdict
    if not planted:
        assert found.verdict == "confirmed"


# Reproducibility ---------------------------------------------------------------------------------


def repeat_evidence(*, apart=("threads",), disturbed_same=False, weights_same=False):
    """Repetitions that all give the same bits, but for those named and for another seed."""
    records = []
    for task in reproducibility.tasks(BUDGET, Evidence()):
        if task.kind == "repeat-plain":
            same = disturbed_same or task.draws_between == 0
        else:
            kept = {"seed": "seed" in apart, "resumed-weights-only": not weights_same}
            in_grains = task.run.train.exact_rows is not None
            name = "exact" if in_grains else task.change
            same = not kept.get(name, name in apart)
            if name == "seed":
                same = not same
        values = {"sha256": ["a" * 64, ("a" if same else "b") * 64], "same": same}
        if task.kind == "repeat":
            values |= {"first_step_apart": None if same else 3, "loss_apart": 0.0 if same else 0.1}
        records.append(record(task, values))
    return Evidence(records)


@pytest.mark.parametrize(
    ("planted", "part", "verdict"),
    [
        ({}, "again", "confirmed"),
        ({"apart": ("process",)}, "again", "refuted"),
        ({"apart": ("seed",)}, "again", "refuted"),  # a hash that never changes proves nothing
        ({}, "two_lines", "holds only when"),
        ({"disturbed_same": True}, "two_lines", "confirmed"),
        ({}, "execution", "refuted"),
        ({"apart": ()}, "execution", "confirmed"),
        ({}, "checkpoint", "holds only when"),
        ({"weights_same": True}, "checkpoint", "confirmed"),
        ({"apart": ("resumed",)}, "checkpoint", "refuted"),
        ({}, "exact", "confirmed"),
        ({"apart": ("exact",)}, "exact", "refuted"),
    ],
)
def test_each_part_on_repetition_says_what_was_planted(planted, part, verdict):
    found = reproducibility.judge(BUDGET, repeat_evidence(**planted))
    assert verdicts(found)[part] == verdict


# Limits ------------------------------------------------------------------------------------------


def limits_evidence(one=0.3, none=0.6, noise=0.01):
    rng = np.random.default_rng(0)
    worse = {"base": 0.0, "model.n_layers=1": one, "model.mixer=none": none}
    arms = overfitting_scale.named(BUDGET)
    records = [
        record(task, {"val_loss_nats": 3.0 + worse[arm] + noise * rng.normal()})
        for arm, tasks in arms.items()
        for task in tasks
    ]
    size = overfitting_scale.tasks(BUDGET, Evidence())[-1]
    return Evidence([*records, record(size, {"bytes": 10**6, "tokens": 10**6, "vocab": 65})])


@pytest.mark.parametrize(
    ("planted", "verdict"),
    [
        ({}, "confirmed"),
        ({"one": -0.3, "none": -0.3}, "refuted"),
        ({"one": -0.3}, "holds only when"),
        ({"noise": 3.0}, "not resolved"),
    ],
)
def test_what_layers_of_attention_are_worth_is_judged_by_seeds(planted, verdict):
    found = overfitting_scale.judge(BUDGET, limits_evidence(**planted))
    assert verdicts(found)["attention"] == verdict
    assert found.verdict == "not testable here"


# All ---------------------------------------------------------------------------------------------


SOUND = {
    complexity: cost_evidence,
    attention_kernels: kernel_evidence,
    reproducibility: repeat_evidence,
    overfitting_scale: limits_evidence,
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.CLAIM.id)
def test_every_part_table_and_figure_has_its_words(module, language):
    found, words = module.judge(BUDGET, SOUND[module]()), words_of(module.CLAIM.id, language)
    numbers = {number.id: number for number in found.numbers}
    assert len(numbers) == len(found.numbers)
    assert {part.id for part in found.parts} == set(words.parts)
    for part in found.parts:
        assert "{" not in words.parts[part.id].format(**numbers)
    assert {table.id for table in found.tables} == set(words.tables)
    for table in found.tables:
        assert set(table.columns) == set(words.tables[table.id].columns)
        assert {len(row) for row in table.rows} == {len(table.columns)}
    assert {figure.id for figure in found.figures} == set(words.figures)
    for figure in found.figures:
        assert json.dumps(draw(figure, words.figures[figure.id]), allow_nan=False)


@pytest.mark.parametrize("budget", ["quick", "laptop"])
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.CLAIM.id)
def test_every_task_comes_back_from_the_table_of_jobs(module, budget):
    asked = module.tasks(budget, Evidence())
    assert len(set(asked)) == len(asked)
    for task in asked:
        assert read_task(task.model_dump_json()) == task
