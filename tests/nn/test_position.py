import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.t5.modeling_t5 import T5Attention

from assay.errors import ConfigError
from assay.nn.model import GPT, ModelConfig
from assay.nn.position import (
    POSITIONS,
    Alibi,
    Position,
    RelativeBias,
    Rope,
    RopeConfig,
    Sinusoidal,
    alibi_slopes,
)
from assay.schema import decode

HOOKS = ("embed", "rotation", "score_bias")
WIDE = torch.float64


@pytest.mark.parametrize("config", [cls() for cls in POSITIONS], ids=lambda c: c.kind)
def test_a_variant_overrides_one_hook_and_the_absence_of_positions_none(config):
    built = config.build(d_model=32, n_heads=4, max_seq_len=8)
    overridden = sum(getattr(type(built), h) is not getattr(Position, h) for h in HOOKS)
    assert overridden == (config.kind != "none")


def turned(x, positions, rope):
    """x is (T, K): one head of one sequence."""
    return rope.rotation(positions[None], WIDE)(x[None, None])[0, 0]


@settings(deadline=None)
@given(shift=st.integers(0, 100_000), theta=st.sampled_from([10.0, 1e4, 1e6]))
def test_rope_scores_depend_only_on_distance(shift, theta):
    rope, positions = Rope(16, theta=theta), torch.arange(6)
    q, k = torch.nn.functional.normalize(torch.randn(2, 6, 16, dtype=WIDE), dim=-1)

    def scores(positions):
        return turned(q, positions, rope) @ turned(k, positions, rope).mT

    bound = 4 * (shift + 6) * 2**-52 + 1e-15  # four angles of up to shift + 6 radians, rounded
    torch.testing.assert_close(scores(positions + shift), scores(positions), rtol=0, atol=bound)


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_rope_keeps_the_length_of_every_pair_and_the_channels_beyond(fraction):
    x, width = torch.randn(5, 8, dtype=WIDE), int(8 * fraction)
    y = turned(x, torch.arange(5), Rope(width, theta=100.0))
    before, after = (torch.hypot(*t[:, :width].chunk(2, -1)) for t in (x, y))
    torch.testing.assert_close(after, before, rtol=1e-14, atol=0)
    assert torch.equal(y[:, width:], x[:, width:])
    assert not torch.equal(y[1:, :width], x[1:, :width])


def test_rope_turns_pair_i_by_theta_to_the_minus_2i_over_its_width():
    x = torch.zeros(2, 6, dtype=WIDE)
    x[:, :3] = 1  # every pair (i, i + 3) is (1, 0)
    y = turned(x, torch.tensor([0, 7]), Rope(6, theta=10.0))
    for i in range(3):
        angle = 7 * 10.0 ** (-2 * i / 6)
        assert y[1, i].item() == pytest.approx(math.cos(angle), abs=1e-14)
        assert y[1, i + 3].item() == pytest.approx(math.sin(angle), abs=1e-14)
    assert torch.equal(y[0], x[0])


def test_rope_angles_do_not_lose_precision_with_the_dtype_of_the_weights():
    rotation = Rope(4, theta=1e4).rotation(torch.tensor([[100_001]]), torch.float32)
    assert rotation.cos[0, 0, 0, 0].item() == pytest.approx(math.cos(100_001), abs=2**-24)


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_rope_turns_the_share_of_channels_asked_for(fraction):
    rope = RopeConfig(fraction=fraction).build(d_model=80, n_heads=2, max_seq_len=8)
    assert rope.width == 40 * fraction


@settings(deadline=None)
@given(position=st.integers(0, 10_000), d_model=st.integers(1, 33))
def test_sinusoids_by_their_formula(position, d_model):
    embed = Sinusoidal().embed(torch.zeros(1, 1, d_model, dtype=WIDE), torch.tensor([[position]]))
    for i in range(d_model):
        angle = position / 10_000 ** (2 * (i // 2) / d_model)
        expected = math.cos(angle) if i % 2 else math.sin(angle)
        assert embed[0, 0, i].item() == pytest.approx(expected, abs=1e-11)  # 10^4 radians · 2^-52


def test_alibi_slopes_of_the_paper():
    assert alibi_slopes(8).tolist() == [2.0**-i for i in range(1, 9)]
    halves = [2.0 ** (-i / 2) for i in range(1, 17)]
    assert alibi_slopes(16).tolist() == pytest.approx(halves, rel=1e-15)
    assert alibi_slopes(1).tolist() == [2.0**-8]
    assert alibi_slopes(3).tolist() == [2.0**-4, 2.0**-8, 2.0**-2]  # the authors' code, 3 heads
    twelve = [2.0**-i for i in range(1, 9)] + [2.0 ** -(i + 0.5) for i in range(4)]
    assert alibi_slopes(12).tolist() == pytest.approx(twelve, rel=1e-15)  # BLOOM-like 12 heads


@settings(deadline=None)
@given(n_heads=st.integers(1, 200))
def test_every_head_has_a_slope_of_its_own_between_0_and_1(n_heads):
    slopes = alibi_slopes(n_heads).tolist()
    assert len(set(slopes)) == n_heads
    assert all(0 < slope < 1 for slope in slopes)


def test_alibi_takes_from_a_score_by_distance_in_the_dtype_asked_for():
    bias = Alibi(4).score_bias(torch.arange(3), torch.float32)
    assert bias.dtype == torch.float32
    assert bias[:, 2].tolist() == [-(2.0**-1), -(2.0**-3), -(2.0**-5), -(2.0**-7)]
    assert bias[:, 0].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (6, 9), (64, 1000), (4, 3)])
def test_t5_buckets_are_hugging_faces(buckets, max_distance):
    """But where a bucket begins at a whole number, which float32 there may round to either side."""
    distances, half = torch.arange(3 * max_distance), buckets // 2
    starts = [half * (max_distance / half) ** (i / half) for i in range(half + 1)]
    certain = [d for d in distances.tolist() if all(abs(d - start) > 1e-4 for start in starts)]
    assert len(certain) > len(distances) - half - 2
    bias = RelativeBias(1, buckets=buckets, max_distance=max_distance)
    with torch.no_grad():
        bias.table.weight.copy_(torch.arange(buckets)[:, None])
    found = bias.score_bias(distances, torch.float32)[0].long()
    expected = T5Attention._relative_position_bucket(-distances, False, buckets, max_distance)
    assert torch.equal(found[certain], expected[certain])
    assert [int(found[math.ceil(start - 1e-6)]) for start in starts[:half]] == [
        *range(half, buckets)
    ]


@pytest.mark.parametrize("kernel", ["fused", "blocks"])
def test_biases_of_scores_learn(kernel):
    """Their gradient is that of central differences: h^2 + 2^-53 / h is under 1e-9 for h = 1e-5."""
    position = {"kind": "t5", "buckets": 4, "max_distance": 5}
    fields = {"vocab_size": 7, "d_model": 8, "n_layers": 2, "position": position}
    model = GPT.create(decode(ModelConfig, fields | {"init": {"kind": "gaussian", "std": 0.5}}))
    model.double().kernel = kernel
    tokens = torch.tensor([[1, 5, 2, 2, 6, 0, 3, 4]])
    table = model.position.table.weight

    def loss():
        return model(tokens).log_softmax(-1)[0, :-1].gather(1, tokens[0, 1:, None]).mean()

    loss().backward()
    with torch.no_grad():
        for bucket, head in [(0, 0), (1, 1), (2, 2), (3, 3)]:
            ends = []
            for change in (1e-5, -2e-5):
                table[bucket, head] += change
                ends.append(loss().item())
            table[bucket, head] += 1e-5
            slope = (ends[0] - ends[1]) / 2e-5
            assert table.grad[bucket, head].item() == pytest.approx(slope, rel=1e-5, abs=1e-9)
            assert abs(slope) > 1e-4


def test_far_buckets_need_distances():
    with pytest.raises(ConfigError, match="max_distance: 16 found; expected over half of buckets"):
        decode(ModelConfig, {"position": {"kind": "t5", "max_distance": 16}})
