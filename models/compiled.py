"""Compiled functions, where they can be had."""

import contextlib
import sys

import torch
import torch.compiler.config as compiler_settings

failures = []  # of this process: what could not be compiled once is not tried again


def compiled_or_plain(function, trial):
    """torch.compile(function), or the function itself where that fails in trial(compiled), which says so on stderr.

    trial: calls the compiled function just as the training does, as whether compilation works depends on what is
    compiled: it needs a C++ compiler, or Triton on a GPU, and some code that is fine elsewhere fails.
    """
    if failures:
        return function
    # PyTorch's cache of compiled code, which machines may share, does not tell instruction sets apart by itself.
    compiler_settings.cache_key_tag = torch.backends.cpu.get_cpu_capability()
    try:
        compiled = torch.compile(function, dynamic=False)
        trial(compiled)
    except Exception as error:  # its kind depends on what is missing, and on the version of PyTorch
        failures.append(error)
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        print(f"--compile: cannot compile here ({cause}); going on without, which is slower", file=sys.stderr)
        return function
    return compiled


@contextlib.contextmanager
def unchanged(tensors, generators=()):
    """A context after which tensors, and generators of random numbers, are as they were before."""
    values, states = [tensor.clone() for tensor in tensors], [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        for tensor, value in zip(tensors, values):
            tensor.copy_(value)
        for generator, state in zip(generators, states):
            generator.set_state(state)
