"""Peers that decode give the tokens of their own full pass; skipped where not installed."""

import importlib
from dataclasses import replace

import pytest
import torch

import decoders
from shapes import CPU

SHAPE = replace(CPU, n_layers=2, seq_len=64, vocab_size=300)
PROMPTS = torch.randint(300, (3, 9), generator=torch.Generator().manual_seed(5))


def peer(name, library):
    pytest.importorskip(library, reason=f"{library} is not installed", exc_type=ImportError)
    return importlib.import_module(f"peers.{name}")


def restless(model):
    """Return the model with larger matrices, so that its greedy text does not repeat itself."""
    with torch.no_grad():
        for name, matrix in model.named_parameters():
            if ".h." in name and matrix.ndim == 2:
                matrix.mul_(4)
    return model.eval()


def decoded(decoder, n_tokens=8):
    tokens = [decoder.start(PROMPTS)]
    while len(tokens) < n_tokens:
        tokens.append(decoder.step(tokens[-1]))
    return torch.cat(tokens, 1)


@torch.no_grad()
def without_cache(logits_of, n_tokens=8):
    """The oracle: the whole text run again for each token."""
    text = PROMPTS
    for _ in range(n_tokens):
        text = torch.cat([text, logits_of(text)[:, -1:].argmax(-1)], 1)
    return text[:, PROMPTS.shape[1] :]


@pytest.fixture
def gpt2():
    return restless(peer("huggingface", "transformers").gpt2(SHAPE))


@pytest.mark.slow
def test_hugging_face_decodes_what_its_full_pass_says(gpt2):
    decoder = peer("huggingface", "transformers").Decoder(gpt2)
    expected = without_cache(lambda text: gpt2(text, use_cache=False).logits)
    assert expected.unique().numel() > 8
    assert torch.equal(decoded(decoder), expected)


def test_litgpt_decodes_what_its_full_pass_says():
    lit = peer("lit", "litgpt")
    model = restless(lit.build(SHAPE)).eval()
    expected = without_cache(model)
    assert torch.equal(decoded(lit.Decoder(model, 32)), expected)


def test_llama_cpp_reads_the_file_as_the_model_it_was_written_from(gpt2, tmp_path):
    llamacpp = peer("llamacpp", "llama_cpp")
    llamacpp.write_gguf(gpt2, tmp_path / "model.gguf", "F32")
    decoder = llamacpp.Decoder(tmp_path / "model.gguf", rows=3, max_len=32, vocab_size=300)
    expected = without_cache(lambda text: gpt2(text, use_cache=False).logits)
    assert torch.equal(decoded(decoder), expected)
    assert torch.equal(decoded(decoder), expected)  # started anew, nothing is left


def test_assay_decodes_the_model_of_hugging_face(gpt2):
    model = decoders.from_hf(gpt2.config.to_dict(), gpt2.state_dict())
    options = decoders.GenerateOptions(max_new_tokens=8)
    expected = without_cache(lambda text: gpt2(text, use_cache=False).logits)
    assert torch.equal(decoded(decoders.Ours(model, options)), expected)
