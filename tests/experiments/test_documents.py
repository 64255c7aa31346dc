"""Losses by validation document, and the interval that resamples documents too."""

import json
import math

import numpy as np
import pytest
import torch
from small_study import TEXT, base_on, finished, outcome, study_of

from assay.errors import RunError
from assay.evaluate.by_document import STRETCHES, losses_by_document
from assay.experiments import report
from assay.experiments.code import code_sha256
from assay.experiments.design import Arm, grid
from assay.experiments.documents import keep_document_losses, over_documents
from assay.experiments.results import Results
from assay.experiments.statistics import multi_bootstrap_interval
from assay.runs.run import Run


@pytest.fixture
def documents(base, tmp_path):
    """A config on sixty documents, half of which validate."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for n in range(60):
        (folder / f"{n:02}.txt").write_text(f"{n}: " + TEXT[40 * n : 40 * n + 25 + 3 * n])
    return base_on(folder, data__val_fraction=0.5, train__steps=3, eval__final_max_tokens=None)


def run_of(config, path):
    run = Run.create(config, path)
    run.draws_curve = False
    for _ in run.train():
        pass
    return run


def losses_of(run, max_tokens=None):
    model, _ = run.load()
    return losses_by_document(
        model,
        run.dataset(),
        seq_len=run.config.seq_len,
        max_tokens=max_tokens,
        precision=torch.no_grad,
    )


@pytest.mark.slow
def test_the_loss_of_a_document_is_that_of_its_tokens_one_by_one(documents, tmp_path):
    run = run_of(documents, tmp_path / "run")
    found, val = losses_of(run), run.dataset().val
    assert found.by == "document"
    assert len(found.nats) == len(val.document_starts) > 10
    model, _ = run.load()
    ids, seq_len = torch.from_numpy(val.ids.astype(np.int64)), run.config.seq_len
    ends = [*val.document_starts[1:], len(ids)]
    nats = np.zeros(len(ends))
    tokens = np.zeros(len(ends), int)
    with torch.no_grad():
        for first in range(0, len(ids) - seq_len, seq_len):
            logits = model(ids[None, first : first + seq_len])[0].log_softmax(-1)
            for place in range(seq_len):
                target = first + place + 1
                document = next(n for n, end in enumerate(ends) if target < end)
                nats[document] -= float(logits[place, ids[target]])
                tokens[document] += 1
    assert found.tokens.tolist() == tokens.tolist()
    assert found.nats == pytest.approx(nats, rel=1e-5)
    result = run.folder.read_manifest()["result"]
    assert found.nats.sum() / tokens.sum() == pytest.approx(result["val_loss_nats"], rel=1e-6)
    bits = found.nats.sum() / math.log(2) / found.text_bytes.sum()
    assert bits == pytest.approx(result["val_bits_per_byte"], rel=1e-6)


def test_stretches_of_one_text_are_the_same_bytes_whatever_the_tokenizer(base, tmp_path):
    found = {}
    for kind in ("char", "byte"):
        config = base_on(*base.data.text, data__tokenizer=kind, train__steps=1)
        found[kind] = losses_of(run_of(config, tmp_path / kind))
    assert found["char"].by == found["byte"].by == "stretch"
    assert len(found["char"].nats) == len(found["byte"].nats) == STRETCHES
    apart = np.abs(found["char"].text_bytes - found["byte"].text_bytes)[:-9]
    assert apart.max() <= 3  # a letter of three bytes on one side of the cut or the other


@pytest.mark.slow
def test_losses_are_kept_beside_the_run_which_stays_as_it_was(base, tmp_path):
    study = finished(study_of(base, tmp_path, [Arm("a", {}), Arm("b", {"model.norm": "none"})]))
    before = sorted(path for path in (study.lab / "cells").rglob("*") if path.is_file())
    assert study.comparisons()[0].documents is None
    for key in study.cells():
        keep_document_losses(study.lab, key)
    assert before == sorted(path for path in (study.lab / "cells").rglob("*") if path.is_file())
    (found,) = study.comparisons()
    assert found.document_kind == "stretch"
    assert found.documents.low < found.mean < found.documents.high
    told = report.markdown(Results.of(study))
    assert "with seeds and stretches of the validation text resampled" in told
    assert "Multi-Bootstrap" in told
    kept = study.lab / "records" / f"{study.cells()[0]}.documents.json"
    content = json.loads(kept.read_text())
    stamp = kept.stat().st_mtime_ns
    keep_document_losses(study.lab, study.cells()[0])
    assert kept.stat().st_mtime_ns == stamp
    content["nats"][0] += 9.0  # edited: not believed, and made again
    kept.write_text(json.dumps(content))
    assert study.comparisons()[0].documents is None
    keep_document_losses(study.lab, study.cells()[0])
    assert study.comparisons()[0].documents == found.documents


def test_a_result_that_the_checkpoint_does_not_give_is_noticed(base, tmp_path):
    study = finished(study_of(base, tmp_path, grid({"model.norm": ["rms", "none"]}), seeds=(0, 1)))
    path = study.lab / "cells" / study.cells()[0] / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["result"]["val_loss_nats"] -= 0.01
    path.write_text(json.dumps(manifest))
    with pytest.raises(RunError, match=r"nats by its checkpoint, .* in its manifest"):
        keep_document_losses(study.lab, study.cells()[0])


def test_the_interval_is_that_of_the_differences_by_seed_and_document(tmp_path):
    rng, code = np.random.default_rng(0), code_sha256("assay.evaluate.by_document")
    nats = rng.normal(20, 3, (2, 4, 12))
    tokens = rng.integers(5, 15, 12).astype(float)
    (tmp_path / "records").mkdir()
    pairs = []
    for seed in range(4):
        pair = []
        for side, arm in enumerate(("a", "b")):
            mean = float(nats[side, seed].sum() / tokens.sum())
            run = outcome(arm, seed, mean)
            kept = {
                "by": "document", "nats": nats[side, seed].tolist(), "tokens": tokens.tolist(),
                "text_bytes": tokens.tolist(), "val_loss_nats": mean, "code_sha256": code,
            }  # fmt: skip
            path = tmp_path / "records" / f"{run.key}.documents.json"
            path.write_text(json.dumps(kept))
            pair.append(run)
        pairs.append(tuple(pair))
    found, kind = over_documents(tmp_path, pairs, "val_loss_nats", level=0.9)
    expected = multi_bootstrap_interval((nats[1] - nats[0]) / tokens, tokens, level=0.9)
    assert kind == "document"
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    diverged = (outcome("a", 9, 2.0), outcome("b", 9, None))
    assert over_documents(tmp_path, [*pairs, diverged], "val_loss_nats", level=0.9)[0] == found
    unkept = (outcome("a", 9, 2.0), outcome("b", 9, 2.0))
    assert over_documents(tmp_path, [*pairs, unkept], "val_loss_nats", level=0.9) is None
    assert over_documents(tmp_path, pairs[:1], "val_loss_nats", level=0.9) is None
