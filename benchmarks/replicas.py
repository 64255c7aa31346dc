"""What steps of several models together cost on a GPU; `growth.py` tells it of a CPU.

    python benchmarks/replicas.py --device cuda

1, 2, 4, ... models of the shape *cpu* are trained by `engine.replicas`, their passes as they come
and, on a CUDA device, recorded as a graph. Every point runs in a process of its own; the results go
to benchmarks/results/replicas-cuda.json.
"""

import argparse

import torch

import results
from apart import measured_apart
from asked import answered, device_of, of_device
from growth import REPLICAS, point
from shapes import CPU
from turns import tell


def measure(device: torch.device, most: int) -> dict[str, list[float]]:
    """Return the seconds of a step of 1, 2, 4, ... models, by backend."""
    backends = ("torch", "graphs") if device.type == "cuda" else ("torch",)
    return {backend: [_step_s(device, backend, n) for n in _values(most)] for backend in backends}


def _values(most: int) -> list[int]:
    return [n for n in REPLICAS if n <= most]


def _step_s(device: torch.device, backend: str, replicas: int) -> float:
    how = {"device": str(device), "backend": backend}
    step_s: float = measured_apart(point, CPU, replicas, how)["step_s"]
    tell(f"{backend}, {replicas} models: {step_s * 1e3:.1f} ms")
    return step_s


def main() -> None:
    """Measure and keep."""
    ask = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    ask.add_argument("--device", default="cuda")
    ask.add_argument("--most", type=int, default=REPLICAS[-1], help="models trained together")
    asked = ask.parse_args()
    device = device_of(asked.device)
    step_s = measure(device, asked.most)
    found = {"shape": CPU.as_dict(), "values": _values(asked.most), "step_s": step_s}
    results.keep(of_device("replicas", device), found, device=str(device))


if __name__ == "__main__":
    answered(main)
