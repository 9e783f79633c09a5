"""Training of the MLPs of the synthetic study."""

import functools

import torch

from data import ticks
from data.seeds import generator
from models import mlp


class TickTraining:
    """The MLPs of the synthetic study on ticks, many members in one program. A step of the run is one iteration.

    settings: batch_size, rho, compile, first_step (iterations of earlier stages). members: {"lrs", "seed",
    "data_seed"}, those with the same pair of seeds (a group) side by side and equally many; the last of lrs is in use.
    """

    unit = "iteration"

    @staticmethod
    def load_data(config, device):
        """The TickSets of a run's groups of members, one on top of the other."""
        return ticks.stacked_sets([data_seed for data_seed, _ in ticks.groups(config["members"])])

    def __init__(self, settings, members, device, sets):
        train_inputs, train_labels, test_inputs, test_labels = (tensor.to(device) for tensor in sets)
        self.train_set, self.test_set = (train_inputs, train_labels), (test_inputs, test_labels)
        groups = ticks.groups(members)
        self.seeds = [seed for _, seed in groups]
        self.first_step, self.batch_size = settings["first_step"], settings["batch_size"]
        rates = torch.tensor([member["lrs"][-1] for member in members], device=device)
        # The initial point depends on the training seed alone and the frozen layer on the data seed alone.
        points = [mlp.initial_weights(generator("initial-weights", member["seed"])) for member in members]
        frozen = [mlp.frozen_layer(generator("frozen-layer", data_seed)) for data_seed, _ in groups]
        self.start = functools.partial(
            mlp.MlpTrainers,
            learning_rates=rates,
            batch=self.batch_size,
            rho=settings["rho"],
            compiled=settings["compile"],
        )
        self.trainers = self.start(settings["rho"] * torch.stack(points), torch.stack(frozen))

    @property
    def weights(self):
        return self.trainers.weights

    def advance(self, step, until):
        """Train from an iteration to a later one. Returns loss and accuracy over the training set, [members] each."""
        per_pass = ticks.TRAIN_SIZE // self.batch_size
        for groups, trainer in self.trainers.parts:
            inputs, labels = (tensor[groups] for tensor in self.train_set)
            now, end = self.first_step + step, self.first_step + until
            while now < end:
                pass_index, position = divmod(now, per_pass)
                batches = ticks.minibatches(inputs, labels, self.seeds[groups], pass_index, self.batch_size)
                stop = min(per_pass, position + end - now)
                for x, y in zip(*(tensor[position:stop] for tensor in batches)):
                    trainer.step(x, y)
                now += stop - position
        return self.evaluate_train()

    def evaluate(self):
        """Test loss and accuracy."""
        loss, accuracy = mlp.evaluate(self.weights, self.trainers.frozen, *self.test_set)
        return {"test_loss": loss.cpu(), "test_accuracy": accuracy.cpu()}

    def evaluate_train(self):
        """Loss and accuracy over the training set."""
        loss, accuracy = mlp.evaluate(self.weights, self.trainers.frozen, *self.train_set)
        return {"train_loss": loss.cpu(), "train_accuracy": accuracy.cpu()}

    def evaluate_reestimated(self):
        """None: layer norm has no statistics."""

    def solution(self):
        """Weights [members, 2048] and the frozen last layers [groups, 32]."""
        return {"weights": self.weights, "buffers": {"frozen": self.trainers.frozen}}

    def start_from(self, solution):
        """Begin a stage at a solution. Raises ValueError for one of other members."""
        mlp.refuse_unfit(solution, len(self.weights), len(self.seeds))
        self.trainers = self.start(solution["weights"], solution["buffers"]["frozen"])

    state, resume = solution, start_from  # projected SGD carries nothing over from step to step

    def load_average(self, weights):
        """Put averaged weights in place, of any norm; layer norm has no statistics to re-estimate."""
        self.trainers = self.start(weights, self.trainers.frozen)
