"""The sphere of the paper (section 2): scale-invariant weights as one flat vector per member, and the projected step.

Flat weights have shape [members, parameters]; every row lies on a sphere of radius rho around the origin.
"""

import torch


def flatten(parameters):
    """Move parameters into one flat vector and make them views of it; the same for their gradients.

    Four-dimensional parameters (convolution kernels) are laid out channels-last, so that convolutions read them
    without a copy. The network must be on its final device: moving it afterwards would break the views.

    parameters: iterable of nn.Parameter of one floating dtype and device.
    Returns (weights, gradient), each [1, total number of elements]; `gradient` starts at zero and backward()
    adds to it.
    """
    parameters = list(parameters)
    size = sum(parameter.numel() for parameter in parameters)
    weights, gradient = parameters[0].new_zeros(2, 1, size).unbind()
    shapes = [parameter.shape for parameter in parameters]
    for parameter, view, slope in zip(parameters, pieces(weights[0], shapes), pieces(gradient[0], shapes)):
        view.copy_(parameter.detach())
        parameter.data, parameter.grad = view, slope
    return weights, gradient


def pieces(flat, shapes):
    """Views of these shapes into a flat vector [parameters], laid out as flatten() does."""
    return [_shaped(piece, shape) for piece, shape in zip(flat.split([shape.numel() for shape in shapes]), shapes)]


def joined(tensors):
    """A new flat vector [parameters] of tensors like the parameters, laid out as flatten() does."""
    flat = tensors[0].new_empty(sum(tensor.numel() for tensor in tensors))
    for piece, tensor in zip(pieces(flat, [tensor.shape for tensor in tensors]), tensors):
        piece.copy_(tensor)
    return flat


def _shaped(flat, shape):
    if len(shape) != 4:
        return flat.view(shape)
    outputs, inputs, height, width = shape
    return flat.view(outputs, height, width, inputs).permute(0, 3, 1, 2)


@torch.no_grad()
def project_(weights, rho):
    """Rescale every row of weights [members, parameters] to norm rho in place, by one factor, never per layer."""
    weights.mul_(rho / torch.linalg.vector_norm(weights, dim=1, keepdim=True))


@torch.no_grad()
def projected_step_(weights, gradient, lr, rho):
    """One step of projected SGD in place: w <- rho * (w - lr*rho^2*g) / |w - lr*rho^2*g| (paper, section 2).

    weights, gradient: [members, parameters]; gradient is that of the mean loss at `weights`.
    lr: effective learning rate, i.e. measured on the unit sphere.
    """
    weights.add_(gradient, alpha=-lr * rho**2)
    project_(weights, rho)
