"""`assay ablate`: one or more fields at several values, under several seeds, with intervals."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from assay.cli.ablate_fields import apart, name_of, values_of
from assay.cli.ablate_plan import tell_made, tell_plan, tell_visible
from assay.cli.ablate_run import conclude, keep_documents, run
from assay.cli.arguments import Preset, build_config, tell_apart
from assay.cli.gathering import Lab, Together, Workers, budget_of, check_installed, processes
from assay.cli.progress import preparing, words
from assay.errors import ConfigError

if TYPE_CHECKING:
    from assay.config import RunConfig
    from assay.experiments.design import Design
    from assay.experiments.study import Study

_ASSUMED_NOISE = 0.01  # nats: what small models showed over seeds; said where it is used
_MATCH_BY = {"parameters": "model.d_model", "flops": "train.steps"}
Fields = Annotated[
    list[str],
    typer.Argument(
        metavar="FIELD=A,B...",
        help="Fields at several values; beside them what `assay train` takes.",
        show_default=False,
    ),
]
Name = Annotated[str | None, typer.Option("--name", "-n", help="Of the study.")]
Seeds = Annotated[int, typer.Option(help="Runs of each arm.")]
Metric = Annotated[str, typer.Option(help="val_loss_nats or val_bits_per_byte.")]
Delta = Annotated[
    float | None, typer.Option(help="Smallest difference that matters, for equivalence.")
]
Match = Annotated[
    Literal["parameters", "flops"] | None,
    typer.Option(help="Bring every arm to the first one's parameters or training FLOPs..."),
]
MatchBy = Annotated[
    str | None,
    typer.Option(
        help="...by this field; else model.d_model for parameters, train.steps for flops.",
        show_default=False,
    ),
]
Tune = Annotated[
    str | None,
    typer.Option(metavar="FIELD=A,B...", help="Choose this field for each arm, on other seeds."),
]
TuneSeeds = Annotated[int, typer.Option(help="Runs of each value while tuning.")]
UntilWidth = Annotated[
    float | None,
    typer.Option(help="Add seeds until every interval is at most so much to either side."),
]
MostSeeds = Annotated[int, typer.Option(help="Bound of --until-width.")]
Documents = Annotated[bool, typer.Option("--documents", help="Resample validation documents too.")]
MixCode = Annotated[
    bool, typer.Option("--mix-code", help="Keep runs of this study by other code, marked.")
]
Steps = Annotated[int | None, typer.Option(min=1, help="Of every run; short for train.steps=N.")]
BudgetName = Annotated[
    str | None,
    typer.Option("--budget", help="Start from the base of the claims: quick, laptop, full."),
]
Noise = Annotated[
    float, typer.Option(help="Assumed sd of a paired difference, before any is measured.")
]
PlanOnly = Annotated[
    bool, typer.Option("--plan", help="Say what it would take and see; run nothing.")
]


def ablate(
    fields: Fields,
    name: Name = None,
    preset: Preset = None,
    budget: BudgetName = None,
    steps: Steps = None,
    seeds: Seeds = 3,
    metric: Metric = "val_loss_nats",
    delta: Delta = None,
    match: Match = None,
    match_by: MatchBy = None,
    tune: Tune = None,
    tune_seeds: TuneSeeds = 2,
    until_width: UntilWidth = None,
    most_seeds: MostSeeds = 20,
    documents: Documents = False,
    mix_code: MixCode = False,
    noise: Noise = _ASSUMED_NOISE,
    workers: Workers = None,
    together: Together = None,
    plan_only: PlanOnly = False,
    lab: Lab = Path("lab"),
) -> None:
    """Compare fields at several values, seed by seed, and say what the seeds can and cannot show.

    The first value of each field makes the arm that the others are held to.
    A study that was interrupted goes on when the same command is given again;
    runs that another study made are not made twice. The report's folder is
    printed on stdout.

    \b
    assay ablate model.norm=layer,rms,none --seeds 5
    assay ablate model.tie_embeddings=true,false --match parameters --match-by model.mlp.d_ff
    assay ablate model.norm=rms,none --tune train.optimizer.lr=1e-3,4e-3,16e-3 --plan
    """  # noqa: D301
    check_installed("ablate")
    several, rest = apart(fields)
    given = tell_apart(rest)
    if steps is not None:
        given.changes.setdefault("train.steps", steps)
    config = build_config(given, preset, _start(budget))

    from assay.experiments.design import Design, grid, of_one_precision

    _check_numbers(noise, until_width)
    design = Design(of_one_precision(config), grid(several), _seeds_of(config, seeds))
    crew = processes(workers), together
    bench = _Bench(lab, name or name_of(several), metric, delta, mix_code, crew, plan_only)
    design = _matched(design, match, match_by)
    design = _tuned(bench, design, tune, tune_seeds)
    design = _widened(bench, design, until_width, most_seeds)
    study = bench.planned(bench.name, design)
    tell_made(study)
    tell_visible(study, noise)
    n_failed = bench.run(study)
    if not plan_only:
        if documents:
            keep_documents(study)
        conclude(study)
    sys.exit(1 if n_failed else 0)


@dataclass(frozen=True, slots=True)
class _Bench:
    """Where and how studies are run: that of the results, and those that lead up to it."""

    lab: Path
    name: str
    metric: str
    delta: float | None
    mix_code: bool
    crew: tuple[int, int | None]
    plan_only: bool

    def planned(self, name: str, design: "Design") -> "Study":
        """Plan a study and say what it takes."""
        from assay.experiments.study import Study

        with preparing():
            study = Study.planned(self.lab, name, design, metric=self.metric, delta=self.delta)
        if not self.plan_only:
            study = study.written(mix_code=self.mix_code)
        tell_plan(study, self.crew[0])
        return study

    def run(self, study: "Study") -> int:
        """Run it, unless only a plan is wanted; return how many runs failed."""
        return 0 if self.plan_only else run(study, *self.crew)


def _seeds_of(config: "RunConfig", n: int) -> range:
    return range(config.train.seed, config.train.seed + n)


def _start(budget: str | None) -> "RunConfig | None":
    """Return the base that claims train upon at a budget."""
    from assay.experiments.claims.bases import base

    return None if budget is None else base(budget_of(budget))


def _check_numbers(noise: float, until_width: float | None) -> None:
    for option, value in (("--noise", noise), ("--until-width", until_width)):
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"{option}: {value} found; expected a number above 0.")


def _matched(design: "Design", match: str | None, by: str | None) -> "Design":
    from assay.experiments.made import Matching
    from assay.experiments.matching import matched
    from assay.schema import decode

    if match is None:
        if by is not None:
            raise ConfigError(
                f"--match-by: {by} found without --match; expected --match parameters or --match "
                "flops beside it."
            )
        return design
    with preparing():
        return matched(design, decode(Matching, {"what": match, "by": by or _MATCH_BY[match]}))


def _tuned(bench: _Bench, design: "Design", tune: str | None, n_seeds: int) -> "Design":
    """Run the trials and return the design with what they chose."""
    from assay.experiments import tuning

    if tune is None:
        return design
    field, values = values_of(tune)
    declared = tuning.declare(design, field, values, n_seeds, f"{bench.name}-tuning")
    trials = bench.planned(declared.study, tuning.trials_of(design, declared))
    bench.run(trials)
    return design if bench.plan_only else tuning.tuned(design, declared, trials)


def _widened(bench: _Bench, design: "Design", half_width: float | None, most: int) -> "Design":
    """Run the first stage and return the design with the seeds that it asks for."""
    from assay.experiments import widening
    from assay.experiments.made import Widening

    if half_width is None:
        return design
    declared = Widening(half_width=half_width, n_first=len(design.seeds), most=most)
    widening.check(declared)
    if bench.plan_only:
        words.print(
            f"after these {declared.n_first} first seeds, as many more as Stein's rule asks for +- "
            f"{half_width:g}, {most} in all at most"
        )
        return design
    first = bench.planned(f"{bench.name}-first", design)
    bench.run(first)
    asked = widening.seeds_asked(first.ended_outcomes(), bench.metric, declared)
    words.print(
        f"{declared.n_first} first seeds ask for {asked} in all"
        + (f"; --most-seeds allows {most}" if asked > most else "")
    )
    return widening.widened(design, asked, declared)
