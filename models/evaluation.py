"""Loss and accuracy of an image network."""

import torch
from torch.nn import functional as F


@torch.no_grad()
def loss_and_correct(logits, labels):
    """Cross-entropy summed over a batch, and the number of correct predictions: a tensor [2], without host sync."""
    loss = F.cross_entropy(logits, labels, reduction="sum")
    correct = (logits.argmax(dim=1) == labels).sum()
    return torch.stack([loss, correct.to(loss.dtype)])


@torch.no_grad()
def evaluate(network, batches):
    """(mean loss, accuracy in 0..1) over batches of (inputs, labels), in whichever mode the network is."""
    totals, count = 0, 0
    for inputs, labels in batches:
        totals = totals + loss_and_correct(network(inputs), labels)
        count += len(labels)
    loss, correct = (totals / count).tolist()
    return loss, correct


@torch.no_grad()
def evaluate_with_batch_statistics(network, batches):
    """evaluate() in training mode, that is with each batch's own statistics; running statistics stay as they were."""
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.train()
    result = evaluate(network, batches)
    for name, buffer in network.named_buffers():
        buffer.copy_(buffers[name])
    return result
