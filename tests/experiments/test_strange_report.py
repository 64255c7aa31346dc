"""Reports of strangers: `assay verify` says a sentence, prints nothing of other files, and ends."""

import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from assay.errors import RunError
from assay.experiments.claims import CLAIMS
from assay.experiments.evidence import Evidence, Record
from assay.experiments.paper.folder import write_report
from assay.experiments.paper.stored import read_report
from assay.experiments.paper.verify import read_numbers
from assay.experiments.written import seal

SECRET = "the only copy of a secret\n"
PATIENCE_S = 60  # to import PyTorch takes most of it on a busy machine
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no pipes, devices or SIGTERM")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "report"
    chosen = [claim for claim in CLAIMS if claim.id in ("tying-parameters", "chat-range")]
    write_report(folder, chosen, "quick", Evidence())
    return folder


@pytest.fixture
def report(written, tmp_path):
    """A report, beside a file that is none of its business."""
    (tmp_path / "outside").write_text(SECRET)
    return Path(shutil.copytree(written, tmp_path / "report"))


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def with_manifest(report, change):
    path = report / "MANIFEST.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content)))
    return report


def with_names(report, **names):
    return with_manifest(report, lambda found: {"files": found["files"] | names})


def with_file(report, name, content):
    """Put a file there and its hash into the manifest."""
    (report / name).write_bytes(content)
    return with_names(report, **{name: sha256(content)})


def refused(report, match):
    """Return the sentence in which it is refused."""
    signal.alarm(PATIENCE_S)
    try:
        with pytest.raises(RunError, match=match) as caught:
            read_numbers(report)
    finally:
        signal.alarm(0)
    said = str(caught.value)
    assert len(said) < 1500
    assert said.isprintable()
    assert sha256(SECRET.encode())[:12] not in said
    return said


@pytest.mark.parametrize(
    "name",
    [
        "/dev/zero", "/etc/passwd", "../outside", "../../..", "..", ".", "", "/", "./report.json",
        "figures/../report.json", "figures", "a\x00b", "\x1b]0;owned\x07", "\u202etxt",
        "x" * 99_999,
    ],
)  # fmt: skip
def test_a_name_in_the_manifest_is_looked_up_and_never_opened(report, name):
    refused(with_names(report, **{name: "0" * 64}), "and no such file found; expected the files")


@pytest.mark.parametrize(
    "files",
    [
        [], None, 5, "x", {}, {"report.json": 5}, {"report.json": None},
        {"report.json": ["0" * 64]},
        {"report.json": {"sha256": "0" * 64}}, {"report.json": "0" * 63}, {"report.json": "G" * 64},
        {"report.json": "0" * 64 + "\n"}, {"evidence.jsonl.gz": "0" * 64},
        [["report.json", "0" * 64]],
    ],
)  # fmt: skip
def test_a_manifest_of_another_kind_is_a_sentence(report, files):
    refused(with_manifest(report, lambda found: {"files": files}), r"MANIFEST\.json: ")


@pytest.mark.parametrize("tree", [{}, {"files": {}, "more": 1}])
def test_a_manifest_with_other_fields_is_a_sentence(report, tree):
    refused(with_manifest(report, lambda found: tree), r"MANIFEST\.json: ")


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b"\xff", b'{"files": {}, "files": {}}', b'{"files":' + b"[" * 90_000, b"7",
     b'{"files": {"a": ' + b"9" * 9000 + b"}}", b"\x00" * 100],
)  # fmt: skip
@pytest.mark.parametrize("name", ["MANIFEST.json", "report.json"])
def test_what_is_no_json_is_a_sentence(report, name, content):
    if name == "MANIFEST.json":
        (report / name).write_bytes(content)
    else:
        with_file(report, name, content)
    refused(report, "no report that can be read")


@pytest.mark.parametrize(
    "change",
    [
        {"budget": 5}, {"budget": "all"}, {"budget": ["quick"]}, {"claims": {}}, {"claims": [5]},
        {"claims": [{}]}, {"claims": [{"id": 5}]}, {"claims": [{"id": "chat-range"}] * 2},
        {"claims": "tying-parameters"}, {"claims": None},
    ],
)  # fmt: skip
def test_a_report_of_another_kind_is_a_sentence(report, change):
    content = json.loads((report / "report.json").read_text()) | change
    refused(with_file(report, "report.json", json.dumps(content).encode()), "expected")


def test_claims_that_are_not_there_or_lack_evidence_are_a_sentence(report):
    for claims, said in (
        ([{"id": "../../x\x1b[2J"}], "a claim .* that this version does not have"),
        ([{"id": "chat-range", "numbers": []}], "do not follow from its own evidence"),
        ([{"id": "sigma-eps"}], "cannot be judged by its evidence"),
    ):
        content = json.dumps({"budget": "quick", "claims": claims}).encode()
        refused(with_file(report, "report.json", content), said)


def packed(*lines):
    return gzip.compress(b"".join(line + b"\n" for line in lines), mtime=0)


def sealed(record):
    return json.dumps({"record": record, "sha256": seal(record)}).encode()


RECORD = {
    "key": "k", "task": {"kind": "train"}, "state": "done", "values": {}, "error": "",
    "code_sha256": "c", "made": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", None),
        (packed(), None),
        (b"no gzip", "expected a whole gzip file"),
        (packed(sealed(RECORD))[:-9], "expected a whole gzip file"),
        (packed(b"{}"), "record: None found"),
        (packed(b"[]"), "expected a JSON object"),
        (packed(b'{"record": 5, "sha256": 5}'), "record: 5 found"),
        (packed(b'{"record":' + b"[" * 90_000), "nested without end"),
        (packed(sealed(RECORD | {"values": []})), "values: "),
        (packed(sealed(RECORD | {"task": None})), "task: "),
        (packed(sealed(RECORD | {"state": "x"})), "state: "),
        (packed(sealed(RECORD | {"made": {"machine": 5}})), r"made\.machine of type int"),
        (packed(sealed(RECORD | {"values": {"a": 10**30}})), "expected a whole number"),
        (packed(sealed(RECORD | {"values": {"a": [0] * 40_000}})), "over 32768 values"),
        (packed(b'{"record": {"values": {"a": 1e999}}}'), "expected a finite number"),
        (packed(sealed(RECORD).replace(b"done", b"diverged")), "does not have the SHA-256"),
        (packed(b'{"record": ' + b" " * (1 << 20) + b"{}}"), "a line of over"),
        (packed(*[sealed(RECORD)] * 33_000), "over 32768 records"),
    ],
)
def test_evidence_of_another_kind_is_a_sentence(report, content, said):
    with_file(report, "evidence.jsonl.gz", content)
    if said is None:  # no record, which these claims need none of
        assert len(read_report(report).evidence) == 0
    else:
        refused(report, said)


@pytest.mark.parametrize("deed", ["pipe", "device", "link out", "folder", "self"])
@pytest.mark.parametrize("name", ["MANIFEST.json", "report.json", "evidence.jsonl.gz", "extra"])
def test_what_is_no_file_of_the_report_is_neither_opened_nor_waited_for(report, name, deed):
    path = report / name
    path.unlink(missing_ok=True)
    if deed == "pipe":
        os.mkfifo(path)
    elif deed == "folder":
        path.mkdir()
    else:
        path.symlink_to({"device": "/dev/zero", "link out": "../outside", "self": name}[deed])
    if name == "extra" and deed in ("folder", "self"):
        read_numbers(report)  # of no concern
    else:
        refused(report, "expected|not found|no report|Too many levels")


def test_a_link_to_a_file_of_the_report_is_one_of_its_files(report):
    (report / "report.json").rename(report / "moved.json")
    (report / "report.json").symlink_to("moved.json")
    assert read_report(report).budget == "quick"


def assay(*arguments, **options):
    command = [sys.executable, "-m", "assay", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.mark.slow
def test_a_manifest_that_names_a_device_ends_at_once(report):
    with_names(report, **{"/dev/zero": "0" * 64, "../outside": "0" * 64})
    process = assay("verify", report)
    try:
        said = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == 1
    assert said[0] == ""
    assert said[1].count("\n") == 1
    assert "'/dev/zero' named by MANIFEST.json, and no such file found" in said[1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_reading_of_a_report_at_once(report, number):
    """Thousands of files of 128 MB, all of them holes."""
    with (report / "hole").open("wb") as file:
        file.truncate(1 << 27)
    digest = hashlib.sha256()
    for _ in range(1 << 7):
        digest.update(bytes(1 << 20))
    for n in range(3000):
        os.link(report / "hole", report / f"hole {n}")
    with_names(report, **{f"hole {n}": digest.hexdigest() for n in range(3000)})
    process = assay("verify", report)
    try:
        _wait_until_open(process, "hole")
        process.send_signal(number)
        began = time.monotonic()
        said = process.communicate(timeout=PATIENCE_S)
        assert time.monotonic() - began < 10
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert said == ("", "assay: interrupted.\n")


def _wait_until_open(process, name):
    """Wait until a process has a file of such a name open."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("looks into /proc")
    folder = f"/proc/{process.pid}/fd"
    for _ in range(PATIENCE_S * 50):
        for link in os.listdir(folder):
            try:
                if name in os.path.basename(os.readlink(f"{folder}/{link}")):
                    return
            except OSError:
                continue
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError("it never came so far")


MEASURE = """
import sys
from pathlib import Path
from assay.errors import RunError
from assay.experiments.paper.verify import read_numbers

def kilobytes(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))

Path("/proc/self/clear_refs").write_text("5")  # the largest size so far is now the present one
before = kilobytes("VmRSS")
try:
    read_numbers(Path(sys.argv[1]))
except RunError as error:
    print(error)
print(kilobytes("VmHWM") - before)
"""


def _zeros():
    """6 GB of zeros, in 6 MB."""
    return gzip.compress(bytes(10 << 20), mtime=0) * 600


def _brackets():
    """Lines that are lists of lists: a hundred bytes of memory a letter."""
    return packed(sealed(RECORD | {"values": {"a": [[]] * 80_000}})) * 500


def _records():
    """As many records as are taken, of as many values."""
    lines = []
    for n in range(32_000):
        lines.append(sealed(RECORD | {"key": str(n), "task": {"n": n}, "values": {"a": [[]] * 20}}))
    return packed(*lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bomb", "said", "most_mb"),
    [
        (_zeros, "a line of over 1048576 bytes found", 20),
        (_brackets, "over 32768 values", 50),
        (_records, None, 300),
    ],
)
def test_evidence_made_to_cost_memory_costs_little(report, bomb, said, most_mb):
    if not os.path.exists("/proc/self/clear_refs"):
        pytest.skip("measures memory by Linux's /proc")
    with_file(report, "evidence.jsonl.gz", bomb())
    command = [sys.executable, "-c", MEASURE, str(report)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    *sentence, grown = done.stdout.splitlines()
    assert said in sentence[0] if said else not sentence
    assert int(grown) < most_mb << 10, f"{int(grown) >> 10} MB"


def test_a_record_is_as_it_is_written():
    assert Record(**RECORD).model_dump(mode="json") == RECORD
