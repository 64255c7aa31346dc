"""`assay train`: a new run."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.arguments import Arguments, Preset, RunsFolder, build_config, tell_apart
from assay.cli.progress import preparing, training, words
from assay.cli.sanitize import escaped, printable
from assay.cli.signals import Interrupts
from assay.errors import RunError

if TYPE_CHECKING:
    from assay.config import RunConfig
    from assay.runs.run import Run

Name = Annotated[str | None, typer.Option("--name", "-n", help="Of the run; else TEXT-1, TEXT-2.")]
Seeds = Annotated[
    int, typer.Option(min=1, help="Runs that differ in train.seed alone: NAME-s0, NAME-s1, ...")
]
Together = Annotated[
    int | None, typer.Option(min=1, help="Of these, how many at once; else what is fastest here.")
]


def train(
    arguments: Arguments = None,
    name: Name = None,
    preset: Preset = None,
    seeds: Seeds = 1,
    together: Together = None,
    runs: RunsFolder = Path("runs"),
) -> None:
    """Train a GPT on your text (the bundled Shakespeare if none is named).

    The run's folder is printed on stdout; everything else goes to stderr.

    \b
    assay train
    assay train my_book.txt notes/ train.steps=2000
    assay train poems.txt data.tokenizer=char model.norm=layer model.position=learned
    assay train big.jsonl.zst config.toml --preset llama-like --name llama-1
    assay train recipes/char_fast.toml input.txt --seeds 4
    """  # noqa: D301
    config = build_config(tell_apart(arguments), preset)
    if seeds == 1:
        go(_create(config, runs, name), anyway=False)
        return
    from assay.cli.ensembles import ensemble_size, go_ensemble

    made = _create_seeds(config, runs, name, seeds)
    go_ensemble(made, size=together or ensemble_size(made[0], seeds))


def _create_seeds(config: "RunConfig", runs: Path, name: str | None, seeds: int) -> "list[Run]":
    """Make a run for each of `seeds` seeds from `train.seed` on."""
    from assay.schema import override

    name = name if name is not None else _free_name(runs, config.data.text[0])
    names = {
        f"{name}-s{seed}": seed for seed in range(config.train.seed, config.train.seed + seeds)
    }
    if taken := [each for each in names if (runs / each).exists()]:  # before any of them is made
        raise RunError(
            f"{runs / taken[0]}: a run of this name is there already; expected free names "
            f"{name}-s{config.train.seed} and on. Choose another --name."
        )
    return [
        _create(override(config, {"train.seed": seed}), runs, each) for each, seed in names.items()
    ]


def _create(config: "RunConfig", runs: Path, name: str | None) -> "Run":
    """Make the run; a name that was not asked for gives way to a run begun at the same time."""
    from assay.runs.folder import check_name
    from assay.runs.run import Run

    if name is not None:
        check_name(name)
    while True:
        path = runs / (name if name is not None else _free_name(runs, config.data.text[0]))
        try:
            with preparing() as told:
                return Run.create(config, path, progress=told)
        except RunError:
            if name is not None or not path.exists():
                raise


def go(run: "Run", *, anyway: bool) -> None:
    """Train a run with what a terminal needs: progress, signals, the result in words."""
    introduce(run)
    with Interrupts() as interrupts:
        reports = run.train(stop=interrupts.noted, anyway=anyway)
        step = 0
        with training(run.config.train.steps, start=0) as show:
            for report in reports:
                tell_notes(run)
                show(report)
                step = report.step
    if interrupts.noted() and step < run.config.train.steps:
        words.print(f"Saved at step {step}. Go on with: assay resume {_how(run)}")
        sys.exit(interrupts.status)
    conclude(run)


def tell_notes(run: "Run") -> None:
    """Say what was noticed and mended, once."""
    for note in run.notes:
        words.print(f"note: {escaped(note)}")
    run.notes.clear()


def introduce(run: "Run") -> None:
    """Say what is about to be trained."""
    from assay.count import count_or_none
    from assay.native.kinds import unknown

    manifest = run.folder.read_manifest()
    data, machine = manifest["data"], manifest["machine"]
    counted = count_or_none(run.config.model)
    size = "not counted" if counted is None else _short(counted.parameters)
    tokens = run.config.train.steps * run.config.train.batch_size * run.config.seq_len
    words.print(
        f"{run.folder.path}: {size} parameters, {_short(tokens)} tokens to train on; "
        f"text of {_short(data['train']['tokens'])} tokens, vocabulary {run.config.model.vocab:,}; "
        f"{escaped(machine['device'])} in {machine['precision']}, {_way(machine)}, "
        f"{machine['threads']} threads"
    )
    if machine["device"] == "cpu" and (choice := unknown(run.config.model)) is not None:
        words.print(f"note: the C++ kernels do not know {escaped(choice)}; PyTorch computes it")


def _way(machine: dict[str, Any]) -> str:
    """Say what takes the steps."""
    backend = machine.get("backend", "torch")
    if backend == "native":
        return "C++ kernels"
    told = [f"{machine['attention']} attention"]
    told += ["compiled"] * machine["compiled"] + ["as a CUDA graph"] * (backend == "graphs")
    return ", ".join(told)


def _short(n: int) -> str:
    """Return a count in words: 800, 12.3 thousand, 1.67 million."""
    for size, word in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if n >= size:
            return f"{n / size:.3g} {word}"
    return str(n)


def conclude(run: "Run") -> None:
    """Say how it went, and where it is."""
    tell_notes(run)
    result = run.folder.read_manifest()["result"]
    sample = run.folder.path / "samples" / f"step-{result['step']:06d}.txt"
    words.rule("sample")
    words.print(printable(sample.read_text(encoding="utf-8")), markup=False)
    words.rule()
    words.print(
        f"validation loss {result['val_loss_nats']:.4f} nats per token (perplexity "
        f"{result['val_perplexity']:.2f}), {result['val_bits_per_byte']:.4f} bits per byte, over "
        f"{result['val_tokens']:,} tokens; trained in {result['train_s']:.0f} s\n"
        f"curve: {run.folder.path / 'curve.png'}\n"
        f'more text: assay generate {_how(run)} --prompt "..."'
    )
    typer.echo(str(run.folder.path))


def _how(run: "Run") -> str:
    path = run.folder.path
    return path.name if path.parent == Path("runs") else shlex.quote(str(path))


def _free_name(runs: Path, text: str) -> str:
    """Return TEXT-N with the first N that is free."""
    stem = Path(text).name.partition(".")[0].lower()
    stem = (
        "".join(c if c.isascii() and c.isalnum() else "-" for c in stem).strip("-")[:40] or "text"
    )
    for number in range(1, 100_000):
        name = f"{stem}-{number}"
        if not (runs / name).exists() and not any(runs.glob(f"{name}-s*")):
            return f"{stem}-{number}"
    raise RunError(f"{runs}: no free name {stem}-N left; give one with --name.")
