"""Where the time of a training iteration goes on a CPU: convolutions, and everything else by what is done.

    python bench/image_profile.py --model si-resnet18 --program fp32 [--out FILE]

Times are those of PyTorch's profiler, in milliseconds per iteration. What lies between the operations (Python, dispatch,
autograd) is the rest of the time of an epoch without the profiler.
"""

import sys
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.common import NOTHING_KEPT, machine, say  # noqa: E402
from bench.images import add_network_arguments, our_program, training  # noqa: E402
from data.commandline import BadInput, Parser, positive_int, run  # noqa: E402
from data.files import write_json  # noqa: E402

# Parts of the names of operations, without capitals, in order: the first that matches counts.
OPERATIONS = {
    "convolutions": ("convolution", "conv2d"),
    "batch norm": ("batch_norm", "batchnorm"),
    "ReLU": ("clamp_min", "relu", "threshold"),
    "batch norm, ReLU, pooling, sums: compiled": ("compiled", "scatter_reduce"),
    "pooling": ("pool",),
    "classifier and loss": ("softmax", "nll", "linear", "aten::mm", "addmm", "argmax", "aten::eq", "aten::sum"),
    "sums: of streams and gradients, in step and data": ("aten::add", "accumulategrad"),
    "products, norm, zeroes: of step and data": (
        "vector_norm",
        "aten::mul",
        "reciprocal",
        "aten::div",
        "aten::zero_",
        "aten::fill_",
    ),
    "choosing, copying and augmenting images": ("aten::index", "copy", "randperm", "aten::pad", "randint"),
}


def operation(name):
    for what, parts in OPERATIONS.items():
        if any(part in name.lower() for part in parts):
            return what
    return "memory, views, autograd"


def main():
    parser = Parser(__doc__.splitlines()[0], "python bench/image_profile.py --model si-convnet --program bf16")
    add_network_arguments(parser)
    parser.add_argument("--program", type=our_program, default="fp32", help="as for images.py")
    parser.add_argument("--threads", type=positive_int, default=torch.get_num_threads(), help="of the process")
    parser.set_defaults(device="cpu")
    args = parser.parse_args()
    if args.device != "cpu":
        raise BadInput(f"--device {args.device}: operations are named for a CPU only; leave it out")
    torch.set_num_threads(args.threads)
    trained = training(args.program, args)
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
    for event in profiled.key_averages():
        what = operation(event.key)
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
