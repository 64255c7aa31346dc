import json
import math

import numpy as np
import pytest
import torch

from assay.config import RunConfig
from assay.experiments.tasks import read_task
from assay.experiments.tasks.text import ByPosition, Written
from assay.measure.ngram import NGramModel
from assay.runs.run import Run
from assay.sampling import SamplingConfig
from assay.schema import override
from caches import cache_in

LENGTH = 20
SAMPLINGS = (SamplingConfig(temperature=0), SamplingConfig(), SamplingConfig(top_k=1))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("text")


@pytest.fixture(scope="module")
def configs(place):
    lines = [f"{n} và {n + 1} là {2 * n + 1}." for n in range(120)]
    (place / "first.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (place / "second.txt").write_text("\n".join(reversed(lines)) + "\n", encoding="utf-8")
    fields = {
        "model.max_seq_len": LENGTH * 2,
        "model.d_model": 16,
        "model.n_layers": 1,
        "train.steps": 12,
        "train.batch_size": 4,
        "train.device": "cpu",
        "train.precision": "fp32",
        "train.attention": "fused",
        "train.compile": "off",
        "eval.final_max_tokens": 64,
    }
    one = {"data.text": str(place / "first.txt"), "data.tokenizer": "char"}
    two = {"data.text": str(place / "second.txt"), "data.tokenizer": "byte", "train.seed": 9}
    return override(RunConfig(), fields | one), override(RunConfig(), fields | two)


@pytest.fixture(scope="module")
def runs(place, configs):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASSAY_CACHE", cache_in(place))
        made = [Run.create(config, place / str(i)) for i, config in enumerate(configs)]
        for run in made:
            run.draws_curve = False
            for _ in run.train():
                pass
        yield tuple(made)


def written(configs, **changes):
    fields = {"samplings": SAMPLINGS, "n_samples": 6, "length": LENGTH, "seed": 3}
    return Written(writer=configs[0], judge=configs[1], **(fields | changes))


@pytest.fixture(scope="module")
def found(configs, runs):
    return written(configs).take(runs)


def test_the_same_task_finds_the_same_bits(configs, runs, found):
    assert json.dumps(written(configs).take(runs)) == json.dumps(found)
    other = written(configs, seed=4).take(runs)
    assert other["s1"] != found["s1"]
    assert other["human"] != found["human"]
    assert other["s0"] == found["s0"]  # greedy draws nothing


def test_a_task_comes_back_from_json(configs):
    task = written(configs)
    assert read_task(task.model_dump_json()) == task
    assert task.needs == configs


def test_people_are_the_writers_validation_text_after_a_line_break(runs, found):
    val = runs[0].tokenizer().decode(runs[0].dataset().val.ids)
    assert "\n" + found["human"]["sample"] in val
    assert len(found["human"]["sample"]) == LENGTH


def test_greedy_texts_are_all_alike(found):
    assert found["s0"] == found["s2"]
    assert found["s0"]["unique_4"] <= LENGTH - 3
    assert found["s1"]["distinct_4"] > found["s0"]["distinct_4"]


def test_the_bits_are_those_of_the_judge_over_the_characters_written(configs, runs):
    """One text, each byte from its own pass: float32 logits, sums of some twenty terms."""
    values = written(configs, n_samples=1).take(runs)["s1"]
    text, (model, tokenizer) = values["sample"], runs[1].load()
    read, bits = [ord("\n")], 0.0
    for byte in text.encode():
        with torch.no_grad():
            p = model(torch.tensor([read]))[0, -1].double().softmax(-1)[byte]
        bits -= math.log2(p)
        read.append(byte)
    assert values["judge_bits"] == pytest.approx(bits / len(text), rel=1e-4)
    counts = NGramModel.fit(runs[1].dataset().train.ids, vocab_size=tokenizer.vocab_size, order=6)
    expected = -counts.log2_probability(np.array(read))[1:].sum() / len(text)
    assert values["ngram_bits"] == pytest.approx(expected, rel=1e-9)


def test_what_cannot_be_counted_is_none(configs, runs):
    values = written(configs, n_samples=1, length=2).take(runs)["s1"]
    assert values["self_bleu_4_words"] is None
    assert values["distinct_4"] is None
    json.dumps(values, allow_nan=False)


def test_random_bits_are_those_of_the_writers_alphabet(runs, found):
    assert found["random_bits"] == math.log2(runs[0].tokenizer().vocab_size)


def by_position(config, changes, *, trained=False):
    return ByPosition(
        run=override(config, changes), trained=trained, n_texts=30, edges=(1, 11, 21), seed=2
    )


def test_the_appendix_repeats_its_input_and_a_sound_model_does_not(configs):
    wide = {"model.vocab_size": 50, "model.d_model": 64}
    appendix = by_position(configs[0], wide | {"model.init": "torch", "model.position": "learned"})
    assert appendix.needs == ()
    values = appendix.take(())
    assert values["stretch_0"]["repetition"]["found"] > 0.9
    assert values["stretch_1"]["repetition"]["found"] > 0.9
    sound = by_position(configs[0], wide | {"model.tie_embeddings": False}).take(())
    # 300 pairs at a chance of 1 / 50: six of them, give or take three standard deviations of 2.4
    assert sound["stretch_0"]["repetition"]["found"] < 14 / 300
    assert json.dumps(appendix.take(())) == json.dumps(values)


def test_a_trained_model_is_the_runs_own(configs, runs):
    task = by_position(configs[0], {}, trained=True)
    assert task.needs == (configs[0],)
    assert read_task(task.model_dump_json()) == task
    values = task.take(runs[:1])
    assert (values["stretch_0"]["first"], values["stretch_1"]["end"]) == (1, 21)
    untrained = by_position(configs[0], {"model.vocab_size": runs[0].tokenizer().vocab_size})
    assert values != untrained.take(())
