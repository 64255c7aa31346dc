"""Laboratories and studies of strangers: their paths, their job tables, their records."""

import json
import os
import random
import shutil
import signal
import sqlite3
import struct
import sys

import pytest
from small_study import finished, study_of
from tiny_claim import panel

from assay.errors import AssayError, RunError
from assay.experiments.design import grid
from assay.experiments.evidence import Record
from assay.experiments.jobs import Jobs, results_in
from assay.experiments.laboratory import Laboratory
from assay.experiments.paper.verify_study import read_arms
from assay.experiments.records import write_record
from assay.experiments.study import Study
from assay.experiments.written import seal

NORMS = grid({"model.norm": ["rms", "none"]})
KEY = f"{7:032x}"
PATIENCE_S = 30
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no pipes and devices")


@pytest.fixture(autouse=True)
def _patience():
    signal.alarm(PATIENCE_S)
    yield
    signal.alarm(0)


@pytest.fixture
def lab(tmp_path):
    """A table of jobs, with a job and a result."""
    jobs = Jobs(tmp_path / "lab")
    jobs.add(KEY, "a job", '{"a": 1}')
    jobs.keep_result(KEY, {"state": "finished"})
    return tmp_path / "lab"


def refused(lab, match):
    """Both who writes in the table and who only reads it must say so."""
    for use in (use_jobs, lambda folder: results_in(folder, [KEY])):
        with pytest.raises(RunError, match=match) as caught:
            use(lab)
        assert "expected a table of jobs" in str(caught.value)


def use_jobs(lab):
    jobs = Jobs(lab)
    jobs.all([KEY])
    jobs.content(KEY)
    jobs.add(KEY, "a job", '{"a": 1}')


def statement(lab, *lines):
    with sqlite3.connect(lab / "jobs.sqlite") as table:
        table.execute("PRAGMA ignore_check_constraints = ON")
        for line in lines:
            table.execute(line)
    table.close()


def resealed(study, change):
    """Forge a study.json under a seal that fits."""
    path = study.folder / "study.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    change(content)
    path.write_text(json.dumps(content | {"sha256": seal(content)}))


@pytest.mark.parametrize("key", ["../../outside", "/etc", "..", "", "x" * 32, "A" * 32, f"{KEY}\n"])
def test_the_key_of_a_cell_leads_nowhere_else(base, tmp_path, key):
    study = study_of(base, tmp_path, NORMS)
    resealed(study, lambda content: content["keys"][NORMS[0].name].update({"0": key}))
    with pytest.raises(RunError, match=r"keys\..*\.0: .* found"):
        Study.open(study.lab, study.name)


def test_a_cell_that_leads_out_of_the_laboratory_is_refused(base, tmp_path):
    study = finished(study_of(base, tmp_path, NORMS, seeds=(0, 1)))
    cell = study.lab / "cells" / study.cells()[0]
    shutil.copytree(cell, tmp_path / "copy")
    config = cell / "config.json"
    config.rename(tmp_path / "config.json")
    config.symlink_to(tmp_path / "config.json")
    with pytest.raises(RunError, match="leads out of the run's folder"):
        read_arms(study)
    shutil.rmtree(cell)
    cell.symlink_to(tmp_path / "copy")
    with pytest.raises(RunError, match="a link found; expected a run's own folder"):
        read_arms(study)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b"\xff\xfe", b"[" * 99_999, b'{"base":' * 99_999, b"7",
     b'{"base": {}, "base": {}}',
     b'{"seeds": ' + b"9" * 5000 + b"}", b'{"arms": [' + b"0," * 99_999 + b"0]}"],
)  # fmt: skip
def test_a_study_file_of_another_kind_is_a_sentence(tmp_path, content):
    folder = tmp_path / "lab" / "studies" / "study"
    folder.mkdir(parents=True)
    (folder / "study.json").write_bytes(content)
    with pytest.raises(RunError, match=r"study\.json: unreadable"):
        Study.open(tmp_path / "lab", "study")


@pytest.mark.parametrize("deed", ["pipe", "device"])
def test_a_study_file_that_is_no_file_is_not_waited_for(tmp_path, deed):
    folder = tmp_path / "lab" / "studies" / "study"
    folder.mkdir(parents=True)
    path = folder / "study.json"
    _ = os.mkfifo(path) if deed == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(RunError, match="expected an ordinary file"):
        Study.open(tmp_path / "lab", "study")


@pytest.mark.parametrize("name", ["jobs.sqlite", "jobs.sqlite-journal", "jobs.sqlite-wal"])
@pytest.mark.parametrize("deed", ["pipe", "device", "link", "folder"])
def test_a_table_that_is_no_file_is_neither_opened_nor_written(lab, tmp_path, name, deed):
    precious = tmp_path / "precious.sqlite"
    statement(tmp_path, "CREATE TABLE mine (x)")
    (tmp_path / "jobs.sqlite").rename(precious)
    before, path = precious.read_bytes(), lab / name
    path.unlink(missing_ok=True)
    if deed == "pipe":
        os.mkfifo(path)
    elif deed == "folder":
        path.mkdir()
    else:
        path.symlink_to({"device": "/dev/zero", "link": precious}[deed])
    refused(lab, "is a link|expected an ordinary file")
    assert precious.read_bytes() == before


def test_a_journal_cannot_have_another_file_deleted(lab, tmp_path):
    """SQLite plays a journal back, and deletes the file that it names as its superior."""
    victim = tmp_path / "thesis.txt"
    victim.write_text("years of work")
    naming_journal(lab / "jobs.sqlite", victim)
    refused(lab, "names another file, which SQLite would delete")
    assert victim.read_text() == "years of work"
    with sqlite3.connect(lab / "jobs.sqlite") as table:  # else the journal would prove nothing
        table.execute("SELECT * FROM jobs").fetchall()
    assert not victim.exists()


def naming_journal(path, victim):
    """Write the journal of a transaction under way, which names a file that goes with it."""
    content, magic = path.read_bytes(), bytes.fromhex("d9d505f920a163d7")
    page = content[: int.from_bytes(content[16:18], "big")]
    size, name = len(page), str(victim).encode()
    header = magic + struct.pack(">IIIII", 1, 0, len(content) // size, 512, size)
    checksum = sum(page[at] for at in range(size - 200, 0, -200)) % 2**32
    record = struct.pack(">I", 1) + page + struct.pack(">I", checksum)
    superior = struct.pack(">I", 0x40000000 // size + 1) + name
    superior += struct.pack(">II", len(name), sum(name)) + magic
    journal = path.with_name(f"{path.name}-journal")
    journal.write_bytes(header.ljust(512, b"\0") + record + superior)


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
ENDLESS_DELETE = f"DELETE FROM jobs WHERE key IN ({ENDLESS} SELECT i FROM n)"


@pytest.mark.parametrize(
    "lines",
    [
        ["DROP TABLE jobs", f"CREATE VIEW jobs AS {ENDLESS} SELECT i AS key FROM n"],
        ["DROP TABLE results", f"CREATE VIEW results AS {ENDLESS} SELECT i AS key FROM n"],
        [f"CREATE TRIGGER t AFTER UPDATE ON jobs BEGIN {ENDLESS_DELETE}; END"],
        ["DROP TABLE jobs", "CREATE TABLE jobs (key TEXT PRIMARY KEY)"],
        ["DROP TABLE jobs", "CREATE VIRTUAL TABLE jobs USING fts5(key)"],
        ["CREATE TABLE other (x)"],
        ["CREATE INDEX i ON jobs (label)"],
        ["ALTER TABLE results ADD COLUMN x AS (zeroblob(999999999))"],
    ],
)  # fmt: skip
def test_a_schema_that_is_not_ours_is_refused_before_it_runs(lab, lines):
    statement(lab, *lines)
    refused(lab, "found in it, made otherwise or not by us")


@pytest.mark.parametrize(
    "line",
    [
        "UPDATE jobs SET kind = 'x'", "UPDATE jobs SET state = 'x'", "UPDATE jobs SET state = 7",
        "UPDATE jobs SET elapsed_s = 'x'", "UPDATE jobs SET label = x'ff'",
        "UPDATE jobs SET error = x'05'",
        "UPDATE jobs SET label = CAST(x'ff41' AS TEXT)", "UPDATE jobs SET content = x'00'",
        "UPDATE jobs SET content = CAST(x'fffe' AS TEXT)", "UPDATE jobs SET content = '{\"a\": 2}'",
        "UPDATE jobs SET content = '['", "UPDATE jobs SET content = printf('%.*c', 99999, '[')",
        "UPDATE jobs SET content = zeroblob(9000000)", "UPDATE jobs SET label = zeroblob(9000000)",
    ],
)  # fmt: skip
def test_a_row_of_another_kind_is_a_sentence(lab, line):
    statement(lab, line)
    with pytest.raises(RunError, match=r"expected a table of jobs|something else than a job"):
        use_jobs(lab)


@pytest.mark.parametrize(
    "result",
    ["'['", "'[]'", "5", "x'00ff'", "zeroblob(9000000)", "printf('%.*c', 99999, '[')",
     "'{\"a\": NaN}'"],
)  # fmt: skip
def test_a_result_of_another_kind_is_a_sentence(lab, result):
    statement(lab, f"UPDATE results SET result = {result}")
    with pytest.raises(RunError, match="expected a table of jobs"):
        results_in(lab, [KEY])


def test_a_table_too_large_is_not_opened(lab):
    with (lab / "jobs.sqlite").open("r+b") as file:
        file.truncate(1 << 40)
    refused(lab, "expected at most")


def test_a_table_harmed_anywhere_is_a_sentence_or_fine(lab, tmp_path):
    whole = (lab / "jobs.sqlite").read_bytes()
    said = []
    for seed in range(300):
        rng, content = random.Random(seed), bytearray(whole)
        for _ in range(rng.choice((1, 3, 20))):
            at = rng.randrange(rng.choice((100, len(content))))
            content[at] = rng.choice((0, 1, 255, rng.randrange(256)))
        folder = tmp_path / f"{seed}"
        folder.mkdir()
        (folder / "jobs.sqlite").write_bytes(content)
        for use in (use_jobs, lambda place: results_in(place, [KEY])):
            try:
                use(folder)
            except AssayError as error:
                said.append(str(error))
        shutil.rmtree(folder)
    assert len(said) > 100
    assert max(map(len, said)) < 1500


@pytest.mark.parametrize("change", [{"key": KEY}, {"task": {"kind": "x"}}])
def test_the_record_of_another_task_is_refused_and_not_asked_for_again_and_again(tmp_path, change):
    laboratory = Laboratory(tmp_path)
    task = panel()
    key = laboratory.key(task)
    record = Record(
        key=key, task=task.model_dump(mode="json"), state="done", values={}, code_sha256="c",
        made={},
    )  # fmt: skip
    write_record(record, tmp_path)
    assert task in laboratory.evidence([task])
    path = tmp_path / "records" / f"{key}.json"
    write_record(record.model_copy(update=change), tmp_path / "other")
    (made,) = (tmp_path / "other" / "records").iterdir()
    made.rename(path)
    with pytest.raises(RunError, match="the record of another task"):
        laboratory.evidence([task])


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"{}", b'{"record": 5, "sha256": 5}', b'{"record": {}, "sha256": []}',
        b'{"record": ' + b"[" * 900 + b"]" * 900 + b"}", b'{"record": {"a": ' + b"[" * 99_999,
        json.dumps({"record": {"made": 5}, "sha256": seal({"made": 5})}).encode(), b"\xff",
    ],
)  # fmt: skip
def test_a_record_of_another_kind_is_a_sentence(tmp_path, content):
    laboratory, task = Laboratory(tmp_path), panel()
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / f"{laboratory.key(task)}.json").write_bytes(content)
    with pytest.raises(RunError, match="Remove it, and the task is done again"):
        laboratory.evidence([task])
