"""Our modules with their weights against their modules."""

import pytest
import torch
from hf_models import GPT2, LLAMA, MISTRAL, MODELS, NEOX, QWEN3, TOLERANCES, build
from transformers import AutoConfig, AutoModelForCausalLM

from assay.errors import CheckpointError, ConfigError
from assay.hf import from_hf, model_config_from_hf, to_hf
from assay.hf.convert import FAMILIES
from assay.nn.model import GPT, ModelConfig
from assay.presets import PRESETS, gpt2
from assay.schema import decode, override


@pytest.fixture(params=MODELS, scope="module")
def theirs(request):
    """A float64 model of transformers."""
    return build(MODELS[request.param])


@pytest.fixture
def tokens():
    return torch.randint(0, 61, (2, 20), generator=torch.Generator().manual_seed(3))


def convert(model):
    return from_hf(model.config.to_dict(), model.state_dict())


def logits_of(model, tokens):
    with torch.no_grad():
        found = model(tokens)
    return found if isinstance(found, torch.Tensor) else found.logits


def greedy(model, tokens, n_new):
    for _ in range(n_new):
        following = logits_of(model, tokens)[:, -1:].argmax(-1)
        tokens = torch.cat((tokens, following), dim=1)
    return tokens


def test_logits_equal_theirs(theirs, tokens):
    expected = logits_of(theirs, tokens)
    error = (logits_of(convert(theirs), tokens) - expected).abs().max() / expected.abs().max()
    assert error < TOLERANCES[theirs.config.model_type]


def test_greedy_tokens_equal_theirs(theirs, tokens):
    assert torch.equal(greedy(convert(theirs), tokens, 15), greedy(theirs, tokens, 15))


def test_written_back_their_weights_are_the_same_bits(theirs):
    _, state = to_hf(convert(theirs))
    original = theirs.state_dict()
    if theirs.config.tie_word_embeddings:
        del original["lm_head.weight"]
    assert state.keys() == original.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, original[name]), name
        assert tensor.is_contiguous()


def test_written_back_their_config_says_the_same(theirs):
    config, _ = to_hf(convert(theirs))
    said = AutoConfig.for_model(**config).to_dict()
    meant = theirs.config.to_dict()
    left_to_others = {"architectures", "dtype", "bos_token_id", "eos_token_id"}
    stated_by_us = {"n_inner"}  # 4 n_embd, which theirs leaves open
    if (meant["model_type"], meant.get("sliding_window")) == ("mistral", None):
        assert said["model_type"] == "llama"  # a Mistral without a window is one
        stated_by_us |= {"model_type", "sliding_window"}
    for name in set(meant) - left_to_others - stated_by_us:
        assert said[name] == meant[name], name


def test_a_round_trip_through_their_classes_gives_equal_logits(theirs, tokens):
    ours = convert(theirs)
    config, state = to_hf(ours)
    again = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**config), attn_implementation="eager"
    ).double()
    missing, unexpected = again.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= ({"lm_head.weight"} if ours.config.tie_embeddings else set())
    again.tie_weights()
    assert torch.equal(logits_of(again.eval(), tokens), logits_of(theirs, tokens))


def test_every_family_is_among_the_models_tested():
    assert {f.model_type for f in FAMILIES} == {fields["model_type"] for fields in MODELS.values()}


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "mistral", "qwen3", "gpt_neox"])
def test_fields_left_out_take_the_defaults_of_transformers(model_type):
    full = AutoConfig.for_model(model_type).to_dict()
    assert model_config_from_hf({"model_type": model_type}) == model_config_from_hf(full)


@pytest.mark.parametrize("fields", [LLAMA, NEOX], ids=["llama", "neox"])
def test_rope_is_read_alike_from_version_4_and_version_5(fields):
    nested = AutoConfig.for_model(**fields).to_dict()
    assert "rope_parameters" in nested
    assert "rope_theta" not in nested
    assert "rotary_pct" not in nested
    position = model_config_from_hf(nested).position
    assert position == model_config_from_hf(fields).position
    assert position.theta == 123.0


def test_the_published_gpt2_is_our_preset():
    published = {"model_type": "gpt2", "n_ctx": 1024, "architectures": ["GPT2LMHeadModel"]}
    assert model_config_from_hf(published) == gpt2()


@pytest.mark.parametrize(
    ("fields", "buffers", "bare"),
    [
        (GPT2, ["h.0.attn.bias", "h.2.attn.masked_bias"], "transformer."),
        (LLAMA, ["layers.0.self_attn.rotary_emb.inv_freq", "rotary_emb.inv_freq"], "model."),
        (NEOX, ["layers.0.attention.bias", "layers.1.attention.rotary_emb.inv_freq"], "gpt_neox."),
    ],
    ids=["gpt2", "llama", "neox"],
)
def test_older_names_are_read_too(fields, buffers, bare, tokens):
    """The bare model's names, buffers that hold no weights, GPT-NeoX's former name of the head."""
    model = build(fields)
    older = {name.removeprefix(bare): tensor for name, tensor in model.state_dict().items()}
    older |= {name: torch.ones(1, 1, 40, 40, dtype=torch.bool) for name in buffers}
    if fields is NEOX:
        older["embed_out.weight"] = older.pop("lm_head.weight")
    ours = from_hf(model.config.to_dict(), older)
    assert torch.equal(logits_of(ours, tokens), logits_of(convert(model), tokens))


def test_the_model_shares_no_memory_with_the_state_it_came_from():
    model = build(GPT2)
    state = model.state_dict()
    ours = convert(model)
    before = {name: p.clone() for name, p in ours.named_parameters()}
    for tensor in state.values():
        tensor.zero_()
    assert all(torch.equal(p, before[name]) for name, p in ours.named_parameters())


def test_a_model_arrives_in_evaluation_mode_and_can_be_trained():
    ours = convert(build(GPT2))
    assert not ours.training
    assert all(p.requires_grad for p in ours.parameters())
    ours.train()(torch.zeros(1, 4, dtype=torch.long)).sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_dtype_of_the_weights_is_kept(dtype):
    model = build(GPT2).to(dtype)
    assert {p.dtype for p in convert(model).parameters()} == {dtype}


REFUSED = [
    (GPT2 | {"model_type": "bert"}, "model_type is 'bert'; expected one of: gpt2, llama"),
    ({}, "model_type is None"),
    (GPT2 | {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
    (GPT2 | {"scale_attn_weights": False}, "scale_attn_weights is False; expected True"),
    (GPT2 | {"add_cross_attention": True}, "add_cross_attention is True"),
    (GPT2 | {"activation_function": "quick_gelu"}, "activation_function is 'quick_gelu'; expected"),
    (GPT2 | {"resid_pdrop": 0.0}, "embd_pdrop is None; expected resid_pdrop, which is 0.0"),
    (GPT2 | {"n_embd": "768"}, "n_embd is '768'; expected a whole number"),
    (GPT2 | {"vocab_size": 10**30}, "vocab_size is 10+; expected a whole number up to 67108864"),
    (GPT2 | {"n_embd": -32}, "as ours: d_model: -32 found"),
    (LLAMA | {"rope_theta": float("inf")}, "as ours: position.theta: inf found"),
    (GPT2 | {"n_embd": True}, "n_embd is True; expected a whole number"),
    (GPT2 | {"layer_norm_epsilon": "1e-5"}, "layer_norm_epsilon is '1e-5'; expected a number"),
    (GPT2 | {"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'; expected true or false"),
    (GPT2 | {"n_head": 7}, "gpt2, as ours: mixer.n_heads: 7 found; expected a divisor"),
    (GPT2 | {"n_head": 0}, "as ours: mixer.n_heads: 0 found"),
    (GPT2 | {"quantization_config": {"bits": 4}}, r"quantization_config is \{'bits': 4\}"),
    (LLAMA | {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling is .* plain rope"),
    (LLAMA | {"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters is .* plain rope"),
    (LLAMA | {"rope_parameters": {"full_attention": {}}}, "rope_parameters is .* plain rope"),
    (LLAMA | {"rope_parameters": 3}, "rope_parameters is 3; expected nested fields"),
    (LLAMA | {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5; expected 1.0"),
    (LLAMA | {"attention_bias": True}, "mlp_bias is None; expected the value of attention_bias"),
    (LLAMA | {"mlp_bias": True}, "mlp_bias is True; expected the value of attention_bias, false"),
    (LLAMA | {"head_dim": 16}, "head_dim is 16; expected hidden_size / num_attention_heads = 8"),
    (LLAMA | {"num_attention_heads": 0}, "as ours: mixer.n_heads: 0 found"),
    (LLAMA | {"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new'; expected one of: silu"),
    (LLAMA | {"num_key_value_heads": 3}, "as ours: mixer.n_kv_heads: 3 found"),
    (MISTRAL | {"layer_types": ["full_attention"]}, "layer_types is .*; expected null"),
    (MISTRAL | {"sliding_window": 0}, "as ours: mixer.window: 0 found"),
    (QWEN3 | {"layer_types": ["sliding_attention"]}, "layer_types is .*; expected null or a list"),
    (QWEN3 | {"use_sliding_window": True}, "use_sliding_window is True; expected False"),
    (QWEN3 | {"rms_norm_eps": 1e-5}, "rms_norm_eps is 1e-05; expected 1e-06, that of our norms"),
    (QWEN3 | {"attention_bias": True}, "attention_bias is True; expected False"),
    (QWEN3 | {"head_dim": 16}, "head_dim is 16; expected hidden_size / num_attention_heads = 8"),
    (NEOX | {"attention_bias": False}, "attention_bias is False; expected True"),
    (NEOX | {"hidden_act": "silu"}, "hidden_act is 'silu'; expected one of: gelu"),
    (NEOX | {"rotary_pct": 0.2}, "as ours: position: rope turns pairs .* found 3"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=[m[:50] for _, m in REFUSED])
def test_what_our_modules_cannot_express_is_refused_by_field_and_value(fields, message):
    with pytest.raises(ConfigError, match=message):
        model_config_from_hf(fields)


def spoilt(change):
    model = build(GPT2)
    state = dict(model.state_dict())
    change(state)
    return model.config.to_dict(), state


def test_a_missing_tensor_is_named():
    config, state = spoilt(lambda s: s.pop("transformer.h.1.mlp.c_fc.bias"))
    with pytest.raises(CheckpointError, match=r"transformer\.h\.1\.mlp\.c_fc\.bias: missing"):
        from_hf(config, state)


def test_a_tensor_left_over_is_named():
    config, state = spoilt(lambda s: s.update({"score.weight": torch.zeros(2, 2)}))
    with pytest.raises(CheckpointError, match=r"score\.weight: no place for it in a gpt2"):
        from_hf(config, state)


def test_a_model_cut_short_by_its_config_is_refused():
    config, state = spoilt(lambda s: None)
    with pytest.raises(CheckpointError, match=r"transformer\.h\.2\..*: no place for it"):
        from_hf(config | {"n_layer": 2}, state)


def test_a_config_of_67_million_layers_is_refused_at_once():
    config, state = spoilt(lambda s: None)
    with pytest.raises(CheckpointError, match=r"transformer\.h\.3\.ln_1\.weight: missing"):
        from_hf(config | {"n_layer": 2**26}, state)


@pytest.mark.parametrize("name", ["wte.weight", "h.0.attn.c_attn.weight", "h.0.attn.c_attn.bias"])
def test_a_tensor_of_another_shape_is_named(name):
    config, state = spoilt(lambda s: s.update({f"transformer.{name}": torch.zeros(5, 7)}))
    with pytest.raises(CheckpointError, match=rf"{name}: shape \(5, 7\) found; expected \(\d"):
        from_hf(config, state)


def test_weights_of_two_dtypes_are_refused():
    config, state = spoilt(
        lambda s: s.update({"transformer.ln_f.bias": s["transformer.ln_f.bias"].float()})
    )
    with pytest.raises(CheckpointError, match=r"ln_f\.bias: torch.float32 found; expected torch.f"):
        from_hf(config, state)


def test_quantised_weights_are_refused():
    config, state = spoilt(lambda s: s.update({n: t.to(torch.int8) for n, t in s.items()}))
    with pytest.raises(
        CheckpointError, match=r"wte\.weight: torch.int8 found; expected a floating"
    ):
        from_hf(config, state)


def test_a_tied_model_with_another_output_matrix_is_refused():
    config, state = spoilt(lambda s: s.update({"lm_head.weight": s["transformer.wte.weight"] + 1}))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight: differs from the token embedding"):
        from_hf(config, state)


def test_one_tensor_under_two_names_is_refused():
    config, state = spoilt(lambda s: s.update({"wte.weight": s["transformer.wte.weight"]}))
    with pytest.raises(CheckpointError, match=r"wte\.weight: the same tensor as transformer\.wte"):
        from_hf(config, state)


SMALL = {"vocab_size": 61, "d_model": 32, "n_layers": 2, "max_seq_len": 40}
PLAIN = SMALL | {"mixer": {"kind": "attention", "qk_norm": False}}


@pytest.mark.parametrize(
    ("changes", "model_type"),
    [
        ({}, "llama"),
        ({"mixer.window": 5}, "mistral"),
        ({"mlp": "geglu", "bias": True}, "llama"),
        ({"mixer.qk_norm": True}, "qwen3"),
        ({"mixer.qk_norm": True, "mixer.n_kv_heads": 2, "mlp": "geglu"}, "qwen3"),
        ({"position": "learned", "norm": "layer", "mlp": "relu2", "bias": True}, "gpt2"),
        ({"norm": "layer", "mlp": "gelu", "bias": True, "block": "parallel"}, "gpt_neox"),
        ({"norm": "layer", "mlp": "relu", "bias": True, "position.fraction": 0.5}, "gpt_neox"),
        ({"mixer.n_kv_heads": 2, "tie_embeddings": False}, "llama"),
    ],
)
def test_our_model_in_their_classes_gives_our_logits(changes, model_type, tokens):
    ours = GPT.create(override(decode(ModelConfig, PLAIN), changes)).double().eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    config, state = to_hf(ours)
    assert config["model_type"] == model_type
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**config), attn_implementation="eager"
    ).double()
    model.load_state_dict(state, strict=False)
    model.tie_weights()
    expected = logits_of(ours, tokens)
    error = (logits_of(model.eval(), tokens) - expected).abs().max() / expected.abs().max()
    assert error < TOLERANCES[model_type]
    stated = {"mlp.d_ff": ours.config.mlp.width(32), "init": {"kind": "gaussian"}}
    stated |= {"init": {"kind": "gpt2"}} if model_type == "gpt2" else {}  # not in their config
    assert model_config_from_hf(config) == override(ours.config, stated)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"position": "alibi"}, "llama needs position=rope with fraction=1"),
        ({"norm": "none"}, "llama needs norm=rms with affine=scale"),
        ({"norm": "sigma", "mlp": "gelu"}, "gpt_neox needs norm=layer"),
        ({"block": "plain"}, "gpt2 needs block=pre"),
        ({"mixer.qk_norm": True, "bias": True}, "llama needs qk_norm=false"),
        ({"mixer.qk_norm": True, "mixer.window": 5}, "qwen3 needs mixer.window=null"),
        ({"mixer.qk_norm": True, "norm.eps": 1e-5}, "qwen3 needs norm.eps=1e-06"),
        ({"mlp": "gelu"}, "llama needs mlp=swiglu or mlp=geglu"),
        ({"dropout": 0.1}, "llama needs dropout=0 outside the attention weights"),
        ({"mixer.window": 5, "bias": True}, "mistral needs bias=false"),
        ({"logit_scale": "inv_sqrt_d"}, "llama needs logit_scale=none"),
        ({"soft_cap": 30.0}, "llama needs soft_cap=null"),
    ],
)
def test_a_model_no_family_can_hold_is_refused_with_the_reasons(changes, reason):
    model = GPT.create(override(decode(ModelConfig, PLAIN), changes))
    with pytest.raises(ConfigError, match=rf"no Hugging Face family can hold it: .*{reason}"):
        to_hf(model)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_is_written_and_read_back_or_refused(name):
    preset = PRESETS[name]()
    heads = {"mixer.n_heads": 4} if preset.mixer.kind == "attention" else {}
    model = GPT.create(override(preset, SMALL | heads)).eval()
    if name in ("article-mlp", "nanogpt-char"):
        with pytest.raises(ConfigError, match="no Hugging Face family"):
            to_hf(model)
        return
    again = from_hf(*to_hf(model))
    for parameter_name, parameter in model.named_parameters():
        assert torch.equal(again.get_parameter(parameter_name), parameter)
