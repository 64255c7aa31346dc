"""Tasks about positions and about where a loss lies, on runs of a moment."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from small_study import base_on

from assay.data.config import DataConfig
from assay.data.prepare import prepare
from assay.data.synthetic import problems
from assay.data.windows import evaluation_windows
from assay.errors import ConfigError
from assay.evaluate.loss import evaluate
from assay.experiments.tasks import read_task
from assay.experiments.tasks.loss_parts import FewTokens, LossParts
from assay.experiments.tasks.position import Answers, Order, PositionLoss
from assay.generate import GenerateOptions
from assay.nn.reference import reference_logits
from assay.runs.run import Run
from assay.sampling import SamplingConfig
from assay.schema import decode, override
from caches import cache_in

KINDS = ("learned", "rope")


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASSAY_CACHE", cache_in(tmp_path_factory.mktemp("position")))
        yield


@pytest.fixture(scope="module")
def runs(_cache, tmp_path_factory):
    """A run of a few steps on the copy task, for a table and for rotary positions."""
    return {kind: trained(kind, tmp_path_factory.mktemp(kind) / "run") for kind in KINDS}


def trained(kind, path):
    config = base_on("task:copy", model__position=kind, train__steps=40, train__seed=1)
    run = Run.create(config, path)
    run.draws_curve = False
    for _ in run.train():
        pass
    return run


def slow_loss(model, ids, place, seen):
    """Loss of token `place` behind `seen` tokens, by the readable twin."""
    logits = reference_logits(model, ids[None, place - seen : place])[0, -1]
    return float(logits.logsumexp(0) - logits[ids[place]])


@pytest.mark.slow
def test_every_length_is_judged_on_the_same_targets(runs):
    run = runs["rope"]
    task = PositionLoss(run=run.config, lengths=(16, 32), stride=8, targets=64)
    values = task.take((run,))
    model, _ = run.load()
    ids = torch.from_numpy(run.dataset().val.ids[: 32 + 64].astype("int64"))
    for length in (16, 32):
        seen = {at: 1 + (at - 32) % length for at in range(32, 96)}
        blocks = {at: slow_loss(model, ids, at, n) for at, n in seen.items()}
        assert values["blocks"][str(length)] == pytest.approx(
            np.mean(list(blocks.values())), abs=1e-5
        )
        for bucket, found in enumerate(values["curve"][str(length)]):
            mine = [loss for at, loss in blocks.items() if (seen[at] - 1) // 8 == bucket]
            assert found == pytest.approx(np.mean(mine), abs=1e-5)
        sliding = [slow_loss(model, ids, at, length - 7 + (at - 32) % 8) for at in seen]
        assert values["sliding"][str(length)] == pytest.approx(np.mean(sliding), abs=1e-5)


def test_a_table_that_has_ended_gives_nothing(runs):
    run = runs["learned"]
    values = PositionLoss(run=run.config, lengths=(16, 32), stride=8, targets=64).take((run,))
    for found in values.values():
        assert found["16"] is not None
        assert found["32"] is None
    asked = Answers(run=run.config, task="copy", lengths=(7, 8), n=5).take((run,))
    assert asked["right"]["7"] is not None  # 1 + 8 + 7 tokens are read, of 16
    assert asked["right"]["8"] is None


@pytest.mark.parametrize("wrong", [{"targets": 48}, {"stride": 5}])
def test_lengths_that_do_not_divide_are_refused(runs, wrong):
    fields = {"run": runs["rope"].config.model_dump(), "lengths": (16, 32), "stride": 8}
    with pytest.raises(ConfigError, match="expected lengths that the stride divides"):
        decode(PositionLoss, fields | {"targets": 64} | wrong)


def test_order_is_a_difference_of_losses_and_comes_again_to_the_bit(runs):
    task = Order(run=runs["rope"].config, windows=40, permutations=2)
    values = task.take((runs["rope"],))
    assert set(values) == {"all_nats", "all_but_last_nats"}
    assert values == read_task(task.model_dump_json()).take((runs["rope"],))


def test_answers_are_what_the_run_writes(runs):
    run = runs["rope"]
    asked = problems("copy", 1, 60, seed=3)
    right = 0
    for problem in asked:
        text = run.write(
            f"\n{problem.prompt}",
            sampling=SamplingConfig(temperature=0),
            options=GenerateOptions(max_new_tokens=2),
        )
        right += text == f"{problem.answer}\n"
    task = Answers(run=run.config, task="copy", lengths=(1,), n=60, seed=3)
    assert task.take((run,))["right"] == {"1": right}


def mean_loss(run, targets):
    """The mean over so many targets as an evaluation takes it."""
    model, tokenizer = run.load()
    ids, length = run.dataset().val.ids, run.config.seq_len
    windows = evaluation_windows(ids, seq_len=length, max_tokens=targets)
    return evaluate(model, windows, tokenizer.token_byte_lengths(), nullcontext).loss_nats


def test_parts_of_the_loss_make_up_the_whole(runs):
    run = runs["rope"]
    values = LossParts(run=run.config, ends=(4, 16), targets=640).take((run,))
    vocab = run.tokenizer().vocab_size
    assert list(values["targets"]) == ["4", "16", str(vocab)]
    assert sum(values["targets"].values()) == 640
    whole = sum(values["loss_nats"][end] * n for end, n in values["targets"].items()) / 640
    assert whole == pytest.approx(mean_loss(run, 640), abs=1e-6)


def few(path, **fields):
    config = base_on(path, model__position="rope", train__steps=30, train__seed=2)
    vocab = prepare(config.data).tokenizer.vocab_size
    config = override(config, {"model.vocab_size": vocab})
    return FewTokens(run=config, every=10, targets=64, **fields)


def test_few_tokens_are_all_that_is_trained_on(tmp_path):
    texts = ("abcdefgh" * 40 + "hgfedcba" * 200, "abcdefgh" * 40 + "ahbgcfde" * 200)
    found = []
    for name, text in zip("xy", texts, strict=True):
        (tmp_path / name).write_text(text, encoding="utf-8")
        found.append(few(tmp_path / name, tokens=320).take(()))
    first, second = found
    assert first["train_nats"] == second["train_nats"]  # to the bit
    assert first["val_nats"] != second["val_nats"]
    assert first["train_nats"][-1] < first["train_nats"][0]
    assert first["gap_nats"] == first["val_nats"][-1] - first["train_nats"][-1]
    assert first["rise_nats"] == first["val_nats"][-1] - min(first["val_nats"])
    assert first["epochs"] == 30 * 4 / 19  # of 320 tokens, 19 windows of 16


def test_few_tokens_name_the_text_they_read(tmp_path):
    (tmp_path / "x").write_text("abcdefgh" * 200, encoding="utf-8")
    task = few(tmp_path / "x", tokens=320)
    assert task.texts == (task.run.data,)
    assert isinstance(task.texts[0], DataConfig)
    assert task.needs == ()
