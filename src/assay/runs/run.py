"""A run: made from a config, trained, interrupted, resumed, and asked for text.

run = Run.create(config, "runs/first")
for report in run.train():
    print(report.step, report.loss_nats)
print(run.write("Once upon a time"))
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from assay.config import RunConfig
from assay.data.prepare import Dataset, prepare, reopen
from assay.data.tokenizer import Tokenizer, load_tokenizer
from assay.data.windows import Windows, evaluation_windows
from assay.engine.autotune import plan_from_manifest, tune
from assay.engine.device import describe_machine, resolve_plan
from assay.errors import ConfigError, DataError, DivergedError, RunError
from assay.generate import GenerateOptions
from assay.nn.model import GPT
from assay.plugin import changed
from assay.runs.folder import RunFolder
from assay.runs.manifest import (
    check_same_config,
    check_same_data,
    check_same_machine,
    check_same_plugins,
    check_same_run,
    new_manifest,
    now,
)
from assay.runs.metrics import sha256_until
from assay.runs.plot import draw_curve
from assay.runs.session import RunReport, SessionContext, Stop, TrainingSession, as_row
from assay.runs.state import RunState, read_run_state
from assay.runs.text import write_text
from assay.sampling import SamplingConfig
from assay.schema import override
from assay.train.checkpoint import checkpoints, newest_valid, read_model, read_optim
from assay.train.config import TrainConfig

Progress = Callable[[str, int, int], None]
_SAMPLE_TOKENS = 256
_SAVING_SHARE = 0.02  # beyond, checkpoints cost more than they should


class Run:
    """One run folder and what can be done with it.

    Attributes:
        folder: Its files.
        config: The resolved config.
        notes: What was noticed and mended while it was opened: checkpoints set aside, and why.
        draws_curve: Whether training ends with `curve.png` drawn, which takes a moment.
    """

    def __init__(
        self, folder: RunFolder, config: RunConfig, dataset: Dataset | None = None
    ) -> None:
        self.folder = folder
        self.config = config
        self.notes: list[str] = []
        self.draws_curve = True
        self._dataset = dataset  # prepared by `create`, for the first session

    @classmethod
    def create(
        cls,
        config: RunConfig,
        path: str | Path,
        *,
        cache: Path | None = None,
        progress: Progress | None = None,
    ) -> "Run":
        """Prepare the text, settle what the config left open, and make the run folder.

        Raises:
            ConfigError, DataError, RunError: For a config, a text or a folder that will not do;
                nothing is left behind.
        """
        plan = resolve_plan(config.train)
        dataset = prepare(config.data, cache, progress)
        config = _with_vocabulary(config, dataset.tokenizer)
        _check_lengths(config, dataset)
        plan, trials = tune(config, plan, cache)
        with _said("written"), RunFolder.being_made(Path(path)) as folder:
            folder.tokenizer.mkdir()
            dataset.tokenizer.save(folder.tokenizer)
            manifest = new_manifest(config, dataset.summary, describe_machine(plan))
            manifest["trials"] = [asdict(trial) for trial in trials]
            folder.write_json("manifest.json", manifest)
            folder.write_json("config.json", config.model_dump(mode="json"))
        return cls(RunFolder(Path(path)), config, dataset)

    @classmethod
    def open(cls, run: str | Path, *, root: str | Path = "runs") -> "Run":
        """Open a run by its path, or by its name under `root`.

        Raises:
            RunError: If there is none, or its config cannot be read.
        """
        folder = RunFolder.find(run, Path(root))
        return cls(folder, folder.read_config())

    def train(
        self,
        *,
        stop: Stop = lambda: False,
        anyway: bool = False,
        cache: Path | None = None,
        progress: Progress | None = None,
    ) -> Iterator[RunReport]:
        """Train from where the run stands to its last step; yield a report after each step.

        A run that was interrupted goes on from its newest whole checkpoint, to the same bits.

        Args:
            stop: Asked after each step; if true, the run is saved and the iteration ends.
            anyway: Go on even where machine or torch differ from those the run began with.
            cache: Folder of prepared texts.
            progress: Told about the preparation of the text: stage, bytes done, bytes in all.

        Raises:
            DivergedError: If a loss or gradient is not finite; the last good state was saved.
            AssayError: For a run that is finished, busy, or whose text or machine changed.
        """
        with self.at_work(anyway=anyway, cache=cache, progress=progress) as session:
            yield from session.run(stop)

    @contextmanager
    def at_work(
        self,
        *,
        anyway: bool = False,
        cache: Path | None = None,
        progress: Progress | None = None,
        replicas: int = 1,
    ) -> Iterator[TrainingSession]:
        """Hold the lock, open a session where the run stands, and write down how it ended.

        Args:
            anyway: As in `train`.
            cache: As in `train`.
            progress: As in `train`.
            replicas: How many runs step together with this one, itself included.

        Raises:
            AssayError: As `train` does.
        """
        with self.folder.locked(), _said("written"):
            session, manifest = self._session(anyway, cache, progress, replicas)
            manifest["status"] = "running"
            self.folder.write_json("manifest.json", manifest)
            try:
                yield session
                manifest["status"] = "interrupted"
                if session.step == self.config.train.steps:
                    manifest |= {"result": self._finish(session), "status": "finished"}
            except DivergedError as error:
                manifest |= {"status": "diverged", "error": str(error)}
                raise
            finally:
                self._close(session, manifest)

    def draw_curve(self) -> Path:
        """Draw the losses so far into `curve.png`, and return its path.

        Raises:
            RunError: If it cannot be written.
        """
        with _said("written"):
            vocab = self.config.model.vocab
            return draw_curve(self.folder.path, title=self.folder.path.name, vocab_size=vocab)

    def write(
        self,
        prompt: str = "",
        *,
        sampling: SamplingConfig | None = None,
        options: GenerateOptions | None = None,
    ) -> str:
        """Return what the newest checkpoint writes after `prompt`."""
        pieces = self.stream([prompt], sampling=sampling, options=options)
        return "".join(text for row, text in pieces if row == 0)

    def stream(
        self,
        prompts: Sequence[str],
        *,
        sampling: SamplingConfig | None = None,
        options: GenerateOptions | None = None,
        stops: Sequence[str] = (),
    ) -> Iterator[tuple[int, str]]:
        """Load the newest whole checkpoint and return (row, text) as it comes; see `write_text`."""
        sampling, options = sampling or self.config.sampling, options or GenerateOptions()
        model, tokenizer = self.load()
        return write_text(model, tokenizer, prompts, sampling, options, stops=stops)

    def load(self) -> tuple[GPT, Tokenizer]:
        """Return the model of the newest whole checkpoint, and the tokenizer."""
        path, reasons = newest_valid(self.folder.checkpoints)
        self.notes += reasons
        manifest = self.folder.read_manifest()
        self.notes += changed(manifest.get("plugins"), self.config)
        check_same_run(read_run_state(path), self.config, manifest, path)
        device = resolve_plan(TrainConfig()).device  # the run's own may not be here
        return read_model(path, self.config.model, device).eval(), self.tokenizer()

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer of the run.

        Raises:
            RunError: If it is not the one the run began with.
        """
        expected = self.folder.read_manifest()["data"]["tokenizer_sha256"]
        try:
            return load_tokenizer(self.folder.tokenizer, sha256=expected)
        except DataError as error:
            raise RunError(str(error)) from None

    def dataset(self, cache: Path | None = None, progress: Progress | None = None) -> Dataset:
        """Return the text of the run, read again and compared; where it is gone, what was kept.

        Args:
            cache: Folder of prepared texts.
            progress: Told about the preparation: stage, bytes done, bytes in all.

        Raises:
            DataError: If text or tokenizer changed, with both hashes, or the text is nowhere.
        """
        began = self.folder.read_manifest()["data"]
        try:
            if "-" in self.config.data.text:
                raise DataError(f"{self.folder.path}: its text came from standard input.")
            dataset = prepare(self.config.data, cache, progress)
        except DataError:
            kept = reopen(began, cache)
            if kept is None:
                raise
            return kept
        check_same_data(began, dataset.summary, self.folder.path)
        return dataset

    def _session(
        self, anyway: bool, cache: Path | None, progress: Progress | None, replicas: int
    ) -> tuple[TrainingSession, dict[str, Any]]:
        """Return a session at the newest whole checkpoint, or at the start, and the manifest."""
        manifest = self.folder.read_manifest()
        check_same_config(manifest, self.config, self.folder.path)
        self.tokenizer()  # as it was when the run began
        dataset = self._dataset or self.dataset(cache, progress)
        self._dataset = None
        path, state = self._where_it_stands(manifest)
        if path is None:  # no bits yet that these could part from
            manifest["machine"]["replicas"] = replicas
        before = state.machine or manifest["machine"]
        plan = plan_from_manifest(resolve_plan(self.config.train), before)
        machine = describe_machine(plan) | {"replicas": replicas}
        changes = check_same_machine(before, machine, allow=anyway)
        changes += check_same_plugins(manifest, self.config, allow=anyway)
        self._check_unfinished(state.step, manifest)
        if path is None:
            model = GPT.create(self.config.model, seed=self.config.train.seed, device=plan.device)
        else:
            model = read_model(path, self.config.model, plan.device)
        plan.prepare(model)
        optimizers = self.config.train.optimizer.build(model)
        if path is not None:
            optimizers.load(read_optim(path))
        session = {"started": now(), "from_step": state.step, "changes": changes}
        manifest["stretches"].append(session | {"machine": machine})
        parts = SessionContext(self.folder, self.config, dataset, model, optimizers, plan, machine)
        return TrainingSession(parts, state), manifest

    def _where_it_stands(self, manifest: dict[str, Any]) -> tuple[Path | None, RunState]:
        """Return the newest whole checkpoint with its state, or none and the state of a start."""
        if not checkpoints(self.folder.checkpoints):
            return None, RunState()
        path, reasons = newest_valid(self.folder.checkpoints)
        self.notes += reasons
        manifest["notes"] += reasons
        state = read_run_state(path)
        check_same_run(state, self.config, manifest, path)
        self._note_lost_metrics(state, manifest)
        return path, state

    def _note_lost_metrics(self, state: RunState, manifest: dict[str, Any]) -> None:
        """Note where the rows before the checkpoint are not those that were written."""
        path = self.folder.path / "metrics.jsonl"
        if sha256_until(path, state.step) != state.metrics_sha256:
            note = (
                f"metrics.jsonl: its rows up to step {state.step} are not those that were written: "
                "some are missing or were changed."
            )
            self.notes.append(note)
            manifest["notes"].append(note)

    def _check_unfinished(self, step: int, manifest: Mapping[str, Any]) -> None:
        """Refuse a run that has its result; one killed after the last step lacks it yet."""
        if step >= self.config.train.steps and "result" in manifest:
            raise RunError(
                f"{self.folder.path}: all {self.config.train.steps} steps are done. Ask it for "
                f"text: assay generate {self.folder.path.name}"
            )

    def _finish(self, session: TrainingSession) -> dict[str, Any]:
        """Judge the model on the whole validation split and let it write a sample."""
        val = session.evaluate(self.config.eval.final_max_tokens)
        parts = session.parts
        options = GenerateOptions(max_new_tokens=_SAMPLE_TOKENS, seed=self.config.train.seed)
        pieces = write_text(
            parts.model, parts.dataset.tokenizer, [""], self.config.sampling, options
        )
        with parts.plan.uncompiled():
            text = "".join(text for _, text in pieces)
        samples = self.folder.path / "samples"
        samples.mkdir(exist_ok=True)
        sample = samples / f"step-{session.step:06d}.txt"
        temporary = sample.with_suffix(".tmp")
        temporary.write_text(text, encoding="utf-8", newline="")
        temporary.replace(sample)
        return {"step": session.step, **as_row(val), "train_s": round(session.train_s, 1)}

    def _close(self, session: TrainingSession, manifest: dict[str, Any]) -> None:
        """Write how it ended; a consumer that went away half way counts as an interrupt."""
        if manifest["status"] == "running":
            manifest["status"] = "interrupted"
        if session.save_s > 1 and session.saving_share > _SAVING_SHARE:
            note = (
                f"checkpoints took {session.saving_share:.0%} of the time of the steps; raise "
                "train.checkpoint_every to spend less on them."
            )
            self.notes.append(note)
            manifest["notes"].append(note)
        manifest["ended"] = now()
        seconds = {"train_s": round(session.train_s, 3), "save_s": round(session.save_s, 3)}
        ending = {"ended": manifest["ended"], "to_step": session.step, **seconds}
        manifest["stretches"][-1] |= ending
        self.folder.write_json("manifest.json", manifest)
        if self.draws_curve:
            self.draw_curve()


def _with_vocabulary(config: RunConfig, tokenizer: Tokenizer) -> RunConfig:
    """Settle `model.vocab_size`."""
    asked = config.model.vocab_size
    if asked is None:
        return override(config, {"model.vocab_size": tokenizer.vocab_size})
    if asked < tokenizer.vocab_size:
        raise ConfigError(
            f"model.vocab_size: {asked} found; expected at least the tokenizer's "
            f"{tokenizer.vocab_size}, or null to take it."
        )
    return config


def _check_lengths(config: RunConfig, dataset: Dataset) -> None:
    """Refuse a text shorter than a window before anything is written."""
    size, seed = config.train.batch_size, config.train.seed
    Windows(dataset.train.ids, seq_len=config.seq_len, batch_size=size, seed=seed)
    evaluation_windows(dataset.val.ids, seq_len=config.seq_len, max_tokens=config.seq_len)


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Turn an error of the operating system into a sentence."""
    try:
        yield
    except OSError as error:
        place = error.filename or "the run folder"
        raise RunError(
            f"{place}: could not be {what}: {error.strerror or error}. Checkpoints written before "
            "are whole; make room or permission, then resume the run."
        ) from None
