"""What moves weights: the optimisers of torch.optim over one flat vector, and projected SGD as one more of them."""

import warnings

import torch

from models import sphere
from models.solutions import refuse_unlike


class ProjectedSGD:
    """SGD on the sphere (paper, section 2): w <- rho * (w - lr*rho^2*g) / |w - lr*rho^2*g|.

    params: [weights], flat, [members, parameters], each row on the sphere. lr: effective, i.e. measured on the unit
    sphere. rho: radius of the sphere. Used as those of torch.optim, but none of them: the first of these in a process
    imports PyTorch's compiler, which takes a second or two.
    """

    state = {}  # nothing is carried over from step to step

    def __init__(self, params, lr, rho):
        [self.weights] = params
        self.lr, self.rho = lr, rho

    def step(self):
        sphere.projected_step_(self.weights, self.weights.grad, self.lr, self.rho)


PROJECTED_SGD = {"name": "projected-sgd"}
OPTIMIZERS = {
    "projected-sgd": ProjectedSGD,
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
OF_ADAM = ("betas", "eps", "weight_decay", "amsgrad")
# Not `dampening`, see build(), nor what changes the speed alone, nor `maximize`.
OPTIONS = {
    "projected-sgd": (),
    "sgd": ("momentum", "weight_decay", "nesterov"),
    "adam": OF_ADAM,
    "adamw": OF_ADAM,  # weight decay is decoupled from the gradient
}


def refuse_unknown_options(options):
    """Raise ValueError where an optimiser, or an option of it, is none that build() takes."""
    name = options["name"]
    if name not in OPTIONS:
        raise ValueError(f"optimiser {name}: is none of {', '.join(OPTIONS)}")
    for option in options.keys() - {"name", *OPTIONS[name]}:
        supported = ", ".join(OPTIONS[name]) or "no options"
        raise ValueError(f"optimiser {name}: {option} is not supported, only {supported}")


def build(weights, gradient, lr, options, rho):
    """An optimiser of flat weights [1, parameters], by a gradient of the same shape that the caller fills.

    options: {"name": one of OPTIMIZERS, and those of OPTIONS}. rho: radius of the sphere, or None off it.
    Its state is there from the beginning, so that a CUDA graph can capture it: all zeros, from which the first step
    is that of torch.optim, which makes its state only then (but not with `dampening`).
    """
    options = {**options} | ({} if rho is None else {"rho": rho})
    kind = OPTIMIZERS[options.pop("name")]
    if kind in (torch.optim.Adam, torch.optim.AdamW) and weights.is_cuda:
        options["capturable"] = True  # or its count of steps would stay on the host, out of the graph's reach
    weights.grad = gradient
    optimizer = kind([weights], lr=lr, **options)
    before = weights.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a capturable optimiser takes a step outside of a graph
        optimizer.step()
    weights.copy_(before)
    clear_state(optimizer)
    return optimizer


def state_of(optimizer):
    """{name: tensor} of the state that an optimiser keeps of its one flat vector; the tensors themselves, no copies."""
    return next(iter(optimizer.state.values()), {})


def clear_state(optimizer):
    """Have an optimiser begin anew."""
    for tensor in state_of(optimizer).values():
        tensor.zero_()


def load_state(optimizer, tensors):
    """Put {name: tensor} as of state_of() in place. Raises ValueError where names, shapes or types are others."""
    refuse_unlike(tensors, state_of(optimizer), "optimizer")
    for name, tensor in state_of(optimizer).items():
        tensor.copy_(tensors[name])
