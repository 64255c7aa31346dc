import hashlib

import numpy as np
import pytest
import torch
from tiny_run import config_of, finish

from assay.checks.batch import batch_of
from assay.errors import ConfigError, DataError
from assay.runs.run import Run
from assay.train import loop


def test_the_batch_shown_is_the_one_the_step_was_taken_on(tmp_path, text, monkeypatch):
    """What the loop is handed is noted while it trains."""
    seen = []
    passes_of = loop.passes_of

    def noting(model, plan):
        passes = passes_of(model, plan)
        return lambda batch, step: (seen.append(batch.clone()), passes(batch, step))[1]

    monkeypatch.setattr(loop, "passes_of", noting)
    run = Run.create(config_of(text), tmp_path / "run")
    finish(run)
    assert len(seen) == 8
    for step, tokens in enumerate(seen, start=1):
        batch = batch_of(run, step)
        assert torch.equal(batch.tokens, tokens)
        content = b"".join(int(i).to_bytes(8, "little") for i in tokens.flatten())
        assert batch.sha256 == hashlib.sha256(content).hexdigest()


def test_each_row_is_a_piece_of_the_text_to_the_letter(tmp_path, text):
    run = Run.create(config_of(text), tmp_path / "run")
    whole = text.read_text()
    for step in (1, 2, 8):
        batch = batch_of(run, step)
        assert [len(row) for row in batch.texts] == [17] * 4
        assert all(row in whole for row in batch.texts)
    assert len(set(np.concatenate([batch_of(run, s).texts for s in range(1, 9)]))) > 20


def test_a_text_that_changed_is_refused_with_both_hashes(tmp_path, text):
    run = Run.create(config_of(text), tmp_path / "run")
    text.write_text(text.read_text().replace("0", "9", 1))
    with pytest.raises(DataError, match=r"the text and split changed: SHA-256 .* found, .* when"):
        batch_of(run, 1)


def test_a_text_that_is_gone_is_shown_from_what_was_kept(tmp_path, text):
    run = Run.create(config_of(text), tmp_path / "run")
    before = batch_of(run, 3)
    text.unlink()
    assert batch_of(run, 3).sha256 == before.sha256


@pytest.mark.parametrize("step", [0, -1, 9])
def test_a_step_the_run_does_not_have_is_refused(tmp_path, text, step):
    run = Run.create(config_of(text), tmp_path / "run")
    with pytest.raises(ConfigError, match=f"--step: {step} found; expected 1 to 8"):
        batch_of(run, step)
