"""Fine-tune finished runs at small learning rates: stage two of "Where Do Large Learning Rates Lead Us?"

Every run folder and every learning rate give one new folder, DIR/<run>-flr<learning rate>. Nothing but the learning
rate changes between the stages. The runs may be fine-tuned ones themselves (two-stage pre-training, figure 12).
"""

import data.startup  # noqa: F401 # isort: skip - before all else
from pathlib import Path

from data.commandline import BadInput, Parser, lr_name, natural, positive_float, positive_int, run
from data.device import device_of
from data.runs import describe_child, finished_runs
from train import (
    STEPS_HELP,
    add_continuing_arguments,
    add_keep_loss_argument,
    complete_run,
    place_of,
    train_to_the_end,
)


def main():
    parser = Parser(
        description="Fine-tune finished runs at small learning rates.",
        example="python finetune.py runs/pretrain/* --lr 1e-5 3e-4 --steps 200 --out runs/finetune",
    )
    parser.add_argument("--lr", nargs="+", type=positive_float, required=True, help="learning rates (FLR)")
    parser.add_argument("--steps", type=positive_int, required=True, help=STEPS_HELP)
    parser.add_argument(
        "--log-every", type=positive_int, help="epochs or iterations between measurements (default: as in the run)"
    )
    parser.add_argument(
        "--from-step", type=natural, help="epoch or iteration of the runs to begin at (default: their last)"
    )
    add_keep_loss_argument(parser)
    add_continuing_arguments(parser)
    args = parser.parse_args()

    device = device_of(args.device)
    parents = finished_runs(args.runs)
    for parent in parents:
        if args.keep_loss and len(parent.members) > 1:
            raise BadInput(f"{parent.path}: has several members; --keep-loss is for runs with one")
    runs = [(parent, lr) for parent in parents for lr in args.lr]
    for number, (parent, lr) in enumerate(runs, 1):
        path = Path(args.out) / f"{parent.path.name}-flr{lr_name(lr)}"
        finetune(parent, path, lr, args, device, place_of(number, len(runs)))


def finetune(parent, path, lr, args, device, place):
    """Fine-tune all members of one run at one learning rate, from --from-step or the run's end."""
    step = parent.last_step if args.from_step is None else args.from_step
    log_every = args.log_every or parent.settings["log_every"]
    config = describe_child(
        "finetune", parent, path, step, [lr], args.steps, log_every, args.data_file, args.keep_loss
    )

    def work(run, task):
        task.start_from(parent.weights_at(step))
        return train_to_the_end(run, task, args.checkpoint_seconds)

    complete_run(path, config, device, work, place)


if __name__ == "__main__":
    run(main)
