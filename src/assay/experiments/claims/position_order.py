"""Position vectors teach order and cost nothing: the shuffle test under five encodings."""

from collections.abc import Mapping, Sequence

from assay.count import count
from assay.experiments.claim import Budget, Claim, Figure, Judgement, Number, Part, Table
from assay.experiments.claims.bases import base, trained
from assay.experiments.claims.changes import (
    against_zero,
    is_higher,
    is_lower,
    is_not_higher,
)
from assay.experiments.claims.verdicts import all_of
from assay.experiments.compare import Comparison, compare
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task
from assay.experiments.tasks.position import Order
from assay.experiments.tasks.train import Train
from assay.schema import override
from assay.source import Source

ENCODINGS = ("none", "learned", "sinusoidal", "rope", "alibi")
_DELTA_NATS = 0.01
_MOST_SHARE = 0.001
_LOSS = "val_loss_nats"


def arms(budget: Budget) -> dict[str, list[Train]]:
    """Return the training of every encoding under each seed; extrapolation looks at them too."""
    return {kind: trained(budget, {"model.position": kind}) for kind in ENCODINGS}


def _orders(budget: Budget) -> dict[str, list[Order]]:
    n = 64 if budget == "quick" else 512
    return {
        kind: [Order(run=task.run, windows=n, permutations=2) for task in runs]
        for kind, runs in arms(budget).items()
    }


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Train under every encoding, then shuffle."""
    trainings = [task for runs in arms(budget).values() for task in runs]
    return [*trainings, *(task for looks in _orders(budget).values() for task in looks)]


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Confirm if the vectors lower the loss, make order count, and cost next to nothing."""
    compared = compare(evidence.outcomes(arms(budget), _LOSS), _LOSS, delta=_DELTA_NATS)
    losses = {found.arm: found for found in compared}
    orders = {
        kind: evidence.values(looks, "all_but_last_nats") for kind, looks in _orders(budget).items()
    }
    shuffled = against_zero(orders, delta=_DELTA_NATS)
    share, parameters = _cost(budget)
    parts = (
        Part("loss", is_lower(losses["learned"])),
        Part("order", is_higher(shuffled["learned"])),
        Part("cost", "confirmed" if share < _MOST_SHARE else "refuted"),
        Part("needed", is_not_higher(shuffled["none"])),
    )
    both = [*arms(budget)["none"], *arms(budget)["learned"]]
    return Judgement(
        all_of([part.verdict for part in parts if part.id != "needed"]),
        parts,
        numbers=(
            Number.difference("gain", losses["learned"], of=both),
            *(_order(budget, kind, shuffled[kind]) for kind in ENCODINGS),
            Number("share", share),
            Number("parameters", parameters),
        ),
        tables=(_table(budget, evidence, losses, shuffled),),
        figures=_figures(budget, evidence),
    )


def _order(budget: Budget, kind: str, found: Comparison) -> Number:
    return Number.difference(f"order_{kind}", found, of=_orders(budget)[kind])


def _cost(budget: Budget) -> tuple[float, int]:
    """Return the additions of a sequence over the FLOPs of the blocks alone, and T·d."""
    config = override(base(budget), {"model.vocab_size": 1})
    counted = count(config.model, seq_len=config.seq_len)
    added = config.seq_len * config.model.d_model
    blocks = sum(part.forward_flops for part in counted.parts if part.name != "unembed")
    return added / blocks, added


def _table(
    budget: Budget,
    evidence: Evidence,
    losses: Mapping[str, Comparison],
    shuffled: Mapping[str, Comparison],
) -> Table:
    runs, looks = arms(budget), _orders(budget)
    rows = tuple(
        (
            kind,
            Number.mean(f"loss_{kind}", evidence.values(runs[kind], _LOSS), of=runs[kind]),
            Number.difference(f"gain_{kind}", losses[kind], of=[*runs["none"], *runs[kind]])
            if kind in losses
            else "",
            losses[kind].word if kind in losses else "",
            Number.mean(f"all_{kind}", evidence.values(looks[kind], "all_nats"), of=looks[kind]),
            Number.difference(f"but_last_{kind}", shuffled[kind], of=looks[kind]),
        )
        for kind in ENCODINGS
    )
    columns = ("encoding", "loss", "gain", "word", "all", "but_last")
    return Table("encodings", columns, rows, dict.fromkeys(columns, ".3f") | {"gain": "+.3f"})


def _figures(budget: Budget, evidence: Evidence) -> tuple[Figure, ...]:
    runs, looks = arms(budget), _orders(budget)
    rows = [
        _dot(kind, name, Number.mean("", evidence.values(tasks, metric), of=()))
        for kind in ENCODINGS
        for name, tasks, metric in (
            ("loss", runs[kind], _LOSS),
            ("all_but_last", looks[kind], "all_but_last_nats"),
            ("all", looks[kind], "all_nats"),
        )
    ]
    order = tuple(row for row in rows if row["what"] != "loss")
    loss = tuple(row for row in rows if row["what"] == "loss")
    return (
        Figure("loss", "dots", loss, "nats", "encoding", low="low", high="high"),
        Figure("order", "dots", order, "nats", "encoding", "what", low="low", high="high"),
    )


def _dot(kind: str, what: str, number: Number) -> dict[str, str | float | None]:
    return {
        "encoding": kind,
        "what": what,
        "nats": number.value,
        "low": number.low,
        "high": number.high,
    }


CLAIM = Claim(
    id="position-order",
    section="2.1, 5.1",
    tasks=tasks,
    judge=judge,
    sources=(
        Source("Haviv et al. 2022", "arXiv:2203.16634", "sec. 3"),
        Source("Kazemnejad et al. 2023", "arXiv:2305.19466", "sec. 5"),
    ),
)
