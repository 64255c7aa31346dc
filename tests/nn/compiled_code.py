"""Compile blocks, or the chunked loss, as an engine may; print how far it is from eager, in JSON.

A process of its own: the checks of annotated shapes that the tests run under are Python at which
the compiler breaks off, and what is to be seen here is that it never does.
"""

import json
import sys

import torch

from assay.nn.loss import chunked_loss, next_token_loss
from assay.nn.model import GPT, ModelConfig
from assay.schema import override

LAYERS = 10  # more than the eight times that dynamo would compile one function anew
WIDE = {"d_model": 32, "n_layers": LAYERS, "vocab_size": 64, "max_seq_len": 256}


def blocks(kernel, fields):
    """Yield loss and gradients of a model in eager mode, then compiled block by block."""
    model = GPT.create(override(ModelConfig(), WIDE | fields)).double()
    model.kernel = kernel
    tokens = torch.randint(64, (2, 257))
    for compiled in (False, True):
        if compiled:
            for block in model.blocks:
                block.compile(dynamic=False, fullgraph=True)
        loss = next_token_loss(model, tokens)
        yield loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))


def chunks():
    """Yield loss and gradients of the chunked loss, three chunks of it, eager, then compiled."""
    features, weight = (torch.randn(n, 8, dtype=torch.float64).requires_grad_() for n in (12, 20))
    targets = torch.randint(20, (12,))

    def loss(x, w):
        return chunked_loss(x, w, targets, soft_cap=3.0, chunk_logits=100)

    for run in (loss, torch.compile(loss)):
        value = run(features, weight)
        yield value.detach(), *torch.autograd.grad(value, (features, weight))


def main():
    torch.manual_seed(0)
    what, *rest = json.loads(sys.argv[1])
    eager, compiled = blocks(*rest) if what == "blocks" else chunks()
    apart = max(float((a - b).abs().max()) for a, b in zip(eager, compiled, strict=True))
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    print(json.dumps({"apart": apart, "graphs": graphs}))


if __name__ == "__main__":
    main()
