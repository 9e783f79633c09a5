"""Run a script without one of the things that make image networks fast, to see what it changes.

python bench/without.py channels-last train.py --data datasets/cifar10.pt ...
"""

import importlib
import sys
from pathlib import Path

import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent.parent))

import train  # noqa: E402
from models import sphere  # noqa: E402


def without_channels_last():
    torch.channels_last = torch.contiguous_format
    sphere._shaped = lambda flat, shape: flat.view(shape)


def without_kept_memory():
    train.keep_freed_memory = lambda: None


def without_in_place_relu():
    F.relu = lambda x, inplace: torch.relu(x)


def without_cuda_graph():
    train.ImageTraining._replay = train.ImageTraining._step


WITHOUT = {
    "channels-last": without_channels_last,
    "kept-memory": without_kept_memory,
    "in-place-relu": without_in_place_relu,
    "cuda-graph": without_cuda_graph,
}

if __name__ == "__main__":
    name, script, *sys.argv[1:] = sys.argv[1:]
    WITHOUT[name]()
    module = importlib.import_module(script.removesuffix(".py"))
    module.run(module.main)
