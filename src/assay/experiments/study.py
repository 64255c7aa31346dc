"""A study: a design, the cells it needs, and what came of them.

lab/
    jobs.sqlite            every cell of every study, and where it stands
    cells/KEY/             run folders; a cell that two studies need is run once
    records/               what was measured on cells
    studies/NAME/
        study.json         base, arms, seeds, metric, keys: written once, sealed by its hash
        report.md ...      a pure function of study.json, the run folders and the records
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from assay.config import RunConfig
from assay.data.config import DataConfig
from assay.data.prepare import Dataset, prepare
from assay.errors import ConfigError, RunError
from assay.experiments.as_ended import check_as_ended
from assay.experiments.cell import cell_key
from assay.experiments.code import code_sha256
from assay.experiments.compare import Comparison, compare
from assay.experiments.design import Arm, Design
from assay.experiments.documents import over_documents
from assay.experiments.jobs import Jobs, results_in
from assay.experiments.outcome import METRICS, Outcome, Size, read_outcome
from assay.experiments.settled import settled
from assay.experiments.study_file import ArmRecord, Keys, StudyRecord, read_record, settle_record
from assay.runs.folder import RunFolder, check_name
from assay.schema import decode

ENDED = ("finished", "diverged")
"""States of a run that no more work changes."""


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
    def planned(
        cls, lab: Path, name: str, design: Design, *, metric: str, delta: float | None = None
    ) -> "Study":
        """Prepare the texts and name the cells; nothing is written in the lab.

        Raises:
            ConfigError: If the metric cannot compare the arms, or the name is no name.
            DataError: If a text cannot be read.
        """
        check_name(name)
        _check_metric(metric, delta)
        data = _prepared(design)
        _check_same_text(design, metric, data)
        record = StudyRecord(
            base=design.base.model_dump(mode="json"),
            arms=tuple(
                ArmRecord(name=arm.name, changes=dict(arm.changes), besides=dict(arm.besides))
                for arm in design.arms
            ),
            seeds=design.seeds,
            metric=metric,
            delta=delta,
            made=design.made,
            code_sha256=code_sha256(),
            keys=_keys(design, data, code_sha256()),
        )
        return cls(lab, name, design, record)

    @classmethod
    def create(
        cls, lab: Path, name: str, design: Design, *, metric: str, delta: float | None = None
    ) -> "Study":
        """Plan a study and write it down; nothing is run yet.

        Raises:
            ConfigError, DataError: As `planned` does.
            RunError: As `written` does.
        """
        return cls.planned(lab, name, design, metric=metric, delta=delta).written()

    @classmethod
    def open(cls, lab: Path, name: str) -> "Study":
        """Open a study by its name.

        Raises:
            RunError: If there is none, or its file was damaged or edited.
        """
        check_name(name)
        path = lab / "studies" / name / "study.json"
        try:
            record = read_record(path)
            arms = [Arm(arm.name, arm.changes, arm.besides) for arm in record.arms]
            base = decode(RunConfig, record.base)
            design = Design(base, arms, record.seeds, made=record.made)
            _check_metric(record.metric, record.delta)
        except FileNotFoundError:
            there = sorted(p.parent.name for p in (lab / "studies").glob("*/study.json"))
            raise RunError(
                f"{name}: no study of this name found under {lab}/studies/; studies there: "
                f"{', '.join(there) or 'none yet'}."
            ) from None
        except ConfigError as error:
            raise RunError(f"{path}: unreadable ({error}). Put it back from a copy.") from None
        return cls(lab, name, design, record)

    def written(self, *, mix_code: bool = False) -> "Study":
        """Write the study down, or go on with it where it is written; return it as it is there.

        Args:
            mix_code: Keep finished cells of the same study that other code made, and mark them.

        Raises:
            RunError: If there is another study of this name, or this one by other code and that
                is not to be mixed.
        """
        mixed = self._mixed if mix_code else None
        record = settle_record(self.folder / "study.json", self.record, mixed)
        return replace(self, record=record)

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
            RunError: If a run folder is one of another config, or its result is not what it
                came to when it ended.
        """
        found = {
            arm.name: [self._outcome(arm, seed) for seed in self.design.seeds]
            for arm in self.design.arms
        }
        every = [run for runs in found.values() for run in runs]
        check_as_ended(self.lab, results_in(self.lab, [run.key for run in every]), every)
        return found

    def ended_outcomes(self) -> dict[str, list[Outcome]]:
        """Return what came of each arm's cells, all of which have ended.

        Raises:
            RunError: If some have not, or as `outcomes` does.
        """
        found = self.outcomes()
        waiting = [run for runs in found.values() for run in runs if run.state not in ENDED]
        if waiting:
            raise RunError(
                f"{self.folder}: {len(waiting)} of {len(self.cells())} runs have not ended, such "
                f"as {waiting[0].arm!r} with seed {waiting[0].seed}; expected all, since what "
                "follows goes by them. Give the same command again."
            )
        return found

    def sizes(self) -> dict[str, Size]:
        """Return what each arm costs."""
        seed = self.design.seeds[0]
        return {
            arm.name: Size.of(settled(self.design.config(arm, seed))) for arm in self.design.arms
        }

    def comparisons(self) -> list[Comparison]:
        """Compare every arm with the first by the study's metric."""
        outcomes, metric = self.outcomes(), self.record.metric
        widening = self.record.made.widening
        found = compare(
            outcomes,
            metric,
            delta=self.record.delta,
            n_first=widening.n_first if widening else None,
        )
        return [self._with_documents(each, outcomes) for each in found]

    def _with_documents(
        self, found: Comparison, outcomes: Mapping[str, Sequence[Outcome]]
    ) -> Comparison:
        if found.interval is None:
            return found
        pairs = list(zip(next(iter(outcomes.values())), outcomes[found.arm], strict=True))
        over = over_documents(self.lab, pairs, self.record.metric, level=found.interval.level)
        return replace(found, documents=over[0], document_kind=over[1]) if over else found

    def _outcome(self, arm: Arm, seed: int) -> Outcome:
        key = self.record.keys[arm.name][str(seed)]
        folder = RunFolder.inside(self.lab / "cells", key).path
        if not (folder / "config.json").is_file():
            return Outcome(arm.name, seed, key, "waiting", {}, "", 0.0)
        return read_outcome(folder, arm.name, seed, self.design.config(arm, seed))

    def _mixed(self, there: StudyRecord) -> StudyRecord:
        """Return this record with the cells that other code finished on the same text."""
        keys = {arm: dict(by_seed) for arm, by_seed in self.record.keys.items()}
        other: dict[str, str] = {}
        data = _prepared(self.design)
        codes = {there.code_sha256, *there.other_code.values()} - {self.record.code_sha256}
        for code in sorted(codes):
            for arm, by_seed in _keys(self.design, data, code).items():
                for seed, key in by_seed.items():
                    if there.keys[arm][seed] == key and self._has_ended(key):
                        keys[arm][seed], other[key] = key, code
        return self.record.model_copy(update={"keys": keys, "other_code": other})

    def _has_ended(self, key: str) -> bool:
        folder = RunFolder.inside(self.lab / "cells", key)
        return (folder.path / "config.json").is_file() and folder.read_manifest()["status"] in ENDED


def _prepared(design: Design) -> dict[DataConfig, Dataset]:
    return {
        config: prepare(config) for config in {design.config(arm, 0).data for arm in design.arms}
    }


def _keys(design: Design, data: Mapping[DataConfig, Dataset], code: str) -> Keys:
    """Return the cell of each arm and seed, under a code."""
    return {
        arm.name: {
            str(seed): cell_key(config, data[config.data].sha256, code)
            for seed in design.seeds
            for config in [design.config(arm, seed)]
        }
        for arm in design.arms
    }


def _check_metric(metric: str, delta: float | None) -> None:
    if metric not in METRICS:
        raise ConfigError(f"--metric: {metric!r} found; expected one of: {', '.join(METRICS)}.")
    if delta is not None and not 0 < delta < math.inf:
        raise ConfigError(
            f"--delta: {delta} found; expected the smallest difference that matters, above 0."
        )


def _check_same_text(design: Design, metric: str, data: Mapping[DataConfig, Dataset]) -> None:
    """Refuse to compare losses on other texts, or nats of other tokens."""
    summaries: Sequence[dict[str, Any]] = [dataset.summary for dataset in data.values()]
    texts = {
        tuple(s[name] for name in ("corpus_sha256", "split", "val_fraction")) for s in summaries
    }
    judged = {design.config(arm, 0).eval.final_max_tokens for arm in design.arms}
    if len(texts) > 1 or len(judged) > 1:
        raise ConfigError(
            "data: arms with other texts or splits, or another eval.final_max_tokens, found; "
            "expected one validation text for all, or their losses cannot be compared."
        )
    if metric == "val_loss_nats" and len({s["tokenizer_sha256"] for s in summaries}) > 1:
        raise ConfigError(
            "--metric: val_loss_nats found for arms with other tokenizers, whose tokens stand for "
            "other amounts of text; expected val_bits_per_byte."
        )
