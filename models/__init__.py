"""Networks by name."""

import torch

from models import sphere
from models.convnet import ConvNet
from models.resnet import PreActResNet18

IMAGE_NETWORKS = {"si-convnet": ConvNet, "si-resnet18": PreActResNet18}
CLASSIFIER_NORM = 10.0


def build(name, width, classes, init_seed):
    """A scale-invariant image network on the CPU with its classifier frozen at norm 10 (paper, appendix A).

    Initialisation is PyTorch's default for convolutions and linear layers, a pure function of init_seed (an integer).
    The convolutions are not yet on the sphere: see models.sphere.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(init_seed)  # torch.manual_seed would reach for the GPU as well
        network = IMAGE_NETWORKS[name](width, classes)
    network.classifier.requires_grad_(False)
    with torch.no_grad():
        network.classifier.weight.mul_(CLASSIFIER_NORM / network.classifier.weight.norm())
    return network


def trained_parameters(network):
    """The parameters that training moves, in a fixed order: all convolution kernels."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def place(network, device):
    """Move a network to a device and its trained parameters into one flat vector; (weights, gradient) of sphere.flatten()."""
    network.to(device, memory_format=torch.channels_last)
    return sphere.flatten(trained_parameters(network))


def untrained_state(network):
    """{name: tensor} of all but the trained parameters: batch-norm statistics and frozen layers."""
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    return {name: tensor for name, tensor in network.state_dict().items() if name not in trained}


def load_untrained_state(network, tensors):
    """Put such tensors in place."""
    for name, tensor in untrained_state(network).items():
        tensor.copy_(tensors[name])
