"""What the claims on initialisation say of planted evidence."""

import math

import numpy as np
import pytest
from planted import record, verdicts

from assay.experiments.claims.bases import EXTENTS
from assay.experiments.claims.init_grid import cells, faulty, search
from assay.experiments.claims.init_loss import CLAIM as INIT_LOSS
from assay.experiments.claims.logit_arms import arms, at_start
from assay.experiments.claims.logit_scale import CLAIM as LOGIT_SCALE
from assay.experiments.claims.tuned import best_rate, trials, tuned
from assay.experiments.evidence import Evidence
from assay.experiments.tasks.initial import InitialPanel

RNG = np.random.default_rng(0)


def panel(task, variance, excess=None, noise=0.002):
    """The law, unless an excess is told."""
    drawn = (variance / 2 if excess is None else excess) + noise * RNG.standard_normal(5)
    spread = [variance * (1 + n / 1000) for n in range(5)]
    found = {"excess_nats": list(drawn), "logit_variance": spread}
    return record(task, found | {"p_current": [0.001] * 5, "loss_nats": list(drawn + 6.9078)})


def evidence_of_init(excess, fault_excess):
    known = Evidence(
        [panel(task, 0.2 * n / 16, excess) for n, task in enumerate(cells("quick").values())]
        + [panel(t, 0.01, fault_excess) for f, t in faulty("quick").items() if f != "none"]
    )
    while missing := [t for t in INIT_LOSS.tasks("quick", known) if t not in known]:
        known |= Evidence([panel(t, 64 * t.model.init.std**2, noise=0) for t in missing])
    return known


def judged(claim, evidence):
    found = claim.judge("quick", evidence)
    return found.verdict, verdicts(found)


def test_a_loss_near_everywhere_that_broken_models_share_proves_nothing():
    whole, parts = judged(INIT_LOSS, evidence_of_init(0.001, 0.001))
    assert parts["near"] == "confirmed"
    assert parts["proof"] == "refuted"
    assert whole == "holds only when"


def test_broken_models_that_start_elsewhere_make_the_loss_a_proof():
    whole, parts = judged(INIT_LOSS, evidence_of_init(0.001, 0.3))
    assert parts["proof"] == "confirmed"
    assert whole == "confirmed"


def test_a_loss_far_away_everywhere_refutes():
    whole, parts = judged(INIT_LOSS, evidence_of_init(0.5, 0.3))
    assert (whole, parts["near"]) == ("refuted", "refuted")


def test_the_law_gives_the_slope_one_and_its_boundary_is_found_in_rounds():
    evidence = evidence_of_init(None, 0.3)
    numbers = {n.id: n for n in INIT_LOSS.judge("quick", evidence).numbers}
    assert numbers["slope"].value == pytest.approx(1, abs=0.05)
    assert numbers["std"].low < 0.025 < numbers["std"].high  # 32 std² = 0.02
    asked, _ = search("quick", evidence)
    assert len(asked) == 9
    assert len(search("quick", Evidence())[0]) == 3


def trained(evidence, losses):
    """Add trainings: losses by arm and rate, with a little noise for each seed."""
    while missing := [t for t in LOGIT_SCALE.tasks("quick", evidence) if t not in evidence]:
        evidence |= Evidence([losses(t) for t in missing])
    return evidence


def evidence_of_scale(loss, slopes=(1.0, 0.0)):
    powers = dict(zip(("none", "inv_sqrt_d"), slopes, strict=True))
    panels = [
        panel(task, width ** powers[scale]) for (scale, width), task in at_start("quick").items()
    ]

    def one(task):
        model, lr = task.run.model, task.run.train.optimizer.lr
        wide = model.init.kind == "gaussian"
        value = loss(wide, model.logit_scale == "inv_sqrt_d", lr)
        if value is None:
            return record(task, None)
        return record(task, {"val_loss_nats": value + 1e-3 * RNG.standard_normal()})

    return trained(Evidence(panels), one)


def test_a_factor_that_helps_only_a_wide_start_holds_only_when():
    evidence = evidence_of_scale(lambda wide, scaled, lr: 3.0 if wide and not scaled else 2.0)
    whole, parts = judged(LOGIT_SCALE, evidence)
    assert parts == {"start": "confirmed", "wide": "confirmed", "narrow": "refuted"}
    assert whole == "holds only when"


def test_a_variance_that_still_grows_is_no_stable_variance():
    evidence = evidence_of_scale(lambda *_: 2.0, slopes=(1.0, 0.5))
    assert judged(LOGIT_SCALE, evidence)[1]["start"] == "refuted"


def test_each_arm_is_tuned_past_the_edge_and_compared_at_its_own_best_rate():
    """Optima away from what is tried first; a run that diverges is worse than any other."""
    lr_0 = EXTENTS["quick"].lr

    def loss(wide, scaled, lr):
        if scaled:
            return 2.0 + abs(math.log(lr / (0.1 * lr_0)))
        return None if lr < lr_0 * 0.9 else 2.0 + abs(math.log(lr / (5 * lr_0)))

    evidence = evidence_of_scale(loss)
    rates = {arm: best_rate("quick", changes, evidence) / lr_0 for arm, changes in arms().items()}
    assert rates == pytest.approx({arm: 0.1 if "sqrt" in arm else 5.0 for arm in arms()})
    tried = {
        arm: [rate / lr_0 for rate in trials("quick", changes, evidence)]
        for arm, changes in arms().items()
    }
    assert tried["wide none"] == pytest.approx([0.5, 1, 2, 5, 10])
    assert tried["narrow inv_sqrt_d"] == pytest.approx([0.05, 0.1, 0.2, 0.5, 1])


def test_tuning_ends_where_no_rate_is_ever_the_best_and_takes_seeds_of_its_own():
    evidence = evidence_of_scale(lambda wide, scaled, lr: 2.0 - 0.1 * math.log(lr))
    for changes in arms().values():
        tried = trials("quick", changes, evidence)
        assert len(tried) == 6
        assert best_rate("quick", changes, evidence) == max(tried)
    assert tuned("quick", {"model.init": "gpt2"}, Evidence())[1] is None
    seeds = {t.run.train.seed for ts in trials("quick", {}, Evidence()).values() for t in ts}
    assert min(seeds) >= 1000


def test_a_planted_fault_is_in_the_model_and_only_there():
    clean, leaking, unshifted, empty = (
        InitialPanel(
            **{**faulty("quick")["none"].model_dump(), "draws": 2, "sequences": 4, "fault": fault}
        ).take(())
        for fault in ("none", "leaking mask", "unshifted target", "no layers")
    )
    assert clean["flagged"] == [0.0, 0.0]
    assert leaking["flagged"] == [1.0, 1.0]  # the panel sees what the loss does not
    assert abs(leaking["excess_nats"][0] - clean["excess_nats"][0]) < 0.02
    assert unshifted["excess_nats"][0] < clean["excess_nats"][0] - 0.1
    assert empty["excess_nats"] != clean["excess_nats"]
