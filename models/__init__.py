"""Networks by name."""

import torch

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
