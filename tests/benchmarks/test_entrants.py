"""What is compared is the same model at the same size."""

import importlib
import itertools
import sys
from dataclasses import replace

import pytest
import torch

import training
from assay import presets
from assay.count import count
from assay.schema import override
from caches import cache_in
from entrants import ENTRANTS, PLAIN
from shapes import CPU


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    """Choices that assay makes in a test are forgotten with it."""
    monkeypatch.setenv("ASSAY_CACHE", cache_in(tmp_path))


@pytest.fixture
def shape():
    return replace(CPU, n_layers=2)


def own_count(preset, shape):
    sizes = {"n_layers": shape.n_layers, "d_model": shape.d_model, "vocab_size": shape.vocab_size}
    sizes |= {"max_seq_len": shape.seq_len, "mixer.n_heads": shape.n_heads}
    return count(override(preset, sizes)).parameters


@pytest.mark.parametrize(
    ("name", "preset"),
    [("nanogpt", presets.nanogpt_char()), ("article", presets.minigpt())],
)
def test_models_written_anew_have_the_parameters_of_the_preset(shape, name, preset):
    runner = ENTRANTS[name].make(shape, PLAIN, torch.device("cpu"))
    assert runner.parameters == own_count(preset, shape)


def test_the_model_of_transformers_is_gpt2_to_the_last_parameter(shape):
    pytest.importorskip("transformers", reason="transformers is not installed")

    runner = ENTRANTS["hf"].make(shape, PLAIN, torch.device("cpu"))
    assert runner.parameters == own_count(presets.gpt2(), shape)


@pytest.mark.parametrize("name", ["assay", "nanogpt", "article"])
def test_an_entrant_learns_batches_that_come_round(shape, name):
    small = replace(shape, n_layers=1, d_model=32, n_heads=2, seq_len=8, batch_size=2)
    runner = ENTRANTS[name].make(small, PLAIN, torch.device("cpu"))
    rounds = [[float(runner.step()) for _ in range(8)] for _ in range(6)]
    means = [sum(losses) / 8 for losses in rounds]
    assert all(earlier > later for earlier, later in itertools.pairwise(means))


@pytest.mark.parametrize("module", ["nanogpt", "article"])
def test_models_written_anew_do_not_look_ahead(shape, module):
    model = importlib.import_module(f"peers.{module}").build(shape).eval()
    tokens = torch.randint(65, (1, 20), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 12:] = (changed[0, 12:] + 1) % 65
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :12], after[:, :12], rtol=0, atol=1e-5)
    assert not torch.allclose(before[:, 12:], after[:, 12:], atol=1e-3)


def test_entrants_share_their_tokens_which_come_round(shape):
    first, again = (shape.batches(torch.device("cpu")) for _ in range(2))
    assert all(torch.equal(first(step), again(step)) for step in range(1, 9))
    assert not torch.equal(first(1), first(2))
    assert torch.equal(first(1), first(9))
    assert first(1).shape == (shape.batch_size, shape.seq_len + 1)


def test_a_missing_peer_is_a_row_with_the_reason(shape, results, monkeypatch):
    monkeypatch.setitem(sys.modules, "litgpt", None)
    monkeypatch.delitem(sys.modules, "peers.lit", raising=False)
    monkeypatch.setattr(training, "_LEAST_SHARE", 0.0)  # whatever this processor's bf16 is worth
    bench = training.Bench(shape, torch.device("cpu"))
    training.find(bench, ["litgpt"])
    tried = results.read("training-cpu")["tried"]["litgpt"]
    assert set(tried.values()) == {"not installed (litgpt)"}


def test_bf16_is_not_timed_where_it_cannot_win(shape, results, monkeypatch):
    monkeypatch.setitem(sys.modules, "litgpt", None)
    monkeypatch.delitem(sys.modules, "peers.lit", raising=False)
    monkeypatch.setattr(training, "_LEAST_SHARE", float("inf"))
    training.find(training.Bench(shape, torch.device("cpu")), ["litgpt"])
    tried = results.read("training-cpu")["tried"]["litgpt"]
    assert all(
        tried[f"{how} bf16"].startswith("bf16 multiplies at") for how in ("eager", "compiled")
    )
    assert {tried["eager fp32"], tried["compiled fp32"]} == {"not installed (litgpt)"}
