"""Reports and studies of strangers: honest ones as files in memory, and what is done to them."""

import gzip
import hashlib
import json

from hostile_run import FIELDS, TEXT, files_of
from mutations import as_json, mutated_bytes, mutated_tree

from assay.config import RunConfig
from assay.experiments.claim import Claim, Judgement, Number, Part
from assay.experiments.design import Design, grid
from assay.experiments.evidence import Evidence, Record
from assay.experiments.jobs import Jobs
from assay.experiments.paper.folder import EVIDENCE, MANIFEST, REPORT, packed
from assay.experiments.paper.judged import judge_all
from assay.experiments.paper.verify import read_numbers
from assay.experiments.paper.verify_study import read_arms
from assay.experiments.results import Results
from assay.experiments.study import Study
from assay.experiments.tasks.train import Train
from assay.experiments.work import run_job
from assay.experiments.written import seal
from assay.schema import override

NAME, ARMS = "study", grid({"model.norm": ["rms", "none"]})
STUDY = f"studies/{NAME}/study.json"


def trainings(budget=None, evidence=None):
    return [Train(run=override(RunConfig(), FIELDS | {"train.seed": seed})) for seed in range(3)]


def judge(budget, evidence):
    """Look into evidence as judges do: numbers by dotted names, lists by place."""
    tasks = trainings()
    losses = evidence.values(tasks, "val_loss_nats")
    first = evidence[tasks[0]].values["inner"]["rates"][1] * 2
    mean = Number.mean("mean", losses, of=tasks)
    verdict = "confirmed" if mean.value > first else "refuted"
    return Judgement(verdict, (Part("one", verdict),), (mean, Number("first", first)))


CLAIM = Claim("made-up", "1", trainings, judge)


def report_files():
    """A report on the claim, as `write_report` packs it; its pages are never read."""
    evidence = Evidence(
        Record(
            key=f"{n:032x}", task=task.model_dump(mode="json"), state="done", code_sha256="c" * 64,
            values={"val_loss_nats": 2.0 + n / 7, "inner": {"rates": [0.1, 0.2]}, "train_s": 0.5},
            made={"started": "2026", "elapsed_s": 1.0, "machine": {"threads": 1}, "packages": {}},
        )
        for n, task in enumerate(trainings())
    )  # fmt: skip
    (judged,) = judge_all([CLAIM], "quick", evidence)
    stored = {"budget": "quick", "claims": [judged.as_json()]}
    return resealed({REPORT: json.dumps(stored).encode(), EVIDENCE: packed(evidence)})


def resealed(files):
    """Return the files of a report with a manifest that fits them."""
    hashes = {n: hashlib.sha256(c).hexdigest() for n, c in files.items() if n != MANIFEST}
    return files | {MANIFEST: json.dumps({"files": hashes}).encode()}


def harm_report(files, rng, marker):
    """Harm one thing of a report, seals made anew so that only what it says can be wrong."""
    deed = rng.randrange(6)
    if deed == 0:
        return files | {MANIFEST: as_json(mutated_tree(json.loads(files[MANIFEST]), rng), rng)}
    if deed == 1:
        report = mutated_tree(json.loads(files[REPORT]), rng)
        return resealed(files | {REPORT: as_json(report, rng)})
    if deed == 2:
        name = rng.choice((REPORT, EVIDENCE))
        return resealed(files | {name: mutated_bytes(files[name], rng)})
    if deed == 3:
        lines = mutated_bytes(gzip.decompress(files[EVIDENCE]), rng)
        return resealed(files | {EVIDENCE: gzip.compress(lines)})
    lines = [json.loads(line) for line in gzip.decompress(files[EVIDENCE]).splitlines()]
    at = rng.randrange(len(lines))
    part = lines[at]["record"]
    if deed == 4:  # values under an honest task, which is what a judge finds
        part["values"] = mutated_tree(part["values"], rng)
    else:
        part = mutated_tree(part, rng)
    lines[at] = {"record": part, "sha256": seal(part)}
    text = b"".join(as_json(line, rng) + b"\n" for line in lines)
    return resealed(files | {EVIDENCE: gzip.compress(text)})


def open_report(folder, rng):
    read_numbers(folder, claims=[CLAIM])


def study_files(folder):
    """A study whose runs have ended: its file, its table of jobs, its runs without checkpoints."""
    text = folder / "study.txt"
    text.write_text(TEXT, encoding="utf-8")
    base = override(RunConfig(), FIELDS | {"data.text": str(text), "train.checkpoint_every": 8})
    design = Design(base, ARMS, [0, 1])
    study = Study.create(folder / "lab", NAME, design, metric="val_loss_nats")
    jobs = Jobs(study.lab)
    study.enlist(jobs)
    for _ in study.cells():
        with jobs.claimed(study.cells()) as job:
            run_job(jobs, job)
    needed = ("study.json", "jobs.sqlite", "config.json", "manifest.json")
    found = files_of(study.lab)
    return {name: content for name, content in found.items() if name.endswith(needed)}


def harm_study(files, rng, marker):
    """Harm the study's file under a seal that fits, its table, or a file of a run."""
    deed = rng.randrange(4)
    if deed < 2:
        content = json.loads(files[STUDY])
        del content["sha256"]
        content = mutated_tree(content, rng)
        return files | {STUDY: as_json(content | {"sha256": seal(content)}, rng)}
    if deed == 2:
        return files | {"jobs.sqlite": mutated_bytes(files["jobs.sqlite"], rng)}
    name = rng.choice(sorted(name for name in files if name.startswith("cells/")))
    return files | {name: as_json(mutated_tree(json.loads(files[name]), rng), rng)}


def open_study(folder, rng):
    study = Study.open(folder, NAME)
    read_arms(study)
    Results.of(study)
