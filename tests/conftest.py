"""What several test files use."""

import contextlib
import os

# One thread is fastest, as the tensors of these tests are small. Set before PyTorch is imported, so that it computes as
# in the processes that tests start; after torch.set_num_threads() it rounds in other ways.
os.environ["OMP_NUM_THREADS"] = os.environ.get("TEST_THREADS", "1")

import pytest
import torch

from data.images import ImageSet, digest
from models import compiled

HAS_BF16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
needs_bf16 = pytest.mark.skipif(not HAS_BF16, reason="this processor has no bfloat16 instructions")


@pytest.fixture(scope="session")
def compiler():
    """Skips where no code with vector instructions can be compiled, which training with --compile consists of."""

    def vectorised(x):
        return (x - x.sum(1, keepdim=True)).clamp_min(0)

    if compiled.compiled_or_plain(vectorised, lambda function: function(torch.ones(3, 32, 16))) is vectorised:
        pytest.skip(f"torch.compile does not work here: {compiled.failures[0]}")


@pytest.fixture
def float64():
    """Tensors are float64 where nothing else is said: two programs then agree to rounding over many iterations."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def random_image_set(classes=10, train=60, test=30, side=16, seed=0):
    """An ImageSet of random pixels; every class appears in both splits."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for split, count in (("train", train), ("test", test)):
        shape = (count, 3, side, side)
        tensors[f"{split}_images"] = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        tensors[f"{split}_labels"] = torch.randperm(count, generator=generator) % classes
    names = tuple(f"class{index}" for index in range(classes))
    return ImageSet(name="random", **tensors, classes=names, digest=digest(tensors), made_from={})


@pytest.fixture(scope="session")
def image_set():
    """60 training and 30 test images of 16x16 random pixels in 10 classes."""
    return random_image_set()


@pytest.fixture
def recorded(monkeypatch):
    """A stand-in for CUDA graphs: recorded(step) is a step that graphs note while it is captured and call to replay."""
    capturing = []

    class Graph:
        def register_generator_state(self, generator):
            self.generators = [*getattr(self, "generators", []), generator]

        def replay(self):
            self.step(*self.inputs)

    class Stream:
        def wait_stream(self, other):
            pass

    @contextlib.contextmanager
    def graph(new):
        capturing.append(new)
        yield
        capturing.clear()

    def recorded(step):
        def noted(*inputs):
            for graph in capturing:
                graph.step, graph.inputs = step, inputs
            step(*inputs)

        return noted

    stand_ins = {"CUDAGraph": Graph, "Stream": Stream, "current_stream": Stream, "graph": graph}
    stand_ins["stream"] = lambda _: contextlib.nullcontext()
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return recorded
