"""The masks of the kernels' dropout, drawn by an oracle, and a model that is given them.

It draws the words itself, with NumPy, from Philox4x32-10 as its authors publish it.
"""

from itertools import count

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

SEED = 0x123456789ABCDEF


def philox(counter, key):
    """Return the four words of each counter (N, 4)."""
    x = [np.asarray(counter)[:, i].astype(np.uint64) for i in range(4)]
    k0, k1 = (np.uint64(word) for word in key)
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * x[0], np.uint64(0xCD9E8D57) * x[2]
        x = [(p1 >> half) ^ x[1] ^ k0, p1 & low, (p0 >> half) ^ x[3] ^ k1, p0 & low]
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return np.stack(x, 1)


def factors(shape, p, place, plane=0):
    """Return what dropout multiplies a matrix by.

    Row r and column c take half r % 8 (low ones first) of the words of counter (c, r / 8).
    """
    rows, columns = shape
    strips = -(-rows // 8)
    strip, column = np.divmod(np.arange(strips * columns), columns)
    each = np.stack([column, strip, *(np.full_like(strip, n) for n in (plane, place))], 1)
    words = philox(each, (SEED & 0xFFFFFFFF, SEED >> 32)).reshape(strips, columns, 4)
    halves = np.stack([words & 0xFFFF, words >> 16], -1).reshape(strips, columns, 8)
    halves = halves.transpose(0, 2, 1).reshape(-1, columns)[:rows]
    bound = round(65536 * p)
    return torch.from_numpy((halves >= bound) * (65536 / (65536 - bound)))


class Masks(TorchFunctionMode):
    """Multiplies by the masks of the kernels wherever a model drops, in the order it does."""

    def __init__(self, config):
        super().__init__()
        after = [0] if config.dropout else []
        for layer in range(config.n_layers if config.dropout else 0):
            after += [3 * layer + 1] * (config.mixer.kind != "none") + [3 * layer + 2]
        self.after, self.layer, self.config = iter(after), count(), config

    def __torch_function__(self, func, types, args=(), kwargs=None):
        given = dict(kwargs or {})
        if func is F.dropout and given["training"] and given["p"] > 0:
            x, p = args[0], given["p"]
            masks = factors((x.shape[:-1].numel(), x.shape[-1]), p, next(self.after))
            return x * masks.view_as(x).to(x.dtype)
        if func is F.scaled_dot_product_attention and given["dropout_p"] > 0:
            return self.attention(*args, **given)
        return func(*args, **given)

    def attention(self, q, k, v, *, attn_mask, dropout_p, is_causal):
        scores = q @ k.mT * q.shape[-1] ** -0.5
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        weights = self.softmax(scores)
        return self.product((weights * self.mask(weights, dropout_p)).to(v.dtype), v)

    def softmax(self, scores):
        return scores.softmax(-1)

    def product(self, weights, v):
        return weights @ v

    def mask(self, weights, p):
        """Return what the next layer's attention weights are multiplied by."""
        place = 3 * next(self.layer) + 3
        if not p:
            return torch.ones(())
        planes = range(weights.shape[0] * weights.shape[1])
        masks = [factors(weights.shape[-2:], p, place, plane) for plane in planes]
        return torch.stack(masks).view_as(weights)
