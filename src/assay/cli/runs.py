"""`assay runs`: what there is."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from assay.cli.arguments import RunsFolder
from assay.cli.printable import escaped
from assay.errors import RunError


def runs(
    folder: RunsFolder = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a run.")] = False,
) -> None:
    """List runs, oldest first: state, steps, validation loss, bits per byte.

    \b
    assay runs
    assay runs --json | jq .
    """  # noqa: D301
    from assay.runs.folder import RunFolder

    rows = [_row(found) for found in RunFolder.all_under(folder)]
    if as_json:
        sys.stdout.writelines(json.dumps(row) + "\n" for row in rows)
        return
    table = Table("run", "state", "steps", "val nats", "bits/byte", "seconds", "started", box=None)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    Console(markup=False).print(
        table if rows else f"No runs under {escaped(str(folder))}/ yet. Begin with: assay train"
    )


def _row(folder: Any) -> dict[str, Any]:  # noqa: ANN401
    try:
        manifest = folder.read_manifest()
    except RunError:
        return {"run": folder.path.name, "state": "unreadable"}
    result, last = manifest.get("result", {}), (manifest["stretches"] or [{}])[-1]
    return {
        "run": folder.path.name,
        "state": manifest["status"],
        "steps": last.get("to_step"),
        "val_loss_nats": result.get("val_loss_nats"),
        "val_bits_per_byte": result.get("val_bits_per_byte"),
        "train_s": result.get("train_s"),
        "started": manifest["started"],
    }


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else escaped(str(value))
