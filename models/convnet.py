"""The scale-invariant ConvNet of the paper (setups S3 and S4)."""

import torch
from torch import nn
from torch.nn import functional as F


def convolution(inputs, outputs, kernel=3, stride=1):
    """A convolution without bias that keeps the image size (at stride 1), as both image networks use it."""
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


class ConvNet(nn.Module):
    """Four 3x3 convolutions of width c, 2c, 4c, 8c, each with batch norm and ReLU, and a frozen linear classifier.

    Blocks two to four end in a 2x2 max-pool, and a last max-pool takes the maximum over what remains of the map
    (4x4 for 32x32 inputs, 8x8 for 64x64). Batch norm has no affine parameters, so every filter is scale-invariant.
    The classifier has a bias, left at its default initialisation.

    Input: [batch, 3, height, width], height and width at least 8. Output: logits [batch, classes].
    """

    def __init__(self, width, classes):
        super().__init__()
        widths = [3, width, 2 * width, 4 * width, 8 * width]
        self.convolutions = nn.ModuleList(convolution(*pair) for pair in zip(widths, widths[1:]))
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs, affine=False) for outputs in widths[1:])
        self.classifier = nn.Linear(8 * width, classes)

    def forward(self, x):
        for depth, (convolve, norm) in enumerate(zip(self.convolutions, self.norms)):
            x = F.relu(norm(convolve(x)), inplace=True)  # batch norm's gradient does not need its output
            if depth > 0:
                x = F.max_pool2d(x, 2)
        x = F.max_pool2d(x, x.shape[-2:])
        return self.classifier(torch.flatten(x, 1))
