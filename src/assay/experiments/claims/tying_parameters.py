"""Tying saves 30-40 % of the parameters: arithmetic, so exact, with the region where it holds."""

from collections.abc import Sequence

import torch
from scipy.optimize import brentq

from assay.citation import Citation
from assay.count import count, tying_saving
from assay.experiments.claim import Budget, Claim, Judgement, Number, Part
from assay.experiments.claims.tying_pictures import region_figure, savings_table
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task
from assay.nn.model import GPT, ModelConfig
from assay.presets import gpt2, nanogpt_char
from assay.schema import override

_LOW, _HIGH = 0.30, 0.40  # the article's
_GPT2 = 50_257
_MODELS: dict[str, ModelConfig] = {
    "GPT-2 124M": gpt2("124M"),
    "GPT-2 355M": gpt2("355M"),
    "GPT-2 1.5B": gpt2("1.5B"),
    "6 x 512": override(gpt2(), {"n_layers": 6, "d_model": 512, "mixer.n_heads": 8}),
    "char, 4 x 128": override(nanogpt_char(), {"vocab_size": 65}),
}


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Name nothing: parameters are counted, not measured."""
    return []


def share(vocab: int, depth: float) -> float:
    """Return V / (2V + 12 L d), the saving in the untied count without tables, norms and biases."""
    return vocab / (2 * vocab + 12 * depth)


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Hold each well-known model to the range, and search where the range begins and ends."""
    low, high = (_where(_GPT2, bound) for bound in (_HIGH, _LOW))
    inside = {name: _LOW <= _saving(model)[0] <= _HIGH for name, model in _MODELS.items()}
    exact = all(_built(model) == _counted(model) for model in _MODELS.values())
    return Judgement(
        "confirmed" if all(inside.values()) else "holds only when" if any(inside.values())
        else "refuted",
        parts=(
            Part("range", "holds only when" if any(inside.values()) else "refuted"),
            Part("count", "confirmed" if exact else "refuted"),
        ),
        numbers=(
            Number("low", low),
            Number("high", high),
            Number("gpt2_small", _saving(_MODELS["GPT-2 124M"])[0]),
            Number("gpt2_small_of_tied", _saving(_MODELS["GPT-2 124M"])[1]),
            Number("gpt2_xl", _saving(_MODELS["GPT-2 1.5B"])[0]),
            Number("char", _saving(_MODELS["char, 4 x 128"])[0]),
        ),
        tables=(savings_table(_MODELS),),
        figures=(region_figure(share, _LOW, _HIGH),),
    )  # fmt: skip


def _saving(model: ModelConfig) -> tuple[float, float]:
    found = tying_saving(model)
    return found.share_of_untied, found.share_of_tied


def _counted(model: ModelConfig) -> int:
    untied = override(model, {"tie_embeddings": False})
    return count(untied, seq_len=1).parameters


def _built(model: ModelConfig) -> int:
    """Return the parameters of the untied model as PyTorch holds it."""
    with torch.device("meta"):
        built = GPT(override(model, {"tie_embeddings": False}))
    return sum(parameter.numel() for parameter in built.parameters())


def _where(vocab: int, bound: float) -> float:
    """Return the L·d at which the saving is `bound`, by bisection."""
    return float(brentq(lambda depth: share(vocab, depth) - bound, 0.0, 1e9))


CLAIM = Claim(
    id="tying-parameters",
    section="2.3",
    tasks=tasks,
    judge=judge,
    sources=(Citation("Press & Wolf 2017", "arXiv:1608.05859", "sec. 3"),),
)
