"""The article's LayerNorm adds ε to σ; PyTorch adds it under the root. Where do they part?"""

import math
from collections.abc import Sequence

from scipy.optimize import brentq

from assay.citation import Citation
from assay.experiments.claim import Budget, Claim, Judgement, Number, Part
from assay.experiments.claims.bases import trained
from assay.experiments.claims.sigma_eps_pictures import scales_figure, scales_table
from assay.experiments.claims.verdicts import of_words, whole
from assay.experiments.compare import compare
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task
from assay.experiments.tasks.norms import NormScales
from assay.experiments.tasks.train import Train

_EPS = 1e-5
_AUDITED = 1e-3  # the σ at which the two were measured before
_APART = 0.01  # relative: from here on they are called different
_SIGMAS = tuple(10 ** (power / 4) for power in range(-20, 5))
_DELTA_NATS = 0.02
SCALES = NormScales(sigmas=(*_SIGMAS, _AUDITED), eps=_EPS)


def arms(budget: Budget) -> dict[str, list[Train]]:
    """Return the training with each of the two, equal in all else."""
    return {
        name: trained(budget, {"model.norm": {"kind": name, "affine": "scale", "eps": _EPS}})
        for name in ("layer", "sigma")
    }


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Train with both, and send tokens of many scales through them."""
    return [SCALES, *(task for tasks in arms(budget).values() for task in tasks)]


def boundary() -> float:
    """Return the σ under which the output scales differ by more than a hundredth."""
    return float(brentq(lambda sigma: apart(sigma) - _APART, 1e-9, 10.0))


def apart(sigma: float) -> float:
    """Return 1 - (σ + ε)/√(σ² + ε), how much less comes out of PyTorch's."""
    return 1 - (sigma + _EPS) / math.sqrt(sigma**2 + _EPS)


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Hold the scales to the closed forms, the gradients to being numbers, the losses by TOST."""
    values = evidence[SCALES].values
    outside, under = (values[name]["scales"] for name in ("sigma", "layer"))
    exact = all(
        math.isclose(outside[i], sigma / (sigma + _EPS), rel_tol=1e-9)
        and math.isclose(under[i], sigma / math.sqrt(sigma**2 + _EPS), rel_tol=1e-9)
        for i, sigma in enumerate(SCALES.sigmas)
    )
    finite = {name: values[name]["finite_share"] == 1 for name in ("sigma", "layer")}
    (loss,) = compare(evidence.outcomes(arms(budget), "val_loss_nats"), "val_loss_nats",
                      delta=_DELTA_NATS)  # fmt: skip
    both = [task for tasks in arms(budget).values() for task in tasks]
    same_loss = of_words([loss.word], "equivalent")
    parts = (
        Part("scale", "holds only when" if exact else "refuted"),
        Part("gradient", "confirmed" if finite["sigma"] == finite["layer"] else "refuted"),
        Part("loss", "equivalent" if same_loss == "confirmed" else same_loss),
    )
    return Judgement(
        whole([part.verdict for part in parts]),
        parts,
        numbers=(
            Number("boundary", boundary()),
            Number("root_eps", math.sqrt(_EPS)),
            Number("outside", outside[-1], of=(SCALES,)),
            Number("under", under[-1], of=(SCALES,)),
            Number("finite_sigma", values["sigma"]["finite_share"], of=(SCALES,)),
            Number("finite_layer", values["layer"]["finite_share"], of=(SCALES,)),
            Number.difference("difference", loss, of=both, unit="nats"),
            Number("delta", _DELTA_NATS, unit="nats"),
            Number("needs", loss.needs or math.nan),
        ),
        tables=(scales_table(SCALES, outside, under),),
        figures=(scales_figure(SCALES, outside, under, boundary()),),
    )


CLAIM = Claim(
    id="sigma-eps",
    section="2.2",
    tasks=tasks,
    judge=judge,
    sources=(Citation("Ba et al. 2016", "arXiv:1607.06450", "eq. 4"),),
)
