"""Networks by name: a record each, which says all that the scripts must know of a kind of network."""

import dataclasses
import functools
from collections.abc import Callable

import torch

from models import mlp
from models.convnet import ConvNet
from models.evaluator import trained_parameters
from models.geometry import BarrierProtocol
from models.optimizers import PROJECTED_SGD, refuse_unknown_options
from models.resnet import PreActResNet18
from models.vit import VisionTransformer

# On ticks; scale-invariant, on images; and what practitioners train on images: convolutional networks and transformers.
KINDS = ("ticks", "scale-invariant", "convolutional", "transformer")


@dataclasses.dataclass(frozen=True)
class Network:
    """A kind of network: how it is built, trained and measured. A new one, for images, is one more record in NETWORKS.

    Random numbers of its own, if any, are those of models.dropout: others could not be replayed.
    Raises ValueError where entries do not fit together.
    """

    task: str  # what it is trained on: `images`, or `ticks`, whose networks models.mlp trains many at once
    kind: str  # which networks of the paper it is like, as figures and claims speak of them: one of KINDS
    build: Callable | None  # (width, classes, **shape) -> nn.Module on the CPU, initialised; None on ticks
    optimizer: dict  # as models.optimizers.build() takes it
    barrier: BarrierProtocol  # how error barriers are measured
    swa_anchor: (
        str  # which weights averages of different length share: their first (`start`) or their last (`end`)
    )
    swa_spacing: int = 1  # epochs or iterations between averaged weights
    rho: float | None = None  # radius of the sphere that all trained weights lie on; None: they are free
    classifier_norm: float | None = None  # of `network.classifier`, frozen at its initialisation; None: trained
    width: int | None = 32  # unless another is asked for; None: it has none
    batch_size: int = 128  # likewise
    # More whole numbers that build() takes, with what they are unless another is asked for; `side`, where it is among
    # them, is always that of the images in pixels.
    shape: dict = dataclasses.field(default_factory=dict)
    augment: str = "none"  # of training images, unless another is asked for: see data/augment.py
    smallest_image: int = 1  # pixels of a side
    lr_label: str = "learning rate"  # on axes
    in_angles: Callable | None = (
        None  # (name, parameter) -> whether angles are between it; None: all that is trained
    )
    # Train accuracy from which a run counts as converged. None: it is not by its accuracy, as augmentation keeps that
    # down, but by the train loss that runs reach side by side: see data/analysis/regimes.py.
    converged: float | None = 0.999
    diverges: bool = True  # whether large learning rates lead to chance: whether there is a boundary 2|3
    digest: str | None = None  # sha256 of the file that it was loaded from (see models/own.py); None of those here

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind}: is none of {', '.join(KINDS)}")
        projected = self.optimizer["name"] == PROJECTED_SGD["name"]
        if projected != (self.rho is not None):
            raise ValueError("a radius rho goes with projected SGD, and projected SGD with a radius")
        if self.barrier.on_sphere and self.rho is None:
            raise ValueError("barriers on the sphere need a radius rho")
        refuse_unknown_options(self.optimizer)
        if self.swa_anchor not in ("start", "end"):
            raise ValueError(f"swa_anchor {self.swa_anchor}: is neither start nor end")
        if self.barrier.points < 3:
            raise ValueError("barriers need three points or more: both ends, and one between them")
        if self.task == "ticks" and not (projected and self.build is None and self.in_angles is None):
            raise ValueError("networks on ticks are those of models.mlp, trained by projected SGD")

    def facts(self):
        """What a run folder tells the analysis of metrics, which never looks at networks (see data/runs.py)."""
        facts = {name: getattr(self, name) for name in ("task", "kind", "lr_label", "converged", "diverges")}
        return facts | {"barrier": self.barrier._asdict()}


EFFECTIVE = "learning rate (effective)"
SI_CONVNET = Network(
    task="images",
    kind="scale-invariant",
    build=ConvNet,
    optimizer=PROJECTED_SGD,
    rho=12.0,  # of the published runs at width 32
    classifier_norm=10.0,  # paper, appendix A
    smallest_image=8,
    lr_label=EFFECTIVE,
    barrier=BarrierProtocol(points=21, on_sphere=True, batch_norm=True, floor=0.1),
    swa_anchor="start",
)
NETWORKS = {
    "si-convnet": SI_CONVNET,
    "si-resnet18": dataclasses.replace(
        SI_CONVNET,
        build=functools.partial(PreActResNet18, affine=False),
        rho=28.0,  # likewise
    ),
    "resnet18": Network(
        task="images",
        kind="convolutional",
        build=functools.partial(PreActResNet18, affine=True),
        optimizer={"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4},  # not published
        barrier=BarrierProtocol(points=21, on_sphere=False, batch_norm=True, floor=0.01),
        swa_anchor="start",
        width=64,
        augment="crop-flip",
        smallest_image=8,
        in_angles=lambda _, parameter: parameter.ndim == 4,  # convolution kernels
        converged=None,
        diverges=False,
    ),
    "vit": Network(
        task="images",
        kind="transformer",
        build=VisionTransformer,
        optimizer={"name": "adam", "weight_decay": 1e-4},  # added to the gradient, not decoupled
        barrier=BarrierProtocol(points=7, on_sphere=False, batch_norm=False, floor=0.01),
        swa_anchor="end",
        swa_spacing=2,
        width=512,
        shape={"side": 32, "depth": 6, "heads": 8, "patch": 4},
        batch_size=512,
        augment="randaugment",
        converged=None,
        diverges=False,
    ),
    "si-mlp": Network(
        task="ticks",
        kind="ticks",
        build=None,
        optimizer=PROJECTED_SGD,
        rho=1.0,
        classifier_norm=mlp.FROZEN_NORM,
        batch_size=16,
        lr_label=EFFECTIVE,
        barrier=BarrierProtocol(points=11, on_sphere=False, batch_norm=False, floor=0.01),
        swa_anchor="end",
        swa_spacing=100,
    ),
}


def networks_for(task):
    """The names of the networks for a task."""
    return [name for name, network in NETWORKS.items() if network.task == task]


def build(name, width, classes, init_seed, **shape):
    """An image network on the CPU, its classifier frozen where its record says so (paper, appendix A).

    shape: what is other than in Network.shape. Raises ValueError where a network of that shape cannot be.
    Initialisation is PyTorch's default for convolutions and linear layers, a pure function of init_seed (an integer).
    Trained weights are not yet on the sphere: see models.sphere.
    """
    kind = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(init_seed)  # torch.manual_seed would reach for the GPU as well
        network = kind.build(width, classes, **kind.shape | shape)
    if kind.classifier_norm is not None:
        network.classifier.requires_grad_(False)
        with torch.no_grad():
            network.classifier.weight.mul_(kind.classifier_norm / network.classifier.weight.norm())
    return network


def angle_parameters(name, network):
    """The trained parameters of a network that angles are between, by its record; filter norms are those of these."""
    wanted = NETWORKS[name].in_angles or (lambda *_: True)
    named = network.named_parameters()
    return [parameter for name, parameter in named if parameter.requires_grad and wanted(name, parameter)]


def angle_weights(name, network):
    """Which of the flat weights of a network these are: bools [parameters]."""
    chosen = {id(parameter) for parameter in angle_parameters(name, network)}
    parameters = trained_parameters(network)
    return torch.cat([torch.full((parameter.numel(),), id(parameter) in chosen) for parameter in parameters])
