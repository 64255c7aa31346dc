"""`assay data`: prepare a text and say what it is."""

import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from assay.cli.arguments import Arguments, build_config, tell_apart
from assay.cli.progress import prepared


def data(
    arguments: Arguments = None,
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

    summary = prepare(config.data, progress=prepared).summary
    if as_json:
        sys.stdout.write(json.dumps(summary, ensure_ascii=False) + "\n")
        return
    table = Table("", "", box=None, show_header=False)
    for name, value in summary.items():
        table.add_row(name, json.dumps(value, ensure_ascii=False) if value != "" else "")
    Console().print(table)
