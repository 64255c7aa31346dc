"""Position vectors teach order and cost nothing: the shuffle test under five encodings."""

from collections.abc import Sequence

from assay.citation import Citation
from assay.count import count
from assay.experiments.claim import Budget, Claim, Judgement, Number, Part
from assay.experiments.claims.bases import base
from assay.experiments.claims.changes import against_zero
from assay.experiments.claims.order_pictures import LOSS, dots, encodings_table
from assay.experiments.claims.position_arms import ENCODINGS, arms, orders
from assay.experiments.claims.verdicts import all_of, of_facts, of_words
from assay.experiments.compare import Comparison, compare
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task
from assay.schema import override

_DELTA_NATS = 0.01
_MOST_SHARE = 0.001


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Train under every encoding, then shuffle."""
    trainings = [task for runs in arms(budget).values() for task in runs]
    return [*trainings, *(task for looks in orders(budget).values() for task in looks)]


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Confirm if the vectors lower the loss, make order count, and cost next to nothing."""
    compared = compare(evidence.outcomes(arms(budget), LOSS), LOSS, delta=_DELTA_NATS)
    losses = {found.arm: found for found in compared}
    rises = {
        kind: evidence.values(looks, "all_but_last_nats") for kind, looks in orders(budget).items()
    }
    shuffled = against_zero(rises, delta=_DELTA_NATS)
    share, parameters = _cost(budget)
    parts = (
        Part("loss", of_words([losses["learned"].word], "lower")),
        Part("order", of_words([shuffled["learned"].word], "higher")),
        Part("cost", of_facts([share < _MOST_SHARE])),
        Part("needed", of_words([shuffled["none"].word], "not higher")),
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
        tables=(encodings_table(budget, evidence, losses, shuffled),),
        figures=dots(budget, evidence),
    )


def _order(budget: Budget, kind: str, found: Comparison) -> Number:
    return Number.difference(f"order_{kind}", found, of=orders(budget)[kind])


def _cost(budget: Budget) -> tuple[float, int]:
    """Return the additions of a sequence over the FLOPs of the blocks alone, and T·d."""
    config = override(base(budget), {"model.vocab_size": 1})
    counted = count(config.model, seq_len=config.seq_len)
    added = config.seq_len * config.model.d_model
    blocks = sum(part.forward_flops for part in counted.parts if part.name != "unembed")
    return added / blocks, added


CLAIM = Claim(
    id="position-order",
    section="2.1, 5.1",
    tasks=tasks,
    judge=judge,
    sources=(
        Citation("Haviv et al. 2022", "arXiv:2203.16634", "sec. 3"),
        Citation("Kazemnejad et al. 2023", "arXiv:2305.19466", "sec. 5"),
    ),
)
