"""The contract of a variant, tried on a small model: what a user's own class must do to be trusted.

What a part of a model must do is in `model_contract`, the rest in `training_contract`.
"""

from collections.abc import Iterator
from pathlib import Path

from assay.checks.finding import Finding
from assay.checks.model_contract import BrokenError, Looks, of_model
from assay.checks.training_contract import of_optimizer, of_sampler, of_schedule
from assay.errors import ConfigError
from assay.family import Variant, families, field_of, kind_of
from assay.plugin import load
from assay.sampling.filters import FilterVariant
from assay.sampling.temperature import AdaptVariant
from assay.train.optim import OptimizerVariant
from assay.train.schedule import ScheduleVariant


def find_variant(target: str) -> type[Variant]:
    """Return the variant that `FILE.py:NAME` or `FIELD=KIND` names; a file is run.

    Raises:
        ConfigError: If there is none.
    """
    path, colon, name = target.rpartition(":")
    if colon:
        there = {variant.__name__: variant for variant in load(Path(path))}
        there |= {kind_of(variant): variant for variant in there.values()}
    else:
        there = {f"{field_of(v)}={kind_of(v)}": v for family in families() for v in family}
        name = target
    if name not in there:
        known = ", ".join(sorted(there))
        raise ConfigError(f"{target}: expected FILE.py:NAME, or one of: {known}.")
    return there[name]


def check_variant(variant: Variant) -> Iterator[Finding]:
    """Yield what is found of a variant, each thing fine or not."""
    match variant:
        case OptimizerVariant():
            yield from _tried(of_optimizer(variant))
        case ScheduleVariant():
            yield from _tried(of_schedule(variant))
        case FilterVariant() | AdaptVariant():
            yield from _tried(of_sampler(variant))
        case _:
            yield from _tried(of_model(variant, field_of(type(variant))))


def _tried(findings: Looks) -> Iterator[Finding]:
    """Do each check; what one raises is what it found."""
    for name, look in findings:
        try:
            yield Finding(name, look())
        except BrokenError as failed:
            yield Finding(name, str(failed), fine=False)
        except Exception as error:
            yield Finding(name, f"{type(error).__name__}: {error}", fine=False)
            if name in ("config", "build"):
                return
