"""Run a script without one of the things that make image networks fast, to see what it changes.

python bench/without.py channels-last train.py --data datasets/cifar10.pt ...
"""

import argparse
import importlib
import sys
from pathlib import Path

import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent.parent))

import train  # noqa: E402
from data import device  # noqa: E402
from data.commandline import Parser  # noqa: E402
from models import dropout, sphere, vit  # noqa: E402


def without_channels_last():
    torch.channels_last = torch.contiguous_format
    sphere._shaped = lambda flat, shape: flat.view(shape)


def without_kept_memory():
    device.keep_freed_memory = lambda: None


def without_in_place_relu():
    F.relu = lambda x, inplace=False: torch.relu(x)


def without_cuda_graph():
    train.ImageTraining._replay = train.ImageTraining._step


def plain_attention(attention, x):
    """models.vit.Attention.forward as published code has it: softmax, mask and temperature as an operation each."""
    q, k, v = (
        part.unflatten(2, (attention.heads, -1)).transpose(1, 2) for part in attention.to_qkv(x).chunk(3, dim=2)
    )
    logits = (q @ k.transpose(2, 3)) * attention.temperature.exp()
    logits = logits.masked_fill(~attention.others, -torch.finfo(logits.dtype).max)
    mixed = logits.softmax(dim=3) @ v
    return attention.to_output(mixed.transpose(1, 2).flatten(2))


def plain_dropout(layer, x):
    """models.dropout.Dropout.forward as that of nn.Dropout."""
    return F.dropout(x, layer.p, layer.training)


def without_fused_attention():
    vit.Attention.forward = plain_attention


def without_fast_dropout():
    dropout.Dropout.forward = plain_dropout


WITHOUT = {
    "channels-last": without_channels_last,
    "kept-memory": without_kept_memory,
    "in-place-relu": without_in_place_relu,
    "cuda-graph": without_cuda_graph,
    "fused-attention": without_fused_attention,
    "fast-dropout": without_fast_dropout,
}


def main():
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("name", choices=WITHOUT, help="what to go without")
    parser.add_argument("script", choices=["train.py", "finetune.py", "swa.py"], help="what to run")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")
    args = parser.parse_args()
    WITHOUT[args.name]()
    sys.argv = [args.script, *args.arguments]
    importlib.import_module(args.script.removesuffix(".py")).main()


if __name__ == "__main__":
    train.run(main)
