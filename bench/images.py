"""Speed of training image networks: train.py against a baseline, in turns on the same machine.

    python bench/images.py --model si-resnet18 --programs baseline fp32 bf16 [--out FILE]

A program is `baseline` (a DataLoader with two workers and torchvision's transforms, .item() at every iteration, a loop over
the parameters) or words that say how train.py is run: fp32, tf32 or bf16; then compile; then, each to see what it is worth,
without-channels-last, without-kept-memory, without-in-place-relu, without-cuda-graph, and, of the ViT,
without-fused-attention and without-fast-dropout. What the machine cannot run is skipped. Each program keeps its processes,
and in turns they train for one epoch and evaluate on a test set a fifth as large. Images are random: time does not depend on
them. Ratios are those of a program to the first one in the same turn.

Width and batch size are 32 and 128 unless given, whatever the network. All else is its record's: the optimiser, and, unless
given, shape and augmentation.
"""

import argparse
import contextlib
import functools
import multiprocessing
import os
import signal
import statistics
import sys
import time
from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).parent.parent))

import models  # noqa: E402
import train  # noqa: E402
from bench.common import BASELINE, NOTHING_KEPT, machine, require_compiled, say  # noqa: E402
from bench.without import WITHOUT, plain_attention, plain_dropout, without_in_place_relu  # noqa: E402
from data import augment  # noqa: E402
from data.commandline import BadInput, Parser, positive_int, run  # noqa: E402
from data.device import BF16, FP32, TF32, device_of, use_precision  # noqa: E402
from data.files import write_json  # noqa: E402
from data.images import MEAN, STD, ImageSet  # noqa: E402
from models import optimizers, requests  # noqa: E402
from models.dropout import Dropout  # noqa: E402
from models.evaluator import trained_parameters  # noqa: E402
from models.vit import Attention  # noqa: E402

LR = 1e-4
PRECISIONS = (FP32, TF32, BF16)
READY = "ready"  # what a process of a program answers when it has done what it was asked for


def random_image_set(size, side, classes, device="cpu"):
    """An ImageSet of `size` training and size/5 test images of random pixels, on a device."""
    random = torch.Generator().manual_seed(0)
    tensors = {}
    for split, count in (("train", size), ("test", max(1, size // 5))):
        shape = (count, 3, side, side)
        tensors[f"{split}_images"] = torch.randint(256, shape, dtype=torch.uint8, generator=random).to(device)
        tensors[f"{split}_labels"] = torch.randint(classes, (count,), generator=random).to(device)
    return ImageSet("random", **tensors, classes=tuple(range(classes)), digest="", made_from={})


class ImageFiles(Dataset):
    """The images as a data set of torchvision has them."""

    def __init__(self, images, labels, transform):
        self.images, self.labels, self.transform = images.permute(0, 2, 3, 1).numpy(), labels.tolist(), transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def plain_network(args):
    """The network as published code has it, with the initial weights of ours.

    Attention is a softmax of masked logits with an operation for each part, not scaled_dot_product_attention as in
    models/vit.py, and dropout is that of nn.Dropout.
    """
    network = models.build(args.model, args.width, args.classes, init_seed=1, **args.shape)
    for kind, forward in ((Attention, plain_attention), (Dropout, plain_dropout)):
        for module in network.modules():
            if isinstance(module, kind):
                module.forward = functools.partial(forward, module)
    return network


def plain_optimizer(parameters, options, rho):
    """An optimiser of torch.optim over single parameters. Of projected SGD it is SGD: projecting comes after its step."""
    if rho is not None:
        return torch.optim.SGD(parameters, lr=LR * rho**2)
    options = {**options}
    return optimizers.OPTIMIZERS[options.pop("name")](parameters, lr=LR, **options)


def plain_transforms(name, side):
    """An augmentation by torchvision's transforms of PIL images.

    Its RandAugment is not that of data/augment.py to the letter: it draws from 14 operations instead of 16 (one of them
    leaves an image as it is; invert, solarize-add and cutout are missing), some with other strengths at magnitude 14.
    """
    if name == augment.NONE:
        return []
    varied = [transforms.RandomCrop(side, padding=augment.padding_of(side)), transforms.RandomHorizontalFlip()]
    return [transforms.RandAugment(num_ops=2, magnitude=14), *varied] if name == augment.RANDAUGMENT else varied


class BaselineTraining:
    """The network trained as most published code does it, PyTorch left as it is, and projected where it is on a sphere."""

    def __init__(self, args, image_set, device):
        without_in_place_relu()
        network = models.NETWORKS[args.model]
        self.device, self.rho = device, network.rho
        self.network = plain_network(args).to(device)
        self.parameters = trained_parameters(self.network)
        self.optimizer = plain_optimizer(self.parameters, network.optimizer, self.rho)
        as_tensor = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        varied = transforms.Compose([*plain_transforms(args.augment, args.side), *as_tensor])
        load = functools.partial(DataLoader, batch_size=args.batch_size, num_workers=2, persistent_workers=True)
        self.train_loader = load(ImageFiles(image_set.train_images, image_set.train_labels, varied), shuffle=True)
        test = ImageFiles(image_set.test_images, image_set.test_labels, transforms.Compose(as_tensor))
        self.test_loader = load(test)

    def epoch(self):
        self.network.train()
        loss_sum, correct = 0.0, 0
        for x, y in self.train_loader:
            x, y = x.to(self.device), y.to(self.device)
            self.optimizer.zero_grad()
            logits = self.network(x)
            loss = F.cross_entropy(logits, y)
            loss.backward()
            self.optimizer.step()
            if self.rho is not None:
                self.project()
            loss_sum += loss.item() * len(y)
            correct += (logits.argmax(1) == y).sum().item()
        self.network.eval()
        with torch.no_grad():
            for x, y in self.test_loader:
                x, y = x.to(self.device), y.to(self.device)
                logits = self.network(x)
                loss_sum += F.cross_entropy(logits, y).item() * len(y)
                correct += (logits.argmax(1) == y).sum().item()

    @torch.no_grad()
    def project(self):
        norm = sum(parameter.norm().item() ** 2 for parameter in self.parameters) ** 0.5
        for parameter in self.parameters:
            parameter.mul_(self.rho / norm)


class OurTraining:
    """train.py's own training, as the words of a program say. Raises BadInput where the device cannot do that."""

    def __init__(self, words, args, image_set, device):
        use_precision(words[0], device)
        if "without-cuda-graph" in words and device.type != "cuda":
            raise BadInput("without-cuda-graph: only GPUs have CUDA graphs")
        make_task = functools.partial(image_training, words, args, image_set, device)
        self.task = require_compiled(make_task) if "compile" in words else make_task()
        self.epochs = 0

    def train_epoch(self):
        self.task.advance(self.epochs, self.epochs + 1)
        self.epochs += 1

    def epoch(self):
        self.train_epoch()
        self.task.evaluate()


def image_training(words, args, image_set, device):
    """train.py's object that trains; used of it: advance(epoch, until) and evaluate().

    args: model, width, shape, batch_size and augment.
    """
    settings = {
        "model": args.model,
        "width": args.width,
        "batch_size": args.batch_size,
        "optimizer": models.NETWORKS[args.model].optimizer,
        "rho": models.NETWORKS[args.model].rho,
        "compile": "compile" in words,
        "precision": words[0],
        "augment": args.augment,
        "shape": args.shape,
        "first_step": 0,
    }
    return train.ImageTraining(settings, [{"lrs": [LR], "seed": 1}], device, image_set)


def training(program, args):
    """What trains as a program says: an object with epoch(). Raises BadInput where the machine cannot run it."""
    words = program.split()
    for word in words:
        if word.startswith("without-"):
            WITHOUT[word.removeprefix("without-")]()
    # glibc's own ways with memory, and tf32 on a GPU, are part of the baseline.
    device = torch.device(args.device) if program == BASELINE else device_of(args.device)
    shape = args.images, args.side, args.classes
    if program == BASELINE:
        return BaselineTraining(args, random_image_set(*shape), device)
    return OurTraining(words, args, random_image_set(*shape, device), device)


def end_with_children(signum, frame):
    """For SIGTERM, in a process of a program: end, and before that the workers of its DataLoaders.

    They would print a traceback where the process went while they handed it a batch; and an exception in this process
    would be printed, and lost, where a destructor happens to run.
    """
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(128 + signum)


def work(connection, program, args):
    """A process: trains an epoch for every message, answers, and ends when the connection is closed.

    The first answer comes unasked: READY, or why the machine cannot run the program.
    """
    signal.signal(signal.SIGTERM, end_with_children)
    # As a script has it on Linux; what was spawned would spawn its own, with semaphores that outlive a killed process.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(args.threads)
    with contextlib.suppress(EOFError, ConnectionError):
        try:
            trained = training(program, args)
        except BadInput as error:
            connection.send(str(error))
            return
        for _ in range(2):  # what happens once, such as compiling, is not measured
            trained.epoch()
        while True:
            connection.send(READY)
            connection.recv()
            trained.epoch()


@contextlib.contextmanager
def trainer(program, args):
    """The connection to a new process for a program."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    # Not a daemon: those may not have the children that a DataLoader needs.
    process = spawn.Process(target=work, args=(theirs, program, args))
    # Ctrl-C at a terminal reaches all processes. This one handles it, and ends the others, which inherit to ignore it.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    process.start()
    signal.signal(signal.SIGINT, handler)
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.terminate()
        process.join()


class CannotRun(Exception):
    """The machine cannot run a program. The message says why."""


def wait(program, connections, message=None):
    """Send a message, if there is one, to the processes of a program, and wait until all have answered.

    Raises CannotRun where they say so, and BadInput where one has ended.
    """
    try:
        for connection in connections:
            if message is not None:
                connection.send(message)
        answers = [connection.recv() for connection in connections]
    except (EOFError, ConnectionError):
        raise BadInput(
            f"{program}: its process has ended; what it said is above, and smaller --images may help"
        ) from None
    for answer in answers:
        if answer != READY:
            raise CannotRun(answer)


def seconds_of_a_turn(program, connections):
    start = time.perf_counter()
    wait(program, connections, "train")
    return time.perf_counter() - start


def measure(args):
    """Measure every program in every turn.

    Returns training images per second, {program: [turn]}, and why the machine cannot run the others, {program: reason}.
    Raises BadInput where it can run none, or a process has ended.
    """
    connections, skipped = {}, {}
    with contextlib.ExitStack() as stack:
        for program in dict.fromkeys(
            args.programs
        ):  # one after the other: many threads at once would take far longer
            say(f"{program}: starting; two epochs are not measured")
            started = [stack.enter_context(trainer(program, args)) for _ in range(args.processes)]
            try:
                wait(program, started)
                connections[program] = started
            except CannotRun as reason:
                skipped[program] = str(reason)
                say(f"{program}: skipped: {reason}")
        if not connections:
            raise BadInput("this machine can run none of the programs; see above why, and name others")
        rates = {program: [] for program in connections}
        for turn in range(args.turns):
            for program in list(rates)[:: 1 if turn % 2 == 0 else -1]:
                seconds = seconds_of_a_turn(program, connections[program])
                rates[program].append(args.processes * args.images / seconds)
            latest = ", ".join(f"{program} {values[-1]:.0f}" for program, values in rates.items())
            say(f"turn {turn + 1} of {args.turns}: {latest} images/s")
    return rates, skipped


def table(rates, skipped):
    first = next(iter(rates.values()))
    yield f"{'program':40} {'images/s':>9} {'range':>15} {'times the first':>16} {'range':>13}"
    for program, values in rates.items():
        ratios = [value / reference for value, reference in zip(values, first)]
        yield (
            f"{program:40} {statistics.median(values):9.0f} {min(values):7.0f}-{max(values):<7.0f} "
            f"{statistics.median(ratios):16.2f} {min(ratios):6.2f}-{max(ratios):<6.2f}"
        )
    for program, reason in skipped.items():
        yield f"{program:40} skipped: {reason}"


def our_program(text):
    """A program that is ours, for argparse."""
    precision, *options = text.split() or [""]
    known = ["compile", *(f"without-{name}" for name in WITHOUT)]
    if precision not in PRECISIONS or not set(known).issuperset(options):
        raise argparse.ArgumentTypeError(
            f"{text!r} is none; say {', '.join(PRECISIONS)}, then any of {', '.join(known)}"
        )
    return text


def any_program(text):
    """A program, for argparse."""
    return text if text == BASELINE else our_program(text)


def image_side(text):
    """For argparse: pixels enough for the networks."""
    smallest = max(models.NETWORKS[name].smallest_image for name in models.networks_for("images"))
    if positive_int(text) < smallest:
        raise argparse.ArgumentTypeError(f"{text} is less than {smallest}")
    return int(text)


def add_network_arguments(parser):
    cuda = torch.cuda.is_available()
    parser.add_argument("--model", choices=models.networks_for("images"), default="si-resnet18", help="network")
    parser.add_argument("--width", type=positive_int, default=32, help="of the network")
    for name in requests.shape_names():
        parser.add_argument(f"--{name}", type=positive_int, help="of the network (default: as for train.py)")
    parser.add_argument(
        "--augment", choices=augment.CHOICES, help="of training images (default: the paper's for the network)"
    )
    parser.add_argument("--batch-size", type=positive_int, default=128, help="images")
    parser.add_argument("--images", type=positive_int, default=50_000 if cuda else 1280, help="of an epoch")
    parser.add_argument("--side", type=image_side, default=32, help="of the images, in pixels")
    parser.add_argument("--classes", type=positive_int, default=10, help="number of them")
    parser.add_argument(
        "--device",
        choices=["cpu", "cuda"] if cuda else ["cpu"],
        default="cuda" if cuda else "cpu",
        help="to train on",
    )
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")


def network_arguments(parser):
    """The arguments asked for, with augmentation and shape as the network's record has them otherwise. Raises BadInput."""
    args = parser.parse_args()
    network = models.NETWORKS[args.model]
    args.augment = args.augment or network.augment
    args.shape = requests.shape_of(args, network, args.side)
    requests.refuse_unfit_shape(args.model, network, vars(args), device_of(args.device))
    return args


def main():
    parser = Parser(
        __doc__.splitlines()[0], "python bench/images.py --model si-convnet --programs baseline fp32 bf16"
    )
    add_network_arguments(parser)
    parser.add_argument(
        "--programs", nargs="+", type=any_program, default=[BASELINE, "fp32", "bf16"], help="what to compare"
    )
    parser.add_argument("--turns", type=positive_int, default=8, help="measurements of every program")
    parser.add_argument("--processes", type=positive_int, default=1, help="of a program, side by side")
    parser.add_argument("--threads", type=positive_int, help="of a process (default: all cores shared)")
    args = network_arguments(parser)
    args.threads = args.threads or max(1, os.cpu_count() // args.processes)

    rates, skipped = measure(args)
    print("\n".join(table(rates, skipped)))
    if args.out:
        asked = {name: value for name, value in vars(args).items() if name != "out"}
        write_json(args.out, {**asked, **machine(args.device), "skipped": skipped, "images_per_second": rates})


if __name__ == "__main__":
    run(main, at_interrupt=NOTHING_KEPT)
