"""The output is sparse, a few tokens dominate, most are near 1/V: untrained and trained."""

from collections.abc import Sequence

from assay.experiments.claim import Budget, Claim, Figure, Judgement, Number, Part, Table
from assay.experiments.claims.bases import base, seeds, trained
from assay.experiments.claims.verdicts import above, of_answers
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task
from assay.experiments.tasks.inside import TrainedSoftmax, UntrainedSoftmax
from assay.schema import override
from assay.source import Source

_INITS = {
    "appendix": {"init": "torch", "tie_embeddings": True},
    "gpt2": {"init": "gpt2", "tie_embeddings": True},
    "gaussian": {"init": "gaussian", "tie_embeddings": False},
}
_VOCABULARIES = {
    "quick": (85, 1000),
    "laptop": (85, 1000, 50_257),
    "full": (85, 1000, 50_257, 128_256),
}
_BPE = {"quick": 300, "laptop": 1024, "full": 8192}
_TOKENS = {"quick": 1024, "laptop": 4096, "full": 4096}
_MOST = 0.5  # of the mass in ten tokens; of the vocabulary near 1/V
_FIELDS = (
    "entropy_deficit_nats",
    "effective_share",
    "top1_mass",
    "top10_mass",
    "gini",
    "peak_over_uniform",
    "near_uniform_share",
)

Looks = Sequence[UntrainedSoftmax | TrainedSoftmax]


def looks(budget: Budget) -> dict[str, Looks]:
    """Return the looks at each arm, one a seed; an arm is an init at a vocabulary, or trained."""
    model = base(budget).model
    found: dict[str, Looks] = {
        f"{name}, V {vocab}": [
            UntrainedSoftmax(
                model=override(model, {"vocab_size": vocab, **changes}),
                seed=seed,
                sequences=4,
                seq_len=16,
            )
            for seed in seeds(budget)
        ]
        for name, changes in _INITS.items()
        for vocab in _VOCABULARIES[budget]
    }
    bpe = {"data.tokenizer": {"kind": "bpe", "vocab_size": _BPE[budget]}}
    for name, runs in (
        ("trained, characters", trained(budget)),
        (f"trained, BPE {_BPE[budget]}", trained(budget, bpe)),
    ):
        found[name] = [TrainedSoftmax(run=run.run, tokens=_TOKENS[budget]) for run in runs]
    return found


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Look at what untrained and trained models predict."""
    return [task for tasks in looks(budget).values() for task in tasks]


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Ask of every arm whether ten tokens hold half the mass, and whether most are near 1/V."""
    found = {
        arm: {field: _mean(evidence, arm, tasks, field) for field in _FIELDS}
        for arm, tasks in looks(budget).items()
    }
    few = {arm: above(numbers["top10_mass"], _MOST) for arm, numbers in found.items()}
    near = {arm: above(numbers["near_uniform_share"], _MOST) for arm, numbers in found.items()}
    both = [_and(few[arm], near[arm]) for arm in found]
    untrained = [arm for arm in found if not arm.startswith("trained")]
    gpt2 = f"gpt2, V {_VOCABULARIES[budget][-1]}"
    appendix = f"appendix, V {_VOCABULARIES[budget][-1]}"
    bpe = f"trained, BPE {_BPE[budget]}"
    return Judgement(
        of_answers(both),
        parts=(
            Part("few_untrained", of_answers([few[arm] for arm in untrained])),
            Part("near_untrained", of_answers([near[arm] for arm in untrained])),
            Part("few_trained", of_answers([few[arm] for arm in found if arm not in untrained])),
            Part("near_trained", of_answers([near[arm] for arm in found if arm not in untrained])),
            Part("both", of_answers(both)),
        ),
        numbers=(
            *(
                Number(f"{short}_{field}", each.value, each.low, each.high, of=each.of)
                for short, arm in (("gpt2", gpt2), ("appendix", appendix), ("bpe", bpe))
                for field, each in found[arm].items()
            ),
            Number("arms", len(found)),
            Number("arms_both", sum(answer is True for answer in both)),
            Number("largest", _VOCABULARIES[budget][-1]),
            Number("uniform_top10", 10 / _VOCABULARIES[budget][-1]),
            Number("bpe", _BPE[budget]),
        ),
        tables=(_table(found),),
        figures=(_figure(found),),
    )


def _and(first: bool | None, second: bool | None) -> bool | None:
    if first is False or second is False:
        return False
    return None if first is None or second is None else True


def _mean(evidence: Evidence, arm: str, tasks: Looks, field: str) -> Number:
    return Number.mean(f"{_slug(arm)}_{field}", evidence.values(tasks, field), of=tasks)


def _slug(arm: str) -> str:
    """Return the name of an arm as an id may hold it."""
    return arm.replace(",", "").replace(" ", "-").lower()


def _table(found: dict[str, dict[str, Number]]) -> Table:
    rows: list[tuple[str | Number, ...]] = [
        (arm, *numbers.values()) for arm, numbers in found.items()
    ]
    spec = dict.fromkeys(_FIELDS, ".3f") | {"peak_over_uniform": ".2f"}
    return Table("shapes", ("arm", *_FIELDS), tuple(rows), spec)


def _figure(found: dict[str, dict[str, Number]]) -> Figure:
    rows = tuple(
        {
            "arm": arm,
            "share": numbers[field].value,
            "low": numbers[field].low,
            "high": numbers[field].high,
            "what": field,
        }
        for arm, numbers in found.items()
        for field in ("top10_mass", "near_uniform_share")
    )
    return Figure(
        "shares", "dots", rows, "share", "arm", "what", low="low", high="high",
        rules=(("x", _MOST),),
    )  # fmt: skip


CLAIM = Claim(
    id="softmax-shape",
    section="4.2",
    tasks=tasks,
    judge=judge,
    sources=(Source("Gini 1921", "doi:10.2307/2223319", "the coefficient"),),
)
