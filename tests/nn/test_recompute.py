"""Running a block again for its gradients changes memory, and nothing else."""

import pytest
import torch
from cover import CASES, LENGTH, tokens_of
from torch.nn import functional as F

from assay import presets
from assay.nn.model import GPT
from assay.schema import override

every_case = pytest.mark.parametrize("name", CASES)


def gradients(model, tokens, *, recompute):
    torch.manual_seed(5)
    model.recompute = recompute
    loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    grads = torch.autograd.grad(loss, list(model.parameters()))
    return loss, grads, torch.rand(3)


@every_case
@pytest.mark.parametrize("kernel", ["fused", "blocks"])
@pytest.mark.shapes_checked_by_others
def test_gradients_are_bit_equal_and_dropout_repeats(name, kernel):
    model = GPT.create(CASES[name], seed=1).train()
    model.kernel = kernel
    tokens = tokens_of(3, LENGTH + 1)
    loss, grads, after = gradients(model, tokens, recompute=False)
    again, regrads, reafter = gradients(model, tokens, recompute=True)
    assert torch.equal(loss, again)
    assert all(map(torch.equal, grads, regrads))
    assert torch.equal(after, reafter)  # and it leaves the generator where it would be


def kept_bytes(model, tokens):
    """Bytes that autograd keeps for the backward pass, weights aside."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(t):
        if t.untyped_storage().data_ptr() not in weights:
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = model(tokens)
    assert out.requires_grad
    return sum(kept.values())


def test_a_block_keeps_what_enters_it_and_no_more():
    config = override(presets.gpt2(), {"d_model": 32, "mixer.n_heads": 4, "vocab_size": 16})
    depths, kept = (2, 6), {}
    for recompute in (False, True):
        models = [GPT.create(override(config, {"n_layers": n})).train() for n in depths]
        for model in models:
            model.recompute = recompute
        few, many = (kept_bytes(model, tokens_of(4, 64) % 16) for model in models)
        kept[recompute] = (many - few) / (depths[1] - depths[0])
    entering = 4 * 64 * 32 * 4  # B T D floats
    assert kept[True] == pytest.approx(entering, rel=0.05)  # and the state of the generator
    assert kept[False] > 10 * entering


def test_evaluation_and_generation_run_a_block_once():
    model = GPT.create(CASES[next(iter(CASES))]).eval()
    model.recompute = True
    tokens, runs = tokens_of(1, 5), []
    for block in model.blocks:
        block.register_forward_hook(lambda *_: runs.append(1))
    model(tokens, model.new_cache()).sum().backward()
    assert len(runs) == len(model.blocks)
