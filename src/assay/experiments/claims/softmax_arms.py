"""Models whose softmax is looked at: untrained at several vocabularies, and trained."""

from collections.abc import Sequence

from assay.experiments.claim import Budget
from assay.experiments.claims.bases import base, seeds, trained
from assay.experiments.tasks.inside import TrainedSoftmax, UntrainedSoftmax
from assay.schema import override

_INITS = {
    "appendix": {"init": "torch", "tie_embeddings": True},
    "gpt2": {"init": "gpt2", "tie_embeddings": True},
    "gaussian": {"init": "gaussian", "tie_embeddings": False},
}
VOCABULARIES = {
    "quick": (85, 1000),
    "laptop": (85, 1000, 50_257),
    "full": (85, 1000, 50_257, 128_256),
}
BPE = {"quick": 300, "laptop": 1024, "full": 8192}
_TOKENS = {"quick": 1024, "laptop": 4096, "full": 4096}
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
        for vocab in VOCABULARIES[budget]
    }
    bpe = {"data.tokenizer": {"kind": "bpe", "vocab_size": BPE[budget]}}
    for name, runs in (
        ("trained, characters", trained(budget)),
        (f"trained, BPE {BPE[budget]}", trained(budget, bpe)),
    ):
        found[name] = [TrainedSoftmax(run=run.run, tokens=_TOKENS[budget]) for run in runs]
    return found
