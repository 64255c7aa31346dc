"""`assay show`: a config as it will be used, or a run as it went."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from assay.cli.arguments import Arguments, Preset, RunsFolder, build_config, tell_apart
from assay.cli.sanitize import escaped


def show(
    arguments: Arguments = None,
    fields: Annotated[bool, typer.Option("--fields", help="List every field.")] = False,
    preset: Preset = None,
    runs: RunsFolder = Path("runs"),
) -> None:
    """Print the config that these arguments make, or the manifest of a run, as JSON.

    \b
    assay show --preset gpt2 model.norm=rms
    assay show shakespeare-1
    assay show --fields
    """  # noqa: D301
    if fields:
        _list_fields()
        return
    given = tell_apart(arguments)
    if len(given.texts) == 1 and not given.changes and not given.files and preset is None:
        from assay.runs.folder import RunFolder

        folder = RunFolder.find(given.texts[0], runs)
        content, config = folder.read_manifest(), folder.read_config().model_dump(mode="json")
        sys.stdout.write(json.dumps({"config": config, **content}, indent=2) + "\n")
        return
    text = build_config(given, preset).model_dump_json(indent=2)
    sys.stdout.write((escaped(text, keep="\n") if sys.stdout.isatty() else text) + "\n")


def _list_fields() -> None:
    from assay.config import RunConfig
    from assay.schema import field_paths

    for path, meaning in field_paths(RunConfig).items():
        sys.stdout.write(f"{path:36} {' '.join(meaning.split())}\n")
