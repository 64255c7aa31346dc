"""An untrained model writes short structure, then noise: by position, for each initialisation."""

from collections.abc import Mapping, Sequence
from typing import Any

from assay.experiments.claim import Budget, Claim, Figure, Judgement, Number, Part, Table, Verdict
from assay.experiments.claims.bases import EXTENTS, base, seeds
from assay.experiments.claims.writers import against_zero
from assay.experiments.compare import Comparison
from assay.experiments.evidence import Evidence
from assay.experiments.tasks.text import ByPosition
from assay.source import Source

_VOCABULARY = 85  # characters of the plays, about
_ARMS: Mapping[str, Mapping[str, Any]] = {
    "gpt2": {},
    "gpt2_untied": {"model.tie_embeddings": False},
    "torch_untied": {"model.init": "torch", "model.tie_embeddings": False},
    "torch_tied": {"model.init": "torch"},
    "torch_scaled": {"model.init": "torch", "model.logit_scale": "inv_sqrt_d"},
}
_TEXTS: Mapping[Budget, int] = {"quick": 100, "laptop": 400, "full": 2000}
_STRETCHES = 4  # of equal length, so that shuffles err alike in all
_DELTA = 0.05  # nats, of some ln 85 = 4.4
_INFORMATION = "information_excess_nats"


def by_arm(budget: Budget) -> dict[str, list[ByPosition]]:
    """Return the tasks of each initialisation, and of the trained base, one a seed."""
    changes = {"model.vocab_size": _VOCABULARY}
    found = {
        arm: [_task(budget, seed, changes | dict(own), trained=False) for seed in seeds(budget)]
        for arm, own in _ARMS.items()
    }
    return found | {"trained": [_task(budget, s, {}, trained=True) for s in seeds(budget)]}


def _task(budget: Budget, seed: int, changes: Mapping[str, Any], *, trained: bool) -> ByPosition:
    length = EXTENTS[budget].seq_len // _STRETCHES
    return ByPosition(
        run=base(budget, seed=seed, changes=changes),
        trained=trained,
        n_texts=_TEXTS[budget],
        edges=tuple(1 + length * place for place in range(_STRETCHES + 1)),
        seed=seed,
    )


def tasks(budget: Budget, evidence: Evidence) -> list[ByPosition]:
    """Write with every initialisation, and with the trained base beside them."""
    return [task for found in by_arm(budget).values() for task in found]


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Ask of each initialisation: is there structure early, and less of it late?"""
    arms = by_arm(budget)
    differences: dict[str, list[float]] = {}
    for arm, found in arms.items():
        early, late = (_values(evidence, found, place) for place in (0, _STRETCHES - 1))
        differences[f"early {arm}"] = early
        differences[f"late {arm}"] = late
        differences[f"fall {arm}"] = [a - b for a, b in zip(early, late, strict=True)]
    words = against_zero(differences, delta=_DELTA)
    verdicts = {arm: _verdict(words, arm) for arm in _ARMS}
    lasting = all(words[f"{when} trained"].word == "higher" for when in ("early", "late"))
    numbers = _numbers(words, arms, evidence)
    return Judgement(
        _whole(list(verdicts.values())),
        (
            *(Part(arm, verdict) for arm, verdict in verdicts.items()),
            Part("trained", "confirmed" if lasting else "not resolved"),
        ),
        numbers=tuple(numbers.values()),
        tables=(_table(numbers, verdicts),),
        figures=tuple(
            _figure(name, figure, arms, evidence)
            for name, figure in (("information", _INFORMATION), ("repetition", "repetition.found"))
        ),
    )


def _values(
    evidence: Evidence, found: Sequence[ByPosition], place: int, name: str = _INFORMATION
) -> list[float]:
    return evidence.values(found, f"stretch_{place}.{name}")


def _verdict(words: Mapping[str, Comparison], arm: str) -> Verdict:
    """Return whether text begins with structure and loses it.

    Refuted where it has none to begin with, or keeps (or gains) what it has.
    """
    early, fall = words[f"early {arm}"].word, words[f"fall {arm}"].word
    if early == fall == "higher":
        return "confirmed"
    none = ("equivalent", "lower")
    return "refuted" if early in none or fall in none else "not resolved"


def _whole(verdicts: Sequence[Verdict]) -> Verdict:
    if len(set(verdicts)) == 1:
        return verdicts[0]
    return "holds only when" if "confirmed" in verdicts else "not resolved"


def _numbers(
    words: Mapping[str, Comparison], arms: Mapping[str, Sequence[ByPosition]], evidence: Evidence
) -> dict[str, Number]:
    found = [
        Number.difference(f"{when}_{arm}", words[f"{when} {arm}"], of=tasks)
        for arm, tasks in arms.items()
        for when in ("early", "late", "fall")
    ]
    found += [
        Number.mean(f"repetition_{arm}", _values(evidence, tasks, 0, "repetition.found"), of=tasks)
        for arm, tasks in arms.items()
    ]
    return {number.id: number for number in found} | {
        "chance": Number("chance", 1 / _VOCABULARY),
        "delta": Number("delta", _DELTA),
    }


def _table(numbers: Mapping[str, Number], verdicts: Mapping[str, Verdict]) -> Table:
    columns = ("early", "late", "fall", "repetition")
    rows: tuple[tuple[str | Number, ...], ...] = tuple(
        (arm, *(numbers[f"{column}_{arm}"] for column in columns), verdicts.get(arm, "-"))
        for arm in (*_ARMS, "trained")
    )
    return Table("arms", ("arm", *columns, "verdict"), rows, dict.fromkeys(columns, ".3f"))


def _figure(
    name: str, figure: str, arms: Mapping[str, Sequence[ByPosition]], evidence: Evidence
) -> Figure:
    rows = []
    for arm, found in arms.items():
        for place in range(_STRETCHES):
            number = Number.mean(name, _values(evidence, found, place, figure), of=found)
            middle = (found[0].edges[place] + found[0].edges[place + 1] - 1) / 2
            ends = {"low": number.low, "high": number.high}
            rows.append({"arm": arm, "position": middle, "value": number.value, **ends})
    return Figure(
        name, "lines", tuple(rows), "position", "value", "arm", low="low", high="high"
    )  # fmt: skip


CLAIM = Claim(
    id="untrained-text",
    section="4.3",
    tasks=tasks,
    judge=judge,
    sources=(Source("Shannon 1951", "doi:10.1002/j.1538-7305.1951.tb01366.x", "eq. 1"),),
)
