"""What was measured, kept as JSON under benchmarks/results/, one file a subject."""

import json
import os
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from assay.engine.device import describe_machine, resolve_plan
from assay.runs.manifest import code_version
from assay.train.config import TrainConfig

FOLDER = Path(__file__).parent / "results"
_PACKAGES = (
    "assay",
    "torch",
    "transformers",
    "litgpt",
    "x-transformers",
    "llama-cpp-python",
    "numpy",
)


def read(name: str) -> dict[str, Any]:
    """Return what was kept of a subject; empty if nothing was."""
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def keep(name: str, parts: dict[str, Any], *, device: str = "cpu") -> None:
    """Lay `parts` over what is kept of a subject here; what another machine left is dropped."""
    place = {"machine": machine(device), "versions": versions()}
    before = read(name)
    kept = before if all(before.get(key) == value for key, value in place.items()) else {}
    when = {"date": datetime.now(UTC).date().isoformat(), "code": code_version()}
    found = kept | place | when | parts
    FOLDER.mkdir(exist_ok=True)
    scratch = FOLDER / f".{name}.{os.getpid()}"
    scratch.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    scratch.replace(FOLDER / f"{name}.json")


def kept_here(name: str, *, device: str = "cpu") -> dict[str, Any]:
    """Return what was kept of a subject if it was measured on this machine with these versions."""
    found = read(name)
    same = found.get("machine") == machine(device) and found.get("versions") == versions()
    return found if same else {}


def machine(device: str = "cpu") -> dict[str, Any]:
    """Return what of the machine decides its speed."""
    told = describe_machine(resolve_plan(TrainConfig(device=device)))
    wanted = ("device", "device_name", "threads", "cpu_capability", "cpus", "python")
    return {name: told[name] for name in wanted}


def versions() -> dict[str, str]:
    """Return the version of each package compared; those not installed are left out."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
