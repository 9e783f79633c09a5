"""A plain convolutional network on grey images, of a user's own: one of the networks of bench/peers.py."""

from torch import nn


class Grey(nn.Module):
    """The mean of the channels of images [batch, 3, side, side]: [batch, 1, side, side]."""

    def forward(self, images):
        return images.mean(dim=1, keepdim=True)


def block(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)


def network(classes, side):
    """Two convolutions and two linear layers, trained by SGD with momentum and weight decay."""
    flat = 32 * (side // 4) ** 2
    hidden = nn.Linear(flat, 64), nn.ReLU()
    return nn.Sequential(Grey(), *block(1, 16), *block(16, 32), nn.Flatten(), *hidden, nn.Linear(64, classes))
