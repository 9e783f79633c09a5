"""What is put into a network must be exactly as large: copy_() alone would spread a single number over all weights."""

import torch


def refuse_unlike(found, like, where="it"):
    """Raise ValueError where tensors in nested dictionaries have other names, shapes or types than those in `like`."""
    if isinstance(like, dict):
        names = set(found) if isinstance(found, dict) else set()
        differing = sorted(map(str, names ^ {*like}))
        if differing or not isinstance(found, dict):
            raise ValueError(f"{where} {'lacks' if like.keys() - names else 'also holds'} {differing[0]}")
        for name in like:
            refuse_unlike(found[name], like[name], f"{where}.{name}" if where != "it" else name)
    elif not isinstance(found, torch.Tensor) or (found.shape, found.dtype) != (like.shape, like.dtype):
        raise ValueError(f"{where} is {_described(found)}, not {_described(like)}")


def refuse_other_solution(solution, weights, buffers):
    """Raise ValueError where a solution, beside which a file may hold more, is not like these weights and buffers."""
    like = {"weights": weights, "buffers": buffers}
    refuse_unlike({name: solution[name] for name in like if name in solution}, like)


def _described(value):
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {list(value.shape)}".removeprefix("torch.")
    return f"no tensor but {type(value).__name__}"
