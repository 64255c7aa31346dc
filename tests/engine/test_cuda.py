"""What must hold on a CUDA device; skipped where there is none."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from assay.config import RunConfig
from assay.engine.native_ensemble import EnsembleMember
from assay.engine.vmap_ensemble import train_members
from assay.generate import GenerateOptions, generate
from assay.nn.model import GPT, ModelConfig
from assay.nn.reference import reference_logits
from assay.runs.run import Run
from assay.sampling import SamplingConfig
from assay.schema import decode, override
from assay.train.checkpoint import checkpoints
from assay.train.config import TrainConfig
from assay.train.loop import train
from assay.train.optim import AdamWConfig
from assay.train.plan import ExecutionPlan

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
CONFIG = ModelConfig(vocab_size=50, max_seq_len=32, d_model=32, n_layers=2)


def test_logits_are_those_of_the_slow_twin():
    model = GPT.create(CONFIG, device="cuda").double().eval()
    tokens = torch.randint(50, (2, 20), generator=torch.Generator().manual_seed(0))
    expected = reference_logits(model.to("cpu"), tokens)
    found = model.to("cuda")(tokens.cuda()).cpu()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_initial_weights_are_those_of_the_cpu():
    here, there = GPT.create(CONFIG, seed=3), GPT.create(CONFIG, seed=3, device="cuda")
    for name, value in there.state_dict().items():
        assert torch.equal(value.cpu(), here.state_dict()[name]), name


def test_generated_tokens_are_those_of_the_cpu_in_float64():
    model = GPT.create(CONFIG).double()
    options = GenerateOptions(max_new_tokens=40, n_samples=3)

    def generated(device):
        generation = generate(model.to(device), [[1, 2], [3]], SamplingConfig(), options=options)
        list(generation)
        return generation.generated

    assert generated("cuda") == generated("cpu")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"position": "alibi"},
        {"mixer.n_kv_heads": 2},
        {"mixer.window": 5, "position": "sinusoidal"},
        {"position": "learned", "norm": "layer", "bias": True},
    ],
)
def test_a_graph_replays_the_step_it_recorded(fields):
    """Over several recordings (widths), rows of unequal length, and on beyond the context."""
    model = GPT.create(override(CONFIG, {"max_seq_len": 200} | fields)).double().cuda()

    def generated(reader):
        options = GenerateOptions(max_new_tokens=210, n_samples=2, reader=reader)
        run = generate(model, [[1, 2, 3], [4]], SamplingConfig(), options=options)
        logits = [run.logits.clone() for _ in run]
        return run.generated, torch.stack(logits)

    tokens, logits = generated("graphs")
    expected_tokens, expected = generated("torch")
    assert tokens == expected_tokens
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-9)


def member(seed, backend):
    """A replica on the device, in float64, with a rate of its own."""
    model = GPT.create(CONFIG, seed=seed, device="cuda").double()
    fields = {"seed": seed, "steps": 6, "batch_size": 4, "backend": backend, "micro_batches": 2}
    plan = ExecutionPlan(decode(TrainConfig, fields), torch.device("cuda"), autocast=False)

    def batch_at(step):
        draw = torch.Generator().manual_seed(100 * seed + step)
        return torch.randint(50, (4, 21), generator=draw)

    return EnsembleMember(model, batch_at, AdamWConfig(lr=0.002 * (seed + 1)).build(model), plan)


@pytest.mark.parametrize("n", [1, 3])
def test_a_run_replays_the_passes_it_recorded(n):
    """Alone and as replicas; a replica ends early, so that the others are recorded anew."""

    def outcomes(backend):
        members = [member(seed, backend) for seed in range(n)]
        if n == 1:
            one = members[0]
            rounds = [[r] for r in train(one.model, one.batch_at, one.optimizers, one.plan)]
        else:
            members[-1] = replace(members[-1], start=3)
            rounds = list(train_members(members))
        losses = [r.loss_nats for some in rounds for r in some if r is not None]
        return losses, [m.model.state_dict() for m in members]

    (found, weights), (expected, theirs) = outcomes("graphs"), outcomes("torch")
    assert found == pytest.approx(expected, rel=0, abs=1e-10)
    for one, other in zip(weights, theirs, strict=True):
        for name, value in other.items():
            torch.testing.assert_close(one[name], value, rtol=0, atol=1e-9)


def test_weights_changed_between_two_texts_are_those_read():
    model = GPT.create(CONFIG).cuda()
    options = GenerateOptions(max_new_tokens=20, reader="graphs")
    for _ in range(2):
        run = generate(model, [[1, 2, 3]], SamplingConfig(), options=options)
        list(run)
        plain = generate(
            model,
            [[1, 2, 3]],
            SamplingConfig(),
            options=options.model_copy(update={"reader": "torch"}),
        )
        list(plain)
        torch.testing.assert_close(run.logits, plain.logits, rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            model.embed.weight.mul_(1.5)


def test_a_run_takes_the_device_and_goes_on_to_the_same_bits(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 200)
    fields = {"data.text": str(text), "data.tokenizer": "char", "model.max_seq_len": 32}
    config = override(RunConfig(), fields | {"train.steps": 8, "model.dropout": 0.1})

    def weights(name, stop):
        run = Run.create(config, tmp_path / name, cache=tmp_path / "cache")
        list(run.train(stop=stop, cache=tmp_path / "cache"))
        if run.folder.read_manifest()["status"] == "interrupted":
            list(Run.open(tmp_path / name).train(cache=tmp_path / "cache"))
        assert run.folder.read_manifest()["machine"]["device"] == "cuda"
        return load_file(checkpoints(run.folder.checkpoints)[0] / "model.safetensors")

    asked = iter(range(100))
    whole, cut = weights("whole", lambda: False), weights("cut", lambda: next(asked) == 3)
    for name, value in whole.items():
        assert torch.equal(value, cut[name]), name
