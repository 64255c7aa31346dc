"""Peak memory of training GPT-2 small at T 1024, batch 4: assay and Hugging Face, each apart.

    python benchmarks/memory.py

Each takes two steps with AdamW in a process of its own; the peak is that of the process (of the
CUDA device with --device cuda). Hugging Face runs in its plain setting, eager fp32. The results go
to benchmarks/results/memory.json.
"""

import argparse
from dataclasses import replace
from typing import Any

import torch

import results
from apart import measured_apart, peak_bytes
from asked import answered, device_of, of_device
from entrants import ENTRANTS, PLAIN
from shapes import SMALL
from turns import tell

SHAPE = replace(SMALL, name="memory", seq_len=1024, batch_size=4)
_NAMES = ("assay", "hf", "nanogpt")
_STEPS = 2


def peak(name: str, device: str) -> dict[str, Any]:
    """Return what two steps of an entrant hold at most, in this process."""
    place = torch.device(device)
    before = peak_bytes()
    runner = ENTRANTS[name].make(SHAPE, PLAIN, place)
    for _ in range(_STEPS):
        runner.step()
    on_device = torch.cuda.max_memory_allocated() if place.type == "cuda" else None
    return {
        "setting": runner.setting,
        "before_bytes": before,
        "peak_bytes": peak_bytes() if on_device is None else on_device,
    }


def main() -> None:
    """Measure each entrant and keep the peaks."""
    ask = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    ask.add_argument("--device", default="cpu")
    device = device_of(ask.parse_args().device)
    found, absent = {}, {}
    for name in _NAMES:
        try:
            found[name] = measured_apart(peak, name, str(device))
            tell(f"{name}: {found[name]['peak_bytes'] / 1e9:.2f} GB, {found[name]['setting']}")
        except RuntimeError as error:
            absent[name] = str(error)
            tell(f"{name}: {error}")
    kept = {"shape": SHAPE.as_dict(), "entrants": found, "absent": absent}
    results.keep(of_device("memory", device), kept, device=str(device))


if __name__ == "__main__":
    answered(main)
