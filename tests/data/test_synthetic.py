import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.data.config import DataConfig
from assay.data.corpus import Corpus
from assay.data.prepare import prepare
from assay.data.synthetic import N_LINES, TASKS, TRAINED_LENGTH, problems, text
from assay.errors import DataError

# Of the text, whatever machine and numpy made it. Another hash is another text: raise no number,
# find out why.
PINNED = {
    "copy": "befa46169aea389030133e5e924720b5f98557b7140efbd8c8bde08e9def894e",
    "reverse": "b5c059d4d03ea3dc11a389b6b8c3bfcf9d857ce500cd4ed43cd8427f0a6a49be",
    "addition": "e73354a876535c7ace6aa1e12f6f20f8693eab31d7471dfd4e62ddc9de25759e",
}


def check(task, prompt, answer):
    """Judge a problem by the words of the documentation; return its length."""
    if task == "addition":
        left, right = re.fullmatch(r"(\d+)\+(\d+)=", prompt).groups()
        assert len(left) == len(right) == len(answer) - 1
        assert sum(int(d) * 10**i for i, d in enumerate(answer)) == int(left) + int(right)
        return len(left)
    (word,) = re.fullmatch(r"([a-z0-9]+)\|", prompt).groups()
    assert list(answer) == (list(word) if task == "copy" else list(reversed(word)))
    return len(word)


@pytest.mark.parametrize("task", TASKS)
def test_every_line_of_a_task_is_a_right_answer_of_a_trained_length(task):
    lines = "".join(text(task)).splitlines()
    assert len(lines) == N_LINES
    cut = re.compile(r"[|=]")
    lengths = []
    for line in lines:
        end = cut.search(line).end()
        lengths.append(check(task, line[:end], line[end:]))
    counts = [lengths.count(length) for length in range(1, TRAINED_LENGTH + 1)]
    assert sum(counts) == N_LINES
    expected = N_LINES / TRAINED_LENGTH
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts)  # 5 sigma of Poisson


@pytest.mark.parametrize("task", TASKS)
def test_a_task_s_text_is_the_same_bytes_on_every_machine(task):
    assert hashlib.sha256("".join(text(task)).encode()).hexdigest() == PINNED[task]


@pytest.mark.parametrize("task", TASKS)
@given(length=st.integers(1, 40), seed=st.integers(-(2**70), 2**70))
def test_problems_are_right_and_of_the_length_asked_for(task, length, seed):
    found = problems(task, length, 3, seed)
    assert [check(task, each.prompt, each.answer) for each in found] == [length] * 3
    assert found == problems(task, length, 3, seed)


@pytest.mark.parametrize("task", TASKS)
def test_the_text_holds_none_of_the_problems_of_a_test(task):
    lines = set("".join(text(task)).splitlines())
    asked = [each for length in (1, 2, 3, 8) for each in problems(task, length, 200, seed=7)]
    assert not {each.prompt + each.answer for each in asked} & lines


@pytest.mark.parametrize("task", TASKS)
def test_another_seed_asks_other_problems(task):
    assert problems(task, 6, 20, seed=0) != problems(task, 6, 20, seed=1)


def test_a_task_is_prepared_as_any_text(tmp_path):
    config = DataConfig(text=("task:copy",), tokenizer={"kind": "char"})
    data = prepare(config, tmp_path)
    assert data.summary["split"] == "tail"
    assert data.tokenizer.vocab_size == 36 + 2  # letters and digits, the bar, the newline
    whole = "".join(text("copy"))
    assert data.tokenizer.decode(data.train.ids) == whole[: int(0.9 * len(whole))]


def test_a_task_that_is_not_there_is_a_sentence():
    with pytest.raises(DataError, match="no task named 'sort'; expected one of copy, reverse"):
        Corpus.open(DataConfig(text=("task:sort",)))


@pytest.mark.parametrize("length", [0, -1])
def test_a_problem_has_at_least_one_symbol(length):
    with pytest.raises(ValueError, match="expected 1 or more"):
        problems("copy", length, 1)
