"""The positive control: checkpoints as training scripts write them, which the harness must catch.

One file after another under the final name, no hash, no fsync; the newest folder is believed.
"""

import json
import sys

import torch

from assay.nn.model import GPT
from assay.train.checkpoint import checkpoints


def naive_write(parent, model, optim, state):
    folder = parent / f"step-{state['step']:06d}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("model", model.state_dict()), ("optim", dict(optim))):
        with (folder / f"{name}.safetensors").open("wb") as file:
            torch.save(content, file)
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def naive_newest(parent):
    return checkpoints(parent)[0], []


def naive_optim(folder):
    return naive_load(folder / "optim.safetensors")


def naive_load(path):
    with path.open("rb") as file:
        return torch.load(file, weights_only=True)


def naive_model(folder, config, device="cpu"):
    model = GPT.create(config, seed=0, device=device)
    model.load_state_dict(naive_load(folder / "model.safetensors"))
    return model


def write_naively():
    """Make the runs of this process, a forked child, write and read so."""
    naive = {
        "write_checkpoint": naive_write,
        "verify_checkpoint": lambda folder: None,
        "newest_valid": naive_newest,
        "read_optim": naive_optim,
        "read_model": naive_model,
    }
    for module in [module for name, module in sys.modules.items() if name.startswith("assay.")]:
        for name in naive.keys() & vars(module).keys():
            setattr(module, name, naive[name])
