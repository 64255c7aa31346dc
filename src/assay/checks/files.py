"""Whether the files behind a run are what they were: config, text, tokenizer, tokens, checkpoints.

Nothing is written, renamed or set aside.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from assay.checks.finding import Finding, short
from assay.data.cache import MANIFEST, cache_folder
from assay.data.config import FileTokenizerConfig
from assay.data.corpus import Corpus, Progress
from assay.data.split import decide_split
from assay.data.subword import read_tokenizer
from assay.data.tokenizer import load_tokenizer
from assay.disk import read_json, sha256_of
from assay.errors import AssayError
from assay.runs.manifest import check_same_config, check_same_run
from assay.runs.run import Run
from assay.runs.state import read_run_state
from assay.schema import config_hash
from assay.train.checkpoint import checkpoints, verify_checkpoint

_MOST_BYTES = 1 << 16  # of a manifest of the cache


def check_data(
    run: Run, cache: Path | None = None, progress: Progress | None = None
) -> Iterator[Finding]:
    """Compare each file with the hash the run recorded; a finding for each.

    Args:
        run: Left as it is.
        cache: Folder of prepared texts.
        progress: Told about the reading of the text.
    """
    manifest = run.folder.read_manifest()
    yield _config(run, manifest)
    yield from _text(run, manifest["data"], progress)
    yield from _tokenizers(run, manifest["data"])
    yield from _tokens(manifest["data"], cache)
    yield from _checkpoints(run, manifest)


def _config(run: Run, manifest: Mapping[str, Any]) -> Finding:
    try:
        check_same_config(manifest, run.config, run.folder.path)
    except AssayError as error:
        return Finding("config", str(error), fine=False)
    return _same("config", config_hash(run.config))


def _text(run: Run, began: Mapping[str, Any], progress: Progress | None) -> Iterator[Finding]:
    """Read the text as when the run began, without encoding it."""
    config = run.config.data
    if "-" in config.text:
        yield Finding("text", "came from standard input and cannot be read again")
        return
    try:
        corpus = Corpus.open(config, progress)
        split = decide_split(corpus, config)
    except AssayError as error:
        yield Finding("text", str(error), fine=False)
        return
    yield _compared("text", str(began.get("corpus_sha256")), corpus.sha256)
    found = [split.kind, config.val_fraction]
    kept = [began.get("split"), began.get("val_fraction")]
    words = f"by {kept[0]}, {kept[1]:g} of it held out"
    if found != kept:
        words = f"{found} found, {kept} when the run began"
    yield Finding("split", words, found == kept, {"split": [kept, found]})


def _tokenizers(run: Run, began: Mapping[str, Any]) -> Iterator[Finding]:
    kept, config = str(began["tokenizer_sha256"]), run.config.data.tokenizer
    try:
        yield _compared("tokenizer", kept, load_tokenizer(run.folder.tokenizer).sha256)
    except AssayError as error:
        yield Finding("tokenizer", str(error), fine=False)
    if not isinstance(config, FileTokenizerConfig):
        return
    try:
        yield _compared("tokenizer source", kept, read_tokenizer(config.path).sha256)
    except AssayError as error:
        yield Finding("tokenizer source", str(error), fine=False)


def _tokens(began: Mapping[str, Any], cache: Path | None) -> Iterator[Finding]:
    """Compare the files of the cache; one that was removed is made again when it is needed."""
    entry = cache_folder(cache) / Path(str(began.get("prepared", "none"))).name
    if not entry.is_dir():
        yield Finding("tokens", f"{entry}: not there; prepared again when it is needed")
        return
    try:
        files = read_json(entry / MANIFEST, _MOST_BYTES)["files"]
        kept = {str(Path(name).name): str(file["sha256"]) for name, file in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield Finding("tokens", f"{entry / MANIFEST}: unreadable ({error!r})", fine=False)
        return
    for name, sha256 in sorted(kept.items()):
        yield _file(f"tokens {name}", entry / name, sha256)
    recorded = str(began["tokenizer_sha256"])
    try:
        yield _compared("tokens' tokenizer", recorded, load_tokenizer(entry).sha256)
    except AssayError as error:
        yield Finding("tokens' tokenizer", str(error), fine=False)


def _checkpoints(run: Run, manifest: Mapping[str, Any]) -> Iterator[Finding]:
    """Verify every checkpoint, newest first, and that it is of this run."""
    found = checkpoints(run.folder.checkpoints)
    if not found:
        yield Finding("checkpoints", "none was written yet")
    for folder in found:
        try:
            verify_checkpoint(folder)
            check_same_run(read_run_state(folder), run.config, manifest, folder)
        except AssayError as error:
            yield Finding(folder.name, str(error), fine=False)
        else:
            yield Finding(folder.name, "every file is what was written, and of this run")


def _file(name: str, path: Path, kept: str) -> Finding:
    try:
        return _compared(name, kept, sha256_of(path))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return Finding(name, f"{path}: {reason}", fine=False, facts={"sha256": [kept]})


def _compared(name: str, kept: str, found: str) -> Finding:
    if kept == found:
        return _same(name, found)
    words = f"SHA-256 {short(found)} found, {short(kept)} when the run began"
    return Finding(name, words, fine=False, facts={"sha256": [kept, found]})


def _same(name: str, sha256: str) -> Finding:
    return Finding(name, f"as it was, SHA-256 {short(sha256)}", facts={"sha256": [sha256]})
