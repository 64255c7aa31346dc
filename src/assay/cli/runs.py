"""`assay runs`: what there is, and some of it side by side."""

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from assay.cli.arguments import RunsFolder
from assay.cli.sanitize import escaped
from assay.errors import ConfigError, RunError

if TYPE_CHECKING:
    from assay.runs.folder import RunFolder

_RESULT = ("val_loss_nats", "val_bits_per_byte", "train_s")
Compared = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RUN RUN...]", help="Names or paths of runs to compare; else all."),
]


def runs(
    compared: Compared = None,
    folder: RunsFolder = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a run.")] = False,
    curve: Annotated[
        bool, typer.Option("--curve", help="Draw curve.png of each run named, at any time.")
    ] = False,
) -> None:
    """List runs, oldest first; or compare some: config, parameters, FLOPs, tokens, result.

    Of the config only the fields in which some of them differ are shown.
    Two runs are compared in everything else too by `assay diff`.

    \b
    assay runs
    assay runs --json | jq .
    assay runs first second third
    assay runs first --curve
    """  # noqa: D301
    from assay.runs.folder import RunFolder

    if curve:
        _draw_curves(compared, folder)
        return
    if compared:
        _compare([RunFolder.find(name, folder) for name in compared], as_json=as_json)
        return
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


def _draw_curves(names: list[str] | None, folder: Path) -> None:
    """Draw what each run has done so far; print the pictures' paths."""
    from assay.runs.run import Run

    if not names:
        raise ConfigError(
            "runs: --curve found no run to draw; expected names or paths: assay runs first --curve"
        )
    for run in [Run.open(name, root=folder) for name in names]:
        metrics = run.folder.path / "metrics.jsonl"
        if not metrics.exists() or not metrics.stat().st_size:
            raise RunError(f"{metrics}: no loss found to draw; expected a run that was trained.")
        typer.echo(str(run.draw_curve()))


def _row(folder: "RunFolder") -> dict[str, Any]:
    try:
        manifest = folder.read_manifest()
    except RunError:
        return {"run": folder.path.name, "state": "unreadable"}
    result, last = manifest.get("result", {}), (manifest["stretches"] or [{}])[-1]
    return {
        "run": folder.path.name,
        "state": manifest["status"],
        "steps": last.get("to_step"),
        **{name: result.get(name) for name in _RESULT},
        "started": manifest["started"],
    }


def _compare(folders: "list[RunFolder]", *, as_json: bool) -> None:
    """Print one column a run, one line for each thing in which some of them may differ."""
    if len(folders) < 2:
        raise ConfigError(
            f"runs: one run found, {folders[0].path.name}; expected at least two to compare. One "
            "is told by `assay show`."
        )
    columns = _columns(folders)
    if as_json:
        sys.stdout.writelines(json.dumps(column) + "\n" for column in columns)
        return
    table = Table(box=None)
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(escaped(column["run"]), overflow="fold")
    for name in list(columns[0])[1:]:
        table.add_row(name, *(_compared(name, column[name]) for column in columns))
    Console(markup=False).print(table)


def _columns(folders: "list[RunFolder]") -> list[dict[str, Any]]:
    from assay.experiments.outcome import Size
    from assay.runs.diff import fields_that_differ

    configs = [folder.read_config() for folder in folders]
    differing = [fields_that_differ(configs[0], config) for config in configs]
    fields = list({name: None for found in differing for name in found})
    first = {name: values[0] for found in differing for name, values in found.items()}
    columns = []
    for folder, config, found in zip(folders, configs, differing, strict=True):
        size, manifest = Size.of(config), folder.read_manifest()
        columns.append(
            {
                "run": folder.path.name,
                **{name: found[name][1] if name in found else first[name] for name in fields},
                "parameters": _counted(size.parameters),
                "training FLOPs": _counted(size.train_flops),
                "training tokens": size.train_tokens,
                "state": manifest["status"],
                **{name: manifest.get("result", {}).get(name) for name in _RESULT},
            }
        )
    return columns


def _counted(n: float) -> float | str:
    return "not counted" if math.isnan(n) else n


def _compared(name: str, value: object) -> str:
    from assay.experiments.design import shown

    if "." in name:  # a field of the config, as it is typed
        return escaped(shown(value))
    return f"{value:,}" if isinstance(value, int) else _cell(value)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else escaped(str(value))
