"""The scale-invariant MLP of the synthetic study, many members in one tensor program.

    32 inputs -> linear -> layer norm -> ReLU -> linear -> layer norm -> ReLU -> linear -> logit of class 1

No biases, no affine layer norm. The two 32x32 matrices are trained on the sphere; the last layer is frozen.
Source: paper, synthetic example (figures 4, 5 and 15 to 17).

    initial_weights(random) -> [2048]         frozen_layer(random) -> [32]
    logits(weights, frozen, inputs) -> [members, points]
    evaluate(weights, frozen, inputs, labels) -> mean loss [members], accuracy [members] as a fraction
    trainer = MlpTrainer(weights, frozen, learning_rates, batch=16, rho=1.0)
    trainer.step(inputs, labels); trainer.weights -> [members, 2048]

Members are ordered by group. A group is a pair of data and training seed: its members share frozen layer and
minibatches (fine-tuned members of one seed may also start from different points). With M members in G groups,
members g*M/G ... (g+1)*M/G - 1 belong to group g. Weights are flat [members, 2048]: first matrix, then
second, each [output, input] row by row. Activations are hidden-major, [members, 32, points]: matrix products
then need no transposed copies, and layer norm's sums over hidden units run along whole rows of points.
"""

import math

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from models.compiled import compiled_or_plain
from models.cudagraph import captured
from models.solutions import refuse_other_solution

WIDTH = 32
WEIGHTS = 2 * WIDTH * WIDTH
FROZEN_NORM = 10.0
LAYER_NORM_EPSILON = 1e-7


def initial_weights(random):
    """A random point [2048] on the unit sphere, drawn with the torch.Generator `random`."""
    weights = torch.randn(WEIGHTS, generator=random)
    return weights / weights.norm()


def frozen_layer(random):
    """A last layer [32], drawn with the torch.Generator `random`: PyTorch's default (uniform), rescaled to norm 10."""
    layer = 2 * torch.rand(WIDTH, generator=random) - 1
    return layer * (FROZEN_NORM / layer.norm())


def refuse_unfit(solution, members, groups):
    """Raise ValueError where a solution is not {"weights": [members, 2048], "buffers": {"frozen": [groups, 32]}}."""
    refuse_other_solution(solution, torch.empty(members, WEIGHTS), {"frozen": torch.empty(groups, WIDTH)})


class MlpTrainer:
    """Projected SGD on the binary cross-entropy of all members at once (paper, section 2).

    A member whose numbers are no longer finite leaves the others alone. The weights are the whole state: a
    new trainer that starts from them goes on exactly as this one would.

    weights: [members, 2048], each row on the sphere of radius rho; copied.
    frozen: last layers, [groups, 32].
    learning_rates: [members], effective ones, that is, on the unit sphere.
    batch: points per member and step.
    compiled: whether to compile the gradient, which takes seconds at the first step and rounds differently.
    """

    def __init__(self, weights, frozen, learning_rates, batch=16, rho=1.0, compiled=False):
        members = len(weights)
        self.layers = _matrices(weights)
        self.frozen = frozen.repeat_interleave(members // len(frozen), dim=0)[:, None]
        self.rates = (learning_rates * rho**2 / batch).view(members, 1, 1).to(weights.dtype)
        self.rho = rho
        self.workspace = _workspace(self.layers[0], batch)
        self.groups = len(frozen)
        self.descent = compiled_or_plain(_descent, self._try_compiled) if compiled else _descent
        self.replay = None

    @property
    def weights(self):
        """A copy of the weights, [members, 2048]."""
        return self.layers.transpose(0, 1).reshape(-1, WEIGHTS)

    @torch.no_grad()
    def step(self, inputs, labels):
        """One step w <- rho * (w - lr*rho^2*g) / |w - lr*rho^2*g| of every member.

        Here g is the gradient of the mean batch loss, and the norm is that of both matrices together.
        inputs: [groups, batch, 32]; labels: [groups, batch], 0 or 1.
        """
        if not self.layers.is_cuda:
            self._step(inputs, labels)
            return
        if self.replay is None:
            self.replay = captured(self._step, [self.layers], inputs, labels)
        self.replay(inputs, labels)

    @torch.no_grad()
    def _try_compiled(self, descent):
        """Call a compiled _descent() on zeros of the shapes that it will have; its results lie in the workspace."""
        batch = self.workspace[0].shape[-1]
        inputs, labels = (self.rates.new_zeros(self.groups, batch, *more) for more in ([WIDTH], []))
        descent(*self.layers, self.frozen, self.rates, inputs, labels, self.workspace)

    def _step(self, inputs, labels):
        groups, batch, _ = inputs.shape
        first, second = self.layers
        hidden_1, gradient_2, gradient_1 = self.descent(
            first, second, self.frozen, self.rates, inputs, labels, self.workspace
        )
        second.baddbmm_(gradient_2, hidden_1.mT, alpha=-1)
        first.view(groups, -1, WIDTH).baddbmm_(gradient_1.view(groups, -1, batch), inputs, alpha=-1)
        norms = torch.linalg.vector_norm(self.layers.flatten(2), dim=2)
        self.layers.mul_((self.rho / torch.hypot(*norms))[:, None, None])


MEMBERS_PER_PART = 230  # more leave a processor's cache, fewer leave it waiting for Python


class MlpTrainers:
    """All members of a run, in parts that are trained one after the other and so stay in cache; on a GPU all at once.

    Arguments are those of MlpTrainer, their tensors on any device but learning_rates, on whose device training is.
    parts: [(slice of groups, their MlpTrainer)].
    """

    def __init__(self, weights, frozen, learning_rates, batch, rho, compiled):
        device = learning_rates.device
        self.frozen = frozen.to(device)
        groups, members_per_group = len(frozen), len(weights) // len(frozen)
        count = 1 if device.type == "cuda" else min(groups, math.ceil(len(weights) / MEMBERS_PER_PART))
        self.parts = []
        for part in torch.arange(groups).tensor_split(count):
            begin, end = part[0].item(), part[-1].item() + 1
            members = slice(begin * members_per_group, end * members_per_group)
            start = (weights[members].to(device), self.frozen[begin:end], learning_rates[members])
            self.parts.append((slice(begin, end), MlpTrainer(*start, batch, rho, compiled)))

    @property
    def weights(self):
        """A copy of the weights, [members, 2048]."""
        return torch.cat([trainer.weights for _, trainer in self.parts])


def _descent(first, second, frozen, rates, inputs, labels, workspace):
    """What a step subtracts, as factors: gradient_2 @ hidden_1.mT from `second`, gradient_1 @ inputs from `first`.

    Shapes as in _forward; rates [members, 1, 1], labels [groups, points]. The results, (hidden_1, gradient_2,
    gradient_1), [members, 32, points] each, lie in the workspace.
    """
    groups, points, _ = inputs.shape
    centred_1, hidden_1, centred_2, gradient_2, gradient_1 = workspace
    logit, inverse_deviation = _forward(first, second, frozen, inputs, workspace)

    # Learning rate and batch mean are part of the logit's gradient: what comes out is the step itself.
    error = logit.sigmoid().view(groups, -1, points) - labels[:, None]
    slope = error.view_as(logit) * rates * inverse_deviation
    # Layer norm takes the mean and the component along the activations out of the gradient. The latter is
    # absent from layer 1, as the logit does not depend on the scale there, except through the epsilon.
    radial = logit * inverse_deviation
    _relu_backward(frozen.mT.expand_as(centred_2), centred_2, out=gradient_2)
    _centre_(gradient_2).addcmul_(centred_2, radial, value=-1 / WIDTH).mul_(slope)
    torch.bmm(second.mT, gradient_2, out=gradient_1)
    _relu_backward(gradient_1, centred_1, out=gradient_1)
    _centre_(gradient_1).addcmul_(centred_1, slope * radial, value=-LAYER_NORM_EPSILON / WIDTH)
    return hidden_1, gradient_2, gradient_1


def _matrices(weights):
    """A copy of weights [members, 2048] as [2, members, 32, 32], all first ones in a row."""
    layers = weights.reshape(-1, 2, WIDTH, WIDTH).transpose(0, 1)
    return layers.clone(memory_format=torch.contiguous_format)


def _workspace(first, points):
    """Five buffers [members, 32, points]: fetching fresh memory in every step can double its cost."""
    return first.new_empty(5, len(first), WIDTH, points).unbind()


def _forward(first, second, frozen, inputs, workspace):
    """The logit and the inverse deviation of layer 2, both [members, 1, points].

    first, second [members, 32, 32], frozen [members, 1, 32], inputs [groups, points, 32].
    Leaves in the workspace what the gradient needs: the centred activations of layer 1, the same rectified,
    and the centred activations of layer 2.

    Layer norm's division is put off: a positive factor per point passes through ReLU and the linear layers,
    and the second layer norm cancels it. So activations are only centred, and the logit is divided once. The
    epsilons act as they should: with variances v1, v2 of the undivided activations, the second layer norm
    would see the variance v2 / (v1 + eps), and v2 / (v1 + eps) + eps = (v2 + eps * (v1 + eps)) / (v1 + eps).
    """
    groups, points, _ = inputs.shape
    centred_1, hidden_1, centred_2, scratch, _ = workspace
    torch.bmm(first.view(groups, -1, WIDTH), inputs.mT, out=centred_1.view(groups, -1, points))
    _centre_(centred_1)
    torch.clamp_min(centred_1, 0, out=hidden_1)
    torch.bmm(second, hidden_1, out=centred_2)
    _centre_(centred_2)
    squares_1 = torch.mul(centred_1, centred_1, out=scratch).sum(1, keepdim=True)
    squares_2 = torch.mul(centred_2, centred_2, out=scratch).sum(1, keepdim=True)
    variance = torch.add(squares_2, squares_1, alpha=LAYER_NORM_EPSILON) / WIDTH
    inverse_deviation = (variance + LAYER_NORM_EPSILON**2).rsqrt()
    logit = torch.bmm(frozen, torch.clamp_min(centred_2, 0, out=scratch)) * inverse_deviation
    return logit, inverse_deviation


def _centre_(activations):
    """Subtract the mean over hidden units, in place."""
    return activations.sub_(activations.sum(1, keepdim=True), alpha=1 / WIDTH)


def _relu_backward(gradient, activations, out):
    """The gradient where activations are positive, else zero; several times faster than a boolean mask."""
    torch.ops.aten.threshold_backward.grad_input(gradient, activations, 0, grad_input=out)


MEMBERS_AT_ONCE = 32
ACTIVATIONS_IN_CACHE = 2**17  # half a megabyte of float32
ACTIVATIONS_ON_GPU = 2**27


@torch.no_grad()
def logits(weights, frozen, inputs):
    """Logits [members, points] of members with weights [members, 2048] and last layers frozen [groups, 32].

    inputs: [groups, points, 32], or [points, 32] where all groups see the same points. The members of a group
    are consecutive and equally many (see the module).
    """
    inputs = inputs.expand(len(frozen), -1, -1)
    scores = weights.new_empty(len(weights), inputs.shape[1])
    for part_weights, part_frozen, part_inputs, part_scores in _blocks(weights, frozen, inputs, scores):
        first, second = _matrices(part_weights)
        frozen_rows = part_frozen.repeat_interleave(len(first) // len(part_frozen), dim=0)[:, None]
        activations = ACTIVATIONS_ON_GPU if weights.is_cuda else ACTIVATIONS_IN_CACHE
        points = min(inputs.shape[1], max(64, activations // (len(first) * WIDTH)))
        workspace = _workspace(first, points)
        for some_inputs, some_scores in zip(part_inputs.split(points, dim=1), part_scores.split(points, dim=1)):
            buffers = [buffer[..., : some_inputs.shape[1]] for buffer in workspace]
            logit, _ = _forward(first, second, frozen_rows, some_inputs, buffers)
            some_scores.copy_(logit[:, 0])
    return scores


def _blocks(weights, frozen, inputs, scores):
    """What logits() takes at once, as (weights, frozen, inputs, scores): everything on a GPU, else some of a group."""
    if weights.is_cuda:
        yield weights, frozen, inputs, scores
        return
    groups = len(frozen)
    by_group = zip(weights.chunk(groups), frozen.split(1), inputs.split(1), scores.chunk(groups))
    for group_weights, last_layer, group_inputs, group_scores in by_group:
        for some_weights, some_scores in zip(*(t.split(MEMBERS_AT_ONCE) for t in (group_weights, group_scores))):
            yield some_weights, last_layer, group_inputs, some_scores


@torch.no_grad()
def evaluate(weights, frozen, inputs, labels):
    """Mean binary cross-entropy and accuracy (a fraction), both [members].

    weights, frozen, inputs: as for logits; labels: [groups, points] or [points], 0 or 1. A member whose
    logits are not finite has a loss that is not finite, and its accuracy means nothing.
    """
    scores = logits(weights, frozen, inputs).view(len(frozen), -1, labels.shape[-1])
    labels = labels.expand(len(frozen), -1)[:, None]
    losses = binary_cross_entropy_with_logits(scores, labels.expand_as(scores), reduction="none")
    correct = (scores > 0) == (labels > 0)
    return losses.mean(2).flatten(), correct.to(scores.dtype).mean(2).flatten()
