"""What is asked of a network on the command line, or in a config: refused in one line where it cannot be."""

import torch

import models
from data.commandline import BadInput, fraction, non_negative_float
from data.device import require_memory
from models.batchnorm import REESTIMATION_BATCH, batch_norms, leaves_one
from models.evaluator import Evaluator

# Arguments of train.py, as the paper does not publish them of its practical ResNet.
OPTIMIZER_OPTIONS = {"momentum": fraction, "weight_decay": non_negative_float}
COPIES = 4  # of all weights, at least, while they are trained and written: the parts of the network, gradients, a checkpoint


def network_of(config):
    """The record of a config's network. Raises BadInput where there is none (any more)."""
    name = config["settings"]["model"]
    if name not in models.NETWORKS:
        raise BadInput(
            f"{name}: models.NETWORKS has no such network, which a run was trained with; put its record there"
        )
    return models.NETWORKS[name]


def chosen_network(name, task):
    """The name of a network, given that it is one for the task. Raises BadInput."""
    if models.NETWORKS[name].task != task:
        raise BadInput(f"--model {name}: is not for {task}; use {' or '.join(models.networks_for(task))}")
    return name


def networks_with(entry, name):
    """(name, record) of the networks whose record has something under a name in its `shape` or its `optimizer`."""
    return [(network, record) for network, record in models.NETWORKS.items() if name in getattr(record, entry)]


def shape_names():
    """Of all whole numbers that shapes of networks have, those that are arguments."""
    return sorted({name for network in models.NETWORKS.values() for name in network.shape} - {"side"})


def shape_of(args, network, side):
    """The shape of a network for images of a side, as asked for. Raises BadInput where it has no such number."""
    asked = {name: getattr(args, name) for name in shape_names() if getattr(args, name) is not None}
    refuse_unknown(args.model, asked, network.shape)
    return {name: side if name == "side" else asked.get(name, usual) for name, usual in network.shape.items()}


def optimizer_of(args, name, network):
    """The optimiser of a network, as asked for. Raises BadInput where it has no such option."""
    asked = {option: getattr(args, option) for option in OPTIMIZER_OPTIONS if getattr(args, option) is not None}
    refuse_unknown(name, asked, network.optimizer)
    return network.optimizer | asked


def refuse_unknown(network, asked, known):
    """Raise BadInput for an argument that a network has no use for."""
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise BadInput(f"--{unknown[0].replace('_', '-')}: is not for {network}; leave it out")


def refuse_unfit_shape(name, network, settings, device, fix=None):
    """Raise BadInput where a network of such settings cannot be built, or does not fit into the device's memory.

    fix: by default that the settings are to be others.
    """
    fix = fix or f"give others (--width, {', '.join(f'--{n}' for n in shape_names())})"
    try:
        with torch.device("meta"):  # without its numbers
            built = network.build(settings["width"], settings["classes"], **settings["shape"])
    except ValueError as error:
        raise BadInput(f"{name}: {error}; {fix}") from None
    except (RuntimeError, OverflowError, TypeError):  # numbers of parameters that no 64 bits hold
        raise BadInput(f"{name}: is far too large; {fix}") from None
    parameters = sum(parameter.numel() for parameter in built.parameters())
    needed = COPIES * torch.float32.itemsize * parameters
    require_memory(needed, f"{name}: a network of {parameters:,} parameters", fix, device)


def refuse_single_images(settings, side, count):
    """Raise BadInput where batch norm can take no statistics of a last batch, as that is a single image of few pixels.

    side: of the images, in pixels. count: how many training images there are.
    """
    batch_size = settings["batch_size"]
    if not leaves_one(count, batch_size) and not leaves_one(count, REESTIMATION_BATCH):
        return
    network = models.build(settings["model"], settings["width"], settings["classes"], 0, **settings["shape"])
    if not batch_norms(network) or Evaluator(network, torch.device("cpu")).takes_single_images(side):
        return
    reason = f"batch norm of {settings['model']} needs two images of {side} pixels in every batch"
    if leaves_one(count, REESTIMATION_BATCH):  # as also where there is one image
        raise BadInput(
            f"{settings['data']}: of {count} training images one is left for the last batch of {REESTIMATION_BATCH}, in"
            f" which statistics are re-estimated, and {reason}; prepare another number (--train-per-class)"
        )
    larger = next(size for size in range(batch_size + 1, count + 1) if not leaves_one(count, size))
    raise BadInput(
        f"--batch-size {batch_size}: leaves one of {count} training images for the last batch, and {reason}; use {larger}"
    )
