"""`assay bench`: how fast this machine is, and what of it training and decoding use."""

import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from assay.cli.arguments import Arguments, Preset, build_config, tell_apart
from assay.cli.progress import words
from assay.errors import ConfigError

if TYPE_CHECKING:
    from assay.config import RunConfig

_ROWS = (1, 16)


def bench(
    arguments: Arguments = None,
    preset: Preset = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="To spend on each of training, one row and 16 rows.")
    ] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Measure this machine: matrix products, memory, training and decoding of a model.

    Random tokens, random weights, nothing is written; a small model takes less
    than a minute, one like GPT-2 small some minutes.

    \b
    assay bench
    assay bench model.d_model=256 train.batch_size=16
    """  # noqa: D301
    from assay.engine.bench import with_vocabulary

    given = tell_apart(arguments)
    if given.texts:
        raise ConfigError(
            f"{given.texts[0]}: a text found; expected FILE.toml or FIELD=VALUE, since the tokens "
            "are random. Leave it out."
        )
    found = _measure(with_vocabulary(build_config(given, preset)), seconds)
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    _print(found)


def _measure(config: "RunConfig", seconds: float) -> dict[str, Any]:
    """Return everything measured; what is being measured is told on a terminal."""
    from assay.engine import bench
    from assay.engine.device import describe_machine, resolve_plan
    from assay.nn.model import GPT

    began = time.perf_counter()
    plan = resolve_plan(config.train)
    _tell("matrix products and memory")
    limits = bench.measure_limits(plan.device)
    _tell("training")
    training = bench.measure_training(config, limits, seconds=seconds)
    model = GPT.create(config.model, device=plan.device)
    decoding = []
    for rows in _ROWS:
        _tell(f"decoding, {rows} at a time")
        decoding.append(bench.measure_decoding(model, limits, rows=rows, seconds=seconds))
    return {
        "machine": describe_machine(plan),
        "limits": asdict(limits),
        "training": asdict(training),
        "decoding": [asdict(speed) for speed in decoding],
        "elapsed_s": time.perf_counter() - began,
    }


def _tell(what: str) -> None:
    if words.is_terminal:
        words.print(f"measuring {what} ...")


def _print(found: dict[str, Any]) -> None:
    machine, limits, training = found["machine"], found["limits"], found["training"]
    table = Table("", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("speed", "of the limit"):
        table.add_column(column, justify="right")
    for precision in ("fp32", "bf16"):
        table.add_row(
            f"matrix product, {precision}", _rate(limits[f"{precision}_flops_per_s"], "FLOP/s")
        )
    table.add_row("memory, read", _rate(limits["read_bytes_per_s"], "B/s"))
    table.add_row(
        f"training, {training['way']}",
        f"{training['tokens_per_s']:,.0f} tokens/s",
        _share(training["share"]),
    )
    for speed in found["decoding"]:
        table.add_row(
            f"decoding, {speed['rows']} at a time",
            f"{speed['tokens_per_s']:,.0f} tokens/s",
            _share(speed["share"]),
        )
        first = f"{1000 * speed['first_token_s']:,.1f} ms"
        table.add_row(f"  first token, after {speed['prompt_tokens']}", first)
    Console().print(table)
    Console(highlight=False, soft_wrap=True).print(
        f"\n{machine['device_name']}, {machine['threads']} threads. A step takes "
        f"{1000 * training['step_s']:,.1f} ms (median of {training['steps']}). The limit of "
        "training is the faster matrix product, that of decoding the memory. "
        f"{found['elapsed_s']:.0f} s in all."
    )


def _share(share: float | None) -> str:
    return "not counted" if share is None else f"{share:.0%}"


def _rate(value: float, unit: str) -> str:
    return f"{value / 1e9:,.1f} G{unit}"
