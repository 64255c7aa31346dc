"""Reports are pure functions of their evidence, and their numbers come back."""

import gzip
import json
import math
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from small_study import TEXT
from tiny_claim import claim_on, panel

from assay.errors import ConfigError, RunError
from assay.experiments.claim import Number
from assay.experiments.claims import CLAIMS
from assay.experiments.evidence import Evidence
from assay.experiments.laboratory import Laboratory, lacking
from assay.experiments.paper.folder import write_report
from assay.experiments.paper.interface import interface
from assay.experiments.paper.judged import judge_all
from assay.experiments.paper.page import html
from assay.experiments.paper.rerun import Rerun
from assay.experiments.paper.stored import read_report
from assay.experiments.paper.verify import read_numbers
from assay.experiments.paper.verify import verify as verify_asked
from caches import cache_in


def verify(folder, name, scratch, *, cheap=False, claims=CLAIMS):
    return verify_asked(read_numbers(folder, name, claims=claims), scratch, cheap=cheap)


ARITHMETIC = [claim for claim in CLAIMS if claim.id in ("tying-parameters", "chat-range")]


class Balanced(HTMLParser):
    """Elements that are opened and closed in order, the ids, and what links point to."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag != "meta":
            self.open.append(tag)
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if "href" in found else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def report(tmp_path):
    write_report(tmp_path / "report", ARITHMETIC, "quick", Evidence())
    return tmp_path / "report"


def test_the_same_evidence_gives_the_same_bytes(report, tmp_path):
    write_report(tmp_path / "again", ARITHMETIC, "quick", Evidence())
    files = sorted(p.relative_to(report) for p in report.rglob("*") if p.is_file())
    assert len(files) > 10
    for name in files:
        assert (report / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


@pytest.mark.parametrize("language", ["en", "vi"])
def test_the_page_is_whole_needs_no_network_and_every_number_leads_to_its_row(language):
    judged = judge_all(ARITHMETIC, "quick", Evidence())
    page = Balanced()
    text = html(judged, language, "facts")
    page.feed(text)
    assert page.open == []
    assert len(set(page.ids)) == len(page.ids)
    for link in page.links:
        assert link.startswith("#")
        assert link[1:] in page.ids
    for number in judged[0].numbers:
        assert f"tying-parameters.{number}" in page.ids
    assert 'src="http' not in text


def test_words_in_tables_are_of_the_page_s_language():
    stored = Path(__file__).parents[2] / "docs" / "paper" / "report.vi.md"
    rows = [line for line in stored.read_text().splitlines() if line.startswith("| ")]
    found = {cell for row in rows for cell in row.strip("|").replace(" | ", "|").split("|")}
    vietnamese = interface("vi")
    assert {vietnamese.cell("higher"), vietnamese.cell("yes")} <= {cell.strip() for cell in found}
    assert not {*vietnamese.cells, *interface("en").verdicts} & {cell.strip() for cell in found}


def test_figures_are_drawn_and_tables_hold_the_numbers(report):
    drawing = ET.parse(report / "figures" / "tying-parameters.region.vi.svg").getroot()
    text = " ".join(drawing.itertext())
    assert "tỉ lệ của tổng không ràng buộc" in text
    rows = (report / "tables" / "tying-parameters.savings.csv").read_text().splitlines()
    assert rows[1].startswith("GPT-2 124M,")
    assert "23.7%" in rows[1]
    assert r"23.7\%" in (report / "tables" / "tying-parameters.savings.tex").read_text()
    assert "| 2.3 |" in (report / "report.en.md").read_text()


@pytest.mark.parametrize("name", ["numbers.csv", "report.json", "report.en.html"])
def test_a_file_changed_by_hand_is_noticed(report, name):
    path = report / name
    path.write_text(path.read_text().replace("2", "3", 1))
    with pytest.raises(RunError, match=f"{name}: changed since the report was written"):
        read_report(report)


def test_a_folder_that_is_no_report_gets_a_sentence(tmp_path):
    with pytest.raises(RunError, match="expected a report's folder"):
        read_report(tmp_path)


def test_a_disk_that_cannot_be_written_gets_a_sentence(tmp_path):
    (tmp_path / "report").write_text("in the way")
    with pytest.raises(RunError, match="the report could not be written"):
        write_report(tmp_path / "report", ARITHMETIC, "quick", Evidence())


def test_arithmetic_comes_back_bit_for_bit(report, tmp_path):
    found = verify(report, "tying-parameters.low", Laboratory(tmp_path / "lab"))
    assert [(each.id, each.answer) for each in found] == [
        ("tying-parameters.low", "reproduced bit for bit")
    ]
    assert len(verify(report, "", Laboratory(tmp_path / "lab"))) > 10


def test_the_full_budget_is_for_a_gpu_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="full budget needs a CUDA device"):
        Laboratory(tmp_path / "lab").gather(ARITHMETIC, "full")
    rerun = Rerun.of([panel()], Evidence(), Laboratory(tmp_path / "lab"), lack=lacking("full"))
    number = Number("high", 3.0, of=(panel(),))
    found = rerun.verified("x.high", number, 3.0, [panel()])
    assert found.answer == "cannot be run here"
    assert "CUDA" in found.why


def test_a_number_that_is_not_there_gets_a_sentence(report, tmp_path):
    with pytest.raises(ConfigError, match=r"tying-parameters\.lo: no number or claim"):
        verify(report, "tying-parameters.lo", Laboratory(tmp_path / "lab"))


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """A report on a claim that trains, and the claim."""
    root = tmp_path_factory.mktemp("studied")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASSAY_CACHE", cache_in(root))
        (root / "text.txt").write_text(TEXT, encoding="utf-8")
        claim = claim_on(root / "text.txt")
        evidence = Laboratory(root / "lab").gather([claim], "quick")
        write_report(root / "report", [claim], "quick", evidence)
        yield root, claim


@pytest.mark.slow
def test_trainings_come_back_bit_for_bit_whole_or_by_the_quickest(studied, tmp_path):
    root, claim = studied
    whole = verify(root / "report", "", Laboratory(tmp_path / "a"), claims=[claim])
    assert {each.answer for each in whole} == {"reproduced bit for bit"}
    (gain,) = (each for each in whole if each.id.endswith(".low"))
    assert (gain.ran, gain.tasks) == (4, 4)
    name = "tying-parameters.low"
    (one,) = verify(root / "report", name, Laboratory(tmp_path / "b"), cheap=True, claims=[claim])
    assert (one.answer, one.ran, one.tasks) == ("reproduced bit for bit", 1, 4)


@pytest.mark.slow
def test_a_result_made_up_is_not_reproduced_even_where_every_hash_was_made_anew(studied, tmp_path):
    """The forger seals the record and the manifest again: only running it shows."""
    root, claim = studied
    evidence = read_report(root / "report").evidence
    forged = [
        record.model_copy(update={"values": {**record.values, "val_loss_nats": 9.0}})
        if record.task["kind"] == "train" and record.task["run"]["train"]["steps"] == 1
        else record
        for record in evidence
    ]
    write_report(tmp_path / "forged", [claim], "quick", Evidence(forged))
    name = "tying-parameters.low"
    (found,) = verify(tmp_path / "forged", name, Laboratory(tmp_path / "c"), claims=[claim])
    assert found.answer == "not reproduced"
    assert found.why == "nothing recorded differs"
    assert found.was.value > 3 > found.found


@pytest.mark.slow
def test_a_text_that_is_gone_is_what_it_needs(studied, tmp_path):
    root, claim = studied
    copy = shutil.move(root / "text.txt", root / "moved.txt")
    try:
        found = verify(root / "report", "", Laboratory(tmp_path / "d"), claims=[claim])
    finally:
        shutil.move(copy, root / "text.txt")
    answers = {each.id.rpartition(".")[2]: each for each in found}
    assert answers["low"].answer == "cannot be run here"
    assert "text.txt" in answers["low"].why
    assert math.isnan(answers["low"].found)
    assert answers["high"].answer == "reproduced bit for bit"  # the panel reads no text


def test_a_record_that_was_changed_is_refused_though_the_files_hash_was_made_anew(report):
    from assay.disk import sha256_of

    path = report / "evidence.jsonl.gz"
    line = {"record": {"key": "x"}, "sha256": "0" * 64}
    path.write_bytes(gzip.compress(json.dumps(line).encode()))
    listed = json.loads((report / "MANIFEST.json").read_text())
    listed["files"][path.name] = sha256_of(path)
    (report / "MANIFEST.json").write_text(json.dumps(listed))
    with pytest.raises(RunError, match="a record does not have the SHA-256"):
        read_report(report)
