import json

import pytest
from small_run import SMALL

FAST = (*SMALL, "model.vocab_size=50", "--seconds", "0.1")


@pytest.mark.slow
def test_a_machine_is_measured_as_json(assay):
    found = json.loads(assay("bench", *FAST, "--json").stdout)
    assert found["limits"]["read_bytes_per_s"] > 1e6
    assert 0 < found["training"]["share"] < 1
    assert [speed["rows"] for speed in found["decoding"]] == [1, 16]
    assert found["machine"]["device"] == "cpu" or found["machine"]["device_name"]
    assert found["elapsed_s"] > 0


@pytest.mark.slow
def test_a_machine_is_measured_in_words(assay):
    result = assay("bench", *FAST)
    assert result.status == 0
    for told in ("matrix product, fp32", "memory, read", "training", "16 at a time", "tokens/s"):
        assert told in result.stdout
    assert result.stderr == ""


def test_a_text_is_refused_since_tokens_are_random(assay, text):
    result = assay("bench", text)
    assert result.status == 2
    assert result.stderr.startswith(f"assay: {text}: a text found; expected FILE.toml")


def test_bench_explains_itself(assay):
    result = assay("bench", "--help")
    assert result.status == 0
    assert "Usage" in result.stdout
