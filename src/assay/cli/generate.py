"""`assay generate`: text from a run."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from assay.cli.arguments import RunsFolder, tell_apart
from assay.cli.resume import RunName
from assay.cli.sanitize import printable
from assay.cli.train import tell_notes
from assay.errors import ConfigError

Prompts = Annotated[
    list[str] | None, typer.Option("--prompt", "-p", help="What the text begins with; repeatable.")
]

Weights = Annotated[str | None, typer.Option(help="fp32 | bf16 | int8: rounded, read faster.")]
Lookup = Annotated[
    int, typer.Option(min=0, help="Tokens drafted from the text itself; the same text.")
]


def generate(
    run: RunName,
    fields: Annotated[
        list[str] | None,
        typer.Argument(metavar="sampling.FIELD=VALUE", help="How tokens are drawn."),
    ] = None,
    prompt: Prompts = None,
    prompt_file: Annotated[
        Path | None, typer.Option(help="A file whose lines are prompts; - is standard input.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", "-m", min=0)] = 256,
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="Texts a prompt.")] = 1,
    temperature: Annotated[float | None, typer.Option("--temperature", "-t", min=0)] = None,
    top_k: Annotated[int | None, typer.Option(min=0)] = None,
    top_p: Annotated[float | None, typer.Option()] = None,
    min_p: Annotated[float | None, typer.Option()] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same text.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End a text here; repeatable.")] = None,
    window: Annotated[str, typer.Option(help="recompute | rolling; see docs/sampling.md.")] = (
        "recompute"
    ),
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Run the whole context for each token.")
    ] = False,
    weights: Weights = None,
    lookup: Lookup = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a text.")] = False,
    runs: RunsFolder = Path("runs"),
) -> None:
    """Write text with a trained model; it appears as it comes.

    \b
    assay generate shakespeare-1 --prompt "KING LEAR:"
    assay generate shakespeare-1 -p "To be" -p "Not to be" -n 3 --temperature 0.7 --json
    assay generate my-run sampling.adapt=entropy sampling.adapt.target_nats=2.0
    """  # noqa: D301
    from assay.generate import GenerateOptions
    from assay.runs.run import Run
    from assay.schema import decode, override

    opened = Run.open(run, root=runs)
    short = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    changes = {f"sampling.{name}": value for name, value in short.items() if value is not None}
    sampling = override(opened.config, changes | _sampling_fields(fields)).sampling
    asked = {"max_new_tokens": max_new_tokens, "n_samples": samples, "seed": seed}
    how = {"window": window, "use_cache": not no_cache, "weights": weights, "lookup": lookup}
    options = decode(GenerateOptions, asked | how)
    prompts = [*(prompt or []), *_lines_of(prompt_file)] or [""]
    pieces = opened.stream(prompts, sampling=sampling, options=options, stops=stop or ())
    tell_notes(opened)
    show = _as_json if as_json else _as_text
    show(prompts, samples, pieces)


def _sampling_fields(fields: list[str] | None) -> dict[str, Any]:
    given = tell_apart(fields)
    if odd := [*given.texts, *map(str, given.files)]:
        raise ConfigError(
            f"{odd[0]}: expected sampling.FIELD=VALUE; a prompt goes behind --prompt."
        )
    for field in given.changes:
        if not field.startswith("sampling."):
            raise ConfigError(f"{field}: the model is trained; only sampling.* can change now.")
    return given.changes


def _lines_of(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"--prompt-file: {path}: {error}") from None
    return text.splitlines()


def _as_text(prompts: list[str], samples: int, pieces: Iterator[tuple[int, str]]) -> None:
    """Write the first text as it comes, and the others whole behind it."""
    safe = printable if sys.stdout.isatty() else str
    texts = [""] * (len(prompts) * samples)
    many = len(texts) > 1
    for row, prompt in enumerate(prompts):
        texts[row * samples : (row + 1) * samples] = [prompt] * samples
    _write(_headline(0, samples) * many + safe(texts[0]))
    for row, text in pieces:
        texts[row] += text
        if row == 0:
            _write(safe(text))
    for row, text in enumerate(texts[1:], 1):
        _write("\n" + _headline(row, samples) + safe(text))
    _write("\n")


def _headline(row: int, samples: int) -> str:
    return f"--- prompt {row // samples + 1}, sample {row % samples + 1}\n"


def _as_json(prompts: list[str], samples: int, pieces: Iterator[tuple[int, str]]) -> None:
    texts = [""] * (len(prompts) * samples)
    for row, text in pieces:
        texts[row] += text
    for row, text in enumerate(texts):
        prompt, sample = divmod(row, samples)
        line = {"prompt": prompts[prompt], "sample": sample, "text": text}
        _write(json.dumps(line, ensure_ascii=sys.stdout.isatty()) + "\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
