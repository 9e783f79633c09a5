"""Fine-tune finished runs at small learning rates: stage two of "Where Do Large Learning Rates Lead Us?"

Every run folder and every learning rate give one new folder, DIR/<run>-flr<learning rate>. Nothing but the learning
rate changes between the stages. The runs may be fine-tuned ones themselves (two-stage pre-training, figure 12).
"""

import data.startup  # noqa: F401 # isort: skip - before all else
from pathlib import Path

from data.commandline import BadInput, Parser, lr_name, natural, positive_float, positive_int, run
from data.device import device_of
from data.open_run import describe_child, finished_runs, step_to_begin_at
from models.requests import use_own_network
from train import (
    STEPS_HELP,
    add_continuing_arguments,
    add_keep_loss_argument,
    complete_run,
    place_of,
    refuse_what_cannot_be_made,
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
        "--from-step",
        type=natural,
        help="epoch or iteration of the runs to begin at, or their last where they diverged before (default: their last)",
    )
    add_keep_loss_argument(parser)
    add_continuing_arguments(parser)
    args = parser.parse_args()

    device = device_of(args.device)
    parents = finished_runs(args.runs, args.from_step)
    use_own_network(args.model, parents)
    for parent in parents:
        if args.keep_loss and len(parent.members) > 1:
            raise BadInput(f"{parent.path}: has several members; --keep-loss is for runs with one")
    children = [describe(parent, lr, args) for parent in parents for lr in args.lr]
    refuse_what_cannot_be_made(children, device)
    for number, (parent, path, config) in enumerate(children, 1):

        def work(run, task, parent=parent):
            run.begin_from(parent, task.start_from)
            return train_to_the_end(run, task, args.checkpoint_seconds)

        complete_run(path, config, device, work, place_of(number, len(children)))


def describe(parent, lr, args):
    """(parent, folder, config) of the fine-tuning of all members of one run at one learning rate."""
    path = Path(args.out) / f"{parent.path.name}-flr{lr_name(lr)}"
    step = step_to_begin_at(parent, parent.last_step if args.from_step is None else args.from_step)
    log_every = args.log_every or parent.settings["log_every"]
    config = describe_child(
        "finetune", parent, path, step, [lr], args.steps, log_every, args.data_file, args.keep_loss
    )
    return parent, path, config


if __name__ == "__main__":
    run(main)
