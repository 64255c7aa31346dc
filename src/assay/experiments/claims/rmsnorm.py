"""RMSNorm in the place of LayerNorm: the same loss, and less time?"""

import math
from collections.abc import Sequence

import numpy as np

from assay.citation import Citation
from assay.experiments.claim import Budget, Claim, Judgement, Number, Part
from assay.experiments.claims.bases import base, trained
from assay.experiments.claims.rates import VOCAB
from assay.experiments.claims.rmsnorm_pictures import LOSS, PLACES, arms_table, seeds_figure
from assay.experiments.claims.verdicts import all_of, below, of_answers, of_words, whole
from assay.experiments.compare import compare
from assay.experiments.evidence import Evidence
from assay.experiments.statistics import t_interval
from assay.experiments.tasks import Task
from assay.experiments.tasks.norms import NormSeconds
from assay.experiments.tasks.train import Train
from assay.nn.norm import LayerNormConfig, RMSNormConfig
from assay.schema import override

_DELTA_NATS = 0.02
_EPS = 1e-5
_LAYER, _RMS = LayerNormConfig(affine="scale", eps=_EPS), RMSNormConfig(eps=_EPS)
_ROUNDS = {"quick": 8, "laptop": 30, "full": 100}


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
    (loss,) = compare(evidence.outcomes(arms(budget), LOSS), LOSS, delta=_DELTA_NATS)
    ratios = {place: _ratio(budget, evidence, place) for place in PLACES}
    same_loss = of_words([loss.word], "equivalent")
    parts = (
        Part("loss", "equivalent" if same_loss == "confirmed" else same_loss),
        *(Part(place, of_answers([below(ratio, 1.0)])) for place, ratio in ratios.items()),
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
        tables=(arms_table(evidence, arms(budget), seconds(budget)),),
        figures=(seeds_figure(evidence, arms(budget), _DELTA_NATS),),
    )


def _ratio(budget: Budget, evidence: Evidence, place: str) -> Number:
    """Return RMSNorm's seconds over LayerNorm's: the geometric mean over rounds, its interval."""
    values = evidence[seconds(budget)].values
    logs = np.log(np.array(values["rms"][place]) / np.array(values["layer"][place]))
    ends = t_interval(logs)
    mean = math.exp(float(logs.mean()))
    low, high = math.exp(ends.low), math.exp(ends.high)
    return Number(f"ratio_{place}", mean, low, high, of=(seconds(budget),))


CLAIM = Claim(
    id="rmsnorm",
    section="8",
    tasks=tasks,
    judge=judge,
    sources=(Citation("Zhang & Sennrich 2019", "arXiv:1910.07467", "tables 3-5"),),
)
