import json

from small_run import TEXT


def test_gpt2_is_counted_as_published(assay):
    counted = json.loads(assay("count", "--preset", "gpt2", "--json").stdout)
    assert counted["parameters"] == 124_439_808
    assert round(counted["tying_saves_share_of_untied"], 3) == 0.237
    assert counted["attention_overtakes_at_tokens"] == 6 * 768


def test_a_model_too_large_to_build_is_counted_in_words(assay):
    result = assay("count", "model.d_model=16384", "model.n_layers=128", "model.mixer.n_heads=128")
    assert result.status == 0
    assert "training" in result.stdout


def test_data_tells_the_bigram_floor(assay, text):
    told = assay("data", text, "data.tokenizer=char", "--entropy", "--json").stdout
    summary = json.loads(told)
    assert 0 < summary["val_bigram_floor_nats"] < summary["val_entropy_nats"]
    assert summary["vocab_size"] == len(set(TEXT))
    lines = assay("data", text, "data.tokenizer=char").stdout
    assert summary["data_sha256"] in lines
