"""Whether two run folders hold the same bits, and where they part if not."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from assay.checks.finding import Finding, short
from assay.disk import sha256_of
from assay.runs.metrics import read_rows
from assay.train.checkpoint import MODEL, OPTIM

Row = Mapping[str, Any]
_FILES = (("weights", MODEL), ("optimizer", OPTIM))


def compare_runs(one: Path, other: Path, step: int) -> Iterator[Finding]:
    """Compare weights and optimizer state of the checkpoint of `step`, and all metrics."""
    yield compare_metrics(one / "metrics.jsonl", other / "metrics.jsonl")
    for name, file in _FILES:
        place = f"checkpoints/step-{step:06d}/{file}"
        yield compare_tensors(name, one / place, other / place)


def compare_tensors(name: str, one: Path, other: Path) -> Finding:
    """Compare two safetensors files by hash; if they differ, find the first tensor that does."""
    hashes = [sha256_of(one), sha256_of(other)]
    facts: dict[str, Any] = {"sha256": hashes}
    if hashes[0] == hashes[1]:
        return Finding(name, f"the same bits, SHA-256 {short(hashes[0])}", facts=facts)
    found = list(_differing(one, other))
    both = f"SHA-256 {short(hashes[0])} and {short(hashes[1])}"
    if not found:
        words = f"the same tensors in files that differ otherwise: {both}"
    else:
        words = f"{found[0]['words']}; {len(found)} tensors differ in all; {both}"
        facts |= {"tensor": found[0], "tensors_differing": len(found)}
    return Finding(name, words, fine=False, facts=facts)


def _differing(one: Path, other: Path) -> Iterator[dict[str, Any]]:
    """Yield, of each tensor that is not the same in both files, how far apart the two are."""
    with safe_open(one, "pt") as a, safe_open(other, "pt") as b:
        for name in sorted({*a.keys(), *b.keys()}):
            if name not in a.keys() or name not in b.keys():  # noqa: SIM118
                yield {"name": name, "words": f"{name} is in one file alone"}
            elif apart := _apart(a.get_tensor(name), b.get_tensor(name)):
                yield {"name": name, **apart, "words": f"{name} {apart['words']}"}


def _apart(a: Tensor, b: Tensor) -> dict[str, Any] | None:
    """Return where two tensors are farthest apart; None if they are the same to the bit."""
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        kinds = [f"{t.dtype} of shape {tuple(t.shape)}" for t in (a, b)]
        return {"words": f"is {kinds[0]} in one and {kinds[1]} in the other"}
    if torch.equal(a.flatten().view(torch.uint8), b.flatten().view(torch.uint8)):
        return None
    gaps = (a.double() - b.double()).abs().nan_to_num(nan=torch.inf, posinf=torch.inf)
    place = int(gaps.argmax())
    largest, count = float(gaps.flatten()[place]), int((gaps > 0).sum())
    index = [int(i) for i in torch.unravel_index(torch.tensor(place), a.shape)]
    return {
        "largest_difference": largest,
        "index": index,
        "elements_differing": count,
        "elements": a.numel(),
        "words": (
            f"differs in {count} of {a.numel()} elements, by {largest:.3g} at most, at {index}"
        ),
    }


def compare_metrics(one: Path, other: Path) -> Finding:
    """Compare two metrics files by hash; if they differ, find the first row that does."""
    hashes = [sha256_of(one), sha256_of(other)]
    rows = list(read_rows(one))
    facts: dict[str, Any] = {"sha256": hashes, "rows": len(rows)}
    if hashes[0] == hashes[1]:
        words = f"the same bits in {len(rows)} rows, SHA-256 {short(hashes[0])}"
        return Finding("metrics", words, facts=facts)
    facts |= first_difference(zip_longest(rows, read_rows(other))) or {
        "step": None,
        "words": "the same rows, written otherwise",
    }
    words = f"{facts.pop('words')}; SHA-256 {short(hashes[0])} and {short(hashes[1])}"
    return Finding("metrics", words, fine=False, facts=facts)


def first_difference(pairs: Iterable[tuple[Row | None, Row | None]]) -> dict[str, Any] | None:
    """Return step, field and both values of the first pair of rows that are not the same."""
    for one, other in pairs:
        if one is None or other is None:
            row = one or other or {}
            words = f"step {row.get('step')}: its row of {row.get('kind')} is in one alone"
            return {"step": row.get("step"), "words": words}
        for field in one | other:  # type: ignore[operator]
            values = one.get(field), other.get(field)
            if json.dumps(values[0]) != json.dumps(values[1]):  # NaN is equal to NaN here
                step = one.get("step")
                words = (
                    f"step {step} is the first that differs: {field} {values[0]} and {values[1]}"
                )
                return {"step": step, "field": field, "values": list(values), "words": words}
    return None


def compare_recorded(recorded: Iterable[Row], found: Iterable[Row], steps: int) -> Finding:
    """Compare the rows a run recorded up to `steps` with those found when it was repeated.

    A run may log fewer steps than the repetition; those it did not log are passed over.
    """
    there = {(row.get("kind"), row["step"]): row for row in found}
    rows = [row for row in recorded if row["step"] <= steps]
    if not rows:
        return Finding("recorded", f"the run has no rows up to step {steps} to compare with")
    pairs = [(row, there.get((row.get("kind"), row["step"]))) for row in rows]
    facts = {"rows": len(rows)}
    if difference := first_difference(pairs):
        words = f"the run's own numbers do not come back here: {difference.pop('words')}"
        return Finding("recorded", f"{words} (recorded, found)", False, facts | difference)
    return Finding("recorded", f"all {len(rows)} rows the run recorded come back", facts=facts)
