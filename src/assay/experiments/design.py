"""What is compared with what: arms that differ in named fields, under the same seeds."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from assay.config import RunConfig
from assay.engine.device import resolve_plan
from assay.errors import ConfigError
from assay.experiments.made import Made
from assay.runs.diff import fields_that_differ
from assay.schema import override

_OWN = "train.seed"  # differs between the runs of one arm, by design
_NO_NUMBER = (  # what is written, shown or looked at on the way: the result is the same without
    "sampling.",
    "eval.every",
    "eval.max_tokens",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.tensorboard",
)


@dataclass(frozen=True, slots=True)
class Arm:
    """One side of a comparison.

    Attributes:
        name: As a user types it: `model.norm=rms`.
        changes: Dotted fields and their values, laid upon the base: what is compared.
        besides: Fields set beside them, to match arms in size or cost or to tune a rate. A
            comparison with any is not controlled, and says so.
    """

    name: str
    changes: Mapping[str, Any]
    besides: Mapping[str, Any] = field(default_factory=dict)


def grid(fields: Mapping[str, Sequence[Any]]) -> tuple[Arm, ...]:
    """Return an arm for each combination of values; the first of each field make the first arm."""
    combined = itertools.product(*fields.values())
    return tuple(
        Arm(" ".join(f"{field}={shown(v)}" for field, v in changes.items()), changes)
        for changes in (dict(zip(fields, values, strict=True)) for values in combined)
    )


def shown(value: object) -> str:
    """Return a value as it is typed behind FIELD=."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {shown(v)}" for name, v in value.items()) + "}"
    return str(value)


def of_one_precision(base: RunConfig) -> RunConfig:
    """Return the base with its precision settled by rule, so that no arm has another by a timing.

    That is float32 on a CPU; see `assay.engine.device.resolve_plan`.
    """
    if base.train.precision != "auto":
        return base
    precision = "bf16" if resolve_plan(base.train).autocast else "fp32"
    return override(base, {"train.precision": precision})


@final
class Design:
    """Arms upon a base, each to be run under every seed; the first arm is what others are held to.

    Attributes:
        base: The config that arms change.
        arms: At least two, no two of one config.
        seeds: At least two, all different.
        made: How arms were made comparable, and seeds added.
    """

    def __init__(
        self,
        base: RunConfig,
        arms: Sequence[Arm],
        seeds: Sequence[int],
        *,
        made: Made | None = None,
    ) -> None:
        """Check that there is something to compare.

        Raises:
            ConfigError: With the first thing that is wrong.
        """
        self.base, self.arms, self.seeds = base, tuple(arms), tuple(seeds)
        self.made = made or Made()
        self._check_seeds()
        self._check_arms()

    def config(self, arm: Arm, seed: int) -> RunConfig:
        """Return the config of one run."""
        return override(self.base, {**arm.changes, **arm.besides, _OWN: seed})

    def _check_seeds(self) -> None:
        if len(set(self.seeds)) != len(self.seeds) or len(self.seeds) < 2:
            raise ConfigError(
                f"seeds: {list(self.seeds)} found; expected at least 2, all different: one run of "
                "each arm says nothing of the next."
            )

    def _check_arms(self) -> None:
        if len(self.arms) < 2:
            raise ConfigError(
                f"arms: {len(self.arms)} found; expected at least 2, such as model.norm=layer,rms."
            )
        seen: dict[RunConfig, Arm] = {}
        for arm in self.arms:
            if _OWN in arm.changes:
                raise ConfigError(f"{_OWN}: found in arm {arm.name!r}; seeds are given by --seeds.")
            config = self.config(arm, 0)
            if config in seen:
                raise ConfigError(
                    f"arms {seen[config].name!r} and {arm.name!r} are one config; expected arms "
                    "that differ. Leave one of them out."
                )
            seen[config] = arm
            self._check_changes(arm)

    def _check_changes(self, arm: Arm) -> None:
        """Refuse an arm that differs from the first in nothing that its result depends on."""
        names = fields_that_differ(self.config(self.arms[0], 0), self.config(arm, 0))
        if names and all(name.startswith(_NO_NUMBER) for name in names):
            raise ConfigError(
                f"arm {arm.name!r}: it changes nothing that a result depends on "
                f"({', '.join(names)}); expected a field that changes the model, its text or its "
                "training. Leave it out."
            )
