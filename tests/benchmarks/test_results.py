import json

import pytest

import asked
import page
from shapes import SHAPES
from training import best_setting


def test_parts_measured_one_after_another_end_in_one_file(results):
    results.keep("subject", {"tried": {"hf": 1.0}})
    results.keep("subject", {"rows": [2.0]})
    found = results.read("subject")
    assert (found["tried"], found["rows"]) == ({"hf": 1.0}, [2.0])
    assert found["versions"]["torch"]


@pytest.mark.parametrize("part", ["machine", "versions"])
def test_what_another_machine_or_version_left_is_not_taken_up(results, part):
    results.keep("subject", {"tried": 1})
    path = results.FOLDER / "subject.json"
    left = json.loads(path.read_text())
    left[part]["threads"] = 1000
    path.write_text(json.dumps(left))
    assert results.kept_here("subject") == {}
    results.keep("subject", {"rows": 2})
    assert "tried" not in results.read("subject")
    assert results.kept_here("subject")["rows"] == 2


def test_the_page_tells_what_is_missing_and_divides_equal_rounds(results, monkeypatch, tmp_path):
    shape = SHAPES["cpu"]
    row = {"setting": "eager fp32", "parameters": 1000, "step_flops": shape.step_tokens * 10**6}
    results.keep(
        "training-cpu",
        {
            "shape": shape.as_dict(),
            "matmul_flops_per_s": {"fp32": [8e10] * 3, "bf16": [4e10] * 3},
            "rows": {
                "assay": row | {"tokens_per_s": [40_000.0, 20_000.0, 60_000.0]},
                "hf": row | {"tokens_per_s": [20_000.0, 10_000.0, 30_000.0]},
            },
            "absent": {"litgpt": "not installed (litgpt)"},
        },
    )
    monkeypatch.setattr(page, "_DOCS", tmp_path)
    page.main()
    text = (tmp_path / "performance.md").read_text()
    # 40,000 tokens/s of 1e6 FLOPs each are half of the faster rate, 8e10.
    assert "| eager fp32 | 1,000 | 40,000 (30,000–50,000) | 50% | 1.00 (1.00–1.00) |" in text
    assert "| eager fp32 | 1,000 | 20,000 (15,000–25,000) | 25% | 2.00 (2.00–2.00) |" in text
    assert "| litgpt | not measured: not installed (litgpt) |" in text
    assert "GPU: not measured." in text
    assert text.count("Not measured.") == 7  # tiny, small, loss, 1 and 16 rows, memory, growth
    assert (tmp_path / "figures" / "performance.svg").stat().st_size > 0


def test_a_device_that_is_not_there_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["training.py"])
    with pytest.raises(SystemExit) as caught:
        asked.answered(lambda: asked.device_of("cuda:99") and None)
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("training.py: train.device: 'cuda:99' found;")
    assert told.count("\n") == 1


def test_the_fastest_setting_that_ran_is_taken():
    tried = {"eager fp32": 10.0, "compiled fp32": 30.0, "compiled bf16": "RuntimeError: no"}
    assert best_setting(tried) == "compiled fp32"
    assert best_setting({"eager fp32": "not installed (litgpt)"}) is None
    assert best_setting({}) is None


def test_the_page_sets_the_recipes_side_by_side_seed_by_seed(results):
    rows = [
        {"name": name, "seed": seed, "s": seconds, "nats": nats}
        for seed, ours in enumerate((1.881, 1.88))
        for name, seconds, nats in (("nanogpt", 90.0 + seed, 1.9), ("assay", 9.0, ours))
    ]
    results.keep("time-to-loss", {"goal_nats": 1.88, "rows": rows})
    text = "\n".join(page._time_to_loss())
    assert "| 0 | 90.0 | 1.900 | 9.0 | 1.881 | no |" in text
    assert "| 1 | 91.0 | 1.900 | 9.0 | 1.880 | yes |" in text
