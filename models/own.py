"""A user's own network, `--model path/to/file.py:function`: loaded from its file, tried out, and put into models.NETWORKS.

function(classes, side) returns an nn.Module for images [batch, 3, side, side] and logits [batch, classes], or a
models.Network, the record of one. The file is run because it is named on the command line, never because a run folder
names it.
"""

import contextlib
import dataclasses
import functools
import hashlib
import random
import re
import sys
import traceback
import types
from pathlib import Path

import numpy
import torch
from torch import nn
from torch.nn import functional as F

import models
from data.commandline import BadInput, counted, suggestion
from data.device import require_memory
from data.files import open_regular
from models import dropout, optimizers, sphere
from models.batchnorm import batch_norms
from models.evaluator import Evaluator, trained_parameters
from models.geometry import BarrierProtocol

FORM = "FILE.py:FUNCTION"
MOMENTUM_SGD = {"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4}  # as that of the practical ResNet
IMAGES = 4  # that a network is tried out on
COPIES = 12  # of all weights, about, while it is tried out: three networks, their flat weights, and gradients
CLOSE = 1e-3  # outputs of equal networks differ by less, relative to the largest: by rounding alone


class Unfit(Exception):
    """What is wrong with a network, and the fix, in words."""


def is_own(model):
    """Whether a network's name, on a command line or in a config, is that of a user's own."""
    return re.fullmatch(r".*\.py:[^\W\d]\w*", model, flags=re.DOTALL) is not None


def name_of(given):
    """The name of the network FILE.py:FUNCTION in models.NETWORKS, run folders and figures: without the file's folder."""
    path, _, function = given.rpartition(":")
    return f"{Path(path).name}:{function}"


def register(given, classes, side, augmented=False):
    """Load the network FILE.py:FUNCTION and put its record into models.NETWORKS. Returns its name there.

    classes, side: of the images that it is for first, the latter in pixels. augmented: whether it is trained on augmented
    images, so that one that is no record does not converge by its accuracy.
    A record's shape has `side`. Raises BadInput where it cannot be loaded, or is no network.
    """
    name = name_of(given)
    if not name.isprintable():
        raise BadInput(f"--model {given}: give the file a name of printable characters")
    function, digest = load(given)
    with faults(given), torch.random.fork_rng(devices=[]):
        made = function(classes, side)
        if not isinstance(made, (nn.Module, models.Network)):
            raise Unfit(f"returns {type(made).__name__}, neither an nn.Module nor a models.Network")
        record = made if isinstance(made, models.Network) else record_of(made, augmented)
        if record.task != "images":
            raise Unfit("returns the record of a network on ticks, where a network is for images")
        models.NETWORKS[name] = dataclasses.replace(
            record,
            build=functools.partial(build, given, function),
            shape=record.shape | {"side": side},
            digest=digest,
        )
    return name


def load(given):
    """(function, sha256 of its file) of FILE.py:FUNCTION; the file is run. Raises BadInput."""
    path, _, function = given.rpartition(":")
    try:
        with open_regular(path) as file:
            source = file.read()
    except OSError as error:
        raise BadInput(f"--model {given}: {path} cannot be read ({error.strerror}); name another file") from None
    digest = hashlib.sha256(source).hexdigest()
    module = types.ModuleType(f"own_network_{digest}")
    module.__file__ = path
    sys.modules[module.__name__] = module  # where dataclasses look for it
    with faults(given):
        exec(compile(source, path, "exec"), module.__dict__)
    found = {name: value for name, value in vars(module).items() if callable(value)}
    if function not in found:
        fix = suggestion(function, list(found)) or "; name one that it has"
        raise BadInput(f"--model {given}: {path} has no function {function}{fix}")
    return found[function], digest


@contextlib.contextmanager
def faults(given):
    """A context in which whatever the user's code raises becomes BadInput, with the line of the file."""
    try:
        yield
    except BadInput:
        raise
    except (Exception, SystemExit) as error:
        path = given.rpartition(":")[0]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        if isinstance(error, SyntaxError) and error.filename == path:
            lines.append(error.lineno)
        words = str(error).strip().split("\n")[0].removesuffix(".")
        kind = "" if isinstance(error, Unfit) else f"{type(error).__name__}: "
        place = f"line {lines[-1]} of {path}" if lines else path
        raise BadInput(f"--model {given}: {kind}{words}; mend {place}") from None


def record_of(network, augmented):
    """The record of an nn.Module that comes without one, but for how it is built.

    It is trained by SGD with momentum and weight decay, all of it that requires gradients, and is like the paper's practical
    convolutional network; but whether it converges, and whether large learning rates lead to chance, is measured where
    images are not augmented.
    """
    return models.Network(
        task="images",
        kind="convolutional",
        build=None,
        optimizer=MOMENTUM_SGD,
        barrier=BarrierProtocol(points=21, on_sphere=False, batch_norm=bool(batch_norms(network)), floor=0.01),
        swa_anchor="start",
        width=None,
        converged=None if augmented else 0.999,
    )


def build(given, function, width, classes, **shape):
    """The network of a function, as Network.build. Raises BadInput where the function does not return one."""
    with faults(given):
        made = function(classes, shape["side"])
        if isinstance(made, models.Network):
            made = made.build(width, classes, **{name: shape[name] for name in made.shape})
        if not isinstance(made, nn.Module):
            raise Unfit(f"returns {type(made).__name__}, not an nn.Module")
        return with_replayable_dropout(made)


def with_replayable_dropout(network):
    """The network, each nn.Dropout in it replaced by that of models.dropout, whose random numbers can be replayed."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Dropout:
                setattr(module, name, dropout.Dropout(child.p))
    return network


# ------------------------------------------------------------------------------------------------------- trying it out


def try_out(given, settings, lr, images, labels):
    """Build a network as a run with these settings does, and make an iteration with it on the CPU. Returns it.

    images, labels: some of those that it is to be trained on, normalised. Raises BadInput where it is none that the scripts
    can train, replay, average and measure.
    """
    make = functools.partial(models.build, settings["model"], settings["width"], settings["classes"])
    with faults(given), torch.random.fork_rng(devices=[]):
        first = make(0, **settings["shape"])
        refuse_parameters(first)
        refuse_layers(first)
        needed = COPIES * torch.float32.itemsize * sum(parameter.numel() for parameter in first.parameters())
        require_memory(needed, f"--model {given}: to try it out", "make it smaller")
        again, other = (make(seed, **settings["shape"]) for seed in (0, 1))
        if places_of(first) & places_of(again):
            raise Unfit("returns tensors that it returned before: build all of the network in every call")
        if not models.angle_parameters(settings["model"], first):
            raise Unfit("in_angles of its record chooses none of its parameters")
        evaluator, again, other = (Evaluator(network, torch.device("cpu")) for network in (first, again, other))
        refuse_impure_build(evaluator, again, other)
        refuse_outputs(evaluator, images, settings["classes"])
        if settings["rho"] is not None:
            sphere.project_(evaluator.weights, settings["rho"])
        optimizer = optimizers.build(
            evaluator.weights, evaluator.gradient, lr, settings["optimizer"], settings["rho"]
        )
        refuse_side_effects(evaluator, images, labels, settings["classes"])
        optimizer.step()
        refuse_hidden_state(again, other, images)
        return evaluator.network


def tensors_of(network):
    """{name: tensor} of all parameters and buffers, tied ones by all of their names."""
    named = network.named_parameters(remove_duplicate=False), network.named_buffers(remove_duplicate=False)
    return {name: tensor for some in named for name, tensor in some}


def place_of(tensor):
    """The address of a tensor's memory, that of a tensor that it is a view of."""
    return tensor.untyped_storage().data_ptr()


def places_of(network):
    return {place_of(tensor) for tensor in tensors_of(network).values() if tensor.numel()}


def refuse_parameters(network):
    """Raise Unfit where the parameters and buffers of a network are none that a flat vector of weights can hold."""
    places = {}
    for name, tensor in tensors_of(network).items():
        if isinstance(tensor, nn.parameter.UninitializedTensorMixin):
            raise Unfit(f"{name} has no shape yet: call a lazy module once before it is returned")
        if tensor.device.type != "cpu":
            raise Unfit(f"{name} is on {tensor.device}: return it on the CPU; the scripts move it")
        if (tensor.is_floating_point() or tensor.is_complex()) and tensor.dtype != torch.float32:
            raise Unfit(f"{name} is {tensor.dtype}: return it in float32; --precision bf16 is for speed")
        if tensor.numel() and places.setdefault(place_of(tensor), name) != name:
            raise Unfit(f"{name} shares its memory with {places[place_of(tensor)]}: let each have its own")
    if not trained_parameters(network):
        raise Unfit("has no parameters that require gradients: there is nothing to train")


def refuse_layers(network):
    """Raise Unfit for layers with running statistics that are not re-estimated, or not in one pass."""
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.instancenorm._InstanceNorm) and module.track_running_stats:
            raise Unfit(f"{name} tracks running statistics, as only batch norm may: leave track_running_stats out")
    for module in batch_norms(network):
        if module.running_mean is None or module.momentum is None:
            raise Unfit(f"{module}: batch norm needs running statistics and a momentum, as by default")


def refuse_impure_build(evaluator, again, other):
    """Raise Unfit where a network is not a pure function of the seed.

    again, other: of a network with the same seed, and of one with another.
    """
    first = evaluator.solution()
    try:
        again.refuse_unfit(first)
        other.refuse_unfit(first)
    except ValueError as error:
        raise Unfit(f"is built in another way the second time ({error})") from None
    states = zip(evaluator.network.state_dict().items(), again.network.state_dict().values())
    for (name, one), two in states:
        if not torch.equal(one.nan_to_num(), two.nan_to_num()):
            raise Unfit(f"{name} is not the same for the same seed: draw it from torch's default generator")


def refuse_hidden_state(evaluator, other, images):
    """Raise Unfit where the seed is in more of a network than in its state; other: one with another seed."""
    solution = evaluator.solution()
    solution["weights"] += 0.01 * torch.randn_like(solution["weights"])  # at first all logits may be 0
    outputs = []
    for one in (evaluator, other):
        one.load(solution)
        one.network.eval()
        with torch.no_grad():
            outputs.append(one.network(images))
    if not alike(*outputs):
        raise Unfit("holds more of its seed than parameters and buffers: use register_buffer() for such tensors")


def refuse_outputs(evaluator, images, classes):
    """Raise Unfit where outputs are not logits of each image, also of a single one."""
    for count in (len(images), 1):
        evaluator.network.eval()
        with torch.no_grad():
            refuse_other_than_logits(evaluator.network(images[:count]), count, classes)


def refuse_other_than_logits(output, count, classes):
    """Raise Unfit where the output of a network for so many images is no floating-point tensor [count, classes]."""
    if not isinstance(output, torch.Tensor):
        raise Unfit(f"its output is {type(output).__name__}, not a tensor of logits")
    if output.shape != (count, classes) or not output.is_floating_point():
        found = f"the output for {counted(count, 'image')} is {output.dtype} {list(output.shape)}"
        raise Unfit(f"{found}, not logits [{count}, {classes}]")


def refuse_side_effects(evaluator, images, labels, classes):
    """Raise Unfit where a forward pass in training does more than its result and batch norm's statistics say.

    Leaves the gradient of the loss.
    """
    network, random_numbers = evaluator.network.train(), torch.Generator()
    dropout.use_generator(network, random_numbers)
    weights, outputs, before = evaluator.weights.clone(), [], random_states()
    places = [parameter.data_ptr() for parameter in evaluator.parameters]
    state = state_of_no_batch_norm(network)
    for _ in range(2):
        random_numbers.manual_seed(0)
        outputs.append(network(images))
        refuse_other_than_logits(outputs[-1], len(images), classes)
    moved = places != [parameter.data_ptr() for parameter in evaluator.parameters]
    if moved or not torch.equal(weights, evaluator.weights):
        raise Unfit("changes its weights in forward(), which is for the optimiser to do: use other tensors there")
    for name, tensor in state_of_no_batch_norm(network).items():
        if not torch.equal(tensor, state[name]):
            raise Unfit(f"{name} changes in training, and would not fit averages of weights: leave it as it is")
    if any(map(differ, random_states(), before)) or not alike(*outputs):
        raise Unfit("draws random numbers in training that cannot be replayed: use nn.Dropout alone")
    F.cross_entropy(outputs[-1], labels).backward()
    if not evaluator.gradient.any():
        raise Unfit("no gradient reaches its parameters: the logits must depend on them")


def state_of_no_batch_norm(network):
    """{name: copy} of the tensors of a network that are neither trained nor statistics of batch norm."""
    of_batch_norm = {id(buffer) for module in batch_norms(network) for buffer in module.buffers()}
    tensors = [*network.named_buffers(), *network.named_parameters()]
    others = {
        name: tensor for name, tensor in tensors if not tensor.requires_grad and id(tensor) not in of_batch_norm
    }
    return {name: tensor.clone() for name, tensor in others.items()}


def random_states():
    """The states of the generators of random numbers that code draws from where it names none."""
    name, keys, *rest = numpy.random.get_state()
    return [torch.default_generator.get_state(), random.getstate(), (name, keys.tolist(), rest)]


def differ(first, second):
    return not torch.equal(first, second) if isinstance(first, torch.Tensor) else first != second


def alike(first, second):
    """Whether two outputs are the same but for rounding."""
    largest = max(1.0, first.abs().nan_to_num().max().item())
    return torch.allclose(first, second, rtol=CLOSE, atol=CLOSE * largest, equal_nan=True)
