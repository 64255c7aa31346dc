"""A study: a design, the cells it needs, and what came of them.

lab/
    jobs.sqlite            every cell of every study, and where it stands
    cells/KEY/             run folders; a cell that two studies need is run once
    studies/NAME/
        study.json         base, arms, seeds, metric, keys: written once
        report.md ...      a pure function of study.json and the run folders
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from assay.config import RunConfig
from assay.data.prepare import prepare
from assay.disk import flush, read_json
from assay.errors import ConfigError, RunError
from assay.experiments.cell import cell_key, code_sha256
from assay.experiments.compare import Comparison, compare
from assay.experiments.design import Arm, Design
from assay.experiments.jobs import Jobs
from assay.experiments.outcome import METRICS, Outcome, Size, read_outcome
from assay.runs.folder import check_name
from assay.schema import Config, decode, override

_MOST_BYTES = 1 << 22
Keys = Annotated[dict[str, dict[str, str]], Field(min_length=2)]


class ArmRecord(Config):
    """An arm as `study.json` holds it."""

    name: str
    changes: dict[str, Any]
    besides: dict[str, Any] = Field(default_factory=dict)


class StudyRecord(Config):
    """What `study.json` holds."""

    base: dict[str, Any]
    """The config that arms change."""
    arms: Annotated[tuple[ArmRecord, ...], Field(strict=False)]
    """The first is what the others are held to."""
    seeds: Annotated[tuple[int, ...], Field(strict=False)]
    """Of every arm."""
    metric: str
    """What arms are compared by."""
    delta: float | None
    """The smallest difference that matters."""
    code_sha256: str
    """Of the source files that numbers depend on."""
    keys: Keys
    """The cell of each arm and seed."""


@dataclass(frozen=True, slots=True)
class Study:
    """A study in its folder.

    Attributes:
        lab: The folder of cells and studies.
        name: Of the study.
        design: What is compared.
        record: What `study.json` holds.
    """

    lab: Path
    name: str
    design: Design
    record: StudyRecord

    @classmethod
    def create(
        cls, lab: Path, name: str, design: Design, *, metric: str, delta: float | None = None
    ) -> "Study":
        """Prepare the texts, name the cells and write the study down; nothing is run yet.

        Raises:
            ConfigError: If the metric cannot compare the arms, or the name is no name.
            RunError: If there is another study of this name.
            DataError: If a text cannot be read.
        """
        check_name(name)
        _check_metric(metric)
        data = {
            config: prepare(config)
            for config in {design.config(arm, 0).data for arm in design.arms}
        }
        _check_same_text(design, metric, data)
        keys = {
            arm.name: {
                str(seed): cell_key(config, data[config.data].sha256, code_sha256())
                for seed in design.seeds
                for config in [design.config(arm, seed)]
            }
            for arm in design.arms
        }
        record = StudyRecord(
            base=design.base.model_dump(mode="json"),
            arms=tuple(
                ArmRecord(name=arm.name, changes=dict(arm.changes), besides=dict(arm.besides))
                for arm in design.arms
            ),
            seeds=design.seeds,
            metric=metric,
            delta=delta,
            code_sha256=code_sha256(),
            keys=keys,
        )
        study = cls(lab, name, design, record)
        study._write()
        return study

    @classmethod
    def open(cls, lab: Path, name: str) -> "Study":
        """Open a study by its name.

        Raises:
            RunError: If there is none, or its file was damaged.
        """
        check_name(name)
        path = lab / "studies" / name / "study.json"
        try:
            record = decode(StudyRecord, read_json(path, _MOST_BYTES))
            arms = [Arm(arm.name, arm.changes, arm.besides) for arm in record.arms]
            design = Design(decode(RunConfig, record.base), arms, record.seeds)
        except FileNotFoundError:
            there = sorted(p.parent.name for p in (lab / "studies").glob("*/study.json"))
            raise RunError(
                f"{name}: no study of this name found under {lab}/studies/; studies there: "
                f"{', '.join(there) or 'none yet'}."
            ) from None
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: unreadable ({error}). Put it back from a copy.") from None
        return cls(lab, name, design, record)

    @property
    def folder(self) -> Path:
        """Where the study's own files are."""
        return self.lab / "studies" / self.name

    def cells(self) -> list[str]:
        """Return the keys of all cells, seed by seed, so that pairs are complete early."""
        return [
            self.record.keys[arm.name][str(seed)]
            for seed in self.design.seeds
            for arm in self.design.arms
        ]

    def enlist(self, jobs: Jobs) -> None:
        """Put every cell into the table of jobs."""
        for seed in self.design.seeds:
            for arm in self.design.arms:
                key = self.record.keys[arm.name][str(seed)]
                config = self.design.config(arm, seed)
                jobs.add(key, f"{arm.name}, seed {seed}", config.model_dump_json())

    def outcomes(self) -> dict[str, list[Outcome]]:
        """Return what came of each arm's cells so far; a cell not run yet is `waiting`.

        Raises:
            RunError: If a run folder is one of another config.
        """
        return {
            arm.name: [self._outcome(arm, seed) for seed in self.design.seeds]
            for arm in self.design.arms
        }

    def sizes(self) -> dict[str, Size]:
        """Return what each arm costs, its vocabulary taken from a run of it."""
        found = {}
        for arm in self.design.arms:
            config = self.design.config(arm, self.design.seeds[0])
            if config.model.vocab_size is None:
                config = override(config, {"model.vocab_size": self._vocabulary(arm)})
            found[arm.name] = Size.of(config)
        return found

    def comparisons(self) -> list[Comparison]:
        """Compare every arm with the first by the study's metric."""
        return compare(self.outcomes(), self.record.metric, delta=self.record.delta)

    def _vocabulary(self, arm: Arm) -> int:
        data = self.design.config(arm, self.design.seeds[0]).data
        return prepare(data).tokenizer.vocab_size

    def _outcome(self, arm: Arm, seed: int) -> Outcome:
        key = self.record.keys[arm.name][str(seed)]
        folder = self.lab / "cells" / key
        if not (folder / "config.json").is_file():
            return Outcome(arm.name, seed, key, "waiting", {}, "", 0.0)
        return read_outcome(folder, arm.name, seed, self.design.config(arm, seed))

    def _write(self) -> None:
        path = self.folder / "study.json"
        content = self.record.model_dump(mode="json")
        try:
            if path.is_file():
                if read_json(path, _MOST_BYTES) == json.loads(json.dumps(content)):
                    return  # the same study: go on with it
                raise RunError(
                    f"{self.folder}: another study of this name is there, or this one run by other "
                    "code, whose numbers are not mixed with these. Choose another --name."
                )
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            flush(temporary)
            temporary.replace(path)
            flush(self.folder)
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: cannot be written or read ({error}).") from None


def _check_metric(metric: str) -> None:
    if metric not in METRICS:
        raise ConfigError(f"--metric: {metric!r} found; expected one of: {', '.join(METRICS)}.")


def _check_same_text(design: Design, metric: str, data: dict[Any, Any]) -> None:
    """Refuse to compare losses on other texts, or nats of other tokens."""
    summaries: Sequence[dict[str, Any]] = [dataset.summary for dataset in data.values()]
    texts = {
        tuple(s[name] for name in ("corpus_sha256", "split", "val_fraction")) for s in summaries
    }
    if len(texts) > 1:
        raise ConfigError(
            "data: arms with other texts or splits found; expected one validation text for all, or "
            "their losses cannot be compared."
        )
    if metric == "val_loss_nats" and len({s["tokenizer_sha256"] for s in summaries}) > 1:
        raise ConfigError(
            "--metric: val_loss_nats found for arms with other tokenizers, whose tokens stand for "
            "other amounts of text; expected val_bits_per_byte."
        )
