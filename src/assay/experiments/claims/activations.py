"""GELU against ReLU, ReLU², SwiGLU and GeGLU, at equal parameters and as they come."""

from collections.abc import Mapping, Sequence

from assay.citation import Citation
from assay.count import count
from assay.experiments.claim import Budget, Claim, Judgement, Number, Part
from assay.experiments.claims.activations_pictures import (
    LOSS,
    bigger,
    difference,
    family_table,
    losses_figure,
)
from assay.experiments.claims.bases import base, trained
from assay.experiments.claims.verdicts import all_of, of_words
from assay.experiments.compare import compare
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task
from assay.experiments.tasks.train import Train
from assay.schema import override

_PLAIN, _GATED = ("gelu", "relu", "relu2"), ("swiglu", "geglu")
_DELTA_NATS = 0.01
Family = Mapping[str, Mapping[str, object]]


def _families(budget: Budget) -> Mapping[str, Family]:
    """Return what each arm changes, arms at equal parameters and as they come; GELU is first."""
    plain: Family = {kind: {"model.mlp": kind} for kind in _PLAIN}
    d_model = base(budget).model.d_model
    width = round(8 * d_model / 3)  # three matrices of it for two of 4 d
    equal: Family = {kind: {"model.mlp": {"kind": kind, "d_ff": width}} for kind in _GATED}
    own: Family = {kind: {"model.mlp": kind} for kind in _GATED}
    return {"equal": {**plain, **equal}, "own": {**plain, **own}}


def _arms(budget: Budget, family: str) -> dict[str, list[Train]]:
    return {kind: trained(budget, changes) for kind, changes in _families(budget)[family].items()}


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Train every arm of both families; the plain ones are in both."""
    families = [_arms(budget, family).values() for family in _families(budget)]
    return list(dict.fromkeys(task for arms in families for runs in arms for task in runs))


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Confirm if both gated layers have a lower loss than GELU at equal parameters."""
    families = {family: _arms(budget, family) for family in _families(budget)}
    sizes = {family: _parameters(budget, family) for family in families}
    compared = {
        family: {
            found.arm: found
            for found in compare(evidence.outcomes(arms, LOSS), LOSS, delta=_DELTA_NATS)
        }
        for family, arms in families.items()
    }
    equal, own = compared["equal"], compared["own"]
    parts = tuple(
        Part(kind, of_words([equal[kind].word], "lower")) for kind in (*_GATED, *_PLAIN[1:])
    )
    as_they_come = all_of([of_words([own[kind].word], "lower") for kind in _GATED])
    return Judgement(
        all_of([part.verdict for part in parts if part.id in _GATED]),
        (*parts, Part("own", as_they_come)),
        numbers=(
            *(difference("equal", families["equal"], found) for found in equal.values()),
            *(difference("own", families["own"], own[kind]) for kind in _GATED),
            *(Number(f"bigger_{kind}", bigger(sizes["own"], kind)) for kind in _GATED),
        ),
        tables=tuple(
            family_table(evidence, name, families[name], sizes[name], compared[name])
            for name in families
        ),
        figures=(losses_figure(evidence, families),),
    )


def _parameters(budget: Budget, family: str) -> dict[str, int]:
    """Return the parameters of the blocks of each arm."""
    found = {}
    for kind, changes in _families(budget)[family].items():
        model = override(base(budget, changes=changes).model, {"vocab_size": 1})
        parts = count(model, seq_len=1).parts
        found[kind] = sum(part.parameters for part in parts if part.name.startswith("blocks"))
    return found


CLAIM = Claim(
    id="activations",
    section="beyond",
    tasks=tasks,
    judge=judge,
    sources=(
        Citation("Shazeer 2020", "arXiv:2002.05202", "sec. 3"),
        Citation("So et al. 2021", "arXiv:2109.08668", "sec. 3.2"),
    ),
)
