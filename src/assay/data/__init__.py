"""From text to token ids: corpus, split, tokenizer, prepared files, windows.

Nothing is imported here, so that `assay.data.config` stays cheap.
"""
