"""What several test files use."""

import contextlib

import pytest
import torch

from data.images import ImageSet, digest


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The tensors of these tests are so small that more threads only cost time."""
    torch.set_num_threads(1)


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
    """A stand-in for CUDA graphs: recorded(step) is a step that graphs note while it is captured, and call to replay."""
    capturing = []

    class Graph:
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
