"""Settings of a run of a few seconds, for the command line."""

TEXT = "the cat sat on the mat; the dog lay on the log. " * 60
SMALL = (
    "data.tokenizer=char",
    "model.d_model=16",
    "model.n_layers=1",
    "model.mixer.n_heads=2",
    "model.max_seq_len=16",
    "train.batch_size=4",
    "train.steps=6",
    "train.log_every=1",
    "eval.every=3",
)
