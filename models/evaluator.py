"""Loading the solutions of an image network, and evaluating them: for training and for every measurement."""

import torch
from torch.nn import functional as F

from models import batchnorm, sphere
from models.solutions import refuse_other_solution, refuse_unlike


def trained_parameters(network):
    """The parameters that training moves, in a fixed order; of scale-invariant networks all convolution kernels."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


class Evaluator:
    """A network on a device, its trained parameters in one flat vector.

    network: nn.Module on the CPU; trained are the parameters that require gradients. bf16: whether forward passes are
    in bfloat16; weights, gradients, statistics and losses stay in float32.
    Batches are iterables of (inputs [batch, ...], labels [batch]) on the device.
    """

    def __init__(self, network, device, bf16=False):
        self.network, self.device, self.bf16 = network, device, bf16
        network.to(device, memory_format=torch.channels_last)
        self.parameters = trained_parameters(network)
        self.weights, self.gradient = sphere.flatten(self.parameters)
        self.forward = network  # or that compiled

    def solution(self):
        """{"weights": [1, parameters], "buffers": {name: tensor}}, the latter all other state, such as statistics."""
        buffers = {name: tensor.clone() for name, tensor in self._untrained_state().items()}
        return {"weights": self.weights.clone(), "buffers": buffers}

    def refuse_unfit(self, solution):
        """Raise ValueError where a solution is not of this network, by names, shapes and types."""
        refuse_other_solution(solution, self.weights, self._untrained_state())

    def load(self, solution):
        """Put what solution() gave in place. Raises ValueError where it is not of this network."""
        self.refuse_unfit(solution)
        self.weights.copy_(solution["weights"])
        for name, tensor in self._untrained_state().items():
            tensor.copy_(solution["buffers"][name])

    def load_average(self, weights, train_batches):
        """Put averaged weights in place, which trained statistics do not fit: re-estimate those (paper, appendix A)."""
        self._put(weights)
        if batchnorm.batch_norms(self.network):
            self.reestimate(train_batches)

    def _put(self, weights):
        refuse_unlike(weights.to(self.weights.dtype), self.weights, "weights")
        self.weights.copy_(weights)

    def _untrained_state(self):
        trained = {name for name, parameter in self.network.named_parameters() if parameter.requires_grad}
        return {name: tensor for name, tensor in self.network.state_dict().items() if name not in trained}

    def autocast(self):
        """The context of forward passes."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def evaluate(self, batches):
        """(mean loss, accuracy as a fraction) with the running batch-norm statistics."""
        self.network.eval()
        with self.autocast():
            return mean_loss_and_accuracy(self.forward, batches)

    def evaluate_with_batch_statistics(self, batches):
        """(mean loss, accuracy) with every batch's own statistics; the running ones stay as they were."""
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        batchnorm.use_batch_statistics(self.network)
        try:
            with self.autocast():
                return mean_loss_and_accuracy(self.network, batches)
        finally:
            for name, buffer in self.network.named_buffers():
                buffer.copy_(buffers[name])

    def takes_single_images(self, side):
        """Whether a batch may be one image, of a side in pixels: not where batch norm then has one number per channel."""
        image, label = torch.zeros(1, 3, side, side), torch.zeros(1, dtype=torch.int64)
        try:
            self.evaluate_with_batch_statistics([(image.to(self.device), label.to(self.device))])
        except ValueError:  # of PyTorch's batch norm
            return False
        return True

    def reestimate(self, batches):
        """Replace batch-norm statistics by their averages over batches; (mean loss, accuracy) with batch statistics."""
        with self.autocast(), batchnorm.reestimating(self.network):
            return mean_loss_and_accuracy(self.network, batches)

    def errors(self, weights, train_batches, test_batches, batch_norm):
        """Train and test error at weights [1, parameters], in percent, [2, 1].

        batch_norm: whether one pass over the training images is to give both the train error, with batch statistics,
        and the statistics that the test error is measured with (paper, appendix), or both are measured without.
        """
        self._put(weights)
        _, train_accuracy = (self.reestimate if batch_norm else self.evaluate)(train_batches)
        _, test_accuracy = self.evaluate(test_batches)
        return 100 * (1 - torch.tensor([[train_accuracy], [test_accuracy]], dtype=torch.float64))


@torch.no_grad()
def loss_and_correct(logits, labels):
    """Cross-entropy summed over a batch, and the number of correct predictions: a tensor [2], without host sync."""
    loss = F.cross_entropy(logits, labels, reduction="sum")
    correct = (logits.argmax(dim=1) == labels).sum()
    return torch.stack([loss, correct.to(loss.dtype)])


@torch.no_grad()
def mean_loss_and_accuracy(network, batches):
    """(mean loss, accuracy in 0..1) over batches of (inputs, labels), in whichever mode the network is."""
    totals, count = 0, 0
    for inputs, labels in batches:
        totals = totals + loss_and_correct(network(inputs), labels)
        count += len(labels)
    loss, accuracy = (totals / count).tolist()
    return loss, accuracy
