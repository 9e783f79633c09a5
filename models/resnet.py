"""The pre-activation ResNet-18 of the paper: scale-invariant (setups S1, S2 and S5), and practical (S6 and S7)."""

import functools

import torch
from torch import nn
from torch.nn import functional as F

from models.convnet import convolution


class Block(nn.Module):
    """h = ReLU(BN(x)); output = conv(ReLU(BN(conv(h)))) + shortcut.

    The shortcut is x itself, or, where the block changes stride, a 1x1 convolution of h normalised once more.
    """

    def __init__(self, inputs, outputs, stride, norm):
        super().__init__()
        self.norm1 = norm(inputs)
        self.conv1 = convolution(inputs, outputs, stride=stride)
        self.norm2 = norm(outputs)
        self.conv2 = convolution(outputs, outputs)
        self.shortcut = None
        if stride != 1:
            # Windows of one pixel do the striding, not the convolution: on a CPU oneDNN (3.12) writes out of
            # bounds for the gradient of strided 1x1 kernels in channels-last with fewer than 16 input channels.
            pick = nn.AvgPool2d(1, stride)
            self.shortcut = nn.Sequential(norm(inputs), pick, convolution(inputs, outputs, kernel=1))

    def forward(self, x):
        h = F.relu(self.norm1(x), inplace=True)  # batch norm's gradient does not need its output
        y = self.conv1(h)
        y = self.conv2(F.relu(self.norm2(y), inplace=True))
        return y + (x if self.shortcut is None else self.shortcut(h))


class PreActResNet18(nn.Module):
    """Stem convolution, four stages of two blocks with widths c, 2c, 4c, 8c, BN, ReLU, mean over the map, classifier.

    No convolution has a bias, nor has the classifier. affine: whether batch norm has scales and shifts. Without, the
    output does not change when all convolutions are multiplied by one common factor (per-layer factors would change it).

    Input: [batch, 3, height, width], height and width at least 8. Output: logits [batch, classes].
    """

    def __init__(self, width, classes, affine):
        super().__init__()
        norm = functools.partial(nn.BatchNorm2d, affine=affine)
        self.stem = convolution(3, width)
        blocks = []
        inputs = width
        for stage in range(4):
            outputs = width * 2**stage
            stride = 1 if stage == 0 else 2
            blocks += [Block(inputs, outputs, stride, norm), Block(outputs, outputs, 1, norm)]
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.norm = norm(inputs)
        self.classifier = nn.Linear(inputs, classes, bias=False)

    def forward(self, x):
        x = F.relu(self.norm(self.blocks(self.stem(x))), inplace=True)
        return self.classifier(torch.flatten(F.avg_pool2d(x, x.shape[-2:]), 1))
