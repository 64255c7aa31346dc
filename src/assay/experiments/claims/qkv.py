"""Which of Q, K and V a trained model can lose: each replaced by noise of equal mean and spread."""

from collections.abc import Sequence

import numpy as np

from assay.experiments.claim import Budget, Claim, Judgement, Number, Part
from assay.experiments.claims.bases import EXTENTS, trained
from assay.experiments.claims.changes import against
from assay.experiments.claims.qkv_pictures import (
    Rises,
    rises_figure,
    rises_table,
    texts_table,
)
from assay.experiments.claims.verdicts import below, of_answers, of_words, whole
from assay.experiments.evidence import Evidence
from assay.experiments.planning import ALPHA
from assay.experiments.statistics import t_interval
from assay.experiments.tasks import Task
from assay.experiments.tasks.inside import LoseQKV
from assay.measure.noise import PARTS

_BOUND_NATS = 0.05  # a rise of less is called losing nothing
_TOKENS = {"quick": 2048, "laptop": 8192, "full": 65_536}


def looks(budget: Budget) -> list[LoseQKV]:
    """Return the look at the base under each seed; the noise has the seed of the run."""
    return [
        LoseQKV(run=task.run, tokens=_TOKENS[budget], noise_seed=task.run.train.seed)
        for task in trained(budget)
    ]


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Take parts away from the trained base."""
    return looks(budget)


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Hold the rise of the loss to a bound, for each part in each layer and in all of them."""
    places = [*range(EXTENTS[budget].n_layers), "all"]
    rises: Rises = {
        (part, place): _rise(budget, evidence, part, place) for part in PARTS for place in places
    }
    lost = {
        part: of_answers([below(rises[part, place], _BOUND_NATS) for place in places])
        for part in PARTS
    }
    everywhere = {part: _values(budget, evidence, part, "all") for part in PARTS}
    order = against({"v": everywhere["v"], "q": everywhere["q"], "k": everywhere["k"]})
    parts = (
        *(Part(part, verdict) for part, verdict in lost.items()),
        Part("order", of_words([found.word for found in order.values()], "lower")),
    )
    return Judgement(
        whole(list(lost.values())),
        parts,
        numbers=(
            Number("bound", _BOUND_NATS, unit="nats"),
            *(rises[part, "all"] for part in PARTS),
            *(
                Number.difference(f"{part}_below_v", found, of=looks(budget), unit="nats")
                for part, found in order.items()
            ),
        ),
        tables=(rises_table(rises, places), texts_table(evidence[looks(budget)[0]].values)),
        figures=(rises_figure(rises, _BOUND_NATS),),
    )


def _values(budget: Budget, evidence: Evidence, part: str, place: int | str) -> list[float]:
    """Return the rise of the loss under each seed."""
    found = []
    for task in looks(budget):
        values = evidence[task].values
        now = values[part]["all"] if place == "all" else values[part]["layers"][place]
        found.append(now - values["intact"])
    return found


def _rise(budget: Budget, evidence: Evidence, part: str, place: int | str) -> Number:
    """Return its mean; the intervals of all places hold together (Bonferroni)."""
    values = np.array(_values(budget, evidence, part, place))
    level = 1 - ALPHA / (len(PARTS) * (EXTENTS[budget].n_layers + 1))
    ends = t_interval(values, level=level)
    of = tuple(looks(budget))
    name = f"rise_{part}_{place}"
    return Number(name, float(values.mean()), ends.low, ends.high, level, "nats", of)


CLAIM = Claim(id="qkv", section="beyond", tasks=tasks, judge=judge)
