"""Folders of strangers: runs, Hugging Face models, llama2.c files, tokenizers, each harmed."""

import json
import os
import pickle
import struct

from hostile_run import BEFORE, NEWEST, forged, lay_out, sealed
from mutations import as_json, mutated_bytes, mutated_tensors, mutated_tree

from assay.data.subword import read_tokenizer
from assay.generate import GenerateOptions
from assay.hf import load_hf, load_llama2c
from assay.runs.run import Run

MODEL, OPTIM, STATE = (
    f"{NEWEST}/{name}" for name in ("model.safetensors", "optim.safetensors", "state.json")
)
TRAINED = 0.02  # of the runs: it takes longer than all else
TOKENIZER = "tokenizer/chars.json"


class Trap:
    """A pickle that makes a file when it is opened."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def trap(marker):
    return pickle.dumps(Trap(marker))


def harm_json(name):
    def harm(files, rng, marker):
        return files | {name: as_json(mutated_tree(json.loads(files[name]), rng), rng)}

    return harm


def harm_config(files, rng, marker):
    """Another config wherever there is one, hashes to it, so that only its values can be wrong."""
    return forged(files, mutated_tree(json.loads(files["config.json"]), rng))


def harm_state(files, rng, marker):
    return sealed(harm_json(STATE)(files, rng, marker))


def harm_tensors(name):
    def harm(files, rng, marker):
        return sealed(files | {name: mutated_tensors(files[name], rng)})

    return harm


def harm_noise(files, rng, marker):
    """Random bytes in a random file, under a seal that fits."""
    name = rng.choice(sorted(files))
    return sealed(files | {name: mutated_bytes(files[name], rng)})


def harm_pickle(files, rng, marker):
    """A pickle in the place of any file, and beside it under the names pickles have."""
    name = rng.choice(sorted(files))
    beside = f"{NEWEST}/{rng.choice(('model.pt', 'optim.bin', '.metadata', 'data.pkl'))}"
    return sealed(files | {name: trap(marker), beside: trap(marker)})


RUN_HARMS = {
    "config forged throughout": harm_config,
    "config.json": harm_json("config.json"),
    "manifest.json": harm_json("manifest.json"),
    "state.json resealed": harm_state,
    "MANIFEST.json": harm_json(f"{NEWEST}/MANIFEST.json"),
    "weights resealed": harm_tensors(MODEL),
    "optimizer resealed": harm_tensors(OPTIM),
    "tokenizer": harm_json(TOKENIZER),
    "noise resealed": harm_noise,
    "pickles resealed": harm_pickle,
}


def link_something(folder, rng, outside):
    """Put a link out of the folder, a pipe or a folder where a file or a folder belongs."""
    names = ["config.json", "manifest.json", "metrics.jsonl", "timings.jsonl", "tokenizer"]
    names += ["checkpoints", "samples", NEWEST, MODEL, STATE, TOKENIZER, "curve.png"]
    names += ["metrics.tmp", ".lock", "tensorboard", BEFORE, "checkpoints/step-000006.tmp"]
    path = folder / rng.choice(names)
    aside = path.with_name(f"{path.name}.moved")
    if os.path.lexists(path):
        path.rename(aside)
    deed = rng.randrange(4)
    if deed == 0:
        os.mkfifo(path)
    elif deed == 1:
        path.symlink_to(outside)
    elif deed == 2:
        path.symlink_to(os.path.relpath(outside, path.parent))
    else:
        path.symlink_to(path)  # to itself


def open_run(folder, rng):
    """Load a run's model; now and then let it write, or train it."""
    chance = rng.random()
    run = Run.open(folder)
    if chance < TRAINED:
        list(run.train(stop=lambda: True, anyway=True))
    elif chance < TRAINED + 0.05:
        run.write("1", options=GenerateOptions(max_new_tokens=2, use_cache=False))
    else:
        run.load()


def harm_folder(files, rng, marker):
    """Harm a Hugging Face folder: its config, its weights, its index, or what lies beside."""
    names = [name for name in files if name.endswith(".safetensors")]
    deed = rng.randrange(8)
    if deed == 0:
        config = json.loads(files["config.json"]) | {
            "auto_map": {"AutoConfig": "modeling.Trap", "AutoModelForCausalLM": "modeling.Trap"},
            "trust_remote_code": True,
        }
        code = f"import os\nos.mkdir({str(marker)!r})\n".encode()
        return files | {"config.json": json.dumps(config).encode(), "modeling.py": code}
    if deed == 1:
        left = {name: content for name, content in files.items() if name not in names}
        return left | {rng.choice(("pytorch_model.bin", "model.pt", names[0])): trap(marker)}
    if deed == 2 and "model.safetensors.index.json" in files:
        return harm_json("model.safetensors.index.json")(files, rng, marker)
    if deed < 5:
        return harm_json("config.json")(files, rng, marker)
    name = rng.choice(names)
    return files | {name: mutated_tensors(files[name], rng)}


def harm_llama2c(files, rng, marker):
    name = rng.choice(("model.bin", "model.bin", "tokenizer.bin"))
    content = bytearray(files[name])
    if name == "model.bin" and rng.random() < 0.6:
        for _ in range(rng.choice((1, 2))):
            value = rng.choice((0, 1, -1, 2**31 - 1, -(2**31), 7, 65536, 1 << 20))
            struct.pack_into("<i", content, 4 * rng.randrange(7), value)
        return files | {name: bytes(content)}
    return files | {name: mutated_bytes(bytes(content), rng)}


def open_llama2c(folder, rng):
    load_llama2c(folder / "model.bin", folder / "tokenizer.bin")


def open_tokenizer(folder, rng):
    read_tokenizer(str(folder)).encode("the cat sat\x00 été 😀")


def attempt(files, folder, harm, opener, rng, marker):
    """Lay harmed files out and open them."""
    lay_out(harm(files, rng, marker), folder)
    opener(folder, rng)


def attempt_link(files, folder, rng, outside):
    link_something(lay_out(files, folder), rng, outside)
    open_run(folder, rng)


def open_folder(folder, rng):
    load_hf(folder)
