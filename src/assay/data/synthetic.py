"""Texts of small problems whose answers are known: the copy, reverse and addition tasks.

A text is one line per problem, prompt and answer together:

    copy      k3x9|k3x9       n letters and digits, a bar, the same again
    reverse   abcd|dcba       n letters and digits, a bar, the same backwards
    addition  12+39=150       two numbers of n digits, the sum in n + 1 digits, last digit first

The sum is written from its last digit on, with zeros to its full length: digit i of it then depends
on digits already written. Lengths 1 to `TRAINED_LENGTH` are equally frequent in the text; longer
problems are never in it, and test extrapolation. An eighth of all problems, chosen by the hash of
their prompts, is held out of the text at every length, so that `problems` are never seen in it.

All draws are raw Philox numbers: the same bytes on every machine and with every numpy.

Source: Kazemnejad et al. 2023, arXiv:2305.19466 (copy, reverse and addition by length); Lee et al.
2023, arXiv:2307.03381 (the sum reversed).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Task = Literal["copy", "reverse", "addition"]
TASKS: tuple[Task, ...] = get_args(Task)
TRAINED_LENGTH = 8
N_LINES = 24_000
SYMBOLS = "abcdefghijklmnopqrstuvwxyz0123456789"
_TEXT_KEY, _HELD_OUT_KEY = 1, 2  # streams of random numbers that never meet
_DRAWS = 4096


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem: `prompt` ends where the answer begins; the answer has no newline."""

    prompt: str
    answer: str


def text(task: Task) -> Iterator[str]:
    """Yield the lines of the task's text, `N_LINES` problems of lengths 1 to `TRAINED_LENGTH`."""
    draws = _draws(_TEXT_KEY, TASKS.index(task), 0)
    for _ in range(N_LINES):
        problem = _problem(task, 1 + next(draws) % TRAINED_LENGTH, draws, held_out=False)
        yield f"{problem.prompt}{problem.answer}\n"


def problems(task: Task, length: int, n: int, seed: int = 0) -> list[Problem]:
    """Return `n` problems of `length` that the text holds none of; short ones come repeatedly.

    Raises:
        ValueError: For a length under 1.
    """
    if length < 1:
        raise ValueError(f"length {length} found; expected 1 or more.")
    draws = _draws(_HELD_OUT_KEY, TASKS.index(task), seed)
    return [_problem(task, length, draws, held_out=True) for _ in range(n)]


def is_held_out(prompt: str) -> bool:
    """Say whether a problem is kept out of the text: a function of its prompt alone."""
    return hashlib.sha256(prompt.encode()).digest()[0] % 8 == 0


def _problem(task: Task, length: int, draws: Iterator[int], *, held_out: bool) -> Problem:
    """Draw until the problem is on the side asked for."""
    while True:
        problem = _drawn(task, length, draws)
        if is_held_out(problem.prompt) == held_out:
            return problem


def _drawn(task: Task, length: int, draws: Iterator[int]) -> Problem:
    if task == "addition":
        left, right = _word(length, draws, "0123456789"), _word(length, draws, "0123456789")
        total = f"{int(left) + int(right):0{length + 1}d}"
        return Problem(f"{left}+{right}=", total[::-1])
    word = _word(length, draws, SYMBOLS)
    return Problem(f"{word}|", word if task == "copy" else word[::-1])


def _word(length: int, draws: Iterator[int], symbols: str) -> str:
    return "".join(symbols[next(draws) % len(symbols)] for _ in range(length))


def _draws(key: int, task: int, seed: int) -> Iterator[int]:
    """Yield 64-bit numbers of one stream without end."""
    philox = np.random.Philox(key=np.array([key << 8 | task, seed % 2**64], np.uint64))
    while True:
        yield from philox.random_raw(_DRAWS).tolist()
