"""Hugging Face's models, and llama2.c's, read into ours and written back; nothing but safetensors.

`transformers` is not needed: a model is a mapping of tensors and a config is a mapping of fields.
"""

from assay.hf.convert import from_hf, model_config_from_hf, to_hf
from assay.hf.files import load_hf, save_hf
from assay.hf.llama2c import load_llama2c

__all__ = ["from_hf", "load_hf", "load_llama2c", "model_config_from_hf", "save_hf", "to_hf"]
