"""Claims about what is inside a model, judged on evidence that was made up for them."""

import math

import pytest
from planted import judged, noise, planted, verdicts

from assay.experiments.claim import Number
from assay.experiments.claims import (
    layernorm_stability,
    pre_post,
    qkv,
    rmsnorm,
    sigma_eps,
    softmax_shape,
    weights,
)
from assay.experiments.claims.rates import GRIDS, VOCAB, Cell
from assay.experiments.claims.softmax_pictures import FIELDS
from assay.experiments.claims.verdicts import all_of, of_answers, of_words, whole
from assay.experiments.evidence import Evidence
from assay.experiments.tasks.inside import LoseQKV
from assay.experiments.words import LANGUAGES, words_of

MODULES = (layernorm_stability, pre_post, qkv, rmsnorm, sigma_eps, softmax_shape, weights)


def loss(run, value, size=0.003):
    """What a training found: a loss with noise of its seed and config."""
    found = value + noise(run.train.seed, run.model.model_dump(), run.train.model_dump(), size=size)
    return {"val_loss_nats": found, "val_bits_per_byte": found}


# Norms over rates --------------------------------------------------------------------------------


def through(task, *, tilt):
    """A look through the depth: gradients that fall by e^tilt over the layers."""
    layers = task.model.n_layers
    return {
        "loss_nats": 4.44,
        "stream_rms": [1.0] * (layers + 1),
        "gradient_norms": [
            math.exp(-tilt * i / (layers - 1)) * (1 + noise(task.seed, i, tilt))
            for i in range(layers)
        ],
    }


def norms(losing, plain, normed, *, tilts=(3.0, 0.5), size=0.003):
    """A world: rates at which runs without a norm diverge, their loss elsewhere, all others'."""

    def world(task):
        if task.kind == "depth-at-start":
            return through(task, tilt=tilts[task.model.norm.kind != "none"])
        if task.run.model.norm.kind != "none":
            return loss(task.run, normed, size)
        return None if task.run.train.optimizer.lr in losing else loss(task.run, plain, size)

    return world


RATES = GRIDS["laptop"].rates


def test_layernorm_is_confirmed_part_by_part_where_it_does_what_is_said():
    found = judged(layernorm_stability, norms(RATES[1:], 2.6, 2.3))
    parts = verdicts(found)
    assert parts.pop("without") == "holds only when"  # one rate is left at which it trains
    assert set(parts.values()) == {"confirmed"}
    assert found.verdict == "holds only when"
    numbers = {number.id: number for number in found.numbers}
    assert numbers["fails_from_none"].value == RATES[1]
    assert numbers["failed_none"].value == numbers["diverged_none"].value == 24  # of 30
    assert numbers["first_step_none"].value == 7
    assert numbers["failed_pre"].value == 0
    (heat,) = (figure for figure in found.figures if figure.id == "heat")
    assert [row["rate"] for row in heat.rows if row["arm"] == "none"] == ["0.0003"] * 2
    assert numbers["deep_pre"].value == pytest.approx(-0.3, abs=0.02)
    assert numbers["rate_pre"].value == pytest.approx(-0.8 * (4.44 - 2.6), abs=0.02)


def test_layernorm_is_refuted_where_nothing_changes_without_it():
    found = judged(layernorm_stability, norms((), 2.3, 2.3, tilts=(0.5, 0.5)))
    assert found.verdict == "refuted"
    assert set(verdicts(found).values()) == {"refuted"}


def test_layernorm_is_not_resolved_by_noise():
    found = judged(layernorm_stability, norms((), 2.3, 2.3, tilts=(0.5, 0.5), size=0.3))
    assert verdicts(found)["deep_pre"] == "not resolved"


def test_training_that_fails_without_a_norm_at_every_rate_confirms_that_it_fails():
    parts = verdicts(judged(layernorm_stability, norms(RATES, 0, 2.3)))
    assert parts["without"] == "confirmed"
    assert parts["deep_pre"] == "confirmed"
    assert parts["rate_pre"] == "refuted"  # what learns at no rate depends on none


def test_a_run_that_ends_as_it_began_failed():
    found = judged(layernorm_stability, norms((), 4.6, 2.3))
    assert verdicts(found)["without"] == "confirmed"
    assert {n.id: n.value for n in found.numbers}["diverged_none"] == 0


def placements(cold_post, warm_post, pre=2.4):
    """A world: losses of post-norm by depth, without and with warm-up; pre-norm the same always."""

    def world(task):
        if task.kind == "depth-at-start":
            return through(task, tilt=1.0)
        model, warm = task.run.model, task.run.train.schedule.warmup_steps > 0
        if model.block.kind == "pre":
            return loss(task.run, pre)
        return loss(task.run, (warm_post if warm else cold_post)[model.n_layers])

    return world


def test_post_norm_that_needs_its_warm_up_confirms_the_claim():
    found = judged(pre_post, placements({2: 3.0, 6: 3.3}, {2: 2.5, 6: 2.5}))
    assert found.verdict == "confirmed"
    assert set(verdicts(found).values()) == {"confirmed"}
    numbers = {number.id: number.value for number in found.numbers}
    assert numbers["post_needs_deep"] == pytest.approx(-0.8, abs=0.01)
    assert numbers["better_cold_shallow"] == pytest.approx(-0.6, abs=0.01)


def test_post_norm_that_needs_it_only_where_it_is_deep_holds_only_when():
    found = judged(pre_post, placements({2: 2.5, 6: 3.3}, {2: 2.5, 6: 2.5}))
    assert found.verdict == verdicts(found)["post_needs"] == "holds only when"


def test_post_norm_that_warming_up_harms_refutes_the_claim():
    found = judged(pre_post, placements({2: 2.3, 6: 2.3}, {2: 2.5, 6: 2.5}))
    assert found.verdict == "refuted"
    assert verdicts(found)["better_cold"] == "refuted"


def test_both_claims_ask_for_the_same_runs_without_warm_up():
    cold = {task for task in pre_post.tasks("laptop", Evidence()) if task.kind == "train"
            and task.run.train.schedule.warmup_steps == 0}  # fmt: skip
    assert len(cold) == 36
    assert cold <= set(layernorm_stability.tasks("laptop", Evidence()))


def test_arms_differ_in_norm_and_placement_alone():
    cells = [Cell("laptop", arm, 2).config(1e-3, 0) for arm in GRIDS["laptop"].arms]
    rest = {c.model_copy(update={"model": c.model.model_copy(update={"norm": None, "block": None})})
            for c in cells}  # fmt: skip
    assert len(rest) == 1
    assert len(set(cells)) == 7


def test_rates_go_over_the_range_of_wortsman():
    assert RATES == (3e-4, 1.7e-3, 9.5e-3, 5.3e-2, 3e-1)


# Two norms ---------------------------------------------------------------------------------------


def two_norms(*, shift=0.0, size=0.003, finite=0.0, factor=1.0):
    """A world of the exact closed forms, and losses that differ by `shift`."""

    def world(task):
        if task.kind == "train":
            return loss(task.run, 2.4 + shift * (task.run.model.norm.kind == "sigma"), size)
        eps = task.eps
        outside = [factor * s / (s + eps) for s in task.sigmas]
        under = [s / math.sqrt(s**2 + eps) for s in task.sigmas]
        return {
            "sigma": {"scales": outside, "finite_share": finite},
            "layer": {"scales": under, "finite_share": 1.0},
        }

    return world


def test_the_place_of_epsilon_matters_under_a_boundary():
    found = judged(sigma_eps, two_norms())
    assert found.verdict == "holds only when"
    assert verdicts(found) == {
        "scale": "holds only when",
        "gradient": "refuted",
        "loss": "equivalent",
    }
    numbers = {number.id: number.value for number in found.numbers}
    assert numbers["outside"] == pytest.approx(0.990, abs=5e-4)
    assert numbers["under"] == pytest.approx(0.302, abs=5e-4)
    s, eps = numbers["boundary"], 1e-5
    assert (s / math.sqrt(s**2 + eps)) / (s / (s + eps)) == pytest.approx(0.99)


@pytest.mark.parametrize(
    ("world", "part", "verdict"),
    [
        ({"shift": 0.2}, "loss", "refuted"),
        ({"size": 0.2}, "loss", "not resolved"),
        ({"finite": 1.0}, "gradient", "confirmed"),
        ({"factor": 1.01}, "scale", "refuted"),
    ],
)
def test_each_part_on_epsilon_can_come_out_otherwise(world, part, verdict):
    assert verdicts(judged(sigma_eps, two_norms(**world)))[part] == verdict


def timed(ratio, *, shift=0.0, spread=0.02):
    """A world: RMSNorm takes `ratio` of the time, and its loss differs by `shift`."""

    def world(task):
        if task.kind == "train":
            return loss(task.run, 2.4 + shift * (task.run.model.norm.kind == "rms"))
        layer = [1.0 + noise(i, size=spread) for i in range(task.rounds)]
        rms = [ratio * (1 + noise(i, "rms", size=spread)) for i in range(task.rounds)]
        return {
            name: {"alone": each, "step": each} for name, each in (("layer", layer), ("rms", rms))
        }

    return world


@pytest.mark.parametrize(
    ("world", "verdict"),
    [
        (timed(0.8), "confirmed"),
        (timed(1.2), "refuted"),
        (timed(0.8, shift=0.2), "refuted"),
        (timed(0.99, spread=0.3), "not resolved"),
    ],
)
def test_rmsnorm_must_be_as_good_and_faster(world, verdict):
    assert judged(rmsnorm, world).verdict == verdict


def test_the_ratio_of_times_is_found_with_its_interval():
    found = {n.id: n for n in judged(rmsnorm, timed(0.8)).numbers}["ratio_step"]
    error = 0.02 * math.sqrt(2 / 30)  # of the mean over 30 rounds of a ratio of two noisy times
    assert found.value == pytest.approx(0.8, rel=4 * error)
    assert found.high - found.low == pytest.approx(0.8 * 2 * 2.05 * error, rel=0.5)


# Inside a trained model --------------------------------------------------------------------------


def lost(q, k, v):
    """A world in which losing a part raises the loss by so much in a layer, and in all."""

    def world(task: LoseQKV):
        intact = 2.4 + noise(task.noise_seed, size=0.05)

        def part(name, rise):
            layers = [intact + rise + noise(task.noise_seed, name, i) for i in range(3)]
            everywhere = intact + rise + noise(task.noise_seed, name)
            return {"layers": layers, "all": everywhere, "text": f"without {name}"}

        return {"intact": intact, "text": "whole", "q": part("q", q), "k": part("k", k),
                "v": part("v", v)}  # fmt: skip

    return world


def test_which_part_can_be_lost_is_told_part_by_part():
    found = judged(qkv, lost(0.005, 0.005, 1.0))
    assert found.verdict == "holds only when"
    assert verdicts(found) == {
        "q": "confirmed",
        "k": "confirmed",
        "v": "refuted",
        "order": "confirmed",
    }


@pytest.mark.parametrize(
    ("rise", "verdict"), [(0.005, "confirmed"), (1.0, "refuted"), (0.05, "not resolved")]
)
def test_all_parts_alike_give_one_verdict(rise, verdict):
    assert judged(qkv, lost(rise, rise, rise)).verdict == verdict


def spread(trained):
    """A world of normal weights before training, and of that kurtosis after it."""

    def world(task):
        def component(state, name):
            kurtosis = trained.get(name, 0.0) if state == "trained" else 0.0
            return [
                {
                    "std": 0.06 if state == "trained" else 0.02,
                    "excess_kurtosis": kurtosis + noise(task.run.train.seed, name, layer),
                    "normal_distance": 0.01,
                }
                for layer in range(3)
            ]

        return {
            state: {name: component(state, name) for name in weights.COMPONENTS}
            for state in ("untrained", "trained")
        }

    return world


@pytest.mark.parametrize(
    ("trained", "verdict"),
    [
        ({}, "confirmed"),
        ({"up": 2.0}, "holds only when"),
        (dict.fromkeys(weights.COMPONENTS, -1.0), "refuted"),
        ({"up": 0.5}, "not resolved"),
        (dict.fromkeys(weights.COMPONENTS, 0.5) | {"up": 2.0}, "refuted"),
    ],
)
def test_normal_weights_are_told_by_their_kurtosis(trained, verdict):
    found = judged(weights, spread(trained))
    # a component at the very bound is open, and others being normal does not settle it
    assert found.verdict == verdict
    assert verdicts(found)["untrained"] == "confirmed"
    assert {n.id: n.value for n in found.numbers}["most_growth"] == pytest.approx(3)


def shapes(untrained, trained, *, size=0.003):
    """A world: mass of ten tokens and share near 1/V, untrained and trained."""

    def world(task):
        few, near = untrained if task.kind == "untrained-softmax" else trained
        fields = dict.fromkeys(FIELDS, 0.5)
        wobble = noise(task.model_dump_json(), size=size)
        return fields | {"top10_mass": few + wobble, "near_uniform_share": near + wobble}

    return world


@pytest.mark.parametrize(
    ("untrained", "trained", "verdict"),
    [
        ((0.9, 0.9), (0.9, 0.9), "confirmed"),
        ((0.01, 1.0), (0.8, 0.1), "refuted"),
        ((0.01, 1.0), (0.8, 0.8), "holds only when"),
    ],
)
def test_a_softmax_needs_both_a_few_and_the_rest(untrained, trained, verdict):
    assert judged(softmax_shape, shapes(untrained, trained)).verdict == verdict


def test_a_softmax_whose_shape_depends_on_the_seed_is_not_resolved():
    assert judged(softmax_shape, shapes((0.5, 0.9), (0.5, 0.9), size=0.3)).verdict == "not resolved"


# Verdicts and words ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        (["confirmed", "confirmed"], "confirmed"),
        (["confirmed", "equivalent"], "confirmed"),
        (["confirmed", "refuted"], "holds only when"),
        (["confirmed", "holds only when"], "holds only when"),
        (["confirmed", "not resolved"], "not resolved"),
        (["refuted", "not resolved"], "refuted"),
        (["holds only when", "not resolved"], "holds only when"),
        (["equivalent", "equivalent"], "equivalent"),
        (["refuted", "not testable here"], "refuted"),
        ([], "not resolved"),
    ],
)
def test_a_whole_follows_from_its_parts(parts, verdict):
    assert whole(parts) == verdict


def test_a_sentence_that_needs_all_its_parts_falls_with_one():
    assert all_of(["confirmed", "equivalent"]) == "confirmed"
    assert all_of(["confirmed", "not resolved", "refuted"]) == "refuted"
    assert all_of(["confirmed", "holds only when"]) == "holds only when"


def test_words_of_comparisons():
    assert of_words(["lower", "lower"], "lower") == "confirmed"
    assert of_words(["equivalent", "higher"], "lower") == "refuted"
    assert of_words(["lower", "equivalent"], "lower") == "holds only when"
    assert of_words(["lower", "not resolved"], "lower") == "not resolved"
    assert of_words(["lower", "higher"], "equivalent") == "refuted"


def test_answers_by_place():
    assert of_answers([True, True]) == "confirmed"
    assert of_answers([True, None]) == "not resolved"
    assert of_answers([True, False, None]) == "holds only when"
    assert of_answers([False, None]) == "refuted"


WORLDS = {
    layernorm_stability: norms(RATES[1:], 2.6, 2.3),
    pre_post: placements({2: 3.0, 6: 3.3}, {2: 2.5, 6: 2.5}),
    qkv: lost(0.01, 0.01, 1.0),
    rmsnorm: timed(1.2),
    sigma_eps: two_norms(),
    softmax_shape: shapes((0.01, 1.0), (0.8, 0.1)),
    weights: spread({}),
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.CLAIM.id)
@pytest.mark.parametrize("budget", ["quick", "laptop"])
def test_every_sentence_heading_and_axis_has_its_words(module, language, budget):
    found = judged(module, WORLDS[module], budget)
    words = words_of(module.CLAIM.id, language)
    numbers = {number.id: number for number in found.numbers}
    assert set(words.parts) == {part.id for part in found.parts}
    for part in found.parts:
        sentence = words.parts[part.id].format_map(numbers)
        assert not any(brace in sentence for brace in "{}")
        assert sentence.endswith(".")
    assert {table.id: set(table.columns) for table in found.tables} == {
        name: set(table.columns) for name, table in words.tables.items()
    }
    assert {figure.id for figure in found.figures} == set(words.figures)
    for table in found.tables:
        assert all(len(row) == len(table.columns) for row in table.rows)
        for row in table.rows:
            for column, cell in zip(table.columns, row, strict=True):
                if isinstance(cell, Number):
                    format(cell, table.spec.get(column, ""))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.CLAIM.id)
def test_numbers_have_names_of_their_own_and_stand_on_what_was_done(module):
    evidence = planted(module, WORLDS[module])
    found = module.judge("laptop", evidence)
    cells = [cell for table in found.tables for row in table.rows for cell in row]
    numbers = [*found.numbers, *(cell for cell in cells if isinstance(cell, Number))]
    told = {}
    for number in numbers:
        same = told.setdefault(number.id, number)
        assert (same.low, same.high, same.of) == (number.low, number.high, number.of), number.id
        assert all(task in evidence for task in number.of), number.id


def test_all_of_these_claims_together_train_about_250_models_on_a_laptop():
    runs = {
        config
        for module in MODULES
        for task in module.tasks("laptop", Evidence())
        for config in task.needs
    }
    assert 200 < len(runs) < 280


def test_the_vocabulary_of_the_grid_is_that_of_its_text(tmp_path, monkeypatch):
    from assay.data.prepare import prepare
    from assay.experiments.claims.bases import base

    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path))
    assert prepare(base("laptop").data).tokenizer.vocab_size == VOCAB
