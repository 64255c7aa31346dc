"""GELU against ReLU, ReLU², SwiGLU and GeGLU, at equal parameters and as they come."""

from collections.abc import Mapping, Sequence

from assay.count import count
from assay.experiments.claim import Budget, Claim, Figure, Judgement, Number, Part, Table
from assay.experiments.claims.bases import base, trained
from assay.experiments.claims.changes import is_lower
from assay.experiments.claims.verdicts import all_of
from assay.experiments.compare import Comparison, compare
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task
from assay.experiments.tasks.train import Train
from assay.schema import override
from assay.source import Source

_PLAIN, _GATED = ("gelu", "relu", "relu2"), ("swiglu", "geglu")
_DELTA_NATS = 0.01
_LOSS = "val_loss_nats"
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
    compared = {
        family: {
            found.arm: found
            for found in compare(
                evidence.outcomes(_arms(budget, family), _LOSS), _LOSS, delta=_DELTA_NATS
            )
        }
        for family in _families(budget)
    }
    equal, own = compared["equal"], compared["own"]

    parts = tuple(Part(kind, is_lower(equal[kind])) for kind in (*_GATED, *_PLAIN[1:]))
    as_they_come = all_of([is_lower(own[kind]) for kind in _GATED])
    return Judgement(
        all_of([part.verdict for part in parts if part.id in _GATED]),
        (*parts, Part("own", as_they_come)),
        numbers=(
            *(_difference(budget, "equal", found) for found in equal.values()),
            *(_difference(budget, "own", own[kind]) for kind in _GATED),
            *(Number(f"bigger_{kind}", _bigger(budget, "own", kind)) for kind in _GATED),
        ),
        tables=tuple(_table(budget, evidence, name, compared[name]) for name in compared),
        figures=(_figure(budget, evidence),),
    )


def _difference(budget: Budget, family: str, found: Comparison) -> Number:
    arms = _arms(budget, family)
    name = f"{family}_{found.arm}"
    return Number.difference(name, found, of=[*arms[_PLAIN[0]], *arms[found.arm]])


def _parameters(budget: Budget, family: str, kind: str) -> int:
    """Return the parameters of the blocks."""
    config = base(budget, changes=_families(budget)[family][kind])
    parts = count(override(config.model, {"vocab_size": 1}), seq_len=1).parts
    return sum(part.parameters for part in parts if part.name.startswith("blocks"))


def _bigger(budget: Budget, family: str, kind: str) -> float:
    return _parameters(budget, family, kind) / _parameters(budget, family, _PLAIN[0]) - 1


def _table(
    budget: Budget, evidence: Evidence, family: str, compared: Mapping[str, Comparison]
) -> Table:
    rows = tuple(
        (
            kind,
            f"{_parameters(budget, family, kind):,}",
            Number(f"{family}_bigger_{kind}", _bigger(budget, family, kind)),
            Number.mean(f"{family}_loss_{kind}", evidence.values(runs, _LOSS), of=runs),
            _difference(budget, family, compared[kind]) if kind in compared else "",
            compared[kind].word if kind in compared else "",
        )
        for kind, runs in _arms(budget, family).items()
    )
    columns = ("mlp", "parameters", "bigger", "loss", "difference", "word")
    return Table(family, columns, rows, {"bigger": "+.2%", "loss": ".3f", "difference": "+.3f"})


def _figure(budget: Budget, evidence: Evidence) -> Figure:
    found = [
        (family, kind, Number.mean("", evidence.values(runs, _LOSS), of=()))
        for family in _families(budget)
        for kind, runs in _arms(budget, family).items()
    ]
    rows = tuple(
        {
            "mlp": kind,
            "family": family,
            "nats": number.value,
            "low": number.low,
            "high": number.high,
        }
        for family, kind, number in found
        if family == "equal" or kind in _GATED
    )
    return Figure("losses", "dots", rows, "nats", "mlp", "family", low="low", high="high")


CLAIM = Claim(
    id="activations",
    section="beyond",
    tasks=tasks,
    judge=judge,
    sources=(
        Source("Shazeer 2020", "arXiv:2002.05202", "sec. 3"),
        Source("So et al. 2021", "arXiv:2109.08668", "sec. 3.2"),
    ),
)
