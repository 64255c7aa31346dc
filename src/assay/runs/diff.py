"""Every difference between two runs: config, size, text, surroundings, result, sample."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.count import NOT_COUNTED, count_or_none
from assay.disk import read_bytes
from assay.errors import RunError
from assay.runs.run import Run
from assay.schema import Config

_MOST_SAMPLE_BYTES = 1 << 22
_OF_DATA = ("corpus_sha256", "split", "val_fraction", "tokenizer_sha256")
_OF_THE_STRETCH = (
    "device_name",
    "device",
    "backend",
    "precision",
    "attention",
    "compiled",
    "threads",
)


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same in both runs.

    Attributes:
        part: config, size, data, code, packages, machine, result or sample.
        name: What it is.
        first: Its value in the first run, None where it has none.
        second: Its value in the second.
    """

    part: str
    name: str
    first: Any
    second: Any


def differences(one: Run, other: Run) -> Iterator[Difference]:
    """Yield every difference, in the order of the parts; nothing for a run and itself."""
    for name, (first, second) in fields_that_differ(one.config, other.config).items():
        yield Difference("config", name, first, second)
    yield from _of("size", _sizes(one), _sizes(other))
    manifests = [run.folder.read_manifest() for run in (one, other)]
    data = [{name: found["data"].get(name) for name in _OF_DATA} for found in manifests]
    yield from _of("data", *data)
    yield from _of("code", *(found.get("code", {}) for found in manifests))
    yield from _of("packages", *(found["packages"] for found in manifests))
    machines = [
        {name: found["machine"].get(name) for name in _OF_THE_STRETCH} for found in manifests
    ]
    yield from _of("machine", *machines)
    yield from _of("result", *(_result(found) for found in manifests))
    yield from _of("sample", *({"text": _sample(run)} for run in (one, other)))


def fields_that_differ(one: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """Return every dotted field with another value in `other`, and both values.

    A field that only one of them has, since only its variant does, stands beside None.
    """
    first, second = dict(_flat(one.model_dump())), dict(_flat(other.model_dump()))
    return {
        name: (first.get(name), second.get(name))
        for name in {**first, **second}
        if first.get(name) != second.get(name) or (name in first) != (name in second)
    }


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _of(part: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Difference]:
    for name in {**first, **second}:
        if first.get(name) != second.get(name):
            yield Difference(part, name, first.get(name), second.get(name))


def _sizes(run: Run) -> dict[str, int | str]:
    counted = count_or_none(run.config.model, seq_len=run.config.seq_len)
    sequences = run.config.train.steps * run.config.train.batch_size
    return {
        "parameters": NOT_COUNTED if counted is None else counted.parameters,
        "training FLOPs": NOT_COUNTED if counted is None else sequences * counted.training_flops,
        "training tokens": sequences * run.config.seq_len,
    }


def _result(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what came out; the time it took is never the same twice."""
    result = {k: v for k, v in manifest.get("result", {}).items() if k != "train_s"}
    return {"status": manifest["status"], **result}


def _sample(run: Run) -> str | None:
    folder = run.folder.path / "samples"
    texts = sorted(folder.glob("step-*.txt")) if folder.is_dir() else []
    return _read(texts[-1]) if texts else None


def _read(path: Path) -> str:
    try:
        return read_bytes(path, _MOST_SAMPLE_BYTES).decode(errors="replace")
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: no sample that can be read ({error}).") from None
