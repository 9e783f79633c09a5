"""Where the time of a training iteration goes on a CPU: convolutions, attention, and everything else by what is done.

    python bench/image_profile.py --model si-resnet18 --program fp32 [--out FILE]

Times are those of PyTorch's profiler, in milliseconds per iteration; RandAugment, which is done once an epoch, is shared out
among its iterations. What lies between the operations (Python, dispatch, autograd) is the rest of the time of an epoch
without the profiler.
"""

import sys
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.common import NOTHING_KEPT, machine, say  # noqa: E402
from bench.images import add_network_arguments, network_arguments, our_program, training  # noqa: E402
from data.commandline import BadInput, Parser, positive_int, run  # noqa: E402
from data.files import write_json  # noqa: E402

RANDAUGMENT = "RandAugment of an epoch"
# All that goes on in these events, whose names begin so, is counted as one.
SCOPES = {RANDAUGMENT: RANDAUGMENT, "optimiser": "Optimizer.step#"}
# Elsewhere an operation is counted without those that it calls. Parts of their names, without capitals, in order: the first
# that matches counts.
OPERATIONS = {
    "convolutions": ("convolution", "conv2d"),
    "batch norm": ("batch_norm", "batchnorm"),
    "layer norm": ("layer_norm", "layernorm"),
    "loss": ("log_softmax", "logsoftmax", "cross_entropy", "nll", "argmax", "aten::eq"),
    "attention": ("scaled_dot_product", "scaleddotproduct", "softmax", "bmm", "masked_fill"),
    "GELU": ("gelu",),
    "ReLU": ("clamp_min", "relu", "threshold"),
    "batch norm, ReLU, pooling, sums: compiled": ("compiled", "scatter_reduce"),
    "pooling": ("pool",),
    "dropout's decisions": ("random_", "aten::ge"),
    "linear layers, classifier": ("linear", "aten::mm", "addmm", "aten::sum"),
    "sums: of streams and gradients, in step and data": ("aten::add", "accumulategrad"),
    "products, norm, zeroes: of dropout, step and data": (
        "vector_norm",
        "aten::mul",
        "reciprocal",
        "aten::div",
        "aten::zero_",
        "aten::fill_",
    ),
    "images: choosing, cropping, shifting; copies": ("index", "copy", "randperm", "pad", "randint", "aten::cat"),
}


def operation(event):
    """What is done in an event of the profiler: one of the above, or the rest."""
    around = event
    while around is not None:
        for what, start in SCOPES.items():
            if around.name.startswith(start):
                return what
        around = around.cpu_parent
    for what, parts in OPERATIONS.items():
        if any(part in event.name.lower() for part in parts):
            return what
    return "memory, views, autograd"


def named_randaugment(task):
    """Have the profiler see what an ImageTraining does of RandAugment as an event."""
    augment_images = task._augment_images

    def augment_images_as_event(epoch):
        with record_function(RANDAUGMENT):
            augment_images(epoch)

    task._augment_images = augment_images_as_event


def main():
    parser = Parser(__doc__.splitlines()[0], "python bench/image_profile.py --model si-convnet --program bf16")
    add_network_arguments(parser)
    parser.add_argument("--program", type=our_program, default="fp32", help="as for images.py")
    parser.add_argument("--threads", type=positive_int, default=torch.get_num_threads(), help="of the process")
    parser.set_defaults(device="cpu")
    args = network_arguments(parser)
    if args.device != "cpu":
        raise BadInput(f"--device {args.device}: operations are named for a CPU only; leave it out")
    torch.set_num_threads(args.threads)
    trained = training(args.program, args)
    named_randaugment(trained.task)
    for epoch in range(2):
        say(f"epoch {epoch + 1} of 4: not measured")
        trained.train_epoch()
    say("epoch 3 of 4: timed")
    start = time.perf_counter()
    trained.train_epoch()
    seconds = time.perf_counter() - start
    iterations = -(-args.images // args.batch_size)
    wall = 1e3 * seconds / iterations
    say("epoch 4 of 4: profiled")
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        trained.train_epoch()
    spent = {}
    for event in profiled.events():
        what = operation(event)
        spent[what] = spent.get(what, 0) + event.self_cpu_time_total / 1e3 / iterations
    spent = dict(sorted(spent.items(), key=lambda item: -item[1]))
    spent["rest of the time without the profiler"] = wall - sum(spent.values())
    for what, milliseconds in spent.items():
        print(f"{what:50} {milliseconds:8.2f} ms {100 * milliseconds / wall:6.1f} %")
    print(f"{'an iteration':50} {wall:8.2f} ms, {args.images / seconds:.0f} images/s")
    if args.out:
        asked = {name: value for name, value in vars(args).items() if name != "out"}
        write_json(args.out, {**asked, **machine(args.device), "milliseconds_per_step": spent, "step": wall})


if __name__ == "__main__":
    run(main, at_interrupt=NOTHING_KEPT)
