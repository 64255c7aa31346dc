import math

import numpy as np
import pytest
import torch
from tiny import LENGTH, VOCAB, copied, model_of, plan_of, random_batch, same_bits

from assay.train.loop import train
from assay.train.optim import AdamWConfig, MuonConfig, Optimizers

EXACT = 1e-10  # float64; some thousand operations of relative error 1e-16 on numbers of order one
DROPPING = {"dropout": 0.2, "mixer": {"kind": "attention", "dropout": 0.2}}


def descent(model, lr):
    """Plain gradient descent: an update is the (clipped) gradient itself, times the rate."""
    sgd = torch.optim.SGD(model.parameters(), lr=lr)
    return Optimizers(((sgd, lr),), {p: n for n, p in model.named_parameters()})


def run(model, optimizers, plan, batch_at=random_batch, **where):
    return list(train(model, batch_at, optimizers, plan, **where))


def loss_by_hand(model, batch):
    """Mean of -ln p(next token), with the softmax in numpy."""
    with torch.no_grad():
        logits = model(batch[:, :-1]).double().numpy()
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    rows, columns = np.indices(batch[:, 1:].shape)
    return -np.log(p[rows, columns, batch[:, 1:].numpy()]).mean()


def gradients_by_hand(model, batch):
    """Of the mean loss, one sequence at a time."""
    total = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    for row in batch:
        log_p = model(row[None, :-1])[0].log_softmax(-1)
        loss = -log_p[torch.arange(LENGTH), row[1:]].mean() / len(batch)
        values = torch.autograd.grad(loss, list(model.parameters()))
        for name, value in zip(total, values, strict=True):
            total[name] += value
    return total


def test_the_loss_of_a_report_is_that_of_the_weights_before_the_update():
    model = model_of().double()
    reports = train(model, random_batch, AdamWConfig().build(model), plan_of(steps=3))
    for step in (1, 2, 3):
        expected = loss_by_hand(model, random_batch(step))
        report = next(reports)
        assert report.loss_nats == pytest.approx(expected, abs=EXACT)
        assert (report.step, report.tokens) == (step, 4 * LENGTH)
        assert report.elapsed_s > 0


@pytest.mark.parametrize("clip_norm", [None, 1e6, 0.01])
def test_an_update_is_the_gradient_scaled_down_to_the_bound_on_its_norm(clip_norm):
    """PyTorch divides by norm + 1e-6, hence the relative tolerance of 1e-6 / 0.01 when clipping."""
    model = model_of(bias=True).double()
    before, batch = copied(dict(model.named_parameters())), random_batch(1)
    gradients = gradients_by_hand(model, batch)
    norm = math.sqrt(sum(float(g.pow(2).sum()) for g in gradients.values()))
    plan = plan_of(steps=1, clip_norm=clip_norm, schedule="constant")
    report = run(model, descent(model, 0.5), plan)[0]
    assert report.grad_norm == pytest.approx(norm, abs=EXACT)
    scale = min(1.0, (clip_norm or math.inf) / norm)
    assert (scale < 1) == (clip_norm == 0.01)
    for name, parameter in model.named_parameters():
        update = (before[name] - parameter.detach()) / 0.5
        torch.testing.assert_close(update, scale * gradients[name], rtol=1e-4, atol=EXACT)


@pytest.mark.parametrize("optimizer", [AdamWConfig(), MuonConfig()])
def test_micro_batches_add_up_to_the_batch(optimizer):
    results = []
    for pieces in (1, 2, 4):
        model = model_of().double()
        config = optimizer.model_copy(update={"lr": 1e-3})
        plan = plan_of(steps=3, batch_size=4, micro_batches=pieces)
        reports = run(model, config.build(model), plan)
        results.append((reports, model.state_dict()))
    whole_reports, whole = results[0]
    for reports, weights in results[1:]:
        losses = [report.loss_nats for report in reports]
        expected = [report.loss_nats for report in whole_reports]
        assert losses == pytest.approx(expected, abs=EXACT)
        assert reports[0].grad_norm == pytest.approx(whole_reports[0].grad_norm, abs=EXACT)
        for name, value in weights.items():
            torch.testing.assert_close(value, whole[name], rtol=0, atol=EXACT)


def test_the_rate_of_a_step_is_its_factor_times_the_peak():
    plan = plan_of(steps=20, schedule={"kind": "cosine", "warmup_steps": 5})
    model = model_of()
    optimizers = AdamWConfig(lr=0.01).build(model)
    for report in train(model, random_batch, optimizers, plan):
        expected = 0.01 * plan.config.schedule.factor(report.step, 20)
        used = {group["lr"] for group in optimizers.parts[0][0].param_groups}
        assert used == {expected} == {report.lr}


def test_a_step_reads_the_batch_of_its_number():
    asked = []

    def batch_at(step):
        asked.append(step)
        return random_batch(step)

    model = model_of()
    run(model, AdamWConfig().build(model), plan_of(steps=7), batch_at, start=4)
    assert asked == [5, 6, 7]


def test_what_is_learnt_is_the_next_token_and_not_the_same_one():
    """Counting modulo V is a function of the current token, so the loss can come to nothing."""
    starts = torch.arange(VOCAB)[:, None]
    count_up = (starts + torch.arange(LENGTH + 1)) % VOCAB
    model = model_of()
    plan = plan_of(steps=150, batch_size=VOCAB)
    reports = run(model, AdamWConfig(lr=0.02).build(model), plan, lambda step: count_up)
    assert reports[0].loss_nats == pytest.approx(math.log(VOCAB), abs=0.1)
    assert reports[-1].loss_nats < 0.01
    assert torch.equal(model(count_up[:, :-1]).argmax(-1), count_up[:, 1:])


def losses_at_rest(seed=0, micro_batches=1, batch_at=None, start=0, **model_fields):
    """Losses over four steps of rate 0 on one batch: they differ by what dropout draws alone."""
    model = model_of(**(model_fields or DROPPING))
    plan = plan_of(steps=4, seed=seed, batch_size=4, micro_batches=micro_batches)
    batch_at = batch_at or (lambda step: random_batch(1))
    return [r.loss_nats for r in run(model, descent(model, 0.0), plan, batch_at, start=start)]


def test_dropout_draws_anew_in_each_step_and_the_same_again_for_the_same_seed_and_step():
    losses = losses_at_rest()
    assert len(set(losses)) == 4
    assert len(set(losses_at_rest(dropout=0.0))) == 1
    torch.manual_seed(99)
    assert losses_at_rest() == losses
    assert losses_at_rest(start=2) == losses[2:]
    assert losses_at_rest(seed=1) != losses


def test_dropout_draws_anew_in_each_micro_batch():
    """Two equal micro-batches under one mask would have the loss of one alone."""
    rows = random_batch(1)[:2]
    alone = losses_at_rest(batch_at=lambda step: rows)
    twice = losses_at_rest(batch_at=lambda step: torch.cat((rows, rows)), micro_batches=2)
    assert all(abs(one - other) > 1e-6 for one, other in zip(alone, twice, strict=True))


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    losses_at_rest()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_left_in_evaluation_mode_between_steps_is_trained_with_dropout_again():
    model = model_of(**DROPPING)
    losses = []
    plan = plan_of(steps=4)
    for report in train(model, lambda step: random_batch(1), descent(model, 0.0), plan):
        losses.append(report.loss_nats)
        model.eval()
    assert losses == losses_at_rest()


def test_products_in_bfloat16_give_nearly_the_same_loss_and_leave_the_weights_in_float32():
    """The loss moves by at most twice the largest change of a logit.

    A logit of size m comes out of at most 8 roundings of relative size 2^-8 in a row.
    """
    losses, models = [], [model_of(), model_of()]
    largest = float(models[0](random_batch(1)[:, :-1]).detach().abs().max())
    for model, autocast in zip(models, (False, True), strict=True):
        plan = plan_of(steps=2, autocast=autocast)
        losses.append(run(model, AdamWConfig().build(model), plan)[0].loss_nats)
    assert 0 < abs(losses[0] - losses[1]) < 2 * 8 * 2**-8 * largest
    assert {p.dtype for p in models[1].parameters()} == {torch.float32}


def test_training_again_gives_the_same_bits():
    models = [model_of(**DROPPING), model_of(**DROPPING)]
    reports = [
        [(r.loss_nats, r.grad_norm) for r in run(m, MuonConfig().build(m), plan_of(steps=3))]
        for m in models
    ]
    assert reports[0] == reports[1]
    assert same_bits(models[0].state_dict(), models[1].state_dict())
