"""Files of strangers: only sentences come out, no code of theirs runs, memory stays small."""

import ctypes
import gzip
import json
import os
import pickle
import random
import signal
import traceback
import warnings
from collections import Counter
from pathlib import Path

import pytest
from hostile_files import (
    MODEL,
    OPTIM,
    RUN_HARMS,
    STATE,
    attempt,
    attempt_link,
    harm_folder,
    harm_json,
    harm_llama2c,
    open_folder,
    open_llama2c,
    open_run,
    open_tokenizer,
    trap,
)
from hostile_lab import (
    STUDY,
    harm_report,
    harm_study,
    open_report,
    open_study,
    report_files,
    resealed,
    study_files,
)
from hostile_run import NEWEST, begun_run, files_of, lay_out, sealed, without_timing

from assay.data.subword import train_bpe
from assay.errors import AssayError
from assay.experiments.paper.folder import EVIDENCE, REPORT
from assay.generate import GenerateOptions
from assay.hf import save_hf
from assay.nn.model import GPT, ModelConfig
from assay.runs.run import Run
from assay.schema import decode

CLEAR = Path("/proc/self/clear_refs")
pytestmark = pytest.mark.skipif(not CLEAR.exists(), reason="measures memory by Linux's /proc")
BATCH = 1000
EXTRA_BYTES = 50 << 20
PATIENCE_S = 30


def in_child(work):
    """Return what `work` returns, as JSON has it, in a forked child."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside the threads of a library
        child = os.fork()
    if child == 0:
        _as_child(work, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        told = file.read()
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended == 0, f"the child ended with {ended}: minus a signal, or a status"
    return json.loads(told)


def _as_child(work, writing):
    status = 1
    try:
        os.write(writing, json.dumps(work()).encode())
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def growth_of(work):
    """Do `work` and return the bytes by which this process grew meanwhile, at its largest."""
    _give_back_free_memory()
    CLEAR.write_text("5")  # the largest size so far is now the present one
    before = _kilobytes("VmRSS")
    work()
    return (_kilobytes("VmHWM") - before) * 1024


def _give_back_free_memory():
    """Else what an earlier test freed and the allocator kept is taken again without any growth."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)


def _kilobytes(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def batch(attempts):
    """Make attempts; return what became of them, traces of what is no sentence, and the growth."""
    outcomes, wrong, grown = Counter(), [], (0, "")
    for name, work in attempts:
        signal.alarm(PATIENCE_S)  # a pipe read without end would kill the child
        ended = []
        growth = growth_of(lambda w=work, e=ended: e.append(outcome(w)))
        outcomes[ended[0][0]] += 1
        wrong += [f"{name}: {trace}" for trace in ended[0][1:]]
        grown = max(grown, (growth, name))
    signal.alarm(0)
    return [outcomes, wrong[:3], *grown]


def outcome(work):
    """Return how an attempt ends, and a trace where that is no sentence."""
    try:
        work()
    except AssayError as error:
        return ("refused",) if len(str(error)) < 5000 else ("refused", f"too long: {error!s:.300}")
    except BaseException:
        return "crashed", traceback.format_exc()[-1500:]
    return ("loaded",)


@pytest.fixture
def samples(tmp_path, monkeypatch):
    """Files, in memory, of one honest thing of each kind."""
    without_timing(monkeypatch, tmp_path)
    run = files_of(begun_run(tmp_path).folder.path)
    lab = {"report": report_files(), "study": study_files(tmp_path)}
    return {"run": run, "tokenizer": _tokenizer(), "llama2c": _llama2c(), **lab} | {
        f"hf {name}": _hf_folder(tmp_path / name, fields) for name, fields in FAMILIES.items()
    }


SIZES = {"vocab_size": 11, "max_seq_len": 8, "d_model": 8, "n_layers": 1}
FAMILIES = {
    "gpt2": {"position": "learned", "norm": "layer", "mlp": "gelu", "bias": True},
    "llama": {},
}


def _hf_folder(folder, fields):
    save_hf(GPT.create(decode(ModelConfig, SIZES | {"mixer": HEADS} | fields)), folder)
    files = files_of(folder)
    index = {"weight_map": dict.fromkeys(_names(files["model.safetensors"]), "a.safetensors")}
    sharded = {"config.json": files["config.json"], "a.safetensors": files["model.safetensors"]}
    sharded["model.safetensors.index.json"] = json.dumps(index).encode()
    return files if folder.name == "gpt2" else sharded


HEADS = {"kind": "attention", "n_heads": 2, "qk_norm": False}


def _names(content):
    length = int.from_bytes(content[:8], "little")
    return [name for name in json.loads(content[8 : 8 + length]) if name != "__metadata__"]


def _tokenizer():
    name, content = train_bpe(iter(["the cat sat on the mat"] * 9), vocab_size=270).saved()
    return {name: content}


def _llama2c():
    """A model of seven integers and zeros, and a tokenizer of bytes alone."""
    d, d_ff, layers, heads, vocab, length = 8, 16, 1, 2, 259, 8
    per_layer = 2 * d + 4 * d * d + 3 * d * d_ff
    numbers = vocab * d + layers * per_layer + d + 2 * length * (d // heads // 2)
    header = b"".join(
        n.to_bytes(4, "little") for n in (d, d_ff, layers, heads, heads, vocab, length)
    )
    pieces = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    table = b"".join(b"\0\0\0\0" + len(p).to_bytes(4, "little") + p for p in pieces)
    return {"model.bin": header + bytes(4 * numbers), "tokenizer.bin": bytes(4) + table}


def attempts_of(samples, folder, marker, numbers):
    """Yield (name, work) for each number, kinds in turns, harm drawn from the number alone."""
    kinds = [("run", harm, open_run) for harm in RUN_HARMS.values()]
    kinds += [(f"hf {name}", harm_folder, open_folder) for name in FAMILIES] * 2
    kinds += [("llama2c", harm_llama2c, open_llama2c)]
    kinds += [("tokenizer", harm_json("tokenizer.json"), open_tokenizer)]
    kinds += [("report", harm_report, open_report), ("study", harm_study, open_study)] * 3
    outside = folder.parent / "outside"
    for number in numbers:
        rng = random.Random(number)
        if number % 20 == 19:
            yield f"link {number}", lambda r=rng: attempt_link(samples["run"], folder, r, outside)
            continue
        kind, harm, opener = kinds[number % len(kinds)]
        yield (
            f"{kind} {number}",
            lambda f=samples[kind], h=harm, o=opener, r=rng: attempt(f, folder, h, o, r, marker),
        )


def test_strangers_files_are_refused_in_a_sentence_or_loaded(samples, tmp_path, load, record):
    marker, folder, outside = tmp_path / "marker", tmp_path / "stranger", tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    _open_all(samples, folder)  # imports and caches are not what a hostile file costs
    total, outcomes, grown, crashes = load(200, 100_000), Counter(), 0, []
    for numbers in _batches(total):
        found, wrong, growth, name = in_child(
            lambda n=numbers: batch(attempts_of(samples, folder, marker, n))
        )
        assert growth < EXTRA_BYTES, f"{name}: {growth >> 20} MB"  # the files have a few KB
        crashes += wrong
        outcomes.update(found)
        grown = max(grown, growth)
    assert not crashes, "\n".join(crashes[:20])
    assert not marker.exists(), "code of a stranger ran"
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"precious": "mine"}
    assert sum(outcomes.values()) == total
    assert outcomes["refused"] > total // 2
    record(
        "hostile",
        f"{total} hostile files: runs, Hugging Face folders, llama2.c, tokenizers, reports, "
        "studies",
        f"{outcomes['refused']} refused in a sentence, {outcomes['loaded']} loaded (harm that "
        f"changes no meaning), {outcomes['crashed']} crashed; no code ran, nothing outside was "
        f"touched; opening one grew the process by {grown >> 20} MB at most",
    )


def _batches(total):
    return (range(first, min(first + BATCH, total)) for first in range(0, total, BATCH))


def _open_all(samples, folder):
    """Open every sample unharmed, each of which must load, and train the run."""
    rng = random.Random(0)
    openers = {"run": open_run, "tokenizer": open_tokenizer, "llama2c": open_llama2c}
    openers |= {"report": open_report, "study": open_study}
    for kind, files in samples.items():
        openers.get(kind, open_folder)(lay_out(files, folder), rng)
    run = Run.open(lay_out(samples["run"], folder))
    run.write("1", options=GenerateOptions(max_new_tokens=2, use_cache=False))
    list(run.train(stop=lambda: True))


def _filled(item, size):
    """A JSON object of about `size` bytes, all of it repetitions of `item`."""
    return b'{"a":[' + b",".join([item] * (size // (len(item) + 1))) + b"]}"


def _many_tensors(count):
    """A safetensors file of `count` empty tensors: nothing but header."""
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"blocks.{n}": entry for n in range(count)}).encode()
    return len(header).to_bytes(8, "little") + header


BOMBS = {
    "lists": _filled(b"[]", 1 << 20),
    "objects": _filled(b'{"b":0}', 1 << 20),
    "many lists": _filled(b"[]", 8 << 20),
    "an emoji in a long string": b'{"a":"' + "😀".encode() + b"x" * ((4 << 20) - 99) + b'"}',
    "wrong fields": json.dumps({f"f{n}": n for n in range(60_000)}).encode(),
    "wrong texts": json.dumps({"data": {"text": [0] * 100_000}}).encode(),
    "notes": json.dumps({"notes": ["x"] * 200_000}).encode(),
    "few tensors": _many_tensors(1000),
    "many tensors": _many_tensors(25_000),
    "tensors over the bound": _many_tensors(120_000),
}
PLACES = {
    "run": ("config.json", "manifest.json", MODEL, OPTIM, STATE, f"{NEWEST}/MANIFEST.json"),
    "hf gpt2": ("config.json", "model.safetensors"),
    "hf llama": ("model.safetensors.index.json", "a.safetensors"),
    "report": (REPORT, EVIDENCE, f"zipped {EVIDENCE}"),
    "study": (STUDY, "jobs.sqlite"),
}


def test_a_large_hostile_file_costs_at_most_twice_its_size_and_50_mb(
    samples, tmp_path, load, record
):
    folder, grown, opened = tmp_path / "stranger", {}, 0
    _open_all(samples, folder)
    cases = [(kind, name, bomb) for kind in PLACES for name in PLACES[kind] for bomb in BOMBS]
    for kind, name, bomb in random.Random(1).sample(cases, load(6, len(cases))):
        lay_out(_with_bomb(samples[kind], kind, name, BOMBS[bomb]), folder)
        opener = OPENERS.get(kind, open_folder)
        found, wrong, growth, _ = in_child(
            lambda o=opener: batch([("large", lambda: o(folder, None))])
        )
        assert not wrong, "\n".join(wrong)
        before = kind == "run" and name.endswith("MANIFEST.json")  # the checkpoint before serves
        end = "loaded" if before else "refused"
        assert found == {end: 1}, (kind, name, bomb)
        grown[f"{kind} {name} of {bomb}"] = growth - 2 * len(BOMBS[bomb])
        opened += 1
    assert {case: over for case, over in grown.items() if over >= EXTRA_BYTES} == {}
    worst = max(grown, key=grown.__getitem__)
    record(
        "hostile-large",
        f"{opened} files of up to 8 MB made to cost memory, each opened in a process of its own",
        f"refused in a sentence, a bad MANIFEST.json for the checkpoint before; memory at most "
        f"{max(grown[worst], 0) >> 20} MB over twice the file ({worst})",
    )


def _with_bomb(files, kind, name, bomb):
    """Put a bomb into a file, seals made anew; a packed one is packed."""
    zipped = name.removeprefix("zipped ")
    files = files | {zipped: bomb if zipped == name else gzip.compress(bomb)}
    seals = {"run": sealed, "report": resealed}
    return seals[kind](files) if kind in seals else files


def train_or_load(folder, rng):
    run = Run.open(folder)
    run.load()
    list(run.train(stop=lambda: True, anyway=True))


OPENERS = {"run": train_or_load, "report": open_report, "study": open_study}


def test_the_trap_works_on_whoever_opens_it(tmp_path):
    """Else that no marker was made would say nothing."""
    pickle.loads(trap(tmp_path / "marker"))
    assert (tmp_path / "marker").is_dir()


def test_a_crash_and_a_growth_would_be_seen():
    def fail():
        raise KeyError("x")

    attempts = [("one", fail), ("two", grow), ("three", list)]
    outcomes, wrong, growth, name = in_child(lambda: batch(attempts))
    assert outcomes == {"crashed": 1, "loaded": 2}
    assert "KeyError" in wrong[0]
    assert growth > EXTRA_BYTES
    assert name == "two"


def grow():
    return len(bytes(range(256)) * (EXTRA_BYTES >> 7))
