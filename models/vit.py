"""The small-data vision transformer of the paper (setups S8 and S9)."""

import torch
from torch import nn
from torch.nn import functional as F

from models.dropout import Dropout

DROPOUT = 0.1
DEEPEST = 1000  # blocks: each takes time to build, even without its numbers


def shifted_copies(images):
    """Images [B, C, H, W] with copies moved left, right, up and down by a pixel, zeros moving in: [B, 5C, H, W]."""
    moves = ((0, 0, 0, 0), (-1, 1, 0, 0), (1, -1, 0, 0), (0, 0, -1, 1), (0, 0, 1, -1))
    return torch.cat([F.pad(images, move) for move in moves], dim=1)


def patches(images, size):
    """Non-overlapping square patches of images [B, C, H, W], row by row: [B, patches, size * size * C]."""
    rows = images.permute(0, 2, 3, 1).unflatten(2, (-1, size)).unflatten(1, (-1, size))  # [B, H/s, s, W/s, s, C]
    return rows.transpose(2, 3).flatten(3).flatten(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention in which no token attends to itself, and the temperature of the logits is learned.

    The logits q.k of all heads are multiplied by exp(t), t being a trained number. tokens: how many there are.
    """

    def __init__(self, width, heads, tokens):
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.temperature = nn.Parameter(torch.tensor((width / heads) ** -0.5).log())
        self.to_output = nn.Linear(width, width)
        self.register_buffer("others", ~torch.eye(tokens, dtype=torch.bool), persistent=False)

    def forward(self, x):
        qkv = self.to_qkv(x).unflatten(2, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [B, heads, tokens, width / heads] each
        if x.is_cpu:  # under autocast too, as there the kernel for bfloat16 has a slow backward pass
            q, k, v = (part.to(self.temperature.dtype) for part in (q, k, v))
        with torch.autocast(x.device.type, enabled=False):
            # A learned factor cannot be the `scale` of this function, so the queries carry it.
            q = q * self.temperature.exp()
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.others, scale=1.0)
        return self.to_output(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """x + attention(LN(x)), and then x + feed-forward(LN(x)), whose two linear layers have a layer norm each."""

    def __init__(self, width, heads, tokens):
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(width), Attention(width, heads, tokens), Dropout(DROPOUT))
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.LayerNorm(width),
            nn.GELU(),
            Dropout(DROPOUT),
            nn.Linear(width, width),
            nn.LayerNorm(width),
            Dropout(DROPOUT),
        )

    def forward(self, x):
        x = x + self.attention(x)
        return x + self.feed_forward(x)


class VisionTransformer(nn.Module):
    """Shifted patch tokens and a class token, with learned positions; blocks; the class token's LN and classifier.

    side: of the images, in pixels. patch: of the patches, likewise. heads: of attention, width / heads numbers each.
    Input: [batch, 3, side, side]. Output: logits [batch, classes].
    Raises ValueError where patches do not fill the image, or heads the width.
    """

    def __init__(self, width, classes, side, depth, heads, patch):
        if side % patch:
            raise ValueError(f"patches of {patch} pixels do not fill images of {side}")
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        if depth > DEEPEST:
            raise ValueError(f"{depth} blocks are more than {DEEPEST}")
        super().__init__()
        self.patch, inputs, tokens = patch, 15 * patch**2, (side // patch) ** 2 + 1
        self.to_tokens = nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, width))
        self.class_token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, tokens, width))
        self.dropout = Dropout(DROPOUT)
        self.blocks = nn.Sequential(*(Block(width, heads, tokens) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x):
        tokens = self.to_tokens(patches(shifted_copies(x), self.patch))
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), tokens], dim=1)
        tokens = self.blocks(self.dropout(tokens + self.positions))
        return self.classifier(self.norm(tokens[:, 0]))
