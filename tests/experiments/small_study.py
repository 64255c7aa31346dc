"""Studies small enough to run in this process, and outcomes that are made up."""

from dataclasses import dataclass

from assay.config import RunConfig
from assay.experiments.design import Design
from assay.experiments.jobs import Jobs
from assay.experiments.outcome import Outcome, Size
from assay.experiments.study import Study
from assay.experiments.work import run_job
from assay.schema import override

TEXT = "\n".join(f"{n} và {n + 1} là {2 * n + 1}." for n in range(60)) + "\n"
FIELDS = {
    "model.max_seq_len": 16,
    "model.d_model": 16,
    "model.n_layers": 1,
    "data.tokenizer": "char",
    "train.steps": 12,
    "train.batch_size": 4,
    "train.device": "cpu",
    "eval.final_max_tokens": 64,
}


def base_on(*texts, **changes):
    """A config of runs of a moment, on the texts given; `model__norm` is `model.norm`."""
    own = {"data.text": tuple(map(str, texts))} if texts else {}
    fields = {name.replace("__", "."): value for name, value in changes.items()}
    return override(RunConfig(), FIELDS | own | fields)


def study_of(base, tmp_path, arms, *, name="study", seeds=(0, 1, 2), **options):
    return planned(base, tmp_path, arms, name=name, seeds=seeds, **options).written()


def planned(base, tmp_path, arms, *, name="study", seeds=(0, 1, 2), metric="val_loss_nats", **rest):
    made = rest.pop("made", None)
    design = Design(base, arms, seeds, made=made)
    return Study.planned(tmp_path / "lab", name, design, metric=metric, **rest)


def finished(study):
    """Run every cell of a study in this process."""
    jobs = Jobs(study.lab)
    study.enlist(jobs)
    for _ in study.cells():
        with jobs.claimed(study.cells()) as job:
            if job is not None:
                run_job(jobs, job)
    return study


def outcome(arm, seed, loss):
    """A run that finished with this loss, or diverged where it is None."""
    metrics = {} if loss is None else {"val_loss_nats": loss, "val_bits_per_byte": 2 * loss}
    state = "diverged" if loss is None else "finished"
    return Outcome(arm, seed, f"{arm} {seed}", state, metrics, "", 1.0)


def outcomes_of(**losses):
    return {arm: [outcome(arm, n, x) for n, x in enumerate(runs)] for arm, runs in losses.items()}


@dataclass(frozen=True)
class Told(Study):
    """A study whose losses are told, not run."""

    losses: dict = None

    def outcomes(self):
        return {
            arm: [outcome(arm, seed, x) for seed, x in zip(self.design.seeds, runs, strict=True)]
            for arm, runs in self.losses.items()
        }

    def sizes(self):
        return dict.fromkeys(self.losses, Size(10, 20, 30))
