"""CUDA graphs: a step of many small kernels, launched by one call."""

import torch

from models.compiled import unchanged


def captured(step, state, *examples, generators=()):
    """step(*inputs) as a function that replays it as a CUDA graph, for steps of kernels too small to launch singly.

    step: returns nothing, and changes in place the tensors in the list `state`, which are left as found, and none else
    but those that it sets anew every time.
    examples: CUDA tensors as it takes them, which fix the shapes.
    generators: of random numbers that it draws, on the GPU; left as found. Replays go on drawing from them.
    """
    examples = [example.clone() for example in examples]
    graph = torch.cuda.CUDAGraph()
    with unchanged(state, generators):
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # kernels are compiled and libraries set up before the capture
            for _ in range(3):
                step(*examples)
        torch.cuda.current_stream().wait_stream(aside)
        for generator in generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            step(*examples)

    def replay(*inputs):
        for example, new in zip(examples, inputs):
            example.copy_(new)
        graph.replay()

    return replay
