"""Numbers that go wrong at some step: none of them reaches a checkpoint, and each is named."""

import math
import random

import pytest
from safetensors.torch import load_file
from torture_run import config_of, text

from assay.errors import DivergedError
from assay.runs.metrics import read_rows
from assay.runs.run import Run
from assay.train.checkpoint import checkpoints, read_state
from assay.train.native_backend import multiplies_bf16

__all__ = ["text"]  # the fixture
STEPS, CHECKED_FROM = 48, 33  # a spike is judged against at least 32 steps
FAULTS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "100x": 100.0}


def create(text, number, **changes):
    """Make a run, by default of PyTorch, whose gradients can be spoilt on their way."""
    fields = {"train__steps": STEPS, "train__checkpoint_every": 10, "eval__every": 20}
    fields |= {"train__backend": "torch"} | changes
    return Run.create(config_of(text, **fields), text.parent / f"run-{number}")


def newest_state(run):
    return read_state(checkpoints(run.folder.checkpoints)[0])


def tensors_under(parent):
    """Yield every tensor of every checkpoint, optimizers' included."""
    for path in sorted(parent.rglob("*.safetensors")):
        yield from load_file(path).values()


def train_with_fault(run, name, factor, step):
    """Multiply the gradient of one parameter at one step; return the error, if there was one."""
    with run.at_work() as session:
        parameter = session.parts.model.get_parameter(name)
        parameter.register_hook(lambda g: g * factor if session.step + 1 == step else g)
        for _ in session.run(lambda: False):
            pass


def train_with_rate(run, step, factor):
    """Take one step at so many times the rate."""
    with run.at_work() as session:
        optimizers = session.parts.optimizers
        usual = optimizers.parts
        raised = tuple((optimizer, lr * factor) for optimizer, lr in usual)
        if step == 1:
            object.__setattr__(optimizers, "parts", raised)
        for report in session.run(lambda: False):
            chosen = raised if report.step + 1 == step else usual
            object.__setattr__(optimizers, "parts", chosen)


def train_with_weight(run, step, stop_at=None):
    """Let a weight be no number while one step is computed; stop after another step, if given."""
    with run.at_work() as session:
        weight = session.parts.model.embed.weight
        sound = weight.detach().clone()
        for report in session.run(lambda: session.step == stop_at):
            if report.step == step - 1:
                sound = weight.detach().clone()
                weight.data[0, 0] = math.nan
            elif report.step == step:
                weight.data.copy_(sound)


def newest_tensors(run):
    folder = checkpoints(run.folder.checkpoints)[0]
    for path in sorted(folder.glob("*.safetensors")):
        yield from load_file(path).values()


def rows_of(run):
    return list(read_rows(run.folder.path / "metrics.jsonl"))


def all_finite_on_disk(run):
    return all(value.isfinite().all() for value in tensors_under(run.folder.checkpoints))


def kinds_at(run, step):
    rows = read_rows(run.folder.path / "metrics.jsonl")
    return {row["kind"] for row in rows if row["step"] == step} - {"train", "eval"}


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_gradient_that_is_no_number(text, load, record, policy):
    draw, named, clean = random.Random(0), 0, 0
    cases = [(fault, n) for fault in ("nan", "inf", "-inf") for n in range(load(1, 20))]
    for number, (fault, _) in enumerate(cases):
        run = create(text, number, train__on_nonfinite=policy)
        with run.at_work() as session:
            names = [name for name, _ in session.parts.model.named_parameters()]
        step, name = draw.randint(2, STEPS), draw.choice(names)
        if policy == "stop":
            with pytest.raises(DivergedError) as caught:
                train_with_fault(run, name, FAULTS[fault], step)
            said = str(caught.value)
            assert newest_state(run)["step"] == step - 1
        else:
            train_with_fault(run, name, FAULTS[fault], step)
            (row,) = (
                r for r in read_rows(run.folder.path / "metrics.jsonl") if r["kind"] == "skip"
            )
            said = row["why"]
            assert newest_state(run)["step"] == STEPS
        named += f"step {step}: " in said and f"the gradient of {name}" in said
        clean += all_finite_on_disk(run)
    assert named == clean == len(cases)
    record(
        f"faults-{policy}",
        f"{len(cases)} runs, {policy}: nan, inf or -inf in one gradient at a random step",
        f"{named} named step and layer, {clean} of {len(cases)} without a trace in a checkpoint",
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_kernels_keep_nothing_of_a_step_that_was_no_number(
    native, text, load, record, precision
):
    """A weight is no number while one step is computed, as a fault of memory would have it.

    The run goes on to the bits of one that was interrupted after that step, and whose kernels have
    new memory from there on.
    """
    if precision == "bf16" and not multiplies_bf16():
        pytest.skip("this processor has no products of bfloat16")
    draw, n, alone = random.Random(3), load(2, 20), 0
    how = {"train__backend": "native", "train__precision": precision}
    odd = {"model__d_model": 42, "model__mixer": {"kind": "attention", "n_heads": 3}}
    text.write_text(text.read_text(encoding="utf-8") + "§", encoding="utf-8")  # 21 characters
    for number in range(n):
        step, ended = draw.randint(2, STEPS - 2), []
        for name, stop_at in (("whole", None), ("resumed", step + 1)):
            fields = how | odd | {"train__on_nonfinite": "skip"}
            run = create(text, f"{number}-{name}", **fields)
            train_with_weight(run, step, stop_at)
            if stop_at is not None:
                list(Run.open(run.folder.path).train())
            skipped = [row["step"] for row in rows_of(run) if row["kind"] == "skip"]
            ended.append((skipped, [t.numpy().tobytes() for t in newest_tensors(run)]))
        alone += ended[0] == ended[1] and ended[0][0] == [step]
    assert alone == n
    record(
        f"faults-kernels-{precision}",
        f"{n} runs by the kernels in {precision}, a weight NaN while one random step is computed, "
        "widths that no tile divides",
        f"{alone} skip that step alone and end in the bits of a run resumed after it",
    )


def test_a_gradient_a_hundred_times_too_large_and_a_rate_a_thousand_times_too_high(
    text, load, record
):
    """Finite numbers are no error; that they stand out is a row of metrics.jsonl."""
    draw, n = random.Random(1), load(2, 20)
    gradients = rates = clean = 0
    for number in range(n):
        step = draw.randint(CHECKED_FROM, STEPS - 1)
        run = create(text, f"gradient-{number}")
        train_with_fault(run, "embed.weight", 100.0, step)
        gradients += "spike" in kinds_at(run, step)
        clean += all_finite_on_disk(run)
        run = create(text, f"rate-{number}")
        try:
            train_with_rate(run, step, 1000.0)
            rates += "spike" in kinds_at(run, step + 1)
        except DivergedError as error:
            rates += f"step {step + 1}: " in str(error)
        clean += all_finite_on_disk(run)
    assert (gradients, rates, clean) == (n, n, 2 * n)
    record(
        "faults-finite",
        f"{n} runs with a gradient 100 times too large, {n} with 1,000 times the rate, in one step",
        f"{gradients} and {rates} recorded at their step, {clean} of {2 * n} without a NaN in a "
        "checkpoint",
    )


def test_a_computation_that_goes_wrong_once_is_told_from_a_bad_model(text, load, record):
    """As a flipped bit in a register would: the second computation of the step is sound."""
    draw, n = random.Random(2), load(1, 20)
    sound = create(text, "sound", train__on_nonfinite="skip")
    for _ in sound.train():
        pass
    expected = [value.numpy().tobytes() for value in tensors_under(sound.folder.checkpoints)]
    told = same = 0
    for number in range(n):
        run = create(text, number, train__on_nonfinite="skip")
        step, visits = draw.randint(2, STEPS), []
        with run.at_work() as session:

            def once(gradient):
                if session.step + 1 == step and not visits:  # noqa: B023
                    visits.append(step)  # noqa: B023
                    return gradient * math.inf
                return gradient

            session.parts.model.embed.weight.register_hook(once)
            for _ in session.run(lambda: False):
                pass
        told += kinds_at(run, step) == {"recomputed"}
        found = [value.numpy().tobytes() for value in tensors_under(run.folder.checkpoints)]
        same += found == expected
    assert told == same == n
    record(
        "faults-hardware",
        f"{n} runs with an infinity in the first of two computations of a step",
        f"{told} told from a fault of model or data, {same} of {n} end in the bits of a sound run",
    )
