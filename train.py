"""Pre-train at a fixed learning rate: stage one of "Where Do Large Learning Rates Lead Us?" (arXiv 2410.22113).

This file owns the training loop, and the training of every network; finetune.py and swa.py import them.
"""

import functools
import math
import os
import sys
import time

import torch
from torch.nn import functional as F

import models
from data import augment, images, ticks
from data.commandline import BadInput, Parser, Progress, natural, positive_float, positive_int, run
from data.device import (
    BF16,
    EVALUATION_BATCH,
    FP32,
    TF32,
    add_device_argument,
    autocast,
    device_of,
    use_precision,
)
from data.runs import RUNNING, SERIES, OpenRun, Run, loss_name
from data.seeds import generator, init_seed
from models import batchnorm, evaluation, mlp, sphere
from models.batchnorm import REESTIMATION_BATCH
from models.cudagraph import captured

STEPS_HELP = "length of the run: epochs of an image set, iterations for ticks"
SMALLEST_IMAGE = 8  # pixels of a side


class ImageTraining:
    """A scale-invariant image network on an image set. It has one member, and a step is one epoch.

    settings: model, width, batch_size, rho, compile, precision, augment, first_step (epochs of earlier stages, which
    data order and augmentation go on from).
    """

    unit = "epoch"

    def __init__(self, settings, members, device, image_set):
        [member] = members
        self.lr, self.seed = member["lrs"][-1], member["seed"]
        self.settings, self.data, self.device = settings, image_set, device
        use_precision(settings["precision"], device)
        self.network = models.build(
            settings["model"], settings["width"], len(image_set.classes), init_seed(self.seed)
        )
        self.weights, self.gradient = models.place(self.network, device)
        sphere.project_(self.weights, settings["rho"])
        # Train loss and correct predictions since the last logged step, summed where the host need not wait for them.
        self.totals = torch.zeros(2, device=device)
        compiles = settings["compile"] and can_compile(device)
        self.forward = torch.compile(self.network, dynamic=False) if compiles else self.network
        self.replays = {} if device.type == "cuda" else None

    def advance(self, step, until):
        """Train from a step to a later one. Returns train loss and accuracy as met on the way, [members] each."""
        first_step, size = self.settings["first_step"], len(self.data.train_labels)
        train_on = self._step if self.replays is None else self._replay
        self.totals.zero_()
        self.network.train()
        for epoch in range(first_step + step, first_step + until):
            for visits in self._visits(epoch).to(self.device).split(self.settings["batch_size"]):
                train_on(visits)
        loss, accuracy = (self.totals / (size * (until - step))).tolist()
        return {"train_loss": torch.tensor([loss]), "train_accuracy": torch.tensor([accuracy])}

    def _visits(self, epoch):
        """What an epoch visits, int64 [images, 1 or 4]: indices of images, and what augmentation does with them."""
        size = len(self.data.train_labels)
        order = images.epoch_order(self.seed, epoch, size)[:, None]
        if self.settings["augment"] == augment.NONE:
            return order
        return torch.cat([order, augment.crops_and_flips(self.seed, epoch, size)], dim=1)

    def _step(self, visits):
        """One step of projected SGD on a batch of visits. Nothing in it makes the host wait for the device."""
        chosen = visits[:, 0]
        pixels, labels = self.data.train_images[chosen], self.data.train_labels[chosen]
        if self.settings["augment"] == augment.CROP_FLIP:
            pixels = augment.crop_and_flip(pixels, visits[:, 1:])
        self.gradient.zero_()
        with self._autocast():
            logits = self.forward(images.normalise(pixels))
            loss = F.cross_entropy(logits, labels)
            self.totals += evaluation.loss_and_correct(logits, labels)
        loss.backward()
        sphere.projected_step_(self.weights, self.gradient, self.lr, self.settings["rho"])

    def _replay(self, visits):
        """_step() as a CUDA graph, one for each size of batch, of which there are two at most."""
        if len(visits) not in self.replays:
            state = [self.weights, self.totals, *self.network.buffers()]
            self.replays[len(visits)] = captured(self._step, state, visits)
        self.replays[len(visits)](visits)

    def _autocast(self):
        return autocast(self.settings["precision"], self.device)

    def evaluate(self):
        """Test loss and accuracy with the running batch-norm statistics."""
        self.network.eval()
        test = images.batches(self.data.test_images, self.data.test_labels, EVALUATION_BATCH[self.device.type])
        with self._autocast():
            loss, accuracy = evaluation.evaluate(self.forward, test)
        return {"test_loss": torch.tensor([loss]), "test_accuracy": torch.tensor([accuracy])}

    def evaluate_train(self):
        """Train loss and accuracy without training or augmentation, with batch statistics as in advance()."""
        train = images.batches(self.data.train_images, self.data.train_labels, self.settings["batch_size"])
        with self._autocast():
            loss, accuracy = evaluation.evaluate_with_batch_statistics(self.network, train)
        return {"train_loss": torch.tensor([loss]), "train_accuracy": torch.tensor([accuracy])}

    def tensors(self):
        """Weights [1, parameters], and the rest of the network's state (running statistics, frozen classifier)."""
        return {
            "weights": self.weights.clone(),
            "buffers": {name: tensor.clone() for name, tensor in models.untrained_state(self.network).items()},
        }

    def load(self, tensors):
        """Put what tensors() gave in place."""
        self.weights.copy_(tensors["weights"])
        models.load_untrained_state(self.network, tensors["buffers"])

    def load_average(self, weights):
        """Put averaged weights in place, which trained statistics do not fit: re-estimate those (paper, appendix A)."""
        self.weights.copy_(weights)
        train = images.batches(self.data.train_images, self.data.train_labels, REESTIMATION_BATCH)
        with self._autocast():
            batchnorm.reestimate(self.network, train)


MEMBERS_PER_PART = 230  # of a folder on ticks: more leave a processor's cache, fewer leave it waiting for Python


class TickTraining:
    """The MLPs of the synthetic study on ticks, many members in one program. A step is one SGD iteration.

    settings: batch_size, rho, compile, first_step (iterations of earlier stages). members: {"lrs", "seed",
    "data_seed"}, those with the same pair of seeds (a group) side by side and equally many; the last of lrs is in use.
    """

    unit = "iteration"

    def __init__(self, settings, members, device):
        groups = ticks.groups(members)
        train_inputs, train_labels, test_inputs, test_labels = (
            tensor.to(device) for tensor in ticks.stacked_sets([data_seed for data_seed, _ in groups])
        )
        self.train_set, self.test_set = (train_inputs, train_labels), (test_inputs, test_labels)
        self.seeds = [seed for _, seed in groups]
        self.compiled = settings.get("compile", False) and can_compile(device)
        self.first_step, self.batch_size, self.rho = (
            settings[name] for name in ("first_step", "batch_size", "rho")
        )
        self.learning_rates = torch.tensor([member["lrs"][-1] for member in members], device=device)
        # The initial point depends on the training seed alone and the frozen layer on the data seed alone.
        points = [mlp.initial_weights(generator("initial-weights", member["seed"])) for member in members]
        frozen = [mlp.frozen_layer(generator("frozen-layer", data_seed)) for data_seed, _ in groups]
        self._start(self.rho * torch.stack(points), torch.stack(frozen))

    def _start(self, weights, frozen):
        """Begin with weights; the members of some groups are a part that is trained at once, on a GPU all of them."""
        device = self.learning_rates.device
        self.frozen = frozen.to(device)
        groups, members_per_group = len(frozen), len(weights) // len(frozen)
        parts = 1 if device.type == "cuda" else min(groups, math.ceil(len(weights) / MEMBERS_PER_PART))
        self.parts = []
        for part in torch.arange(groups).tensor_split(parts):
            begin, end = part[0].item(), part[-1].item() + 1
            members = slice(begin * members_per_group, end * members_per_group)
            start = (weights[members].to(device), self.frozen[begin:end], self.learning_rates[members])
            trainer = mlp.MlpTrainer(*start, self.batch_size, self.rho, self.compiled)
            self.parts.append((slice(begin, end), trainer))

    @property
    def weights(self):
        return torch.cat([trainer.weights for _, trainer in self.parts])

    def advance(self, step, until):
        """Train from a step to a later one. Returns train loss and accuracy over the training set, [members] each."""
        for groups, trainer in self.parts:
            self._advance_part(groups, trainer, self.first_step + step, self.first_step + until)
        return self.evaluate_train()

    def _advance_part(self, groups, trainer, now, until):
        per_pass = ticks.TRAIN_SIZE // self.batch_size
        inputs, labels = (tensor[groups] for tensor in self.train_set)
        while now < until:
            pass_index, position = divmod(now, per_pass)
            batches = ticks.minibatches(inputs, labels, self.seeds[groups], pass_index, self.batch_size)
            stop = min(per_pass, position + until - now)
            for x, y in zip(*(tensor[position:stop] for tensor in batches)):
                trainer.step(x, y)
            now += stop - position

    def evaluate(self):
        """Test loss and accuracy."""
        loss, accuracy = mlp.evaluate(self.weights, self.frozen, *self.test_set)
        return {"test_loss": loss.cpu(), "test_accuracy": accuracy.cpu()}

    def evaluate_train(self):
        """Loss and accuracy over the training set."""
        loss, accuracy = mlp.evaluate(self.weights, self.frozen, *self.train_set)
        return {"train_loss": loss.cpu(), "train_accuracy": accuracy.cpu()}

    def tensors(self):
        """Weights [members, 2048] and the frozen last layers [groups, 32]."""
        return {"weights": self.weights, "buffers": {"frozen": self.frozen}}

    def load(self, tensors):
        """Put what tensors() gave in place."""
        self._start(tensors["weights"], tensors["buffers"]["frozen"])

    def load_average(self, weights):
        """Put averaged weights in place, of any norm; layer norm has no statistics to re-estimate."""
        self._start(weights, self.frozen)


def complete_run(path, config, device, work):
    """Hold a run folder and, unless it is complete already, complete it with the metrics that work(run, task) returns.

    Raises Refused and BadInput as OpenRun does.
    """
    with OpenRun(path, config, device) as run:
        if not run.complete:
            run.finish(work(run, make_task(config, device)))
        print(f"{run.path}: complete")


def train(run, task, start, checkpoint_seconds, averages=None):
    """The training loop of every stage: train to each logged step, measure, record; resumes where the folder stands.

    run: OpenRun. task: ImageTraining or TickTraining. start: tensors to begin a new run with, as task.tensors() gives
    them, or None for the task's initialisation. averages: an object with add(step, weights) and a dictionary `sums`
    of tensors, which becomes part of the checkpoint (see swa.py).
    Returns the metrics, on disk like the last checkpoint, their status still `running`: see OpenRun.finish().
    """
    steps, log_every, keep = (run.settings[name] for name in ("steps", "log_every", "keep"))
    resumed = run.resume()
    if resumed is None:
        if start is not None:
            task.load(start)
        metrics = {"status": RUNNING, "unit": task.unit, "diverged_at": [None] * len(task.weights)}
        metrics |= {name: [] for name in SERIES}
        checkpoint = record(0, task.evaluate_train(), task, metrics, run, keep, averages)
    else:
        checkpoint, metrics = resumed
        task.load(checkpoint)
        if averages is not None:
            averages.sums = {k: total.to(task.weights.device) for k, total in checkpoint["averages"].items()}
    stops = sorted({*range(log_every, steps, log_every), *keep, steps} - {*range(checkpoint["step"] + 1)})
    until_loss, keep_losses = run.settings["until_loss"], run.settings["keep_loss"]
    saved_at = time.monotonic()
    try:
        with Progress(str(run.path), steps, task.unit, checkpoint["step"]) as progress:
            for stop in stops:
                if None not in metrics["diverged_at"]:  # every member diverged
                    break
                if until_loss is not None and all(loss < until_loss for loss in losses_at(metrics, -1)):
                    break
                train_metrics = task.advance(checkpoint["step"], stop)
                later = record(stop, train_metrics, task, metrics, run, keep, averages)
                if keep_losses:  # before this step can be the one to resume from
                    keep_crossed_losses(keep_losses, checkpoint, later, metrics, run)
                checkpoint = later
                progress.update(stop, summary(metrics))
                if time.monotonic() - saved_at >= checkpoint_seconds:
                    run.save(metrics, checkpoint)
                    saved_at = time.monotonic()
    finally:  # also when interrupted: the checkpoint is that of the last logged step
        run.save(metrics, checkpoint)
    return metrics


def record(step, train_metrics, task, metrics, run, keep, averages):
    """Measure and append to metrics at a logged step; returns the checkpoint of that step."""
    measured = {**train_metrics, **task.evaluate()}
    finite = torch.isfinite(task.weights).all(dim=1).cpu() & torch.isfinite(measured["train_loss"])
    metrics["diverged_at"] = [
        step if earlier is None and not is_finite else earlier
        for earlier, is_finite in zip(metrics["diverged_at"], finite.tolist())
    ]
    metrics["step"].append(step)
    for name, values in measured.items():
        metrics[name].append(values)
    checkpoint = {"step": step, **task.tensors()}
    if averages is not None:
        averages.add(step, task.weights)
        checkpoint["averages"] = {name: total.clone() for name, total in averages.sums.items()}
    if step in keep:
        run.keep(f"step-{step}", checkpoint)
    return checkpoint


def losses_at(metrics, position):
    """The train losses of the members at a logged step as numbers, NaN where not finite."""
    return [math.nan if loss is None else float(loss) for loss in metrics["train_loss"][position]]


def keep_crossed_losses(levels, earlier, checkpoint, metrics, run):
    """Keep the weights of a run with one member at the first crossing of each level of train loss, as loss-LEVEL.pt.

    A level is crossed at the first logged step with a loss below it, if the initial point's is not. What is kept is the
    checkpoint of that step or of the logged one before, whichever has the closer loss on a log scale.
    """
    [last], [now] = losses_at(metrics, -2), losses_at(metrics, -1)
    for level in levels:
        crosses = last >= level > now
        if crosses and not any(
            losses_at(metrics, position)[0] < level for position in range(len(metrics["step"]) - 1)
        ):
            closer = earlier if last * now < level**2 else checkpoint
            run.keep(loss_name(level), closer)


def summary(metrics):
    """The latest measurement as a short text: means over the members that have not diverged."""
    alive = [diverged is None for diverged in metrics["diverged_at"]]
    latest = {name: metrics[name][-1][alive].mean().item() for name in SERIES if name != "step"}
    diverged = f", {alive.count(False)} diverged" if False in alive else ""
    return (
        f"train loss {latest['train_loss']:.4g}, train accuracy {100 * latest['train_accuracy']:.2f} %, "
        f"test accuracy {100 * latest['test_accuracy']:.2f} %{diverged}"
    )


def make_task(config, device):
    """The training task that a config describes. Raises BadInput where its data are missing or not the same."""
    settings, members = config["settings"], config["members"]
    if settings["data"] == ticks.NAME:
        return TickTraining(settings, members, device)
    image_set = images.load_image_set_of(config, device)
    return ImageTraining(settings, members, device, image_set)


@functools.cache
def can_compile(device):
    """Whether torch.compile works here: it needs a C++ compiler, or Triton on a GPU. Says so if it does not."""
    try:
        torch.compile(lambda numbers: numbers + 1)(torch.zeros(8, device=device))
    except Exception as error:  # its kind depends on what is missing, and on the version of PyTorch
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        print(f"--compile: cannot compile here ({cause}); going on without, which is slower", file=sys.stderr)
        return False
    return True


def finished_runs(paths):
    """Runs to continue, all checked before the first is. Raises BadInput for one that is not complete."""
    runs = [Run(path) for path in paths]
    for parent in runs:
        if parent.config["stage"] == "swa":
            raise BadInput(f"{parent.path}: is an SWA run; give the run that it continued, or another")
        if not parent.complete:
            raise BadInput(f"{parent.path}: is not complete; finish it first by the command that began it")
    return runs


def describe_child(stage, parent, path, step, lrs, steps, log_every, data_file, keep_losses=()):
    """The config of a run at `path` that continues `parent` (a Run) from one of its steps, lrs appended to its own.

    Raises BadInput, before anything is written, where the parent has not kept that step.
    """
    kept = sorted({kept for kept in parent.settings["keep"] if kept < parent.last_step} | {parent.last_step})
    if step not in kept:
        raise BadInput(
            f"{parent.path}: has no weights of step {step}, only of {', '.join(map(str, kept))}; "
            f"more are kept by train.py --keep"
        )
    settings = parent.settings | {
        "first_step": parent.settings["first_step"] + step,
        "steps": steps,
        "log_every": log_every,
        "keep": [],
        "until_loss": None,
        "keep_loss": sorted(set(keep_losses)),
    }
    return {
        "stage": stage,
        "settings": settings,
        "members": [{**member, "lrs": member["lrs"] + lrs} for member in parent.members],
        "parent": {"run": os.path.relpath(parent.path, path), "step": step},
        "data_file": data_file or parent.config["data_file"],
    }


def add_continuing_arguments(parser):
    """Arguments of the stages that continue finished runs."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of complete runs")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the new run folders")
    parser.add_argument("--data-file", help="image set, where it is no longer where the run had it")
    add_execution_arguments(parser)


def add_keep_loss_argument(parser):
    parser.add_argument(
        "--keep-loss",
        nargs="+",
        type=positive_float,
        default=[],
        metavar="LOSS",
        help="levels of train loss: weights stay on disk where it first crosses them (image networks)",
    )


def add_execution_arguments(parser):
    """Arguments of every stage that do not change its results."""
    add_device_argument(parser)
    parser.add_argument(
        "--checkpoint-seconds",
        type=natural,
        default=60,
        help="seconds between checkpoints; 0 for one at every logged step",
    )


def main():
    parser = Parser(
        description="Pre-train a scale-invariant network at a fixed effective learning rate.",
        example="python train.py --data datasets/cifar10.pt --model si-resnet18 --lr 1e-3 --steps 200 --out runs/plr1e-3",
    )
    parser.add_argument("--out", required=True, help="run folder; the same command again resumes it")
    parser.add_argument(
        "--data", required=True, help=f"`{ticks.NAME}`, or an image set prepared by python -m data"
    )
    parser.add_argument(
        "--model", choices=models.IMAGE_NETWORKS, help="network for an image set; ticks have their MLP"
    )
    parser.add_argument("--width", type=positive_int, help="width of an image network (default: 32)")
    parser.add_argument(
        "--lr", nargs="+", type=positive_float, required=True, help="effective learning rates (PLR)"
    )
    parser.add_argument(
        "--seed", nargs="+", type=natural, default=[1], help="of the initial point and the data order"
    )
    parser.add_argument(
        "--data-seed", nargs="+", type=natural, help="of the ticks and their frozen layer (default: 1)"
    )
    parser.add_argument("--steps", type=positive_int, required=True, help=STEPS_HELP)
    parser.add_argument(
        "--batch-size", type=positive_int, help="samples (default: 128 for an image set, 16 for ticks)"
    )
    parser.add_argument(
        "--rho", type=positive_float, help="radius of the sphere (default: the paper's for the network)"
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the training step: starts some seconds later, runs faster; needs a C++ compiler",
    )
    parser.add_argument(
        "--precision",
        choices=[FP32, TF32, BF16],
        help="of an image network's forward and backward passes: tf32 on GPUs, bf16 where the processor has it "
        "(default: fp32)",
    )
    parser.add_argument(
        "--augment",
        choices=[augment.NONE, augment.CROP_FLIP],
        help="of training images: random crops, padded by 4 black pixels, and flips (default: none)",
    )
    parser.add_argument(
        "--log-every", type=positive_int, help="steps between measurements (default: 1; ticks: 1000)"
    )
    parser.add_argument("--keep", nargs="+", type=natural, default=[], help="steps whose weights stay on disk")
    parser.add_argument(
        "--until-loss", type=positive_float, help="stop at the first logged step with a train loss below this"
    )
    add_keep_loss_argument(parser)
    add_execution_arguments(parser)
    args = parser.parse_args()

    device = device_of(args.device)
    config = describe_ticks(args) if args.data == ticks.NAME else describe_images(args, device)
    complete_run(args.out, config, device, lambda run, task: train(run, task, None, args.checkpoint_seconds))


def describe_ticks(args):
    """The config of a pre-training on ticks: all learning rates of a pair of seeds stand together."""
    unwanted = [name for name in ("model", "width", "precision", "augment", "keep_loss") if getattr(args, name)]
    if unwanted:
        raise BadInput(
            f"--{unwanted[0].replace('_', '-')}: is for image networks; ticks have the one MLP of the paper; leave it out"
        )
    if (args.batch_size or 0) > ticks.TRAIN_SIZE:
        raise BadInput(f"--batch-size {args.batch_size}: there are only {ticks.TRAIN_SIZE} training samples")
    members = [
        {"lrs": [lr], "seed": seed, "data_seed": data_seed}
        for data_seed in dict.fromkeys(args.data_seed or [1])
        for seed in dict.fromkeys(args.seed)
        for lr in dict.fromkeys(args.lr)
    ]
    settings = {
        "data": ticks.NAME,
        "classes": 2,
        "model": "si-mlp",
        "batch_size": args.batch_size or ticks.BATCH_SIZE,
        "rho": args.rho or 1.0,
        "compile": args.compile,
    }
    return describe_pretraining(args, settings, members, log_every=args.log_every or 1000)


def describe_images(args, device):
    """The config of a pre-training on an image set: one member."""
    if args.model is None:
        raise BadInput(f"--model: name the network for an image set: {', '.join(models.IMAGE_NETWORKS)}")
    if args.data_seed is not None:
        raise BadInput("--data-seed: only ticks are drawn by a seed; leave it out")
    if len(args.lr) > 1 or len(args.seed) > 1:
        raise BadInput(
            f"{args.model} trains one learning rate and seed per folder; loop over them: for lr in "
            f"{' '.join(f'{lr:g}' for lr in args.lr)}; do for seed in {' '.join(map(str, args.seed))}; do "
            f"python train.py ... --lr $lr --seed $seed --out {args.out}/plr$lr-seed$seed; done; done"
        )
    use_precision(args.precision or FP32, device)
    image_set = images.load_once(args.data, device)
    if image_set.train_images.shape[-1] < SMALLEST_IMAGE:
        raise BadInput(
            f"{args.data}: its images are smaller than {SMALLEST_IMAGE} pixels; the networks halve them thrice"
        )
    settings = {
        "data": image_set.name,
        "digest": image_set.digest,
        "classes": len(image_set.classes),
        "model": args.model,
        "width": args.width or 32,
        "batch_size": args.batch_size or 128,
        "rho": args.rho or models.IMAGE_NETWORKS[args.model].rho,
        "compile": args.compile,
        "precision": args.precision or FP32,
        "augment": args.augment or augment.NONE,
    }
    members = [{"lrs": args.lr, "seed": args.seed[0]}]
    return describe_pretraining(args, settings, members, log_every=args.log_every or 1)


def describe_pretraining(args, settings, members, log_every):
    beyond = [step for step in args.keep if step > args.steps]
    if beyond:
        raise BadInput(f"--keep {beyond[0]}: lies beyond --steps {args.steps}")
    length = {
        "first_step": 0,
        "steps": args.steps,
        "log_every": log_every,
        "keep": sorted(set(args.keep)),
        "until_loss": args.until_loss,
        "keep_loss": sorted(set(args.keep_loss)),
    }
    return {
        "stage": "pretrain",
        "settings": settings | length,
        "members": members,
        "parent": None,
        "data_file": None if args.data == ticks.NAME else args.data,
    }


if __name__ == "__main__":
    run(main)
