"""The article's own limits: which of them this laboratory lifts, and which it cannot."""

from collections.abc import Mapping, Sequence
from typing import Any

from assay.citation import Citation
from assay.count import count
from assay.experiments.claim import Budget, Claim, Judgement, Number, Part, Table
from assay.experiments.claims.bases import EXTENTS, NOTHING, base, trained
from assay.experiments.claims.verdicts import of_words
from assay.experiments.compare import compare
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task
from assay.experiments.tasks.text_size import TextSize
from assay.experiments.tasks.train import Train
from assay.schema import override

_METRIC = "val_loss_nats"
_ARMS: Mapping[str, Mapping[str, Any]] = {
    "base": NOTHING,
    "model.n_layers=1": {"model.n_layers": 1},
    "model.mixer=none": {"model.mixer": "none"},
}
_TOKENS_A_PARAMETER = 20  # Hoffmann et al. 2022, table 3


def named(budget: Budget) -> dict[str, list[Train]]:
    """Return the trainings: layers of attention, one such layer, layers without attention."""
    return {arm: trained(budget, changes) for arm, changes in _ARMS.items()}


def _text(budget: Budget) -> TextSize:
    return TextSize(data=base(budget).data)


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Ask for the trainings, which other claims share, and for the size of the text."""
    return [*(task for arm in named(budget).values() for task in arm), _text(budget)]


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Judge what layers of attention are worth; say of the rest why it is not tested."""
    arms, text = named(budget), evidence[_text(budget)]
    found = compare(evidence.outcomes(arms, _METRIC), _METRIC)
    one, none = (
        Number.difference(name, comparison, of=[*arms["base"], *arms[comparison.arm]], unit="nats")
        for name, comparison in zip(("one", "none"), found, strict=True)
    )
    extent = EXTENTS[budget]
    seen = extent.steps * extent.batch_size * extent.seq_len
    vocab = int(text.value("vocab"))
    parameters = count(override(base(budget).model, {"vocab_size": vocab})).parameters
    return Judgement(
        "not testable here",
        parts=(
            Part("attention", of_words([comparison.word for comparison in found], "higher")),
            Part("large", "not testable here"),
            Part("benchmark", "not testable here"),
        ),
        numbers=(
            one,
            none,
            Number("layers", extent.n_layers),
            Number("mb", text.value("bytes") / 1e6, unit="MB", of=(_text(budget),)),
            Number("passes", seen / text.value("tokens"), of=(_text(budget),)),
            Number("parameters", parameters),
            Number("tokens_a_parameter", seen / parameters),
            Number("advised", _TOKENS_A_PARAMETER),
        ),
        tables=(_table(arms, evidence),),
    )


def _table(arms: Mapping[str, Sequence[Train]], evidence: Evidence) -> Table:
    rows = tuple(
        (arm, Number.mean(f"loss_{place}", evidence.values(tasks, _METRIC), of=tasks, unit="nats"))
        for place, (arm, tasks) in enumerate(arms.items())
    )
    return Table("arms", ("arm", "loss"), rows, {"loss": ".3f"})


CLAIM = Claim(
    id="overfitting-scale",
    section="6",
    tasks=tasks,
    judge=judge,
    sources=(Citation("Hoffmann et al. 2022", "arXiv:2203.15556", "table 3"),),
)
