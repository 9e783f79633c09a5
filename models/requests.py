"""What is asked of a network on the command line, or in a config: refused in one line where it cannot be."""

import argparse
import contextlib
import json

import torch

import models
from data import schema
from data.commandline import BadInput, Refused, fraction, non_negative_float
from data.device import require_memory
from models import own
from models.batchnorm import REESTIMATION_BATCH, batch_norms, leaves_one
from models.evaluator import Evaluator

# Arguments of train.py, as the paper does not publish them of its practical ResNet.
OPTIMIZER_OPTIONS = {"momentum": fraction, "weight_decay": non_negative_float}
COPIES = 4  # of all weights, at least, while they are trained and written: the parts of the network, gradients, a checkpoint


def network_of(config, place=""):
    """The record of a config's network. Raises BadInput where there is none (any more), Refused where its file has changed.

    place: of the run, as `runs/a: `.
    """
    name = config["settings"]["model"]
    if name not in models.NETWORKS:
        raise BadInput(f"{place}models.NETWORKS has no {name}, which a run was trained with; put its record there")
    refuse_changed_file(config["settings"], place)
    return models.NETWORKS[name]


def network_argument(text):
    """A name in models.NETWORKS, or FILE.py:FUNCTION, for argparse."""
    if text not in models.NETWORKS and not own.is_own(text):
        names = ", ".join(map(repr, models.NETWORKS))
        raise argparse.ArgumentTypeError(f"invalid choice: {text!r} (choose from {names}, {own.FORM})")
    return text


def own_network_argument(text):
    """FILE.py:FUNCTION, for argparse."""
    if not own.is_own(text):
        raise argparse.ArgumentTypeError(f"{text} is not {own.FORM}; networks of other names need no --model here")
    return text


def add_own_network_argument(parser):
    """--model of commands that go on with runs: no file is run because a run folder names it."""
    parser.add_argument(
        "--model",
        type=own_network_argument,
        metavar=own.FORM,
        help="of runs of a network of your own: its file, as it was given to train.py",
    )


def use_own_network(given, runs):
    """Load the network of a user's own that runs were trained with, FILE.py:FUNCTION, given on the command line; or None.

    Raises BadInput where it is needed and not given, or the reverse, and Refused where its file has changed.
    """
    registered = set()
    for run in runs:
        settings = run.settings
        name = settings["model"]
        if "model_digest" not in settings:
            if given:
                raise BadInput(
                    f"--model {given}: {run.path} was trained with {name}, which needs no file; leave it out"
                )
            continue
        if not given or own.name_of(given) != name:
            fix = f"give --model {given and 'that, not ' + given or 'PATH/' + name}"
            raise BadInput(f"{run.path}: was trained with {name}, a network of its user's own; {fix}")
        built_for = settings["classes"], settings["shape"]["side"]
        if built_for not in registered:
            own.register(given, *built_for)
            registered.add(built_for)
        refuse_changed_file(settings, f"{run.path}: ")


def refuse_changed_file(settings, place):
    """Raise Refused where the network of some settings is another one in models.NETWORKS than that of a run."""
    there, now = settings.get("model_digest"), models.NETWORKS[settings["model"]].digest
    if there != now:
        there, now = (digest[:8] if digest else "none" for digest in (there, now))
        raise Refused(
            f"{place}the file of {settings['model']} has changed (sha256 {there} there, now {now}); restore it, or train anew"
        )


def chosen_network(name, task):
    """The name of a network, given that it is one for the task. Raises BadInput."""
    if name not in models.NETWORKS or models.NETWORKS[name].task != task:
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
    asked = {name: getattr(args, name, None) for name in shape_names()}  # a user's own may have others
    asked = {name: number for name, number in asked.items() if number is not None}
    if args.width is not None and network.width is None:
        asked["width"] = args.width
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
    is_own = network.digest is not None  # it may do what needs numbers
    try:
        with contextlib.nullcontext() if is_own else torch.device("meta"):  # without its numbers
            built = network.build(settings["width"], settings["classes"], **settings["shape"])
    except ValueError as error:
        raise BadInput(f"{name}: {error}; {fix}") from None
    except (RuntimeError, OverflowError, TypeError):  # numbers of parameters that no 64 bits hold
        raise BadInput(f"{name}: is far too large; {fix}") from None
    refuse_too_large(name, built, fix, device)


def refuse_too_large(name, network, fix, device):
    """Raise BadInput, with the fix, where the memory of a device holds no training of a network."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    needed = COPIES * torch.float32.itemsize * parameters
    require_memory(needed, f"{name}: a network of {parameters:,} parameters", fix, device)


def refuse_unfit_own_network(given, config, image_set, device):
    """Raise BadInput where a user's own network, or its record, is none that a run of this config could be made with."""
    settings = config["settings"]
    try:
        fault = schema.fault_of_config(json.loads(json.dumps(config)), {})
    except TypeError as error:
        fault = str(error)
    if fault:
        raise BadInput(f"--model {given}: the record that it returns does not fit ({fault}); mend it there")
    chosen = torch.arange(own.IMAGES) % len(image_set.train_labels)
    images, labels = image_set.train_images[chosen].cpu(), image_set.train_labels[chosen].cpu()
    [lr] = config["members"][0]["lrs"]
    network = own.try_out(given, settings, lr, image_set.normalise(images), labels)
    refuse_too_large(settings["model"], network, "make it smaller", device)


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
