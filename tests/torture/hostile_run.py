"""A small run to be damaged: its folder as files in memory, and how to write its seals anew."""

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path

from assay.config import RunConfig
from assay.runs.run import Run
from assay.schema import config_hash, decode, override
from caches import cache_in

TEXT = "\n".join(f"{n} và {n + 1} là {2 * n + 1}, été 😀." for n in range(30)) + "\n"
FIELDS = {
    "model.max_seq_len": 8,
    "model.d_model": 8,
    "model.n_layers": 1,
    "model.mixer.n_heads": 2,
    "data.tokenizer": "char",
    "train.optimizer": "adamw",
    "train.steps": 8,
    "train.batch_size": 2,
    "train.log_every": 2,
    "train.checkpoint_every": 2,
    "train.device": "cpu",
    "eval.every": 4,
    "eval.max_tokens": 16,
    "eval.final_max_tokens": 16,
}
NEWEST, BEFORE = "checkpoints/step-000004", "checkpoints/step-000002"


def without_timing(monkeypatch, folder):
    """Spare the measuring of speed, and keep prepared texts in the test's own folder."""
    monkeypatch.setenv("ASSAY_CACHE", cache_in(folder))
    monkeypatch.setattr("assay.engine.device._TIMED_S", 1e-9)
    monkeypatch.setattr("assay.runs.run._SAMPLE_TOKENS", 4)


def begun_run(folder, **changes):
    """Train half of a run of eight steps; checkpoints of steps 2 and 4 are left."""
    text = folder / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    fields = FIELDS | {"data.text": str(text)} | changes
    run = Run.create(override(RunConfig(), fields), folder / "run")
    asked = iter(range(1, 9))
    list(run.train(stop=lambda: next(asked) == 4))
    return run


def files_of(folder):
    """Return every file below `folder`, by its path in it."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def lay_out(files, folder):
    """Make `folder` hold `files` and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
    return Path(folder)


def sealed(files, checkpoint=NEWEST):
    """Return `files` with a MANIFEST.json that fits what the checkpoint's files are now."""
    names = ("model.safetensors", "optim.safetensors", "state.json")
    contents = {name: files[f"{checkpoint}/{name}"] for name in names}
    manifest = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    }
    return files | {f"{checkpoint}/MANIFEST.json": json.dumps(manifest).encode()}


def forged(files, config):
    """Return `files` with another config in every place that names one, and the hashes to it."""
    manifest = json.loads(files["manifest.json"])
    state = json.loads(files[f"{NEWEST}/state.json"]) | {"config": config}
    with contextlib.suppress(ValueError):  # what is no config of ours has no hash
        manifest["config_sha256"] = config_hash(decode(RunConfig, config))
    changed = {
        "config.json": config,
        "manifest.json": manifest,
        f"{NEWEST}/state.json": state,
    }
    return sealed(files | {name: json.dumps(tree).encode() for name, tree in changed.items()})
