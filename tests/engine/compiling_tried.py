"""Tune runs a little under and a little over what is worth compiling; print the trials, in JSON.

A process of its own, as `tests/nn/compiled_code.py`: checks of annotated shapes stop the compiler.
"""

import dataclasses
import json
import sys
from pathlib import Path

from assay.config import RunConfig
from assay.engine import autotune as tuning
from assay.engine.device import resolve_plan
from assay.schema import decode, override

SHAPE = {"vocab_size": 17, "max_seq_len": 16, "d_model": 16, "n_layers": 2}
TRAIN = {"device": "cpu", "attention": "fused", "precision": "fp32"}


def main(cache):
    tuning.known_matmul_rate = lambda *_, **__: 1e9  # a rate measured twice is two rates
    config = decode(RunConfig, {"model": SHAPE, "train": TRAIN})
    a_step = tuning._expected_s(config, resolve_plan(config.train)) / config.train.steps
    found = []
    for share in (0.9, 1.1, 0.9):
        lasting = override(
            config, {"train.steps": round(share * tuning._WORTH_COMPILING_S / a_step)}
        )
        plan, trials = tuning.tune(lasting, resolve_plan(lasting.train), cache)
        found.append({"compiled": plan.compiled, "trials": list(map(dataclasses.asdict, trials))})
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
