"""A prompt with a seed gives the same tokens alone and in any batch."""

import itertools
import random

import pytest
import torch

from assay.generate import GenerateOptions, generate
from assay.native.build import kernels
from assay.nn.model import GPT, ModelConfig
from assay.sampling import SamplingConfig
from assay.schema import decode

VOCAB, LONGEST, NEW = 61, 40, 12  # longer than the context
SAMPLING = SamplingConfig(temperature=1.3)


def model():
    """With weights so large that a row's tokens depend on all of it."""
    fields = {"vocab_size": VOCAB, "max_seq_len": 32, "d_model": 32, "n_layers": 2, "init": "torch"}
    return GPT.create(decode(ModelConfig, fields), seed=3)


def tokens_and_logits(gpt, prompts, first, reader):
    options = GenerateOptions(
        max_new_tokens=NEW, seed=7, first_prompt=first, reader=reader, exact=reader == "torch"
    )
    run = generate(gpt, prompts, SAMPLING, options=options)
    logits = [run.logits.clone() for _ in run]
    return [(tokens, torch.stack(logits, 1)[row]) for row, tokens in enumerate(run.generated)]


@pytest.mark.parametrize("reader", ["native", "torch"])
def test_a_prompt_has_one_output_in_any_company(reader, load, record):
    if reader == "native" and kernels().library is None:
        pytest.skip(f"no kernels here: {kernels().note}")
    draw, gpt, n = random.Random(0), model(), load(12, 1000)
    prompts = [[draw.randrange(VOCAB) for _ in range(draw.randint(1, LONGEST))] for _ in range(n)]
    alone = [tokens_and_logits(gpt, [prompt], p, reader)[0] for p, prompt in enumerate(prompts)]
    cuts = [0, *sorted(draw.sample(range(1, n), n // 9)), n]
    same = bits = 0
    for first, last in itertools.pairwise(cuts):
        batch = tokens_and_logits(gpt, prompts[first:last], first, reader)
        for (tokens, logits), (own, own_logits) in zip(batch, alone[first:last], strict=True):
            same += tokens == own
            bits += torch.equal(logits, own_logits)
    assert same == bits == n
    largest = max(last - first for first, last in itertools.pairwise(cuts))
    record(
        f"company-{reader}",
        f"{n} prompts alone and in {len(cuts) - 1} batches of up to {largest} rows, "
        f"{NEW} tokens each, read by {'the kernels' if reader == 'native' else 'PyTorch, exact'}",
        f"{same} of {n} with one output, {bits} with the same bits in every logit",
    )
