"""Pre-train at a fixed learning rate: stage one of "Where Do Large Learning Rates Lead Us?" (arXiv 2410.22113).

This file owns the training loop, and the iteration of image networks; that of the MLPs on ticks is in models/mlp.py.
finetune.py and swa.py import them.
"""

import data.startup  # noqa: F401 # isort: skip - before all else
import heapq
import itertools
import math
import statistics
import time

import torch
from torch.nn import functional as F

import models
from data import augment, images, ticks
from data.analysis import regimes
from data.commandline import (
    BadInput,
    Parser,
    Progress,
    natural,
    positive_float,
    positive_int,
    radius,
    run,
    save_requested,
    say,
)
from data.device import BF16, FP32, TF32, add_device_argument, device_of, use_precision
from data.files import as_written
from data.open_run import OpenRun, is_finished, refuse_shared_folders
from data.runs import FORMAT, RUNNING, SERIES, is_run, loss_name, step_name
from data.seeds import init_seed, seed_of
from models import dropout, optimizers, own, sphere
from models.batchnorm import REESTIMATION_BATCH, batch_norms
from models.compiled import compiled_or_plain, unchanged
from models.cudagraph import captured
from models.evaluator import Evaluator, loss_and_correct
from models.requests import (
    OPTIMIZER_OPTIONS,
    add_own_network_argument,
    chosen_network,
    network_argument,
    network_of,
    networks_with,
    optimizer_of,
    refuse_single_images,
    refuse_unfit_own_network,
    refuse_unfit_shape,
    shape_names,
    shape_of,
)
from models.tick_training import TickTraining

STEPS_HELP = (
    "length of the run: epochs of an image set, iterations for ticks; a run that is there goes on to a larger one"
)


class ImageTraining:
    """An image network on an image set. It has one member, and a step of the run is one epoch.

    settings: model, width, shape, optimizer, batch_size, rho, compile, precision, augment, first_step (epochs of
    earlier stages, which sample order, augmentation and dropout go on from).
    """

    unit = "epoch"

    @staticmethod
    def load_data(config, device):
        """The image set of a run. Raises BadInput where it is missing or another, or the device lacks the precision."""
        if len(config["members"]) > 1:
            raise BadInput(f"{len(config['members'])} members of an image network: it has one in every run folder")
        use_precision(config["settings"]["precision"], device)
        return images.load_image_set_of(config, device)

    def __init__(self, settings, members, device, image_set):
        [member] = members
        self.lr, self.seed = member["lrs"][-1], member["seed"]
        self.settings, self.data, self.device = settings, image_set, device
        self.train_images = image_set.train_images  # as an epoch's batches are picked from
        if settings["augment"] == augment.RANDAUGMENT:
            self.train_images = self.train_images.clone()  # it changes with every epoch
        width, classes = settings["width"], len(image_set.classes)
        network = models.build(settings["model"], width, classes, init_seed(self.seed), **settings["shape"])
        self.generators = dropout.use_generator(network, torch.Generator(device))
        self.evaluator = Evaluator(network, device, settings["precision"] == BF16)
        self.weights = self.evaluator.weights
        if settings["rho"] is not None:
            sphere.project_(self.weights, settings["rho"])
        self.optimizer = optimizers.build(
            self.weights, self.evaluator.gradient, self.lr, settings["optimizer"], settings["rho"]
        )
        # Train loss and correct predictions since the last logged epoch, summed where the host need not wait for them.
        self.totals = torch.zeros(2, device=device)
        if settings["compile"]:
            self.evaluator.forward = compiled_or_plain(network, self._try_compiled)
        self.replays = {} if device.type == "cuda" else None

    def advance(self, step, until):
        """Train from an epoch to a later one. Returns running train loss and accuracy, [members] each."""
        first_step, size = self.settings["first_step"], len(self.data.train_labels)
        train_on = self._step if self.replays is None else self._replay
        self.totals.zero_()
        self.evaluator.network.train()
        for epoch in range(first_step + step, first_step + until):
            for random in self.generators:
                random.manual_seed(seed_of("network", self.seed, epoch))
            self._augment_images(epoch)
            for samples in self._samples(epoch).to(self.device).split(self.settings["batch_size"]):
                train_on(samples)
        loss, accuracy = (self.totals / (size * (until - step))).tolist()
        return {"train_loss": torch.tensor([loss]), "train_accuracy": torch.tensor([accuracy])}

    def _augment_images(self, epoch):
        """RandAugment of all training images, in place, as a CUDA graph has to find them where they were."""
        if self.settings["augment"] == augment.RANDAUGMENT:
            choices = augment.randaugment_choices(self.seed, epoch, len(self.train_images))
            self.train_images.copy_(augment.randaugment(self.data.train_images, choices))

    def _samples(self, epoch):
        """What an epoch trains on, int64 [images, 1 or 4]: indices of images, and how they are cropped and flipped."""
        size, side = len(self.train_images), self.train_images.shape[-1]
        order = images.epoch_order(self.seed, epoch, size)[:, None]
        if self.settings["augment"] == augment.NONE:
            return order
        return torch.cat([order, augment.crops_and_flips(self.seed, epoch, size, side)], dim=1)

    def _step(self, samples):
        """One iteration on a batch of samples. Nothing in it makes the host wait for the device."""
        chosen = samples[:, 0]
        pixels, labels = self.train_images[chosen], self.data.train_labels[chosen]
        if self.settings["augment"] != augment.NONE:
            pixels = augment.crop_and_flip(pixels, samples[:, 1:])
        self.evaluator.gradient.zero_()
        with self.evaluator.autocast():
            logits = self.evaluator.forward(self.data.normalise(pixels))
            loss = F.cross_entropy(logits, labels)
            self.totals += loss_and_correct(logits, labels)
        loss.backward()
        self.optimizer.step()

    def _replay(self, samples):
        """_step() as a CUDA graph, one for each size of batch, of which there are two at most."""
        if len(samples) not in self.replays:
            self.replays[len(samples)] = captured(self._step, self._changes(), samples, generators=self.generators)
        self.replays[len(samples)](samples)

    def _changes(self):
        """The tensors that _step() changes."""
        state = optimizers.state_of(self.optimizer).values()
        return [self.weights, self.totals, *state, *self.evaluator.network.buffers()]

    def _try_compiled(self, compiled):
        """Train and evaluate on batches of all the sizes there are with a compiled network, and leave no trace."""
        self.evaluator.forward = compiled
        with unchanged(self._changes(), self.generators):
            batches = self._samples(0).to(self.device).split(self.settings["batch_size"])
            self.evaluator.network.train()
            for samples in {len(samples): samples for samples in batches}.values():
                self._step(samples)
            batches = self.data.test_batches()
            first = last = next(batches)
            for last in batches:  # noqa: B007 - only the last one may be smaller
                pass
            self.evaluator.evaluate([first, last])

    def evaluate(self):
        """Test loss and accuracy with the running batch-norm statistics."""
        loss, accuracy = self.evaluator.evaluate(self.data.test_batches())
        return {"test_loss": torch.tensor([loss]), "test_accuracy": torch.tensor([accuracy])}

    def evaluate_train(self):
        """Train loss and accuracy without training or augmentation, with batch statistics as in advance()."""
        train_batches = self.data.train_batches(self.settings["batch_size"])
        loss, accuracy = self.evaluator.evaluate_with_batch_statistics(train_batches)
        return {"train_loss": torch.tensor([loss]), "train_accuracy": torch.tensor([accuracy])}

    def evaluate_reestimated(self):
        """Test loss and accuracy with batch-norm statistics re-estimated over the training set; None without batch norm.

        They take the place of the running ones.
        """
        if not batch_norms(self.evaluator.network):
            return None
        self.evaluator.reestimate(self.data.train_batches(REESTIMATION_BATCH))
        return self.evaluate()

    def solution(self):
        """Weights [1, parameters], and the rest of the network's state (running statistics, frozen classifier)."""
        return self.evaluator.solution()

    def state(self):
        """All that training goes on from: solution() and the optimiser's state."""
        state = optimizers.state_of(self.optimizer)
        return self.solution() | {"optimizer": {name: tensor.clone() for name, tensor in state.items()}}

    def start_from(self, solution):
        """Begin a stage at a solution, with an optimiser that begins anew. Raises ValueError for one of another network."""
        self.evaluator.load(solution)
        optimizers.clear_state(self.optimizer)

    def resume(self, state):
        """Go on from what state() gave, also of another run. Runs from before there was a state have none.

        Raises ValueError for what is of another network.
        """
        self.evaluator.load(state)
        optimizers.load_state(self.optimizer, state.get("optimizer", {}))

    def load_average(self, weights):
        """Put averaged weights in place, with batch-norm statistics re-estimated over the training set."""
        self.evaluator.load_average(weights, self.data.train_batches(REESTIMATION_BATCH))


def complete_run(path, config, device, work, place=""):
    """Hold a run folder and, unless it is complete already, complete it with the metrics that work(run, task) returns.

    place: which of several runs it is, for the user, as ` (run 3 of 8)`.
    Raises Refused and BadInput as OpenRun does, and BadInput, before anything is written, where the run cannot be made.
    """
    task = None if is_run(path) else make_task(config, device, load_data(config, device))
    with OpenRun(path, config, device) as run:
        run.name = f"{path}{place}"
        if not run.complete:
            task = task or make_task(config, device, load_data(config, device))
            run.take_length()
            run.finish(work(run, task))
        say(f"{run.name}: complete")


def refuse_what_cannot_be_made(children, device):
    """Raise Refused or BadInput where a command could not make one of its runs, [(parent, folder, config)], before the
    first write of all: the folder is that of another, weights or image set are missing or damaged, or memory is short.

    Weights and image sets are read wholly, each once.
    """
    refuse_shared_folders((path, config) for _, path, config in children)
    beginnings, networks = {}, {}
    for parent, path, config in children:
        if not is_finished(path, config):
            begun, settings = config["parent"], config["settings"]
            beginnings[parent.path, begun["step"], begun["sha256"]] = parent
            if network_of(config).task == "images":
                load_data(config, device)
                networks[repr([settings[name] for name in ("model", "width", "classes", "shape")])] = config
    for config in networks.values():
        fix = "stop other programs, or use another --device"
        refuse_unfit_shape(config["settings"]["model"], network_of(config), config["settings"], device, fix)
    for (_, step, digest), parent in beginnings.items():
        parent.weights_at(step, digest=digest)


def place_of(number, count):
    """Which of several runs of a command one is, for the user: ` (run 3 of 8)`; nothing of a single one."""
    return f" (run {number} of {count})" if count > 1 else ""


def train(run, task, checkpoint_seconds, averages=None):
    """The training loop of every stage: train to each logged step, measure, record; resumes where the folder stands.

    run: OpenRun. task: ImageTraining or TickTraining, where a new run begins. averages: an object with
    add(step, weights), a dictionary `sums` of tensors, which becomes part of the checkpoint, and resume(sums, weights)
    (see swa.py).
    Returns the metrics, on disk like the last checkpoint, their status still `running`: see OpenRun.finish().
    """
    steps, log_every, keep = (run.settings[name] for name in ("steps", "log_every", "keep"))

    def go_on_from(checkpoint):
        task.resume(checkpoint)
        if averages is not None:
            averages.resume(checkpoint.get("averages"), task.weights)

    resumed = run.resume(go_on_from)
    if resumed is None:
        metrics = {"status": RUNNING, "unit": task.unit, "diverged_at": [None] * len(task.weights)}
        metrics |= {name: [] for name in SERIES}
        checkpoint = record(0, task.evaluate_train(), task, metrics, run, keep, averages)
    else:
        checkpoint, metrics = resumed
    keep_losses = run.settings["keep_loss"]
    saved_at = time.monotonic()
    try:
        with Progress(run.name, steps, task.unit, checkpoint["step"]) as progress:
            for stop in logged_steps(steps, log_every, keep, after=checkpoint["step"]):
                if is_over(run, metrics):
                    break
                train_metrics = task.advance(checkpoint["step"], stop)
                later = record(stop, train_metrics, task, metrics, run, keep, averages)
                if keep_losses:  # before this step can be the one to resume from
                    keep_crossed_losses(keep_losses, checkpoint, later, metrics, run)
                checkpoint = later
                progress.update(stop, summary(metrics, images.reported_split(run.settings)))
                if time.monotonic() - saved_at >= checkpoint_seconds or save_requested.is_set():
                    save_requested.clear()
                    run.save(metrics, checkpoint)
                    saved_at = time.monotonic()
    finally:  # also when interrupted: the checkpoint is that of the last logged step
        run.save(metrics, checkpoint)
    return metrics


def is_over(run, metrics):
    """Whether a run ends short of its length: every member diverged, or what it was to stop at is reached."""
    if None not in metrics["diverged_at"]:
        return True
    until_loss = run.settings["until_loss"]
    if until_loss is not None and regimes.all_below(metrics, until_loss):
        return True
    return run.settings["stop_when_clear"] and None not in verdicts(run, metrics)


def verdicts(run, metrics):
    """What the regimes of a run's members are where its metrics so far decide them, None where not."""
    return regimes.early_verdicts(metrics, regimes.circumstances_of(run))


def logged_steps(steps, log_every, keep, after):
    """The steps that are logged after one, in order: multiples of log_every, those kept, and the last one."""
    spaced = range((after // log_every + 1) * log_every, steps, log_every)
    later = sorted(step for step in {*keep, steps} if after < step <= steps)
    return (step for step, _ in itertools.groupby(heapq.merge(spaced, later)))


def train_to_the_end(run, task, checkpoint_seconds):
    """train(), and what the end reaches with re-estimated batch-norm statistics beside the running ones.

    The running ones follow the last few iterations, and lag behind where weights move fast. The checkpoint keeps them.
    Of a run that stops when clear also what was decided.
    """
    metrics = train(run, task, checkpoint_seconds)
    if run.settings["stop_when_clear"]:
        metrics |= {"verdict": verdicts(run, metrics)}
    reestimated = task.evaluate_reestimated()
    return metrics if reestimated is None else metrics | {"reestimated": reestimated}


def record(step, train_metrics, task, metrics, run, keep, averages):
    """Measure and append to metrics at a logged step, as it is read from disk; returns the checkpoint of that step."""
    measured = {**train_metrics, **task.evaluate()}
    finite = torch.isfinite(task.weights).all(dim=1).cpu() & torch.isfinite(measured["train_loss"])
    metrics["diverged_at"] = [
        step if earlier is None and not is_finite else earlier
        for earlier, is_finite in zip(metrics["diverged_at"], finite.tolist())
    ]
    metrics["step"].append(step)
    for name, values in measured.items():
        metrics[name].append(as_written(values))  # so that what is decided by them is the same after a resume
    checkpoint = {"step": step, "network": run.settings["model"], **task.state()}
    if averages is not None:
        averages.add(step, task.weights)
        checkpoint["averages"] = {name: total.clone() for name, total in averages.sums.items()}
    if step in keep:
        run.keep(step_name(step), checkpoint)
    return checkpoint


def keep_crossed_losses(levels, earlier, checkpoint, metrics, run):
    """Keep the weights of a run with one member where its train loss has just crossed a level, as loss-LEVEL.pt.

    What is kept is the checkpoint of the last logged epoch or of the one before, whichever has the closer loss on a log
    scale.
    """
    [before], [now] = (regimes.losses_at(metrics, position) for position in (-2, -1))
    for level in levels:
        falls_below = now < level and not before < level  # only then all earlier losses are looked at
        if falls_below and regimes.first_crossing(metrics, 0, level) == len(metrics["step"]) - 1:
            run.keep(loss_name(level), earlier if before * now < level**2 else checkpoint)


def summary(metrics, reported):
    """The latest measurement as a short text: means over the members that have not diverged.

    reported: the split that the accuracies called `test` are of.
    """
    alive = [diverged is None for diverged in metrics["diverged_at"]]
    latest = {
        name: [regimes.as_float(number) for number in itertools.compress(metrics[name][-1], alive)]
        for name in SERIES[1:]
    }
    means = {name: statistics.fmean(numbers or [math.nan]) for name, numbers in latest.items()}
    diverged = f", {alive.count(False)} diverged" if False in alive else ""
    return (
        f"train loss {means['train_loss']:.4g}, train accuracy {100 * means['train_accuracy']:.2f} %, "
        f"{reported} accuracy {100 * means['test_accuracy']:.2f} %{diverged}"
    )


TASKS = {"images": ImageTraining, ticks.NAME: TickTraining}


def load_data(config, device):
    """The data of the training task that a config describes. Raises BadInput where they are missing or not the same."""
    return TASKS[network_of(config).task].load_data(config, device)


def make_task(config, device, data):
    """The training task that a config describes."""
    return TASKS[network_of(config).task](config["settings"], config["members"], device, data)


def add_continuing_arguments(parser):
    """Arguments of the stages that continue finished runs."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of complete runs")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the new run folders")
    parser.add_argument("--data-file", help="image set, where it is no longer where the run had it")
    add_own_network_argument(parser)
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
        help="seconds between checkpoints; 0 for one at every measurement",
    )


def main():
    parser = Parser(
        description="Pre-train a network at a fixed learning rate.",
        example="python train.py --data datasets/cifar10.pt --model si-resnet18 --lr 1e-3 --steps 200 --out runs/plr1e-3",
    )
    parser.add_argument("--out", required=True, help="run folder; the same command again resumes it")
    parser.add_argument(
        "--data", required=True, help=f"`{ticks.NAME}`, or an image set prepared by python -m data"
    )
    parser.add_argument(
        "--model",
        type=network_argument,
        help=f"network: {', '.join(models.NETWORKS)} (default on ticks: their MLP); or your own for images, {own.FORM}",
    )
    parser.add_argument(
        "--width", type=positive_int, help="of an image network (default: the paper's for the network)"
    )
    for name in shape_names():
        usual = [f"{network} {record.shape[name]}" for network, record in networks_with("shape", name)]
        parser.add_argument(f"--{name}", type=positive_int, help=f"of the network (default: {', '.join(usual)})")
    parser.add_argument(
        "--lr",
        nargs="+",
        type=positive_float,
        required=True,
        help="learning rates (PLR), of networks on the sphere effective ones",
    )
    parser.add_argument(
        "--seed", nargs="+", type=natural, default=[1], help="of the initial point and the sample order"
    )
    parser.add_argument(
        "--data-seed", nargs="+", type=natural, help="of the ticks and their frozen layer (default: 1)"
    )
    parser.add_argument("--steps", type=positive_int, required=True, help=STEPS_HELP)
    parser.add_argument("--batch-size", type=positive_int, help="samples (default: the paper's for the network)")
    parser.add_argument("--rho", type=radius, help="radius of the sphere (default: the paper's for the network)")
    for name, kind in OPTIMIZER_OPTIONS.items():
        usual = [f"{network} {record.optimizer[name]:g}" for network, record in networks_with("optimizer", name)]
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=kind, help=f"of the optimiser (default: {', '.join(usual)})")
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
        choices=augment.CHOICES,
        help="of training images: random crops of padded images and flips, after RandAugment in `randaugment` (default: "
        "the paper's for the network)",
    )
    parser.add_argument(
        "--report",
        choices=[images.TEST, images.VALIDATION],
        help="images whose loss and accuracy are recorded as those of the test set, in all stages that follow, too; "
        "validation: those that python -m data --validation-per-class held out (default: test)",
    )
    parser.add_argument(
        "--log-every",
        type=positive_int,
        help="epochs (default: 1) or iterations (ticks: 1000) between measurements",
    )
    parser.add_argument(
        "--keep", nargs="+", type=natural, default=[], help="epochs or iterations whose weights stay on disk"
    )
    parser.add_argument(
        "--until-loss", type=positive_float, help="stop where a train loss below this is first logged"
    )
    parser.add_argument(
        "--stop-when-clear",
        action="store_true",
        help="stop where the regime of every member is decided: diverged, at chance, converged, or plateaued (rules: "
        "data/analysis/README.md)",
    )
    add_keep_loss_argument(parser)
    add_execution_arguments(parser)
    args = parser.parse_args()

    device = device_of(args.device)
    config = describe_ticks(args) if args.data == ticks.NAME else describe_images(args, device)
    complete_run(args.out, config, device, lambda run, task: train_to_the_end(run, task, args.checkpoint_seconds))


def describe_ticks(args):
    """The config of a pre-training on ticks: all learning rates of a pair of seeds stand together."""
    name = chosen_network(args.model or models.networks_for(ticks.NAME)[0], ticks.NAME)
    only_images = ("width", *shape_names(), "precision", "augment", "report", "keep_loss")
    unwanted = [name for name in only_images if getattr(args, name)]
    if unwanted:
        raise BadInput(
            f"--{unwanted[0].replace('_', '-')}: is for image networks, not for {name} on ticks; leave it out"
        )
    if (args.batch_size or 0) > ticks.TRAIN_SIZE:
        raise BadInput(f"--batch-size {args.batch_size}: there are only {ticks.TRAIN_SIZE} training samples")
    members = [
        {"lrs": [lr], "seed": seed, "data_seed": data_seed}
        for data_seed in dict.fromkeys(args.data_seed or [1])
        for seed in dict.fromkeys(args.seed)
        for lr in dict.fromkeys(args.lr)
    ]
    settings = {"data": ticks.NAME, "classes": 2}
    return describe_pretraining(args, name, settings, members, log_every=args.log_every or 1000)


def describe_images(args, device):
    """The config of a pre-training on an image set: one member."""
    if args.model is None:
        raise BadInput(f"--model: name the network for an image set: {', '.join(models.networks_for('images'))}")
    if args.data_seed is not None:
        raise BadInput("--data-seed: only ticks are drawn by a seed; leave it out")
    if len(args.lr) > 1 or len(args.seed) > 1:
        raise BadInput(
            f"{args.model} trains one learning rate and seed per folder; loop over them: for lr in "
            f"{' '.join(f'{lr:g}' for lr in args.lr)}; do for seed in {' '.join(map(str, args.seed))}; do "
            f"python train.py ... --lr $lr --seed $seed --out {args.out}/plr$lr-seed$seed; done; done"
        )
    report, given = args.report or images.TEST, args.model
    if not own.is_own(given):
        chosen_network(given, "images")
    image_set = images.load_once(args.data, device).reporting_on(report)
    classes, side = len(image_set.classes), image_set.train_images.shape[-1]
    if own.is_own(given):
        args.model = own.register(given, classes, side, augmented=args.augment not in (None, augment.NONE))
    network = models.NETWORKS[args.model]
    if side < network.smallest_image:
        raise BadInput(
            f"{args.data}: its images are smaller than the {network.smallest_image} pixels that {args.model} needs; "
            f"prepare larger ones"
        )
    settings = {
        "data": image_set.name,
        "digest": image_set.digest,
        "classes": classes,
        "width": args.width or network.width,
        "shape": shape_of(args, network, side),
        "precision": args.precision or FP32,
        "augment": args.augment or network.augment,
        "report": report,
    }
    if network.digest is None:
        refuse_unfit_shape(args.model, network, settings, device)
    members = [{"lrs": args.lr, "seed": args.seed[0]}]
    samples = {"train": len(image_set.train_labels), "test": len(image_set.test_labels)}
    config = describe_pretraining(args, args.model, settings, members, log_every=args.log_every or 1)
    if network.digest is not None:
        refuse_unfit_own_network(given, config, image_set, device)
    refuse_single_images(config["settings"], side, samples["train"])
    return config | {"samples": samples}


def describe_pretraining(args, name, settings, members, log_every):
    """The config of a pre-training of a network, with what is the same for all of them added to the settings."""
    network = models.NETWORKS[name]
    if args.rho is not None and network.rho is None:
        raise BadInput(f"--rho {args.rho:g}: {name} is not trained on a sphere; leave it out")
    beyond = [step for step in args.keep if step > args.steps]
    if beyond:
        raise BadInput(f"--keep {beyond[0]}: lies beyond --steps {args.steps}")
    settings = settings | {
        "model": name,
        "optimizer": optimizer_of(args, name, network),
        "batch_size": args.batch_size or network.batch_size,
        "rho": args.rho or network.rho,
        "compile": args.compile,
        "first_step": 0,
        "steps": args.steps,
        "log_every": log_every,
        "keep": sorted(set(args.keep)),
        "until_loss": args.until_loss,
        "stop_when_clear": args.stop_when_clear,
        "keep_loss": sorted(set(args.keep_loss)),
    }
    if network.digest is not None:
        settings["model_digest"] = network.digest
    return {
        "format": FORMAT,
        "stage": "pretrain",
        "network": network.facts(),
        "settings": settings,
        "members": members,
        "parent": None,
        "data_file": args.data if "digest" in settings else None,
    }


if __name__ == "__main__":
    run(main)
