import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_run import TEXT, config_of, finish

from assay.data.subword import train_bpe
from assay.data.tokenizer import ByteTokenizer, CharTokenizer
from assay.generate import GenerateOptions, generate
from assay.nn.model import GPT, ModelConfig
from assay.runs.run import Run
from assay.runs.text import write_text
from assay.sampling import SamplingConfig
from assay.schema import decode

CHARS = CharTokenizer("abcé😀\n", end_of_text=False)
BYTES = ByteTokenizer()
BPE = train_bpe(iter(["the cat sat on the mat with the other cat. " * 20]), vocab_size=300)
TOKENIZERS = {"char": CHARS, "byte": BYTES, "bpe": BPE}


def model_for(tokenizer, extra=0, seed=0):
    """Untrained, so that any token may follow any."""
    shape = {"max_seq_len": 32, "d_model": 16, "n_layers": 1}
    config = decode(ModelConfig, {"vocab_size": tokenizer.vocab_size + extra, **shape})
    return GPT.create(config, seed=seed)


MODELS = {name: model_for(tokenizer) for name, tokenizer in TOKENIZERS.items()}
seeds = st.integers(0, 7)
few = settings(max_examples=25)
ANY = pytest.mark.parametrize("name", TOKENIZERS)


@functools.cache
def full_text(name, seed):
    """What is written without stop strings; the draws do not depend on them."""
    (text,) = rows_of(pieces(name, seed=seed))
    return text


def pieces(name, prompts=("",), stops=(), **options):
    options = GenerateOptions(**{"max_new_tokens": 20, **options})
    written = write_text(
        MODELS[name], TOKENIZERS[name], prompts, SamplingConfig(), options, stops=stops
    )
    return list(written)


def rows_of(written, n=1):
    written = list(written)
    return ["".join(text for row, text in written if row == index) for index in range(n)]


def ids_of(name, prompt, **options):
    """The token ids that `write_text` makes text of, drawn by the layer below it."""
    options = GenerateOptions(**{"max_new_tokens": 20, **options})
    run = generate(MODELS[name], [prompt], SamplingConfig(), options=options)
    for _ in run:
        pass
    return run.generated[0]


@ANY
@few
@given(seed=seeds, data=st.data())
def test_a_stop_string_cuts_the_text_just_before_it_and_is_never_shown(name, seed, data):
    full = full_text(name, seed)
    start = data.draw(st.integers(0, max(0, len(full) - 1)))
    stop = full[start : start + data.draw(st.integers(1, 6))] or "absent"
    (found,) = rows_of(pieces(name, seed=seed, stops=[stop]))
    assert found == full.partition(stop)[0]


@few
@given(seed=seeds, stops=st.lists(st.text("abcé", min_size=1, max_size=3)))
def test_of_several_stop_strings_the_first_to_be_complete_cuts(seed, stops):
    full = full_text("char", seed)
    ends = [(at + len(stop), at) for stop in stops if (at := full.find(stop)) >= 0]
    (found,) = rows_of(pieces("char", seed=seed, stops=stops))
    assert found == full[: min(ends)[1] if ends else None]


@few
@given(seed=seeds)
def test_a_stop_string_that_only_began_is_given_out_at_the_end(seed):
    full = full_text("char", seed)
    assert rows_of(pieces("char", seed=seed, stops=[full[-3:] + "x"])) == [full]


@ANY
@few
@given(seed=seeds)
def test_pieces_joined_are_the_decoded_tokens(name, seed):
    tokenizer = TOKENIZERS[name]
    prompt = [tokenizer.eot_id] if tokenizer.eot_id is not None else tokenizer.encode("\n").tolist()
    ids = ids_of(name, prompt, seed=seed)
    if tokenizer.eot_id in ids:
        ids = ids[: ids.index(tokenizer.eot_id)]
    assert rows_of(pieces(name, seed=seed)) == [tokenizer.decode(ids)]


def echo_model(sequence):
    """A byte model that goes round `sequence` of distinct bytes, whatever came before.

    Without attention and blocks the logits are the product of embedding and output matrix.
    """
    config = decode(
        ModelConfig,
        {
            "vocab_size": 257,
            "d_model": 257,
            "n_layers": 1,
            "mixer": "none",
            "position": "none",
            "norm": "none",
            "tie_embeddings": False,
        },
    )
    model = GPT.create(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embed.weight.copy_(torch.eye(257))
        for this, following in zip(sequence, sequence[1:] + sequence[:1], strict=True):
            model.unembed.weight[following, this] = 100.0
    return model


def test_a_character_of_many_bytes_comes_out_whole():
    text = "aé€😀"
    model = echo_model(list(text.encode()))
    options = GenerateOptions(max_new_tokens=20)
    written = list(write_text(model, BYTES, ["a"], SamplingConfig(), options))
    assert [piece for _, piece in written] == ["é", "€", "😀", "a", "é", "€", "😀", "a"]


def test_a_character_left_incomplete_is_a_replacement_character():
    model = echo_model(list("a😀".encode()))
    options = GenerateOptions(max_new_tokens=3)
    assert rows_of(write_text(model, BYTES, ["a"], SamplingConfig(), options)) == ["\ufffd"]


@pytest.mark.parametrize("stop", ["😀", "€😀", "é€"])
def test_a_stop_string_of_many_bytes_is_found_over_its_tokens(stop):
    text = "aé€😀"
    model, options = echo_model(list(text.encode())), GenerateOptions(max_new_tokens=20)
    written = write_text(model, BYTES, ["a"], SamplingConfig(), options, stops=[stop])
    assert rows_of(written) == [text[1:].partition(stop)[0]]


def test_the_end_of_a_text_ends_the_row_and_is_not_shown():
    model = echo_model([*b"ab", BYTES.eot_id])
    options = GenerateOptions(max_new_tokens=20)
    assert rows_of(write_text(model, BYTES, ["a"], SamplingConfig(), options)) == ["b"]
    assert rows_of(write_text(model, BYTES, [""], SamplingConfig(), options)) == ["ab"]


def test_rows_end_one_by_one():
    """Three prompts at different places of one cycle: the stop comes after 3, 2, 1 tokens."""
    model, options = echo_model(list(b"abcd")), GenerateOptions(max_new_tokens=9)
    written = write_text(model, BYTES, ["a", "b", "c"], SamplingConfig(), options, stops=["d"])
    assert rows_of(written, 3) == ["bc", "c", ""]


def test_samples_of_one_prompt_are_rows_side_by_side():
    written = pieces("char", prompts=["a", "b"], n_samples=2, max_new_tokens=5)
    assert [len(text) for text in rows_of(written, 4)] == [5, 5, 5, 5]


@ANY
def test_an_empty_prompt_begins_a_text(name):
    assert rows_of(pieces(name, seed=1))[0]


def test_an_empty_prompt_begins_a_text_for_characters_without_line_breaks():
    tokenizer = CharTokenizer("xyz", end_of_text=False)
    options = GenerateOptions(max_new_tokens=5)
    written = write_text(model_for(tokenizer), tokenizer, [""], SamplingConfig(), options)
    assert len(rows_of(written)[0]) == 5


def test_tokens_that_only_the_model_knows_are_no_text():
    """A vocabulary rounded up, say to a multiple of 64, has ids that no tokenizer can turn back."""
    model = model_for(CHARS, extra=58)
    options = GenerateOptions(max_new_tokens=30)
    (text,) = rows_of(write_text(model, CHARS, [""], SamplingConfig(), options))
    assert set(text) <= set(CHARS.alphabet)


@pytest.mark.parametrize("tokenizer", ["char", "byte", {"kind": "bpe", "vocab_size": 300}])
def test_a_finished_run_writes_the_same_text_again_for_the_same_seed(tmp_path, text, tokenizer):
    run = Run.create(config_of(text, data__tokenizer=tokenizer), tmp_path / "run")
    finish(run)
    options = GenerateOptions(max_new_tokens=10, seed=4)
    written = run.write("été", options=options)
    assert written == Run.open(tmp_path / "run").write("été", options=options)
    assert written != run.write("été", options=GenerateOptions(max_new_tokens=10, seed=5))


def test_a_run_with_a_vocabulary_rounded_up_comes_to_its_end(tmp_path, text):
    run = Run.create(config_of(text, model__vocab_size=512), tmp_path / "run")
    finish(run)
    assert set((tmp_path / "run" / "samples" / "step-000008.txt").read_text()) <= set(TEXT)
