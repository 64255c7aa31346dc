"""Jobs, the workers that take them, and what a kill leaves behind."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock
from small_study import FIELDS, TEXT

from assay.config import RunConfig
from assay.errors import RunError
from assay.experiments.cell import cell_key
from assay.experiments.code import code_sha256
from assay.experiments.jobs import Jobs, results_in
from assay.experiments.work import run_all, run_job
from assay.runs.run import Run
from assay.schema import override
from caches import cache_in
from patience import HANG_S, children_of, wait_until


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A folder for jobs, and a way to put runs of some seeds into its table."""
    monkeypatch.setenv("ASSAY_CACHE", cache_in(tmp_path))
    monkeypatch.setattr("assay.engine.device._TIMED_S", 1e-9)
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path


def filled(lab, seeds, **changes):
    jobs, keys = Jobs(lab / "lab"), []
    for seed in seeds:
        fields = {name.replace("__", "."): value for name, value in changes.items()}
        own = {"data.text": str(lab / "text.txt"), "train.seed": seed}
        config = override(RunConfig(), {**FIELDS, **own, **fields})
        keys.append(cell_key(config, "data", "code"))
        jobs.add(keys[-1], f"seed {seed}", config.model_dump_json())
    return jobs, keys


def states(jobs, keys):
    found = {job.key: job.state for job in jobs.all(keys)}
    return [found[key] for key in keys]


@pytest.mark.slow
def test_a_job_is_run_once_and_what_it_did_is_a_run_folder(lab):
    jobs, keys = filled(lab, [0, 1])
    for _ in keys:
        with jobs.claimed(keys) as job:
            run_job(jobs, job)
    assert states(jobs, keys) == ["done", "done"]
    with jobs.claimed(keys) as job:
        assert job is None
    assert "result" in Run.open(jobs.cells / keys[0]).folder.read_manifest()
    filled(lab, [0, 1])  # the same again
    assert states(jobs, keys) == ["done", "done"]


def test_a_job_that_is_held_is_not_given_to_another(lab):
    jobs, keys = filled(lab, [0, 1])
    with jobs.claimed(keys) as first, Jobs(lab / "lab").claimed(keys) as second:
        assert {first.key, second.key} == set(keys)
        with jobs.claimed(keys) as third:
            assert third is None
    with jobs.claimed(keys) as again:  # let go without an end
        assert again.key == keys[0]
        assert again.state == "running"


def test_a_job_that_another_worker_ended_in_between_is_not_taken(lab, monkeypatch):
    """It was waiting when the table was read, and its lock was let go just before ours."""
    jobs, keys = filled(lab, [0, 1])

    class LateLock(FileLock):
        def __enter__(self):
            Jobs(lab / "lab").end(keys[0], "done")
            return super().__enter__()

    monkeypatch.setattr("assay.experiments.jobs.FileLock", LateLock)
    with jobs.claimed(keys) as job:
        assert job.key == keys[1]
    assert states(jobs, keys) == ["done", "running"]


def test_a_run_that_diverges_is_a_result_and_one_that_fails_costs_no_other(lab):
    jobs, good = filled(lab, [0])
    _, bad = filled(lab, [1], data__text=str(lab / "nothing.txt"))
    _, wild = filled(
        lab, [2], model__norm="none", train__optimizer__lr=1e30, train__schedule="constant"
    )
    keys = [*bad, *wild, *good]
    for _ in keys:
        with jobs.claimed(keys) as job:
            run_job(jobs, job)
    assert states(jobs, keys) == ["failed", "diverged", "done"]
    found = {job.key: job.error for job in jobs.all(keys)}
    assert "nothing.txt" in found[bad[0]]
    assert found[wild[0]].startswith("step 2: loss")
    jobs.add(bad[0], "", jobs.content(bad[0]))  # asked for again: tried again
    assert states(jobs, keys) == ["waiting", "diverged", "done"]


def test_a_folder_half_made_by_a_killed_worker_is_made_anew(lab):
    jobs, keys = filled(lab, [0])
    (jobs.cells / keys[0] / "tokenizer").mkdir(parents=True)
    with jobs.claimed(keys) as job:
        run_job(jobs, job)
    assert states(jobs, keys) == ["done"]


def test_a_worker_that_cannot_be_started_is_an_error_that_says_so(lab, monkeypatch):
    def no_room(process):
        raise BlockingIOError("no room for a process")

    _, keys = filled(lab, [0, 1])
    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", no_room)
    with pytest.raises(BlockingIOError, match="no room for a process"):
        run_all(lab / "lab", keys, workers=2)


@pytest.mark.slow
def test_workers_whose_parent_is_killed_save_and_end(lab):
    _, keys = filled(lab, [0, 1], train__steps=100_000)
    code = (
        "import sys; from pathlib import Path; from assay.experiments.work import run_all; "
        "run_all(Path(sys.argv[1]), sys.argv[2:], workers=2)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(lab / "lab"), *keys])
    cells = [lab / "lab" / "cells" / key for key in keys]
    wait_until(lambda: all((cell / "metrics.jsonl").exists() for cell in cells))
    holders = [_holder(cell.with_suffix(".lock")) for cell in cells]
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in holders))
    assert all(any((cell / "checkpoints").glob("step-*")) for cell in cells)


@pytest.mark.slow
def test_a_ctrl_c_while_workers_start_is_the_parents_to_answer(lab):
    """It reaches every process of the terminal, of which one is importing PyTorch then."""
    _, keys = filled(lab, [0], train__steps=100_000)
    code = (
        "import signal, sys; from pathlib import Path; from assay.experiments.work import run_all; "
        "came = []; signal.signal(signal.SIGINT, lambda *told: came.append(told)); "
        "print(flush=True); "
        "run_all(Path(sys.argv[1]), sys.argv[2:], workers=1, stop=lambda: bool(came))"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(lab / "lab"), *keys],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    parent.stdout.readline()
    wait_until(lambda: any(map(_imports_pytorch, children_of(parent.pid))), parent)
    os.killpg(parent.pid, signal.SIGINT)
    _, told = parent.communicate(timeout=HANG_S)
    assert (parent.returncode, told) == (0, "")


@pytest.mark.slow
def test_workers_share_the_jobs_and_one_killed_costs_nothing(lab):
    """One of the two processes is killed with SIGKILL on its way; the same call goes on."""
    jobs, keys = filled(lab, range(4), train__steps=40)
    killed = []

    def kill_the_first_at_work(found):
        running = [job for job in found if job.state == "running"]
        if running and not killed and (jobs.cells / running[0].key / "metrics.jsonl").exists():
            killed.append(running[0].key)
            os.kill(_holder(jobs.cells / f"{running[0].key}.lock"), signal.SIGKILL)

    run_all(lab / "lab", keys, workers=2, told=kill_the_first_at_work)
    assert killed
    assert list((lab / "cache").glob("*/train.bin"))  # the environment is that of the call
    run_all(lab / "lab", keys, workers=2)
    assert states(jobs, keys) == ["done"] * 4
    alone = Run.create(
        override(RunConfig.model_validate_json(jobs.content(killed[0])), {}), lab / "alone"
    )
    for _ in alone.train():
        pass
    assert not list(jobs.cells.glob("*/curve.png"))  # drawn where one is asked for
    names = ("metrics.jsonl", "checkpoints/step-000040/model.safetensors")
    for name in names:
        assert (lab / "alone" / name).read_bytes() == (jobs.cells / killed[0] / name).read_bytes()


@pytest.mark.slow
def test_a_run_whose_last_sample_could_not_be_written_has_not_finished_and_goes_on(lab):
    jobs, keys = filled(lab, [0])
    run = Run.create(RunConfig.model_validate_json(jobs.content(keys[0])), jobs.cells / keys[0])
    in_the_way = run.folder.path / "samples"
    in_the_way.write_text("no folder")
    with jobs.claimed(keys) as job:
        run_job(jobs, job)
    assert states(jobs, keys) == ["failed"]
    assert run.folder.read_manifest()["status"] == "interrupted"
    in_the_way.unlink()
    filled(lab, [0])
    with jobs.claimed(keys) as job:
        run_job(jobs, job)
    assert states(jobs, keys) == ["done"]
    assert results_in(jobs.folder, keys)[keys[0]]["state"] == "finished"


@pytest.mark.slow
def test_a_lone_worker_killed_is_an_error_that_says_so_and_the_same_call_goes_on(lab):
    jobs, keys = filled(lab, [0], train__steps=40)
    killed = []

    def kill(found):
        if not killed and (jobs.cells / keys[0] / "metrics.jsonl").exists():
            killed.append(os.kill(_holder(jobs.cells / f"{keys[0]}.lock"), signal.SIGKILL))

    with pytest.raises(RunError, match=r"1 of 1 jobs have not ended, such as seed 0: .* status -9"):
        run_all(lab / "lab", keys, workers=1, told=kill)
    run_all(lab / "lab", keys, workers=1)
    assert states(jobs, keys) == ["done"]


def test_a_full_disk_under_the_table_is_one_sentence(tmp_path):
    jobs = Jobs(tmp_path)
    jobs.add("0", "small", "")
    ((pages,),) = jobs._table.execute("PRAGMA page_count")
    jobs._table.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(
        RunError, match=r"jobs\.sqlite: cannot be written: database or disk is full"
    ):
        jobs.add("1", "large", "x" * 100_000)
    assert [job.key for job in jobs.all(["0", "1"])] == ["0"]


def _imports_pytorch(pid):
    """Whether a process has a library of PyTorch in memory by now."""
    try:
        return "libtorch" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:  # it ended meanwhile
        return False


def _holder(lock):
    """The process that has the file open."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            open_files = {
                os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")
            }
        except OSError:
            continue
        if str(lock) in open_files:
            return int(pid)
    raise AssertionError(f"nobody holds {lock}")


@pytest.mark.slow
def test_an_interrupt_saves_what_is_under_way(lab):
    jobs, keys = filled(lab, [0], train__steps=5000, train__checkpoint_every=0)
    began = time.monotonic()

    def soon():
        return (
            jobs.cells / keys[0] / "metrics.jsonl"
        ).exists() or time.monotonic() - began > HANG_S

    run_all(lab / "lab", keys, workers=1, stop=soon)
    assert states(jobs, keys) == ["running"]
    manifest = Run.open(jobs.cells / keys[0]).folder.read_manifest()
    assert manifest["status"] == "interrupted"
    assert manifest["stretches"][-1]["to_step"] < 5000


def test_other_code_text_or_seed_is_another_cell():
    config = RunConfig()
    key = cell_key(config, "data", "code")
    assert key != cell_key(override(config, {"train.seed": 1}), "data", "code")
    assert key != cell_key(config, "other", "code")
    assert key != cell_key(config, "data", "other")
    assert len(code_sha256()) == 64


@pytest.mark.parametrize("content", [b"not a table", b""])
def test_a_file_that_is_no_table_is_one_sentence(tmp_path, content):
    (tmp_path / "jobs.sqlite").write_bytes(content)
    if content:
        with pytest.raises(RunError, match=r"jobs\.sqlite: file is not a database; expected a tab"):
            Jobs(tmp_path)
    else:
        assert Jobs(tmp_path).all([]) == []
    (tmp_path / "other").mkdir()
    with sqlite3.connect(tmp_path / "other" / "jobs.sqlite") as table:
        table.execute("CREATE TABLE jobs (key TEXT)")
    with pytest.raises(RunError, match="table 'jobs' found in it, made otherwise"):
        Jobs(tmp_path / "other")
