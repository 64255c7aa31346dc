"""`assay data`: prepare a text and say what it is."""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.arguments import Arguments, build_config, tell_apart
from assay.cli.progress import preparing

if TYPE_CHECKING:
    from assay.data.prepare import Dataset


def data(
    arguments: Arguments = None,
    entropy: Annotated[
        bool,
        typer.Option("--entropy", help="Also H(token) and H(next | current), the bigram floor."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Read, split and encode a text as `assay train` would, and show what comes out.

    \b
    assay data
    assay data my_book.txt data.tokenizer.vocab_size=8192
    assay data 'corpus/*.jsonl.zst' data.json_field=body --json
    """  # noqa: D301
    config = build_config(tell_apart(arguments), None)

    from assay.data.prepare import prepare

    with preparing() as told:
        dataset = prepare(config.data, progress=told)
    summary = dataset.summary
    if entropy:
        summary = summary | _entropies(dataset)
    if as_json:
        sys.stdout.write(json.dumps(summary, ensure_ascii=False) + "\n")
        return
    for name, value in _flat(summary):
        sys.stdout.write(f"{name:22} {value}\n")


def _flat(summary: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in summary.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, float):
            yield f"{prefix}{name}", f"{value:.4f}"
        else:
            listed = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield f"{prefix}{name}", listed or "-"


def _entropies(dataset: "Dataset") -> dict[str, float]:
    """Return what a model of no context, and of one token of context, cannot do better than."""
    from assay.measure.bigram import bigram_floor_nats, entropy_nats

    ids = dataset.val.ids
    return {"val_entropy_nats": entropy_nats(ids), "val_bigram_floor_nats": bigram_floor_nats(ids)}
