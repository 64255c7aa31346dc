"""`assay count`: what a model costs, before it is built."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from assay.cli.arguments import Arguments, Preset, build_config, tell_apart

if TYPE_CHECKING:
    from assay.count import Count
    from assay.nn.model import ModelConfig

_VOCABULARY = 50_257


def count(
    arguments: Arguments = None,
    preset: Preset = None,
    seq_len: Annotated[
        int | None, typer.Option(min=1, help="Tokens of the sequence; else model.max_seq_len.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Count parameters, FLOPs and bytes of a model in closed form; nothing is built.

    Without model.vocab_size the vocabulary is GPT-2's 50,257.

    \b
    assay count --preset gpt2
    assay count --preset gpt2-xl model.tie_embeddings=false --seq-len 4096
    assay count model.d_model=8192 model.n_layers=80 model.mixer.n_heads=64 --json
    """  # noqa: D301
    from assay.count import attention_overtakes_at, count, tying_saving
    from assay.schema import override

    model = build_config(tell_apart(arguments), preset).model
    if model.vocab_size is None:
        model = override(model, {"vocab_size": _VOCABULARY})
    counted = count(model, seq_len=seq_len)
    if as_json:
        saving = tying_saving(model)
        extra = {
            "attention_overtakes_at_tokens": attention_overtakes_at(model),
            "tying_saves_parameters": saving.parameters,
            "tying_saves_share_of_untied": saving.share_of_untied,
            "tying_saves_share_of_tied": saving.share_of_tied,
        }
        sys.stdout.write(json.dumps(counted.as_dict() | extra) + "\n")
        return
    _print_table(counted)
    _print_words(model, counted)


def _print_table(counted: "Count") -> None:
    table = Table("part", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("copies", "parameters", "share", "fp32", "fwd FLOPs", "share"):
        table.add_column(column, justify="right")
    for row in counted.rows():
        table.add_row(
            row.part,
            f"{row.copies:,}",
            f"{row.parameters:,}",
            f"{row.parameter_share:.1%}",
            _bytes(row.weight_bytes_fp32),
            f"{row.forward_flops:.3e}",
            f"{row.flop_share:.1%}",
        )
    Console().print(table)


def _print_words(model: "ModelConfig", counted: "Count") -> None:
    from assay.count import attention_overtakes_at, tying_saving

    overtakes, saving = attention_overtakes_at(model), tying_saving(model)
    tied = "saves" if model.tied else "would save"
    crossing = "never" if overtakes is None else f"at T = {overtakes:,.0f}"
    Console(highlight=False, soft_wrap=True).print(
        f"\nFor one sequence of T = {counted.seq_len:,} tokens, vocabulary {model.vocab:,}:\n"
        f"  training        {counted.training_flops:.3e} FLOPs (3 x forward)\n"
        f"  T² term         {counted.score_share:.1%} of the blocks' FLOPs; "
        f"half of them {crossing}\n"
        f"  weights         {_bytes(counted.weight_bytes_fp32)} in fp32, "
        f"{_bytes(counted.weight_bytes_bf16)} in bf16\n"
        f"  training state  {_bytes(counted.training_bytes)} (fp32 weights, gradients, AdamW), "
        "activations apart\n"
        f"  cache           {_bytes(counted.cache_bytes_bf16)} in bf16 at T, "
        f"{_bytes(counted.cache_bytes_per_token_bf16)} a token\n"
        f"  tying           {tied} {saving.parameters:,} parameters: {saving.share_of_untied:.1%} "
        f"of the untied count, {saving.share_of_tied:.1%} of the tied count"
    )


def _bytes(n: int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n = n / 1000  # type: ignore[assignment]
    return f"{n:,.3g} TB"
