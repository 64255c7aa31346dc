"""RMSNorm in the place of LayerNorm: the same loss, and less time?"""

import math
from collections.abc import Sequence

import numpy as np

from assay.experiments.claim import Budget, Claim, Figure, Judgement, Number, Part, Table
from assay.experiments.claims.bases import base, trained
from assay.experiments.claims.rates import VOCAB
from assay.experiments.claims.verdicts import all_of, of_answers, of_words, whole
from assay.experiments.compare import compare
from assay.experiments.evidence import Evidence
from assay.experiments.statistics import t_interval
from assay.experiments.tasks import Task
from assay.experiments.tasks.norms import NormSeconds
from assay.experiments.tasks.train import Train
from assay.nn.norm import LayerNormConfig, RMSNormConfig
from assay.schema import override
from assay.source import Source

_DELTA_NATS = 0.02
_EPS = 1e-5
_LAYER, _RMS = LayerNormConfig(affine="scale", eps=_EPS), RMSNormConfig(eps=_EPS)
_ROUNDS = {"quick": 8, "laptop": 30, "full": 100}
_PLACES = ("alone", "step")


def arms(budget: Budget) -> dict[str, list[Train]]:
    """Return the training with each, equal in all else."""
    return {
        norm.kind: trained(budget, {"model.norm": norm.model_dump()}) for norm in (_LAYER, _RMS)
    }


def seconds(budget: Budget) -> NormSeconds:
    """Return the timing of both at the size of the base."""
    run = base(budget)
    model = override(run.model, {"vocab_size": VOCAB})
    return NormSeconds(
        model=model,
        norms=(_LAYER, _RMS),
        sequences=run.train.batch_size,
        rounds=_ROUNDS[budget],
    )


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Train with both, and time both by turns."""
    return [*(task for tasks in arms(budget).values() for task in tasks), seconds(budget)]


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Hold the losses together by TOST, and the ratio of seconds to 1."""
    outcomes = evidence.outcomes(arms(budget), "val_loss_nats")
    (loss,) = compare(outcomes, "val_loss_nats", delta=_DELTA_NATS)
    ratios = {place: _ratio(budget, evidence, place) for place in _PLACES}
    same_loss = of_words([loss.word], "equivalent")
    parts = (
        Part("loss", "equivalent" if same_loss == "confirmed" else same_loss),
        *(Part(place, of_answers([_less(ratio)])) for place, ratio in ratios.items()),
    )
    of = [task for tasks in arms(budget).values() for task in tasks]
    return Judgement(
        all_of([parts[0].verdict, whole([part.verdict for part in parts[1:]])]),
        parts,
        numbers=(
            Number.difference("difference", loss, of=of, unit="nats"),
            Number("delta", _DELTA_NATS, unit="nats"),
            Number("needs", loss.needs or math.nan),
            *ratios.values(),
        ),
        tables=(_table(budget, evidence),),
        figures=(_figure(budget, evidence),),
    )


def _ratio(budget: Budget, evidence: Evidence, place: str) -> Number:
    """Return RMSNorm's seconds over LayerNorm's: the geometric mean over rounds, its interval."""
    values = evidence[seconds(budget)].values
    logs = np.log(np.array(values["rms"][place]) / np.array(values["layer"][place]))
    ends = t_interval(logs)
    mean = math.exp(float(logs.mean()))
    low, high = math.exp(ends.low), math.exp(ends.high)
    return Number(f"ratio_{place}", mean, low, high, of=(seconds(budget),))


def _less(ratio: Number) -> bool | None:
    """Return whether the ratio is under 1 with all of its interval; None if it may be either."""
    assert ratio.low is not None
    assert ratio.high is not None
    return True if ratio.high < 1 else False if ratio.low > 1 else None


def _table(budget: Budget, evidence: Evidence) -> Table:
    found = arms(budget)
    values = evidence[seconds(budget)].values
    rows: list[tuple[str | Number, ...]] = [
        (
            kind,
            Number.mean(f"loss_{kind}", evidence.values(tasks, "val_loss_nats"), of=tasks),
            *(
                Number.mean(
                    f"{place}_{kind}",
                    [1e3 * each for each in values[kind][place]],
                    of=[seconds(budget)],
                )
                for place in _PLACES
            ),
        )
        for kind, tasks in found.items()
    ]
    spec = {"loss": ".4f", "alone": ".3f", "step": ".2f"}
    return Table("arms", ("norm", "loss", *_PLACES), tuple(rows), spec)


def _figure(budget: Budget, evidence: Evidence) -> Figure:
    layer, rms = (evidence.outcomes(arms(budget), "val_loss_nats")[k] for k in ("layer", "rms"))
    rows = tuple(
        {"seed": a.seed, "difference": b.value("val_loss_nats") - a.value("val_loss_nats")}
        for a, b in zip(layer, rms, strict=True)
    )
    rules = (("x", 0.0), ("x", -_DELTA_NATS), ("x", _DELTA_NATS))
    return Figure("seeds", "dots", rows, "difference", "seed", rules=rules)


CLAIM = Claim(
    id="rmsnorm",
    section="8",
    tasks=tasks,
    judge=judge,
    sources=(Source("Zhang & Sennrich 2019", "arXiv:1910.07467", "tables 3-5"),),
)
