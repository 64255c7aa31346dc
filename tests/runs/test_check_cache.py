"""The check of the cache passes models that are right and finds caches that are a little wrong."""

import pytest
import torch
from tiny_run import config_of, finish

from assay.checks.cached import check_cache, compare, read_cached, tolerance
from assay.native.build import kernels
from assay.nn.cache import LayerCache
from assay.nn.model import GPT
from assay.runs.run import Run

CONFIGS = {
    "rope": {},
    "learned": {"model__position": "learned", "model__norm": "layer", "model__bias": True},
    "alibi": {"model__position": "alibi", "model__block": "post"},
    "window": {"model__mixer__window": 5, "model__mixer__n_kv_heads": 1},
    "no mixer": {"model__mixer": "none", "model__position": "sinusoidal"},
    "deep": {"model__n_layers": 8, "model__soft_cap": 5.0},
}


def opened(tmp_path, text, **changes):
    run = Run.create(config_of(text, **changes), tmp_path / "run")
    finish(run)
    model, _ = run.load()
    return model, run.dataset()


@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS.keys())
def test_a_right_model_is_fine_whatever_it_is_made_of(tmp_path, text, changes):
    found = {f.name: f for f in check_cache(*opened(tmp_path, text, **changes))}
    assert all(finding.fine for finding in found.values()), found
    ways = {"token by token", "after a prompt", "C++ kernels"}
    assert set(found) == {"text", *ways}
    for way in ways if kernels().library else ways - {"C++ kernels"}:
        facts = found[way].facts
        assert facts["positions"] == found["text"].facts["rows"] * found["text"].facts["tokens"]
        assert facts["largest_difference"] <= found["text"].facts["tolerance"]


def test_keys_rounded_to_bfloat16_are_found(tmp_path, text, monkeypatch):
    extend = LayerCache.extend

    def rounding(self, k, v):
        return extend(self, k.bfloat16().float(), v)

    model, dataset = opened(tmp_path, text, model__init={"kind": "gaussian", "std": 0.3})
    monkeypatch.setattr(LayerCache, "extend", rounding)
    found = {f.name: f for f in check_cache(model, dataset) if not f.fine}
    assert list(found) == ["token by token", "after a prompt"]


def test_a_window_one_token_short_is_found(tmp_path, text, monkeypatch):
    extend = LayerCache.extend

    def forgetful(self, k, v):
        k, v = extend(self, k, v)
        if self._k is not None and self.window is not None:
            self._k[:, :, :1] = 0
        return k, v

    model, dataset = opened(tmp_path, text, model__mixer__window=5)
    monkeypatch.setattr(LayerCache, "extend", forgetful)
    found = {f.name: f for f in check_cache(model, dataset) if not f.fine}
    assert found
    position = found["token by token"].facts["position"]
    assert position >= 1  # the first token sees itself alone


def test_the_place_of_the_largest_difference_is_that_of_the_window_and_token():
    full = torch.zeros(3, 5, 4)
    parts = full.clone()
    parts[1, 3, 2], parts[2, 0, 1] = 0.5, -0.25
    for pieces in ((5,), (1, 1, 1, 1, 1), (2, 3)):
        found = compare(full, iter(parts.split(pieces, dim=1)))
        assert (found.largest, found.row, found.position) == (0.5, 1, 3)
        assert (found.agreeing, found.positions) == (14, 15)  # of a draw the first is taken


def test_a_logit_that_is_not_a_number_is_infinitely_far():
    parts = torch.zeros(1, 2, 3)
    parts[0, 1, 0] = torch.nan
    found = compare(torch.zeros(1, 2, 3), iter([parts]))
    assert (found.largest, found.position) == (float("inf"), 1)


def test_the_tolerance_is_wide_enough_for_rounding_and_far_too_narrow_for_bfloat16():
    """Over random models: the derivation claims 3 E for most and grants 8 E."""
    for seed in range(12):
        config = config_of("x", model__vocab_size=50, model__n_layers=1 + seed % 5).model
        model = GPT.create(config, seed=seed).eval()
        tokens = torch.randint(50, (2, 16), generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            full = model(tokens)
            bound = tolerance(model, tokens, full)
            apart = compare(full, read_cached(model, tokens, 1)).largest
            rounded = compare(full, iter([full.bfloat16().float()])).largest
        assert apart <= bound
        assert rounded > 100 * bound
