"""The article's appendix A.3.1 and A.3.3, as printed: the other side of the comparison.

Nothing is corrected, not even what is wrong with it; only line breaks and quotes are ours.
"""

import torch
import torch.nn as nn


class GPTEmbedding(nn.Module):
    def __init__(self, vocab_size, max_len, d_model):
        super().__init__()
        self.token_emb = nn.Embedding(vocab_size, d_model)
        self.pos_emb = nn.Embedding(max_len, d_model)

    def forward(self, x):
        B, T = x.shape  # noqa: N806, RUF059
        pos = torch.arange(T, device=x.device)
        tok = self.token_emb(x)
        pos = self.pos_emb(pos)
        return tok + pos


class FeedForward(nn.Module):
    def __init__(self, d_model):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(d_model, 4 * d_model),
            nn.GELU(),
            nn.Linear(4 * d_model, d_model),
        )

    def forward(self, x):
        return self.net(x)


class GPTBlock(nn.Module):
    def __init__(self, d_model, heads, dropout=0.1):
        super().__init__()
        self.ln1 = nn.LayerNorm(d_model)
        self.ln2 = nn.LayerNorm(d_model)
        self.attn = nn.MultiheadAttention(d_model, heads, dropout=dropout, batch_first=True)
        self.ffn = FeedForward(d_model)

    def forward(self, x, mask):
        h = self.ln1(x)
        attn_out, _ = self.attn(h, h, h, attn_mask=mask)
        x = x + attn_out
        h = self.ln2(x)
        x = x + self.ffn(h)
        return x  # noqa: RET504


class MiniGPT(nn.Module):
    def __init__(self, vocab_size, max_len, d_model, heads, layers):
        super().__init__()
        self.embed = GPTEmbedding(vocab_size, max_len, d_model)
        self.blocks = nn.ModuleList([GPTBlock(d_model, heads) for _ in range(layers)])
        self.ln_f = nn.LayerNorm(d_model)
        self.lm_head = nn.Linear(d_model, vocab_size, bias=False)
        # Weight tying
        self.lm_head.weight = self.embed.token_emb.weight
        self.max_len = max_len

    def causal_mask(self, T, device):  # noqa: N803
        return torch.triu(torch.ones(T, T, device=device), diagonal=1).bool()

    def forward(self, x):
        B, T = x.shape  # noqa: N806, RUF059
        h = self.embed(x)
        mask = self.causal_mask(T, x.device)
        for block in self.blocks:
            h = block(h, mask)
        h = self.ln_f(h)
        logits = self.lm_head(h)
        return logits  # noqa: RET504


@torch.no_grad()
def generate(model, tokenizer, prompt, max_new=200, temperature=1.0):
    model.eval()
    device = next(model.parameters()).device
    ids = torch.tensor(tokenizer.encode(prompt), device=device).unsqueeze(0)
    for _ in range(max_new):
        logits = model(ids)
        next_logits = logits[:, -1]
        next_logits /= temperature
        probs = torch.softmax(next_logits, dim=-1)
        next_id = torch.multinomial(probs, 1)
        ids = torch.cat([ids, next_id], dim=1)
    return tokenizer.decode(ids[0].tolist())
