"""Write docs/performance.md and its figures from what the benchmarks left in benchmarks/results.

    python benchmarks/page.py

Nothing is measured here: the same results give the same page.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import figures
import results
from decoders import DECODERS
from entrants import ENTRANTS
from shapes import CPU_SHAPES, GPU_SHAPES, SHAPES, Shape
from turns import Spread, ratios, spread

_DOCS = Path(__file__).parents[1] / "docs"
_NONE = "–"
_TERMS = {  # of the closed form, by power
    "T": ("1", "T", "T²"),
    "L": ("1", "L"),
    "D": ("1", "D", "D²"),
    "B": ("1", "B"),
    "R": ("1", "R"),
}
_HEAD = """# Performance

Written by `make bench` from `benchmarks/results/*.json`, which hold every round; do not edit it.
Speeds depend on the machine, so what counts are ratios inside one run. All entrants of a table take
turns in one process, a visit each a round; figures are medians over rounds, quartiles behind them.
"""
_ON_YOUR_MACHINE = """
## On your own machine

`assay bench` tells what matrix products and memory reach here, and what of it a model of yours uses
when it trains and when it writes. It takes under a minute for a small model and more for a large
one, whose ways to train are timed first (the last of these: 88 s).

```
assay bench
assay bench model.d_model=256 train.batch_size=16 --seconds 10
assay bench --preset gpt2 model.vocab_size=50257 train.batch_size=2 train.seq_len=256 \
train.optimizer.kind=adamw --json
```

`make bench` builds an environment of its own with the peers (`pip install -e ".[bench]"`; llama.cpp
is compiled, which takes minutes) and measures everything below in about an hour; each part is a
script of `benchmarks/` whose `--help` tells how to take less of it.
"""
_ABOUT_TRAINING = """\
Peers take the fastest of their settings (eager or compiled, fp32 or bf16 autocast); assay chooses
for itself. All take the same tokens, with fused AdamW and gradients clipped to norm 1; the
article's code stays as it is printed. *Of the limit*: FLOPs of the matrix products that the causal
mask leaves, forward and backward, over those that large products reach in that time, in the faster
precision. *assay ×*: tokens per second of assay with GPT-2's architecture (beside nanoGPT's style:
with its architecture, without biases and with the exact GELU) over those of the row. litgpt has
rotary positions in place of a table; assay's default architecture has rotary positions, RMSNorm,
normalised queries and keys and a gated MLP."""
_ABOUT_LOSS = """\
nanoGPT's CPU recipe for tinyshakespeare, 2,000 steps, beside `recipes/char_fast.toml`, in turns;
both train on the first nine tenths and are judged on every window of the last. Seconds are those of
the training steps. It is measured apart from `make bench`, for it wants that text:
`ASSAY_DATA=... .venv/bench/bin/python benchmarks/time_to_loss.py --seeds 5`."""
_ABOUT_DECODING = """\
GPT-2 small with random weights, greedy, a prompt of 128 tokens. assay and llama.cpp hold Hugging
Face's weights (llama.cpp in a GGUF file without a vocabulary); *same tokens* is the share of the
first eight tokens that are Hugging Face's in fp32. *Of the limit*: bytes of the weights over what a
sum over memory reads in the time of a step; with several rows arithmetic limits too. *First token*:
from the call to the first token, the prompt read; weights are rounded before (assay's by
`PackedModel`, llama.cpp's when its file is written). On a processor with AMX llama.cpp's Q8_0 is
measured without its AMX products, which end with a segmentation fault for a tied matrix."""
_ABOUT_MEMORY = """\
The most that the process held over two steps, each entrant in a process of its own. The first time
that a shape is trained PyTorch's ways are timed too, and hold what nanoGPT's do.
"""
_ABOUT_GROWTH = """\
The default architecture, AdamW; a process for every point. R is the
number of replicas of the shape *cpu* trained together, and a step is one of each. Time is
fitted by least squares of the relative error with the terms that the closed form
([counting](counting.md)) has in that size; the closed form is taken at the rate of large products.
Where fitted exceeds closed, time goes to what is no matrix product, or to small ones."""


def main() -> None:
    """Write the page and the figures."""
    (_DOCS / "figures").mkdir(parents=True, exist_ok=True)
    figures.draw_speeds(_DOCS / "figures" / "performance.svg")
    figures.draw_growth(_DOCS / "figures" / "growth.svg")
    text = "\n".join(_lines()) + "\n"
    (_DOCS / "performance.md").write_text(text, encoding="utf-8")


def _lines() -> Iterator[str]:
    yield _HEAD + _ON_YOUR_MACHINE
    yield "## Training\n"
    yield _ABOUT_TRAINING
    yield from _training(CPU_SHAPES)
    yield "\n## Time to a loss\n"
    yield from _time_to_loss()
    yield "\n## Decoding\n"
    yield _ABOUT_DECODING
    yield from _decoding("")
    yield "\n![Speeds of training and decoding](figures/performance.svg)\n"
    yield "\n## Memory\n"
    yield from _memory("")
    yield from _growth()
    yield "\n## GPU\n"
    if any(results.read(f"training-{name}") for name in GPU_SHAPES):
        yield from _training(GPU_SHAPES)
        yield from _decoding("-cuda")
        yield "\n### Memory\n"
        yield from _memory("-cuda")
        yield from _replicas_by_backend(results.read("replicas-cuda"))
    else:
        yield "GPU: not measured. `make bench-gpu` does it where there is a CUDA device."


def _training(names: tuple[str, ...]) -> Iterator[str]:
    """Tell each shape in a table of its own."""
    for name in names:
        found = results.read(f"training-{name}")
        yield from _training_table(SHAPES[name], found)


def _training_table(shape: Shape, found: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n### {shape.name}: {_sizes(shape)}\n"
    if "rows" not in found:
        yield "Not measured."
        return
    limit = _limit(found)
    yield "| | setting | parameters | tokens/s | of the limit | assay × |"
    yield "|---|---|---:|---:|---:|---:|"
    for name, row in found["rows"].items():
        ours = found["rows"].get(ENTRANTS[name].beside, {}).get("tokens_per_s")
        speed = spread(row["tokens_per_s"])
        share = speed.median * row["step_flops"] / shape.step_tokens / limit
        over = _NONE if ours is None else _ratio(ratios(ours, row["tokens_per_s"]))
        yield (
            f"| {ENTRANTS[name].label} | {row['setting']} | {row['parameters']:,} | "
            f"{_spread(speed)} | {share:.0%} | {over} |"
        )
    for name, reason in found["absent"].items():
        yield f"| {ENTRANTS[name].label} | not measured: {reason} | | | | |"
    rates = {key: spread(value).median for key, value in found["matmul_flops_per_s"].items()}
    told = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {name}" for name, rate in rates.items())
    yield f"\nLarge products: {told}. {_where(found)}"


def _time_to_loss() -> Iterator[str]:
    found = results.read("time-to-loss")
    if not found:
        yield "Not measured."
        return
    yield f"{_ABOUT_LOSS}\n"
    yield f"| seed | nanoGPT's: s | nats | assay's: s | nats | at {found['goal_nats']} or under |"
    yield "|---|---:|---:|---:|---:|---|"
    seeds = sorted({row["seed"] for row in found["rows"]})
    for seed in seeds:
        peer, ours = (
            next(row for row in found["rows"] if (row["name"], row["seed"]) == (name, seed))
            for name in ("nanogpt", "assay")
        )
        there = "yes" if ours["nats"] <= found["goal_nats"] else "no"
        cells = (f"{run['s']:.1f} | {run['nats']:.3f}" for run in (peer, ours))
        yield f"| {seed} | {' | '.join(cells)} | {there} |"
    yield f"\n{_where(found)}"


def _limit(found: Mapping[str, Any]) -> float:
    return max(spread(rates).median for rates in found["matmul_flops_per_s"].values())


def _decoding(suffix: str) -> Iterator[str]:
    for rows in (1, 16):
        found = results.read(f"decoding-{rows}{suffix}")
        yield f"\n### {rows} row{'s' * (rows > 1)}\n"
        yield from _decoding_table(found, rows) if found else iter(["Not measured."])


def _decoding_table(found: Mapping[str, Any], rows: int) -> Iterator[str]:
    read = spread(found["read_bytes_per_s"]).median
    yield "| | tokens/s | of the limit | first token, ms | same tokens |"
    yield "|---|---:|---:|---:|---:|"
    for name, row in found["entrants"].items():
        entrant, speed = DECODERS[name], spread(row["tokens_per_s"])
        share = speed.median * found["weights"] * entrant.weight_bytes / read
        first = spread([1000 * seconds for seconds in row["first_token_s"]])
        agrees = _NONE if row["agrees"] is None else f"{row['agrees']:.0%}"
        limit = f"{share:.0%}" if rows == 1 and entrant.n_steps == 1 else _NONE
        yield f"| {entrant.label} | {_spread(speed)} | {limit} | {_spread(first)} | {agrees} |"
    for name, reason in found["absent"].items():
        yield f"| {DECODERS[name].label} | not measured: {reason} | | | |"
    yield f"\nMemory is read at {read / 1e9:.1f} GB/s. {_where(found)}"


def _memory(suffix: str) -> Iterator[str]:
    found = results.read(f"memory{suffix}")
    if not found:
        yield "Not measured."
        return
    shape = found["shape"]
    sizes = f"T {shape['seq_len']}, batch {shape['batch_size']}"
    yield f"Training GPT-2 small at {sizes}, AdamW. {_ABOUT_MEMORY}"
    yield "| | setting | peak, GB |"
    yield "|---|---|---:|"
    for name, row in found["entrants"].items():
        label = ENTRANTS[name].label
        yield f"| {label} | {row['setting']} | {row['peak_bytes'] / 1e9:.2f} |"
    for name, reason in found["absent"].items():
        yield f"| {ENTRANTS[name].label} | not measured: {reason} | |"
    yield f"\n{_where(found)}"


def _growth() -> Iterator[str]:
    found = results.read("growth")
    yield "\n## How cost grows\n"
    if not found:
        yield "Not measured."
        return
    rate = found["matmul_flops_per_s"] / 1e9
    centre = _sizes(Shape(**found["shape"]))
    way = found.get("way", {"backend": "torch", "precision": "fp32"})
    how = f"Backend {way['backend']}, {way['precision']}; the rate was {rate:,.0f} GFLOP/s."
    yield f"One size at a time around {centre}. {_ABOUT_GROWTH} {how}\n"
    yield "| size | term | fitted, ms | closed form, ms | ratio | memory fitted, MB |"
    yield "|---|---|---:|---:|---:|---:|"
    for letter, sweep in found["sweeps"].items():
        yield from _growth_rows(letter, sweep)
    if "R" in found["sweeps"]:
        yield _replicas(found["sweeps"]["R"])
    yield "\n![Time and memory of a training step](figures/growth.svg)\n"
    yield _where(found)


def _growth_rows(letter: str, sweep: Mapping[str, Any]) -> Iterator[str]:
    """Tell each term at the largest value of the sweep, which makes terms comparable."""
    low, high = sweep["values"][0], sweep["values"][-1]
    terms = zip(
        _TERMS[letter], sweep["fit_s"], sweep["closed_form_fit_s"], sweep["fit_bytes"], strict=True
    )
    for power, (term, fitted, closed, n_bytes) in enumerate(terms):
        size = high**power
        # adding zero takes the sign off -0.0
        ms, ideal = (round(1e3 * seconds * size, 1) + 0.0 for seconds in (fitted, closed))
        mb = n_bytes * size / 1e6
        ratio = (
            f"{fitted / closed:.2f}" if ideal > 0.01 * 1e3 * sweep["closed_form_s"][-1] else _NONE
        )
        what = f"{letter} from {low} to {high}" if power == 0 else ""
        at = "constant" if term == "1" else f"{term}, at {letter} = {high}"
        yield f"| {what} | {at} | {ms:,.1f} | {ideal:,.1f} | {ratio} | {mb:,.0f} |"


def _replicas(sweep: Mapping[str, Any]) -> str:
    """Tell what several models together cost in steps of one by itself."""
    one, *steps = sweep["step_s"]
    costs = (f"{n}: {step / one:.1f}" for n, step in zip(sweep["values"][1:], steps, strict=True))
    return f"\nSteps of one model that a step of R replicas takes, {', '.join(costs)}."


def _replicas_by_backend(found: Mapping[str, Any]) -> Iterator[str]:
    yield "\n### Replicas\n"
    if not found:
        yield "Not measured."
        return
    yield f"Models of the shape {_sizes(Shape(**found['shape']))}, a step of each."
    for backend, step_s in found["step_s"].items():
        ms = ", ".join(f"{1e3 * seconds:.1f}" for seconds in step_s)
        yield f"\n`train.backend={backend}`: {ms} ms for {', '.join(map(str, found['values']))}."
        yield _replicas({"values": found["values"], "step_s": step_s})
    yield _where(found)


def _sizes(shape: Shape) -> str:
    return (
        f"L{shape.n_layers} D{shape.d_model} H{shape.n_heads} T{shape.seq_len} "
        f"V{shape.vocab_size}, batch {shape.batch_size}"
    )


def _where(found: Mapping[str, Any]) -> str:
    machine, versions = found["machine"], found["versions"]
    told = ", ".join(f"{package} {version}" for package, version in versions.items())
    code = found["code"]
    commit = f", commit {code['git_commit'][:10]}{' and changes' * code['dirty']}" if code else ""
    return (
        f"{machine['device_name']}, {machine['threads']} threads, {machine['cpu_capability']}; "
        f"Python {machine['python']}, {told}{commit}; {found['date']}."
    )


def _spread(figure: Spread) -> str:
    """Write a median with its quartiles, in as many digits as it deserves."""
    digits = 0 if figure.median >= 100 else 1
    median, low, high = (
        f"{value:,.{digits}f}" for value in (figure.median, figure.low, figure.high)
    )
    return f"{median} ({low}–{high})"


def _ratio(figure: Spread) -> str:
    return f"{figure.median:.2f} ({figure.low:.2f}–{figure.high:.2f})"


if __name__ == "__main__":
    main()
