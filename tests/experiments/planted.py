"""Evidence that is made up, for the rules of claims."""

import json
import zlib

import numpy as np

from assay.experiments.evidence import Evidence, Record


def record(task, values):
    """The record of a task; None for a run that diverged."""
    lost = values is None
    return Record(
        key="k",
        task=task.model_dump(mode="json"),
        state="diverged" if lost else "done",
        values=values or {},
        error="step 7: loss nan found" if lost else "",
        code_sha256="c",
        made={},
    )


def noise(*of, size=0.003):
    """Small, and another for everything it is made of."""
    seed = zlib.crc32(json.dumps(of, default=str).encode())
    return size * float(np.random.default_rng(seed).normal())


def planted(module, world, budget="laptop"):
    """Evidence in which every task found what `world` says of it."""
    return Evidence(record(task, world(task)) for task in module.tasks(budget, Evidence()))


def judged(module, world, budget="laptop"):
    return module.judge(budget, planted(module, world, budget))


def verdicts(found):
    return {part.id: part.verdict for part in found.parts}
