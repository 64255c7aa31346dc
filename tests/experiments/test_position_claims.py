"""Claims about positions, activations and tying, judged on evidence that was made up for them."""

import math
import string

import pytest
import torch
from planted import judged, noise, verdicts

from assay.experiments.claim import BUDGETS, Number
from assay.experiments.claims import (
    activations,
    position_arms,
    position_extrapolation,
    position_order,
    position_tasks,
    tying_quality,
)
from assay.experiments.claims.tied_arms import SIZES, arms_at, config, middle, narrowed
from assay.experiments.evidence import Evidence
from assay.experiments.outcome import Size
from assay.experiments.tasks.loss_parts import FewTokens, LossParts
from assay.experiments.tasks.position import Order
from assay.experiments.words import LANGUAGES, words_of
from assay.nn.model import GPT

MODULES = (activations, position_extrapolation, position_order, position_tasks, tying_quality)
DIVERGED = None


def loss(run, value, size=0.003):
    found = value + noise(run.model_dump(mode="json"), size=size)
    return {"val_loss_nats": found, "val_bits_per_byte": found, "train_s": 1.0}


# Order -------------------------------------------------------------------------------------------


def order_world(*, gain=0.2, order=0.5, without=0.1, size=0.003):
    def world(task):
        kind = task.run.model.position.kind
        if isinstance(task, Order):
            added = without if kind == "none" else order
            added += noise(task.model_dump(mode="json"))
            return {"all_nats": added + 1, "all_but_last_nats": added}
        return loss(task.run, 2.0 - (kind != "none") * gain, size)

    return world


@pytest.mark.parametrize(
    ("planted", "verdict", "parts"),
    [
        ({}, "confirmed", {"loss": "confirmed", "order": "confirmed", "needed": "refuted"}),
        ({"gain": 0.0}, "refuted", {"loss": "refuted"}),
        ({"gain": -0.2}, "refuted", {"loss": "refuted"}),
        ({"order": 0.0}, "refuted", {"order": "refuted"}),
        ({"without": 0.0}, "confirmed", {"needed": "confirmed"}),
        ({"gain": 0.02, "size": 0.1}, "not resolved", {"loss": "not resolved"}),
    ],
)
def test_what_positions_do_is_judged_as_planted(planted, verdict, parts):
    found = judged(position_order, order_world(**planted))
    assert found.verdict == verdict
    assert verdicts(found).items() >= parts.items() | {("cost", "confirmed")}


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_vectors_cost_one_addition_a_channel(budget):
    found = judged(position_order, order_world(), budget)
    run = position_arms.arms(budget)["learned"][0].run
    width, length, depth = run.model.d_model, run.seq_len, run.model.n_layers
    numbers = {number.id: number.value for number in found.numbers}
    blocks = depth * (24 * length * width**2 + 4 * length**2 * width)  # the audit's closed form
    assert numbers["share"] == pytest.approx(length * width / blocks, rel=1e-12)
    assert numbers["parameters"] == length * width


def test_a_run_that_diverged_decides_nothing():
    plain = order_world()

    def world(task):
        lost = task.run.model.position.kind == "learned" and task.run.train.seed > 0
        return DIVERGED if lost else plain(task)

    assert verdicts(judged(position_order, world))["loss"] == "not resolved"


# Extrapolation -----------------------------------------------------------------------------------


def length_world(*, rise, defined=False):
    """`rise` by encoding, in nats for each doubling; `defined` plants a table that goes on."""

    def world(task):
        kind, extent = task.run.model.position.kind, task.run.seq_len
        sliding = {
            str(n): 2.0 + rise.get(kind, 0.0) * math.log2(n / extent)
            + noise(kind, n, task.run.train.seed)
            for n in task.lengths
        }  # fmt: skip
        curve = {str(n): [sliding[str(n)]] * (n // task.stride) for n in task.lengths}
        if kind == "learned" and not defined:
            sliding = {n: x if n == str(extent) else None for n, x in sliding.items()}
            curve = {n: x if n == str(extent) else None for n, x in curve.items()}
        return {"sliding": sliding, "blocks": sliding, "curve": curve}

    return world


FLAT = {"sinusoidal": 0.0, "rope": 0.0, "none": 0.0, "alibi": 0.0}
STEEP = {"sinusoidal": 0.5, "rope": 0.3, "none": 0.4}


@pytest.mark.parametrize(
    ("rise", "kept", "best"),
    [
        (FLAT, "confirmed", "refuted"),
        (STEEP, "holds only when", "confirmed"),
        (STEEP | {"alibi": 0.6}, "refuted", "refuted"),
        (STEEP | {"alibi": 0.3}, "refuted", "refuted"),
    ],
)
def test_what_lies_beyond_the_table_is_judged_as_planted(rise, kept, best):
    found = judged(position_extrapolation, length_world(rise=rise))
    assert found.verdict == "confirmed"
    assert (
        verdicts(found).items() >= {"undefined": "confirmed", "kept": kept, "alibi": best}.items()
    )


def test_a_table_that_went_on_would_refute_that_it_ends():
    found = judged(position_extrapolation, length_world(rise=FLAT, defined=True))
    assert found.verdict == verdicts(found)["undefined"] == "refuted"


def test_an_undefined_length_is_nowhere_drawn_and_a_dash_in_the_table():
    found = judged(position_extrapolation, length_world(rise=FLAT))
    by_length, by_position = found.figures
    extent = position_extrapolation.tasks("laptop", Evidence())[0].run.seq_len
    for figure, place in ((by_length, "length"), (by_position, "position")):
        places = [row[place] for row in figure.rows if row["encoding"] == "learned"]
        assert places
        assert max(places) <= extent
    (row,) = (row for row in found.tables[0].rows if row[0] == "learned")
    assert [format(cell, ".3f") for cell in row[2:5]] == ["-"] * 3


# Tasks -------------------------------------------------------------------------------------------


def answer_world(within, beyond):
    """Shares of right answers by encoding, 0 unless told; a table ends at 12."""

    def world(task):
        kind = task.run.model.position.kind
        right = {}
        for length in task.lengths:
            share = (within if length <= 8 else beyond).get(kind, 0.0)
            wobble = noise(kind, length, task.run.train.seed, size=4)
            right[str(length)] = min(task.n, max(0, round(task.n * share + wobble)))
        if kind == "learned":
            right |= {n: None for n in right if int(n) > 10}
        return {"right": right, "n": task.n}

    return world


ALL = dict.fromkeys(position_arms.ENCODINGS, 0.95)


@pytest.mark.parametrize(
    ("within", "beyond", "verdict"),
    [
        (ALL, {"none": 0.6}, "confirmed"),
        (ALL, {"none": 0.6, "learned": 0.9}, "refuted"),
        (ALL, {"none": 0.6, "rope": 0.6}, "refuted"),
        (ALL | {"rope": 0.1}, {"none": 0.6, "rope": 0.9}, "confirmed"),  # nothing it had learnt
        (ALL | {"none": 0.1}, {"none": 0.6}, "not testable here"),
        ({"none": 0.95}, {"none": 0.6}, "not testable here"),
    ],
)
def test_who_answers_longer_problems_is_judged_as_planted(within, beyond, verdict):
    found = judged(position_tasks, answer_world(within, beyond))
    assert set(verdicts(found).values()) == {verdict}
    assert found.verdict == verdict


def test_tasks_that_disagree_give_a_region():
    confirmed, refuted = answer_world(ALL, {"none": 0.6}), answer_world(ALL, {"rope": 0.9})
    found = judged(
        position_tasks, lambda task: (confirmed if task.task == "copy" else refuted)(task)
    )
    assert verdicts(found)["copy"] == "confirmed"
    assert found.verdict == "holds only when"


def test_an_interval_is_never_narrower_than_the_problems_allow():
    def none_right(task):
        return {"right": dict.fromkeys(map(str, task.lengths), 0), "n": task.n}

    numbers = {number.id: number for number in judged(position_tasks, none_right).numbers}
    z, n = 1.959963984540054, 5 * 3 * 200
    assert numbers["copy_none"].low == 0
    assert numbers["copy_none"].high == pytest.approx(z**2 / (n + z**2))  # Wilson's at no success


# Activations -------------------------------------------------------------------------------------


def mlp_world(size=0.003, **gains):
    return lambda task: loss(task.run, 2.0 - gains.get(task.run.model.mlp.kind, 0.0), size)


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ({"swiglu": 0.1, "geglu": 0.1}, "confirmed"),
        ({"swiglu": 0.1}, "refuted"),
        ({"swiglu": -0.1, "geglu": -0.1}, "refuted"),
        ({"swiglu": 0.1, "geglu": 0.1, "size": 0.1}, "not resolved"),
    ],
)
def test_activations_are_judged_as_planted(gains, verdict):
    found = judged(activations, mlp_world(**gains))
    assert found.verdict == verdict
    if "size" not in gains:
        assert verdicts(found)["relu"] == "refuted"  # equivalent


@pytest.mark.parametrize("budget", BUDGETS)
def test_equal_parameters_are_equal_to_half_a_percent(budget):
    for task in activations.tasks(budget, Evidence()):
        assert task.run.model.mlp.kind in ("gelu", "relu", "relu2", "swiglu", "geglu")
    found = judged(activations, mlp_world(), budget)
    table = {row[0]: row for row in found.tables[0].rows}
    assert all(abs(row[2].value) < 0.005 for row in table.values())


# Tying -------------------------------------------------------------------------------------------


def tying_world(*, gain=0.0, narrow=0.05, gap=0.3, narrow_gap=0.0, trend=0.0, size=0.003):
    """`gain` of tied over untied at one shape, `narrow` at equal parameters."""

    def world(task):
        run = task.run
        tied, width = run.model.tie_embeddings, run.model.d_model
        shape = width in SIZES["laptop"].widths
        if isinstance(task, FewTokens):
            value = 0.5 + (0 if tied else gap if shape else narrow_gap)
            value += noise(run.model_dump(mode="json"))
            looks = [1.0, 0.5]
            return {"step": [1, 2], "train_nats": looks, "val_nats": looks, "gap_nats": value,
                    "best_val_nats": value, "epochs": 25.0}  # fmt: skip
        if isinstance(task, LossParts):
            ends = map(str, (*task.ends, run.model.vocab))
            values = {end: 3.0 + (not tied) * 0.1 + noise(end, width, tied) for end in ends}
            return {"loss_nats": values, "targets": dict.fromkeys(values, 1000.0)}
        more = 0 if tied else gain + trend * math.log2(width / 64) if shape else narrow
        return loss(run, 2.0 + more, size)

    return world


@pytest.mark.parametrize(
    ("planted", "verdict", "parts"),
    [
        ({}, "confirmed", {"shape": "confirmed", "parameters": "confirmed", "fewer": "refuted"}),
        ({"gain": 0.1}, "confirmed", {"shape": "confirmed"}),
        ({"gain": -0.1}, "refuted", {"shape": "refuted"}),
        ({"gap": 0.0}, "refuted", {"overfitting": "refuted"}),
        ({"narrow_gap": 0.3}, "confirmed", {"fewer": "confirmed"}),
        ({"narrow": -0.1}, "confirmed", {"parameters": "refuted", "flops": "refuted"}),
        ({"trend": -0.05}, "holds only when", {"trend": "confirmed", "shape": "holds only when"}),
        ({"trend": 0.05}, "holds only when", {"trend": "refuted"}),
        ({"size": 0.1}, "not resolved", {"shape": "not resolved", "trend": "not resolved"}),
    ],
)
def test_tying_is_judged_as_planted(planted, verdict, parts):
    found = judged(tying_quality, tying_world(**planted))
    assert verdicts(found).items() >= parts.items() | {("cost", "refuted")}
    assert found.verdict == verdict


@pytest.mark.parametrize("budget", BUDGETS)
def test_what_is_called_equal_is_equal(budget):
    for width in SIZES[budget].widths:
        sizes = {arm: Size.of(config(budget, width, arm)) for arm in arms_at(budget, width)}
        tied = sizes["tied"]
        assert sizes["untied"].train_flops == tied.train_flops
        assert sizes["narrow"].train_tokens == tied.train_tokens
        assert abs(sizes["narrow"].parameters / tied.parameters - 1) < 0.05
        if width == middle(budget):
            assert abs(sizes["longer"].train_flops / tied.train_flops - 1) < 0.02
            assert sizes["longer"].parameters == sizes["narrow"].parameters


def test_the_narrow_model_has_the_parameters_nearest_to_the_tied_one_s():
    def built(d_model, *, tied):
        model = config("laptop", 64, "tied").model
        with torch.device("meta"):
            model = GPT(model.model_copy(update={"d_model": d_model, "tie_embeddings": tied}))
        return sum(parameter.numel() for parameter in model.parameters())

    apart = {d: abs(built(d, tied=False) - built(64, tied=True)) for d in range(2, 64, 2)}
    assert narrowed("laptop", 64) == min(apart, key=apart.get)


# Words -------------------------------------------------------------------------------------------

WORLDS = {
    activations: mlp_world(),
    position_extrapolation: length_world(rise=FLAT),
    position_order: order_world(),
    position_tasks: answer_world(ALL, {}),
    tying_quality: tying_world(),
}


@pytest.mark.parametrize("module", MODULES, ids=[module.CLAIM.id for module in MODULES])
@pytest.mark.parametrize("language", LANGUAGES)
def test_words_are_there_for_all_that_a_judgement_holds(module, language):
    found, words = judged(module, WORLDS[module]), words_of(module.CLAIM.id, language)
    numbers = {number.id: number for number in found.numbers}
    assert len(numbers) == len(found.numbers)
    assert {part.id for part in found.parts} == words.parts.keys()
    for template in words.parts.values():
        told = template.format_map(numbers)
        assert told
        assert " -," not in told
        assert {name for _, name, _, _ in string.Formatter().parse(template) if name} <= set(
            numbers
        )
    for table in found.tables:
        assert words.tables[table.id].columns.keys() == set(table.columns)
        assert all(len(row) == len(table.columns) for row in table.rows)
        cells = [cell for row in table.rows for cell in row]
        assert all(isinstance(cell, str | Number) for cell in cells)
    for figure in found.figures:
        assert figure.id in words.figures
        assert figure.rows
        fields = [figure.x, figure.y, figure.series, figure.low, figure.high, figure.facet]
        assert all(field in row for row in figure.rows for field in fields if field)


@pytest.mark.parametrize("module", MODULES, ids=[module.CLAIM.id for module in MODULES])
@pytest.mark.parametrize("budget", BUDGETS)
def test_every_budget_asks_for_each_task_once(module, budget):
    asked = module.tasks(budget, Evidence())
    assert len(set(asked)) == len(asked)
