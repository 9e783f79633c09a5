"""Training an image network against a plain loop: a tensor per layer, autograd and an explicit projection."""

import dataclasses
import math

import pytest
import torch
from conftest import needs_bf16, random_image_set
from test_networks import CONVNET, NAMES, kernels, plain_logits
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import models
import train
from data import images as images_module
from data.augment import crop_and_flip, crops_and_flips
from data.images import epoch_order
from data.seeds import generator
from train import ImageTraining

DEVICE, LR, SEED = torch.device("cpu"), 2e-3, 3
BATCH_SIZES = {"several batches, the last one partial": 16, "one step per epoch": 60, "larger than the set": 128}


def new_training(model, image_set, lrs=(LR,), seed=SEED, device=DEVICE, **changes):
    settings = {"model": model, "width": 4, "batch_size": 16, "rho": 7.0, "first_step": 0}
    settings |= {
        "optimizer": models.NETWORKS[model].optimizer,
        "compile": False,
        "precision": "fp32",
        "augment": "none",
        "shape": {},
    }
    return ImageTraining(settings | changes, [{"lrs": list(lrs), "seed": seed}], device, image_set)


def normalised(images, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010)):
    """Pixels normalised in float64, by default with the constants of the paper's code."""
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (mean, std))
    return (images.double() / 255 - mean) / std


@pytest.fixture
def double(float64, monkeypatch):
    """Training in float64, so that both loops agree to rounding over many steps."""
    monkeypatch.setattr(images_module, "normalise", normalised)


class PlainTraining:
    """What ImageTraining does, from its initial weights on, without anything it uses but the order of images."""

    def __init__(self, task, model, image_set):
        self.model, self.data = model, image_set
        self.rho, self.batch_size = task.settings["rho"], task.settings["batch_size"]
        self.kernels = [p.detach().double().clone().contiguous() for p in kernels(task.evaluator.network).values()]
        layer = task.evaluator.network.classifier
        self.classifier = layer.weight.double(), None if layer.bias is None else layer.bias.double()
        self.running = None

    def normalised(self, images):
        return normalised(images, self.data.mean, self.data.std)

    def logits(self, images, statistics=None):
        return plain_logits(self.model, self.normalised(images), self.kernels, self.classifier, statistics)

    def train_epoch(self, epoch, lr, seed):
        """One epoch; returns loss and accuracy averaged over images in train mode."""
        images, labels = self.data.train_images, self.data.train_labels
        order = epoch_order(seed, epoch, len(labels)).tolist()
        losses, correct = [], []
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            for kernel in self.kernels:
                kernel.requires_grad_(True)
            logits, moments = self.logits(images[chosen])
            each = losses_of_images(logits, labels[chosen])
            gradients = torch.autograd.grad(sum(each) / len(each), self.kernels)
            self.kernels = self.projected(
                [k.detach() - lr * self.rho**2 * g for k, g in zip(self.kernels, gradients)]
            )
            self.follow(moments)
            losses += [loss.item() for loss in each]
            correct += (logits.argmax(1) == labels[chosen]).tolist()
        return sum(losses) / len(losses), sum(correct) / len(correct)

    def projected(self, kernels):
        norm = math.sqrt(sum(kernel.square().sum().item() for kernel in kernels))
        return [kernel * self.rho / norm for kernel in kernels]

    def follow(self, moments):
        before = self.running or [(torch.zeros_like(mean), torch.ones_like(mean)) for mean, _ in moments]
        self.running = [
            (0.9 * mean + 0.1 * new_mean, 0.9 * variance + 0.1 * new_variance)
            for (mean, variance), (new_mean, new_variance) in zip(before, moments)
        ]

    def evaluate(self):
        """Test loss and accuracy with running statistics."""
        logits, _ = self.logits(self.data.test_images, self.running)
        return mean_loss_and_accuracy([(logits, self.data.test_labels)])

    def evaluate_reestimated(self, batch_size):
        """Test loss and accuracy with the moments of training batches as stored, averaged over the images."""
        batches = self.data.train_images.split(batch_size)
        found = [self.logits(images)[1] for images in batches]
        shares = [len(images) / len(self.data.train_images) for images in batches]
        statistics = [
            [sum(share * moment for share, moment in zip(shares, one_moment)) for one_moment in zip(*one_norm)]
            for one_norm in zip(*found)
        ]
        logits, _ = self.logits(self.data.test_images, statistics)
        return mean_loss_and_accuracy([(logits, self.data.test_labels)])

    def evaluate_train(self):
        """Train loss and accuracy of batches as stored, with their own statistics."""
        pairs = zip(*(part.split(self.batch_size) for part in (self.data.train_images, self.data.train_labels)))
        return mean_loss_and_accuracy([(self.logits(images)[0], labels) for images, labels in pairs])


def losses_of_images(logits, labels):
    return [torch.logsumexp(row, 0) - row[label] for row, label in zip(logits, labels)]


def mean_loss_and_accuracy(batches):
    losses = [loss.item() for logits, labels in batches for loss in losses_of_images(logits, labels)]
    correct = [match.item() for logits, labels in batches for match in logits.argmax(1) == labels]
    return sum(losses) / len(losses), sum(correct) / len(correct)


def assert_metrics(metrics, split, expected, tolerance=1e-9, flips=0):
    """Metrics are {SPLIT_loss, SPLIT_accuracy} of one member and hold the expected pair."""
    loss, accuracy = expected
    assert list(metrics) == [f"{split}_loss", f"{split}_accuracy"]
    assert metrics[f"{split}_loss"].tolist() == [pytest.approx(loss, rel=tolerance)]
    assert metrics[f"{split}_accuracy"].tolist() == [pytest.approx(accuracy, abs=flips + 1e-9)]


def assert_weights(task, plain, tolerance=1e-9):
    found = [p.detach().double() for p in kernels(task.evaluator.network).values()]
    for kernel, expected in zip(found, plain.kernels, strict=True):
        torch.testing.assert_close(kernel, expected, rtol=0, atol=tolerance * expected.abs().max().item())


def state(task):
    """All tensors of a task by name."""
    tensors = task.state()
    return {"weights": tensors["weights"], **tensors["buffers"]}


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


# Starting


@pytest.mark.parametrize("model", NAMES)
def test_starts_at_the_default_initialisation_scaled_to_rho(image_set, model):
    task = new_training(model, image_set)
    built = models.build(model, 4, 10, generator("init", SEED).initial_seed()).double()
    parameters = list(kernels(built).values())
    norm = math.sqrt(sum(p.square().sum().item() for p in parameters))
    for found, drawn in zip(kernels(task.evaluator.network).values(), parameters, strict=True):
        torch.testing.assert_close(found.double(), drawn * 7.0 / norm, rtol=1e-6, atol=0)
    assert torch.equal(task.evaluator.network.classifier.weight.double(), built.classifier.weight)


def test_start_depends_on_the_seed_but_not_on_the_learning_rate(image_set):
    task = new_training(CONVNET, image_set)
    assert_same(state(task), state(new_training(CONVNET, image_set, lrs=[0.5])))
    other = new_training(CONVNET, image_set, seed=SEED + 1)
    assert not (task.weights == other.weights).any()
    assert not torch.equal(task.evaluator.network.classifier.weight, other.evaluator.network.classifier.weight)


# Training


@pytest.mark.parametrize("batch_size", BATCH_SIZES.values(), ids=BATCH_SIZES)
@pytest.mark.parametrize("model", NAMES)
def test_losses_weights_and_evaluations_follow_the_plain_loop(double, image_set, model, batch_size, monkeypatch):
    monkeypatch.setattr(
        images_module, "EVALUATION_BATCH", {"cpu": 7}
    )  # unequal batches, which would show in the means
    task = new_training(model, image_set, batch_size=batch_size)
    plain = PlainTraining(task, model, image_set)
    start = task.weights.clone()
    assert_metrics(task.evaluate_train(), "train", plain.evaluate_train())
    for epoch in range(2):
        assert_metrics(task.advance(epoch, epoch + 1), "train", plain.train_epoch(epoch, LR, SEED))
        assert_metrics(task.evaluate(), "test", plain.evaluate())
        assert_metrics(task.evaluate_train(), "train", plain.evaluate_train())
    assert_weights(task, plain)
    assert (task.weights - start).norm() > 0.02 * 7.0
    assert task.weights.norm().item() == pytest.approx(7.0, rel=1e-12)


def test_images_are_normalised_with_the_numbers_of_their_set(double, image_set):
    own = dataclasses.replace(image_set, mean=(0.2, 0.5, 0.7), std=(0.1, 0.3, 0.4))
    task = new_training(CONVNET, own)
    plain = PlainTraining(task, CONVNET, own)
    assert_metrics(task.evaluate_train(), "train", plain.evaluate_train())
    assert_metrics(task.advance(0, 1), "train", plain.train_epoch(0, LR, SEED))
    assert_metrics(task.evaluate(), "test", plain.evaluate())


@pytest.mark.parametrize("model", NAMES)
def test_reestimated_statistics_are_those_of_the_training_set(double, image_set, model, monkeypatch):
    monkeypatch.setattr(train, "REESTIMATION_BATCH", 25)  # batches of 25, 25 and 10 images
    task = new_training(model, image_set, augment="crop-flip")
    task.advance(0, 2)
    plain = PlainTraining(task, model, image_set)  # of the kernels as trained
    assert_metrics(task.evaluate_reestimated(), "test", plain.evaluate_reestimated(25))


def assert_follows_in_float32(model, image_set, monkeypatch, **changes):
    """With a smooth ReLU: at a kink rounding may switch a gradient, and the losses part within a few steps."""
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: F.softplus(4 * x) / 4)
    task = new_training(model, image_set, **changes)
    plain = PlainTraining(task, model, image_set)
    assert task.weights.dtype == torch.float32
    for epoch in range(2):
        trained = plain.train_epoch(epoch, LR, SEED)
        assert_metrics(task.advance(epoch, epoch + 1), "train", trained, tolerance=1e-3, flips=0.04)
        assert_metrics(task.evaluate(), "test", plain.evaluate(), tolerance=1e-3, flips=0.04)
    assert_weights(task, plain, tolerance=1e-3)


@pytest.mark.parametrize("model", NAMES)
def test_training_in_float32_follows_the_plain_loop(image_set, model, monkeypatch):
    assert_follows_in_float32(model, image_set, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("model", NAMES)
def test_compiled_training_follows_the_plain_loop(compiler, image_set, model, monkeypatch):
    assert_follows_in_float32(model, image_set, monkeypatch, compile=True, batch_size=30)


@pytest.mark.parametrize("model", NAMES)
def test_the_norm_is_kept_as_a_whole_and_not_by_layer(double, image_set, model):
    task = new_training(model, image_set, lrs=[0.05])
    before = [p.norm().item() for p in kernels(task.evaluator.network).values()]
    task.advance(0, 1)
    after = [p.norm().item() for p in kernels(task.evaluator.network).values()]
    assert max(abs(b / a - 1) for a, b in zip(before, after)) > 0.01
    assert math.hypot(*after) == pytest.approx(7.0, rel=1e-12)


def test_metrics_over_several_epochs_are_their_mean(double, image_set):
    task = new_training(CONVNET, image_set)
    plain = PlainTraining(task, CONVNET, image_set)
    epochs = [plain.train_epoch(epoch, LR, SEED) for epoch in range(3)]
    expected = [sum(values) / 3 for values in zip(*epochs)]
    assert_metrics(task.advance(0, 3), "train", expected)


def test_the_last_learning_rate_is_in_use(double, image_set):
    task = new_training(CONVNET, image_set, lrs=[1e-5, 3e-2, LR])
    plain = PlainTraining(task, CONVNET, image_set)
    task.advance(0, 1)
    plain.train_epoch(0, LR, SEED)
    assert_weights(task, plain)


def test_first_step_offsets_the_order_of_images(double, image_set):
    task = new_training(CONVNET, image_set, first_step=5)
    plain = PlainTraining(task, CONVNET, image_set)
    for step in range(2):
        assert_metrics(task.advance(step, step + 1), "train", plain.train_epoch(5 + step, LR, SEED))
    assert_weights(task, plain)


@pytest.mark.parametrize("side, classes", [(32, 10), (64, 3)])
@pytest.mark.parametrize("model", NAMES)
def test_other_image_sizes_and_class_counts_follow_the_plain_loop(double, model, side, classes):
    image_set = random_image_set(classes=classes, train=20, test=6, side=side)
    task = new_training(model, image_set)
    plain = PlainTraining(task, model, image_set)
    assert task.evaluator.network.classifier.out_features == classes
    assert_metrics(task.advance(0, 1), "train", plain.train_epoch(0, LR, SEED))
    assert_metrics(task.evaluate(), "test", plain.evaluate())


@pytest.mark.parametrize("model", NAMES)
def test_the_classifier_stays_and_all_else_moves(image_set, model):
    task = new_training(model, image_set)
    before = {name: tensor.clone() for name, tensor in task.evaluator.network.state_dict().items()}
    task.advance(0, 1)
    same = {
        name for name, tensor in task.evaluator.network.state_dict().items() if torch.equal(tensor, before[name])
    }
    assert same == {name for name in before if name.startswith("classifier")}
    assert before["classifier.weight"].norm().item() == pytest.approx(10, rel=1e-6)


@pytest.mark.parametrize("model", NAMES)
def test_augmented_training_follows_the_plain_loop_on_augmented_images(double, image_set, model):
    task = new_training(model, image_set, augment="crop-flip")
    plain = PlainTraining(task, model, image_set)
    for epoch in range(2):
        order = epoch_order(SEED, epoch, 60)
        pixels = image_set.train_images.clone()
        pixels[order] = crop_and_flip(pixels[order], crops_and_flips(SEED, epoch, 60, 16))
        plain.data = dataclasses.replace(image_set, train_images=pixels)
        assert_metrics(task.advance(epoch, epoch + 1), "train", plain.train_epoch(epoch, LR, SEED))
        plain.data = image_set  # evaluations see the images as they are
        assert_metrics(task.evaluate(), "test", plain.evaluate())
        assert_metrics(task.evaluate_train(), "train", plain.evaluate_train())
    assert_weights(task, plain)


@needs_bf16
@pytest.mark.parametrize("model", NAMES)
def test_bf16_rounds_but_keeps_weights_and_statistics_in_float32(image_set, model):
    rounded, exact = (new_training(model, image_set, precision=p, batch_size=60) for p in ("bf16", "fp32"))
    start, seen = exact.weights.clone(), []
    for task in (rounded, exact):
        task.evaluator.network.classifier.register_forward_hook(lambda *call: seen.append(call[-1].dtype))
        task.found = [*task.evaluate_train().values(), *task.advance(0, 1).values(), *task.evaluate().values()]
        task.load_average(task.weights.clone())
        assert all(
            tensor.is_floating_point() <= (tensor.dtype == torch.float32) for tensor in state(task).values()
        )
    assert set(seen[: len(seen) // 2]) == {torch.bfloat16} and set(seen[len(seen) // 2 :]) == {torch.float32}
    # The running loss of the one iteration of the epoch is that of evaluate_train(), and summed in float32.
    assert rounded.found[2].item() == pytest.approx(rounded.found[0].item(), rel=1e-3)
    for values, others in zip(rounded.found, exact.found):
        assert values.item() == pytest.approx(
            others.item(), rel=0.05, abs=0.04
        )  # 8 bits; a flip of an image or two
    moved, expected = rounded.weights - start, exact.weights - start  # by one step
    assert 0.95 < torch.cosine_similarity(moved, expected).item() < 0.99999


@pytest.mark.parametrize("augment", ["none", "crop-flip"])
@pytest.mark.parametrize("model", NAMES)
def test_replayed_steps_give_the_same_bits(image_set, model, augment, recorded):
    """All that a step changes is set back after a capture, and every size of batch has a graph of its own."""
    plain, replayed = (new_training(model, image_set, augment=augment) for _ in range(2))
    replayed._step = recorded(replayed._step)
    replayed.replays = {}  # as on a GPU
    for epoch in range(2):
        assert replayed.advance(epoch, epoch + 1) == plain.advance(epoch, epoch + 1)
    assert sorted(replayed.replays) == [12, 16]
    assert_same(state(replayed), state(plain))


@pytest.mark.parametrize("size", [12, 16, 30])
def test_what_compiles_for_some_batches_only_is_not_compiled(image_set, size, monkeypatch, capsys):
    """12 and 16 images are trained on at once, and 30 evaluated; nothing of the trial is left behind."""

    def compile_for_other_sizes(network, **options):
        def call(x):
            if len(x) == size:
                raise RuntimeError("C++ compile error")
            return network(x)

        return call

    monkeypatch.setattr(torch, "compile", compile_for_other_sizes)
    monkeypatch.setattr("models.compiled.failures", [])
    task, plain = new_training(CONVNET, image_set, compile=True), new_training(CONVNET, image_set)
    assert capsys.readouterr().err.startswith(
        "--compile: cannot compile here (C++ compile error); going on without"
    )
    assert task.evaluator.forward is task.evaluator.network
    assert_same(state(task), state(plain))
    assert task.advance(0, 2) | task.evaluate() == plain.advance(0, 2) | plain.evaluate()
    assert_same(state(task), state(plain))


class NoWaiting(TorchDispatchMode):
    """Fails at operations that make the host wait for a GPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function.overloadpacket.__name__ not in ("_local_scalar_dense", "nonzero", "is_nonzero", "equal")
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_bf16)])
@pytest.mark.parametrize("model", NAMES)
def test_no_value_is_read_within_an_epoch(image_set, model, precision):
    task = new_training(model, image_set, precision=precision, augment="crop-flip")
    with NoWaiting():
        for samples in task._samples(0).split(16):
            task._step(samples)
        with pytest.raises(AssertionError):
            task.totals[0].item()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("model", NAMES)
def test_training_on_a_gpu_follows_the_cpu(double, image_set, model):
    cuda = torch.device("cuda")
    there = {k: v.to(cuda) for k, v in vars(image_set).items() if isinstance(v, torch.Tensor)}
    tasks = (
        new_training(model, image_set),
        new_training(model, dataclasses.replace(image_set, **there), device=cuda),
    )
    for epoch in range(2):
        here, found = (task.advance(epoch, epoch + 1) | task.evaluate() for task in tasks)
        for name, value in here.items():
            torch.testing.assert_close(found[name].cpu(), value, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(tasks[1].weights.cpu(), tasks[0].weights, rtol=0, atol=1e-7)


# Evaluating


@pytest.mark.parametrize("model", NAMES)
def test_evaluations_leave_all_tensors_and_the_training_after_them(image_set, model):
    task, undisturbed = new_training(model, image_set), new_training(model, image_set)
    for one in (task, undisturbed):
        one.advance(0, 1)
    before = state(task)
    first = task.evaluate(), task.evaluate_train()
    assert (task.evaluate(), task.evaluate_train()) == first
    assert_same(state(task), before)
    for one in (task, undisturbed):
        one.advance(1, 2)
    assert_same(state(task), state(undisturbed))


# Going on


@pytest.mark.parametrize("model", NAMES)
def test_stages_of_any_length_give_the_same_bits(image_set, model):
    at_once, resumed, first = (new_training(model, image_set) for _ in range(3))
    at_once.advance(0, 3)
    first.advance(0, 1)
    tensors = first.state()
    first.advance(1, 2)  # what tensors() gave stays as it was
    resumed.resume(tensors)
    resumed.advance(1, 3)
    continued = new_training(model, image_set, lrs=[0.5, LR], first_step=1)
    continued.resume(tensors)
    continued.advance(0, 2)
    assert not torch.equal(at_once.weights, tensors["weights"])
    assert_same(state(resumed), state(at_once))
    assert_same(state(continued), state(at_once))
    assert resumed.evaluate() == at_once.evaluate() == continued.evaluate()


def test_loading_brings_the_frozen_classifier_along(image_set):
    task, other = new_training(CONVNET, image_set), new_training(CONVNET, image_set, seed=SEED + 1)
    task.advance(0, 1)
    other.resume(task.state())
    assert_same(state(other), state(task))
    assert other.evaluate() == task.evaluate()


@pytest.mark.parametrize("model", NAMES)
def test_averaged_weights_get_no_projection_and_statistics_of_their_own(double, image_set, model, monkeypatch):
    monkeypatch.setattr("train.REESTIMATION_BATCH", 25)
    task = new_training(model, image_set)
    start = task.weights.clone()
    task.advance(0, 2)
    average = (start + task.weights) / 2
    task.load_average(average)
    assert torch.equal(task.weights, average) and average.norm() < 0.999 * 7.0

    plain = PlainTraining(task, model, image_set)
    moments = [plain.logits(images)[1] for images in image_set.train_images.split(25)]
    shares = [25 / 60, 25 / 60, 10 / 60]
    plain.running = [
        [sum(share * moment for share, moment in zip(shares, one_moment)) for one_moment in zip(*one_norm)]
        for one_norm in zip(*moments)
    ]
    assert_metrics(task.evaluate(), "test", plain.evaluate())
