import math

import numpy as np
import pytest
from planted import record, verdicts

from assay.experiments.claim import Number
from assay.experiments.claims import adaptive_temperature, temperature, untrained_text
from assay.experiments.claims.changes import against_zero
from assay.experiments.claims.samplers import by_sampler, frontier
from assay.experiments.claims.sweep import Sweep
from assay.experiments.claims.temperature_grid import grid
from assay.experiments.claims.untrained_arms import by_arm
from assay.experiments.claims.writers import judge, writer
from assay.experiments.evidence import Evidence
from assay.experiments.words import LANGUAGES, words_of

CLAIMS = (temperature.CLAIM, untrained_text.CLAIM, adaptive_temperature.CLAIM)
PEOPLE = {"judge_bits": 2.0, "ngram_bits": 2.2, "distinct_4": 0.8, "loop_rate": 0.0}


def noise(seed, place):
    """Small, different for each seed and place."""
    return 0.003 * float(np.random.default_rng([seed, place]).normal())


def planted(budget="laptop", **curves):
    """Texts whose figures follow curves over the temperature, with a little noise."""
    curves = SOUND | curves
    records = []
    for seed, task in enumerate(temperature.tasks(budget, Evidence())):
        values = {"human": PEOPLE}
        for place, t in enumerate(grid(budget)):
            values[f"s{place}"] = {
                name: curve(t) + noise(seed, place) for name, curve in curves.items()
            }
        records.append(record(task, values))
    return Evidence(records)


SOUND = {
    "distinct_4": lambda t: 0.3 * t,
    "judge_bits": lambda t: 2 + t,
    "ngram_bits": lambda t: 3 + t,
    "loop_rate": lambda t: 0.5,
}


def test_the_article_is_confirmed_where_everything_is_as_it_says():
    found = temperature.judge("laptop", planted())
    assert found.verdict == "confirmed"
    parts = verdicts(found)
    assert parts.pop("cold") == "refuted"
    assert parts.pop("loops") == "not resolved"
    assert set(parts.values()) == {"confirmed"}


def test_a_cold_end_that_costs_more_bits_limits_it():
    curve = {name: (lambda t: 3 + abs(t - 0.3)) for name in ("judge_bits", "ngram_bits")}
    found = temperature.judge("laptop", planted(**curve))
    assert found.verdict == "holds only when"
    assert verdicts(found)["cold"] == "confirmed"
    numbers = {number.id: number for number in found.numbers}
    assert numbers["best_judge_bits"].value == pytest.approx(0.3)


def test_loops_alone_limit_it():
    found = temperature.judge("laptop", planted(loop_rate=lambda t: max(0.0, 0.6 - t)))
    assert found.verdict == "holds only when"
    assert verdicts(found)["loops"] == "confirmed"
    assert verdicts(found)["cold"] == "refuted"
    numbers = {number.id: number for number in found.numbers}
    assert numbers["loops_under"].value == pytest.approx(0.5, abs=0.01)  # of 0.6 - t, 10 %


def test_one_judge_that_sees_it_the_other_way_refutes_the_cells_it_touches():
    found = temperature.judge("laptop", planted(ngram_bits=lambda t: 6 - t))
    assert found.verdict == "refuted"
    parts = verdicts(found)
    assert {parts[f"coherence_{place}"] for place in ("low", "middle", "high")} == {"refuted"}
    assert parts["diversity_middle"] == "confirmed"


def test_a_bend_between_two_rows_touches_its_own_cells_only():
    found = temperature.judge("laptop", planted(distinct_4=lambda t: 0.3 * min(t, 2 - t)))
    parts = verdicts(found)
    assert parts["diversity_low"] == "confirmed"
    assert parts["diversity_middle"] == parts["diversity_high"] == "refuted"
    assert parts["monotone"] == "refuted"


def test_a_step_within_the_noise_is_not_resolved():
    found = temperature.judge("laptop", planted(distinct_4=lambda t: 0.5))
    assert found.verdict == "not resolved"
    assert verdicts(found)["diversity_low"] == "not resolved"


def test_the_best_is_chosen_by_the_other_seeds():
    """Pure noise: chosen by its own seed, the best would be lower every time."""
    settings = tuple(np.linspace(0.1, 2, 10).tolist())
    rng, found = np.random.default_rng(0), []
    tasks = temperature.tasks("laptop", Evidence())
    for _ in range(200):
        records = [
            record(task, {f"s{i}": {"bits": float(rng.normal())} for i in range(10)})
            for task in tasks
        ]
        found += Sweep.of(settings, tasks, Evidence(records)).first_over_best("bits")
    assert abs(np.mean(found)) < 4 * math.sqrt(2 / len(found))


def test_where_a_curve_goes_under_a_bound_by_hand():
    tasks = temperature.tasks("quick", Evidence())
    rows = [(0.5, 0.3, 0.1), (0.1, 0.5, 0.1), (0.5, 0.4, 0.3)]
    records = [
        record(task, {f"s{i}": {"loops": value} for i, value in enumerate(row)})
        for task, row in zip(tasks, rows, strict=True)
    ]
    found = Sweep.of((1.0, 2.0, 4.0), tasks, Evidence(records)).falls_under("loops", 0.2)
    assert found[:2] == pytest.approx([3.0, 1.0])
    assert math.isnan(found[2])


def test_a_writer_that_ran_away_leaves_the_others_their_say():
    evidence = planted()
    first, *_ = temperature.tasks("laptop", evidence)
    lost = evidence | Evidence([record(first, None)])
    assert temperature.judge("laptop", lost).verdict == "confirmed"


def stretches(**arms):
    """Excess of information by stretch for each arm; others have none."""
    records = []
    for arm, tasks in by_arm("laptop").items():
        for seed, task in enumerate(tasks):
            curve = arms.get(arm, (0, 0, 0, 0))
            values = {
                f"stretch_{place}": {
                    "information_excess_nats": value + noise(seed, place),
                    "repetition": {"found": 0.01},
                }
                for place, value in enumerate(curve)
            }
            records.append(record(task, values))
    return Evidence(records)


ARMS = ("gpt2", "gpt2_untied", "torch_untied", "torch_tied", "torch_scaled")


def test_noise_from_the_start_and_structure_that_stays_both_refute_the_untrained_text():
    found = untrained_text.judge("laptop", stretches(torch_tied=(3, 3, 3, 3), trained=(1, 1, 1, 1)))
    assert found.verdict == "refuted"
    assert set(verdicts(found).values()) == {"refuted", "confirmed"}  # the latter: trained


def test_structure_that_decays_confirms_it():
    decaying = dict.fromkeys(ARMS, (1, 0.5, 0.2, 0))
    assert untrained_text.judge("laptop", stretches(**decaying)).verdict == "confirmed"
    found = untrained_text.judge("laptop", stretches(gpt2=(1, 0.5, 0.2, 0)))
    assert found.verdict == "holds only when"
    assert verdicts(found)["gpt2"] == "confirmed"
    assert verdicts(found)["gpt2_untied"] == "refuted"


def frontier_evidence(gains, *, people=2.0):
    """Every sampler's settings on one curve, whose quality is raised by a gain."""
    records = []
    for name, tasks in by_sampler("laptop").items():
        for seed, task in enumerate(tasks):
            bits = [3 + 0.4 * place - gains.get(name, 0) for place in range(5)]
            values = {
                "random_bits": 6.4,
                "human": {"judge_bits": people, "ngram_bits": people, "distinct_4": 0.8},
            } | {
                f"s{place}": {
                    "judge_bits": found + noise(seed, place),
                    "ngram_bits": found + noise(seed + 9, place),
                    "distinct_4": 0.1 + 0.15 * place,
                }
                for place, found in enumerate(bits)
            }
            records.append(record(task, values))
    return Evidence(records)


def test_a_sampler_is_better_worse_or_equivalent():
    gains = {"entropy": 0.5, "edt": -0.5}
    found = adaptive_temperature.judge("laptop", frontier_evidence(gains))
    parts = verdicts(found)
    assert (parts["entropy"], parts["edt"], parts["dynatemp"]) == (
        "confirmed",
        "refuted",
        "equivalent",
    )
    assert found.verdict == "holds only when"
    everywhere = dict.fromkeys(("entropy", "edt", "dynatemp"), 0.5)
    assert adaptive_temperature.judge("laptop", frontier_evidence(everywhere)).verdict == (
        "confirmed"
    )
    assert adaptive_temperature.judge("laptop", frontier_evidence({})).verdict == "equivalent"


def test_judges_that_cannot_tell_samplers_apart_resolve_nothing():
    found = adaptive_temperature.judge("laptop", frontier_evidence({}, people=6.3))
    assert found.verdict == "not resolved"
    assert set(verdicts(found).values()) == {"not resolved"}


def test_the_frontier_by_hand():
    task = by_sampler("laptop")["fixed"][0]
    values = {
        "random_bits": 6.0,
        "human": {"judge_bits": 2.0, "distinct_4": 0.8},
        "s0": {"judge_bits": 4.0, "distinct_4": 0.4},
        "s1": {"judge_bits": 1.0, "distinct_4": 0.9},
    }
    points = frontier(record(task, values), "judge_bits", 2)
    assert points == [(0.5, 0.5), (1, 1)]


@pytest.mark.parametrize("budget", ["quick", "laptop", "full"])
def test_every_sampler_has_as_many_settings_and_no_writer_is_its_judge(budget):
    sizes = {len(found[0].samplings) for found in by_sampler(budget).values()}
    assert len(sizes) == 1
    wrote, judged = writer(budget, 0), judge(budget)
    assert not set(wrote.data.text) & set(judged.data.text)
    assert wrote.model.position != judged.model.position
    assert wrote.train.seed != judged.train.seed
    assert judged.model.d_model > wrote.model.d_model


def test_zeros_are_the_first_arm():
    found = against_zero({"up": [1.0, 1.1, 0.9], "none": [0.1, -0.1, 0.0]})
    assert found["up"].word == "higher"
    assert found["up"].mean == pytest.approx(1)
    assert found["none"].word == "not resolved"


EVIDENCE = {
    "temperature": planted,
    "untrained-text": stretches,
    "adaptive-temperature": lambda: frontier_evidence({}),
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_every_number_that_the_words_quote_is_there(claim, language):
    words, found = words_of(claim.id, language), claim.judge("laptop", EVIDENCE[claim.id]())
    numbers = {number.id: number for number in found.numbers}
    assert set(words.parts) == {part.id for part in found.parts}
    for sentence in words.parts.values():
        assert "{" not in sentence.format(**numbers)
    assert "{" not in words.protocol.format(**numbers)
    assert "{" not in words.discussion.format(**numbers)
    for table in found.tables:
        assert set(words.tables[table.id].columns) == set(table.columns)
        assert all(len(row) == len(table.columns) for row in table.rows)
        assert all(isinstance(cell, str | Number) for row in table.rows for cell in row)
    for figure in found.figures:
        told = {row[figure.series] for row in figure.rows}
        assert told == set(words.figures[figure.id].names)
