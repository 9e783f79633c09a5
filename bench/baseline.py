"""The baseline of the synthetic study, one network at a time: what the benchmarks of train.py compare with.

An nn.Module, a DataLoader, autograd, torch.optim.SGD, and the projection after each step. It shares the initial point,
the last layer and the order of minibatches with train.py, and none of its training. Logging is as sparse as there.

    python bench/baseline.py --lr 1e-3 --seed 1 --data-seed 1 2 --steps 40000 --out runs/baseline

writes one JSON file for every network; networks that have theirs are skipped.
"""

import itertools
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).parent.parent))

from data import ticks  # noqa: E402
from data.commandline import Parser, lr_name, natural, positive_float, positive_int, run  # noqa: E402
from data.files import write_json  # noqa: E402
from data.seeds import generator  # noqa: E402
from models import mlp  # noqa: E402


class PassSampler:
    """The order in which train.py visits the training set, pass after pass."""

    def __init__(self, seed):
        self.seed, self.pass_index = seed, 0

    def __iter__(self):
        order = ticks.pass_order(self.seed, self.pass_index, ticks.TRAIN_SIZE)
        self.pass_index += 1
        return iter(order.tolist())

    def __len__(self):
        return ticks.TRAIN_SIZE


class ProjectedSGD(torch.optim.SGD):
    """SGD on the unit sphere, of all parameters together."""

    @torch.no_grad()
    def step(self, closure=None):
        super().step(closure)
        [group] = self.param_groups
        norm = torch.cat([weight.flatten() for weight in group["params"]]).norm()
        for weight in group["params"]:
            weight.div_(norm)


class BaselineRun:
    """One network and its training set: train(iterations); evaluate(inputs, labels) -> (loss, accuracy)."""

    def __init__(self, lr, seed, data_seed):
        self.sets = ticks.tick_sets(data_seed)
        self.network = build_network(
            mlp.initial_weights(generator("initial-weights", seed)),
            mlp.frozen_layer(generator("frozen-layer", data_seed)),
        )
        self.trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimizer = ProjectedSGD(self.trained, lr=lr)
        self.loss = nn.BCEWithLogitsLoss()
        training_set = TensorDataset(self.sets.train_inputs, self.sets.train_labels)
        loader = DataLoader(training_set, ticks.BATCH_SIZE, sampler=PassSampler(seed), drop_last=True)
        self.batches = itertools.chain.from_iterable(itertools.repeat(loader))

    def train(self, iterations):
        for inputs, labels in itertools.islice(self.batches, iterations):
            self.optimizer.zero_grad()
            self.loss(self.network(inputs).squeeze(1), labels).backward()
            self.optimizer.step()

    @torch.no_grad()
    def evaluate(self, inputs, labels):
        logits = self.network(inputs).squeeze(1)
        accuracy = ((logits > 0) == (labels > 0)).float().mean()
        return self.loss(logits, labels).item(), accuracy.item()

    def balanced_accuracy(self, inputs, labels):
        """The mean of the accuracies on the points of either class."""
        of_class_0, of_class_1 = (self.evaluate(inputs[labels == c], labels[labels == c])[1] for c in (0, 1))
        return (of_class_0 + of_class_1) / 2

    def weights(self):
        """[2048], in the order of models/mlp.py."""
        return torch.cat([weight.detach().flatten() for weight in self.trained])


def build_network(weights, frozen):
    def layer():
        return nn.Linear(32, 32, bias=False), nn.LayerNorm(32, eps=1e-7, elementwise_affine=False), nn.ReLU()

    network = nn.Sequential(*layer(), *layer(), nn.Linear(32, 1, bias=False))
    with torch.no_grad():
        for linear, matrix in zip(network[::3], (weights[:1024], weights[1024:], frozen)):
            linear.weight.copy_(matrix.view_as(linear.weight))
    network[6].requires_grad_(False)
    return network


def main():
    parser = Parser(
        "Train networks of the synthetic study one at a time.",
        "python bench/baseline.py --lr 1e-3 --seed 1 --data-seed 1 2 --steps 40000 --out runs/baseline",
    )
    parser.add_argument("--lr", type=positive_float, required=True, help="learning rate on the unit sphere")
    parser.add_argument("--seed", type=natural, nargs="+", required=True, help="training seeds")
    parser.add_argument("--data-seed", type=natural, nargs="+", required=True, help="data seeds")
    parser.add_argument("--steps", type=positive_int, required=True, help="iterations")
    parser.add_argument("--log-every", type=positive_int, default=1000, help="iterations between evaluations")
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON files")
    args = parser.parse_args()

    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for data_seed, seed in itertools.product(args.data_seed, args.seed):
        path = args.out / f"plr{lr_name(args.lr)}-seed{seed}-data{data_seed}-steps{args.steps}.json"
        if not path.exists():
            write_json(path, train_one(args.lr, seed, data_seed, args.steps, args.log_every))
            print(path, flush=True)


def train_one(lr, seed, data_seed, steps, log_every):
    """Train one network; returns its measurements at the logged iterations and its final single-feature accuracies.

    The latter are balanced, as those of analyze.py are.
    """
    network = BaselineRun(lr, seed, data_seed)
    measured = {"lr": lr, "seed": seed, "data_seed": data_seed, "step": [], "train": [], "test": []}
    for step in range(0, steps, log_every):
        now = min(step + log_every, steps)
        network.train(now - step)
        measured["step"].append(now)
        measured["train"].append(network.evaluate(network.sets.train_inputs, network.sets.train_labels))
        measured["test"].append(network.evaluate(network.sets.test_inputs, network.sets.test_labels))
    features = [network.balanced_accuracy(*ticks.single_feature_set(k)) for k in range(ticks.FEATURES)]
    return measured | {"balanced_accuracy": features}


if __name__ == "__main__":
    run(main, at_interrupt="the same command goes on with the networks that have no file yet")
