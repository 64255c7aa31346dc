"""`assay check`: proofs, on the user's own run and machine, that it is what it says."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from assay.cli.arguments import RunsFolder, tell_apart
from assay.cli.command import Command
from assay.cli.progress import preparing, words
from assay.cli.resume import RunName
from assay.cli.sanitize import printable
from assay.cli.train import tell_notes
from assay.errors import ConfigError

if TYPE_CHECKING:
    from assay.checks.finding import Finding

Steps = Annotated[
    int | None, typer.Option(min=1, help="N; else what takes about a minute.", show_default=False)
]
Keep = Annotated[
    Path | None,
    typer.Option(help="A new folder for the scratch runs; else they are removed.", dir_okay=True),
]
AsJson = Annotated[bool, typer.Option("--json", help="Without words: the line on stdout alone.")]

check = typer.Typer(
    no_args_is_help=True,
    help="""Prove that a run repeats, resumes and reads as it should; exit status 1 if it does not.

    Each says in words on stderr what it found, and on stdout in one line of JSON.
    """,
)


@check.command(cls=Command)
def resume(
    run: RunName,
    steps: Steps = None,
    keep: Keep = None,
    as_json: AsJson = False,
    runs: RunsFolder = Path("runs"),
) -> None:
    """Train 2N steps, and N + kill -9 + resume to 2N, in scratch folders; compare the bits.

    \b
    assay check resume shakespeare-1
    assay check resume shakespeare-1 --steps 20 --keep scratch --json
    """  # noqa: D301
    from assay.checks.repeat import check_resume
    from assay.runs.run import Run

    opened = Run.open(run, root=runs)
    with _scratch(keep) as folder:
        _tell("resume", run, check_resume(opened, folder, steps), as_json=as_json)


@check.command(cls=Command)
def determinism(
    run: RunName,
    steps: Steps = None,
    keep: Keep = None,
    as_json: AsJson = False,
    runs: RunsFolder = Path("runs"),
) -> None:
    """Train N steps twice, the second time beside a busy process; compare with the run as well.

    \b
    assay check determinism shakespeare-1
    assay check determinism shakespeare-1 --steps 50
    """  # noqa: D301
    from assay.checks.repeat import check_determinism
    from assay.runs.run import Run

    opened = Run.open(run, root=runs)
    with _scratch(keep) as folder:
        _tell("determinism", run, check_determinism(opened, folder, steps), as_json=as_json)


@check.command(cls=Command)
def data(run: RunName, as_json: AsJson = False, runs: RunsFolder = Path("runs")) -> None:
    """Compare config, text, tokenizer, tokens and every checkpoint with the hashes recorded.

    \b
    assay check data shakespeare-1
    """  # noqa: D301
    from assay.checks.files import check_data
    from assay.runs.run import Run

    with preparing() as told:
        findings = check_data(Run.open(run, root=runs), progress=told)
        _tell("data", run, findings, as_json=as_json)


@check.command(cls=Command)
def cache(run: RunName, as_json: AsJson = False, runs: RunsFolder = Path("runs")) -> None:
    """Compare logits read through the cache, and by the C++ kernels, with those of a full pass.

    \b
    assay check cache shakespeare-1
    """  # noqa: D301
    from assay.checks.cached import check_cache
    from assay.runs.run import Run

    opened = Run.open(run, root=runs)
    model, _ = opened.load()
    tell_notes(opened)
    with preparing() as told:
        dataset = opened.dataset(progress=told)
    _tell("cache", run, check_cache(model, dataset), as_json=as_json)


@check.command(cls=Command)
def variant(
    target: Annotated[
        str,
        typer.Argument(metavar="FILE.py:NAME", help="A class or kind; or norm=dyt."),
    ],
    fields: Annotated[
        list[str] | None, typer.Argument(metavar="FIELD=VALUE", help="Fields of the variant.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try the contract of a variant, yours or assay's, on a small model: seconds.

    \b
    assay check variant my_norms.py:MaxNorm
    assay check variant my_norms.py:MaxNorm gain=2.0
    assay check variant norm=dyt
    """  # noqa: D301
    from assay.checks.variant import check_variant, find_variant
    from assay.schema import decode

    cls = find_variant(target)
    given = tell_apart(fields)
    if odd := [*given.texts, *map(str, given.files)]:
        raise ConfigError(f"{odd[0]}: expected FIELD=VALUE, a field of the variant.")
    _tell("variant", target, check_variant(decode(cls, given.changes)), as_json=as_json)


def _tell(name: str, run: str, findings: "Iterator[Finding]", *, as_json: bool) -> NoReturn:
    """Say each finding as it comes, then all of them in one line; end with the exit status.

    Raises:
        typer.Exit: Always: 0 if all is fine, 1 if not.
    """
    rows = {}
    for finding in findings:
        rows[finding.name] = {"fine": finding.fine, "words": finding.words, **finding.facts}
        if not as_json:
            mark = "ok " if finding.fine else "NOT"
            words.print(printable(f"{mark} {finding.name:17} {finding.words}"))
    fine = all(row["fine"] for row in rows.values())
    if not as_json:
        words.print(_VERDICTS[name][fine])
    typer.echo(json.dumps({"check": name, "run": run, "fine": fine, "findings": rows}))
    raise typer.Exit(0 if fine else 1)


_VERDICTS = {
    "resume": {
        True: "Broken off and resumed, it is the same to the bit as without a break.",
        False: "A resumed run is NOT the same as one without a break.",
    },
    "determinism": {
        True: "Repeated, it is the same to the bit.",
        False: "Repeated, it is NOT the same.",
    },
    "data": {
        True: "All files are what they were.",
        False: "Files are NOT what they were; nothing was changed by looking.",
    },
    "variant": {
        True: "It keeps the contract.",
        False: "It does NOT keep the contract.",
    },
    "cache": {
        True: "With the cache the model says the same as without.",
        False: "With the cache the model does NOT say the same as without.",
    },
}


@contextmanager
def _scratch(keep: Path | None) -> Iterator[Path]:
    """Yield an empty folder; it is removed at the end, by Ctrl-C or SIGTERM too, unless kept."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="assay-check-") as name:
            yield Path(name)
        return
    try:
        keep.mkdir(parents=True)
    except FileExistsError:
        raise ConfigError(
            f"--keep: {keep} is there already; expected the name of a new folder. Nothing is "
            "written over: choose another."
        ) from None
    yield keep
