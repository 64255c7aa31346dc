"""Which device and precision a run takes, and how fast that device multiplies matrices."""

import os
import platform
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch

from assay.config import RunConfig
from assay.errors import ConfigError
from assay.train.config import TrainConfig
from assay.train.native_backend import unsupported_reason
from assay.train.plan import ExecutionPlan

_SIDE = {"cpu": 1024, "cuda": 8192, "mps": 2048}  # of the matrices whose product is timed
_TIMED_S = 0.25


def resolve_plan(config: TrainConfig) -> ExecutionPlan:
    """Return the plan of a run, what was left to `auto` settled by rule.

    That is bfloat16 on a CUDA device that has it in hardware and float32 elsewhere, the fused
    attention kernel, no compilation. `assay.engine.autotune` may find a better one by timing.

    Raises:
        ConfigError: If the device is not there, or cannot do what is asked for.
    """
    device = _device(config.device)
    if config.attention == "flex" and device.type != "cuda":
        raise ConfigError(
            f"train.attention: flex found on device {device}; expected a CUDA device, where "
            "FlexAttention has a backward pass. Use auto, fused or blocks."
        )
    if config.backend == "graphs" and device.type != "cuda":
        raise ConfigError(
            f"train.backend: graphs found on device {device}; expected a CUDA device. Use auto or "
            "torch."
        )
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    autocast = config.precision == "bf16" or (config.precision == "auto" and has_bf16)
    attention = "fused" if config.attention == "auto" else config.attention
    compiled, native = config.compile == "on", config.backend == "native"
    return ExecutionPlan(config, device, autocast, attention, compiled=compiled, native=native)


def check_backend(config: RunConfig, plan: ExecutionPlan) -> None:
    """Refuse the C++ kernels, or graphs, that are asked for and cannot train the model here.

    Raises:
        ConfigError: If so, with the reason.
    """
    dropout = max(config.model.dropout, config.model.attention_dropout)
    if plan.graphs and dropout > 0:
        raise ConfigError(
            f"train.backend: graphs found, but a dropout of {dropout} would be recorded with them; "
            "expected none. Use auto or torch."
        )
    if (
        plan.native
        and (reason := unsupported_reason(config.model, config.train, plan.device)) is not None
    ):
        raise ConfigError(
            f"train.backend: native found, but the C++ kernels cannot be used: {reason}. Use auto "
            "or torch."
        )


def _device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    present = {"cpu", *(["mps"] if torch.backends.mps.is_available() else [])}
    for index in range(torch.cuda.device_count()):
        present |= {"cuda", f"cuda:{index}"}
    if name not in present:
        raise ConfigError(
            f"train.device: {name!r} found; expected auto or one of: {', '.join(sorted(present))}."
        )
    return torch.device(name)


def matmul_rate(device: torch.device, *, autocast: bool) -> float:
    """Measure the floating-point operations per second of a large matrix product; about 0.3 s."""
    side = _SIDE.get(device.type, 1024)
    dtype = torch.bfloat16 if autocast else torch.float32
    a = torch.rand(side, side, device=device, generator=torch.Generator(device)).to(dtype)
    best, spent = float("inf"), 0.0
    while spent < _TIMED_S:
        elapsed = _timed_product(a)
        best, spent = min(best, elapsed), spent + elapsed
    return 2 * side**3 / best


@cache
def known_matmul_rate(device: torch.device, *, autocast: bool) -> float:
    """Return what `matmul_rate` measured when this process first asked."""
    return matmul_rate(device, autocast=autocast)


def _timed_product(a: torch.Tensor) -> float:
    _wait(a.device)
    began = time.perf_counter()
    _ = a @ a
    _wait(a.device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def free_bytes(device: torch.device) -> int | None:
    """Return the memory a new program may take, or None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        (line,) = (line for line in lines if line.startswith("MemAvailable:"))
        return int(line.split()[1]) << 10
    except (OSError, ValueError):
        return None


def describe_machine(plan: ExecutionPlan) -> dict[str, Any]:
    """Return what of the machine may change the bits or the speed of a run."""
    device = plan.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return {
        "device": str(device),
        "device_name": name,
        "backend": plan.backend,
        "precision": "bf16" if plan.autocast else "fp32",
        "attention": plan.attention,
        "compiled": plan.compiled,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def processor_name() -> str:
    """Return what the processor calls itself."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line for line in file if line.startswith("model name")]
    except OSError:
        lines = []
    return lines[0].partition(":")[2].strip() if lines else platform.processor()
