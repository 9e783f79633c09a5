"""A user's own network, `--model FILE.py:FUNCTION`: the manual's file in all stages, what is refused, and what is never run."""

import hashlib
import json
import os
import re
import shlex
import shutil
from pathlib import Path
from unittest import mock

import pytest
import torch
from conftest import random_image_set
from test_manual import ROOT
from test_runs import call, load, strict_json
from torch import nn
from torch.nn import functional as F

import models
import train
from data.analysis.captions import experiment_title
from data.analysis.figures import fitting_figures
from data.analysis.study import Study
from data.images import epoch_order, load_image_set, normalise, save_image_set
from data.runs import Run
from data.seeds import init_seed
from models import dropout, own

CLASSES, SIDE, BATCH = 3, 8, 16


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    """Commands are given in a folder of their own; what they register is forgotten."""
    monkeypatch.chdir(tmp_path)
    with mock.patch.dict(models.NETWORKS):
        yield


@pytest.fixture(scope="module")
def image_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "tiny.pt"
    save_image_set(random_image_set(classes=CLASSES, train=40, test=20, side=SIDE), path)
    return path


def write(source, path="net.py"):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(source)
    return path


def pretraining(image_file, model="net.py:net", out="run", *more, steps=2, lr=1e-2):
    common = ["--data", image_file, "--model", model, "--batch-size", BATCH, "--lr", lr, "--steps", steps]
    return ["train", *common, *more, "--out", out]


def refused(capsys, code, *command):
    """The line by which a command is refused that leaves nothing behind."""
    capsys.readouterr()
    before = {*Path().rglob("*")}
    assert call(*command) == code
    assert {path for path in {*Path().rglob("*")} - before if path.name != "lock"} == set()
    [line] = capsys.readouterr().err.splitlines()
    return line


LINEAR = """
from torch import nn

def net(classes, side):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * side**2, classes))
"""
CONVOLUTIONS = """
from torch import nn

def net(classes, side):
    convolutions = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2), nn.ReLU()
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(5 * ((side - 3) // 2) ** 2, classes))
"""


# ---------------------------------------------------------------------------------------------------- the manual's file


def of_manual():
    """(source of the file, its commands as words) of the manual."""
    section = (ROOT / "README.md").read_text().split("**A network of your own**")[1]
    source, commands = (re.search(rf"```{kind}\n(.*?)```", section, re.DOTALL)[1] for kind in ("python", "bash"))
    return source, [shlex.split(line, comments=True) for line in commands.splitlines()]


def made_small(words, image_file, lr):
    """A command of the manual on a tiny set: (script, arguments)."""
    changes = {"datasets/cifar10.pt": image_file, "200": 4, "plr1e-2": f"plr{lr}", "1e-2": lr}
    found = []
    for word in words[1:]:
        word = word.replace("plr1e-2", f"plr{lr}") if "/" in word and "*" not in word else word
        found += sorted(Path().glob(word)) if "*" in word else [changes.get(word, word)]
    return Path(found[0]).stem, found[1:]


@pytest.mark.parametrize("function", ["plain_sgd", "si_net"])
def test_the_records_of_the_manual_are_trained(function, image_file):
    write(re.search(r"```python\n(.*?)```", (ROOT / "models/README.md").read_text(), re.DOTALL)[1], "records.py")
    more = ["--width", 1, "--augment", "none"]
    assert call(*pretraining(image_file, f"records.py:{function}", "run", *more, steps=1)) == 0
    command = ["run", "--model", f"records.py:{function}", "--lr", 1e-3, "--steps", 1, "--out", "tuned"]
    assert call("finetune", *command) == 0
    settings = Run("tuned/run-flr1e-3").settings
    expected = {"plain_sgd": ({"name": "sgd"}, None), "si_net": ({"name": "projected-sgd"}, 6.0)}
    assert (settings["optimizer"], settings["rho"]) == expected[function]


@pytest.fixture(scope="module")
def of_the_manual(image_file, tmp_path_factory):
    """A folder with the manual's file, mine.py, and the runs that its commands make, in runs/mine."""
    with pytest.MonkeyPatch.context() as patch, mock.patch.dict(models.NETWORKS):
        patch.chdir(tmp_path_factory.mktemp("manual"))
        source, (trained, *continued, _) = of_manual()
        write(source, "mine.py")
        for lr in ("1e-3", "1e-1"):
            script, arguments = made_small(trained, image_file, lr)
            assert call(script, *arguments, "--batch-size", BATCH, "--keep-loss", 1.0, "--keep", 2) == 0
        for words in continued:
            script, arguments = made_small(words, image_file, "1e-3")
            assert call(script, *arguments) == 0
        return Path.cwd()


def test_the_runs_of_the_manual_are_measured(of_the_manual, image_file, monkeypatch):
    monkeypatch.chdir(of_the_manual)
    source, (*_, measured) = of_manual()
    assert len(source.splitlines()) == 10
    script, (_, *arguments) = made_small(measured, image_file, None)
    for command in (["geometry"], ["bands"], ["norms"], ["sharpness", "--end", "--images", 20, "--probes", 2]):
        assert call(script, command[0], *arguments, *command[1:]) == 0
    for path, names in {
        "pretrain/plr1e-1": {"geometry-flr1e-4-flr1e-3", "bands-reestimate", "norms", "sharpness-checkpoint"},
        "finetune/plr1e-3-flr1e-4": {"bands-reestimate", "norms", "sharpness-checkpoint"},
        "swa/plr1e-3": {"bands-reestimate", "norms"},
    }.items():
        assert {*Run(f"runs/mine/{path}").measurement_files} - {"band-images"} == names
    assert call(script, "figures", "runs/mine", "--out", "figures", "--only", 7, 20) == 0
    assert strict_json(Path("figures/figure20.json"))["rows"][0]["lr_label"] == "learning rate"


def test_the_runs_of_the_manual_are_compared_as_practical_convolutional_networks(
    of_the_manual, monkeypatch, capsys
):
    monkeypatch.chdir(of_the_manual)
    study = Study("runs/mine")
    assert fitting_figures([study]) == [6, 8, 9, 19, 20, 21]
    assert experiment_title({"experiment": study.settings}).startswith("mine.py:net, momentum 0.9, ")
    for command in (["claims", "runs/mine"], ["curves", "runs/mine", "--out", "drawn"], ["runs", "runs/mine"]):
        assert call("analyze", *command) == 0


def test_its_convergence_is_that_of_its_train_accuracy(image_file, capsys):
    write(LINEAR)
    for lr in ("3e-2", "1e30"):  # the latter diverges
        assert call(*pretraining(image_file, out=f"runs/{lr}", steps=60, lr=lr)) == 0
    capsys.readouterr()
    assert call("analyze", "boundary", "runs") == 0
    assert capsys.readouterr().out == "3e-2 1e30\n"


def test_a_killed_run_of_it_ends_in_the_same_bits(image_file, monkeypatch):
    source, _ = of_manual()
    assert "nn.Dropout(" in source and "nn.BatchNorm2d(" in source
    write(source)
    assert call(*pretraining(image_file, out="whole", steps=4)) == 0
    interrupted_at, advance = set(), train.ImageTraining.advance

    def interrupt_once(self, step, until):
        if step in (1, 3) and step not in interrupted_at:
            interrupted_at.add(step)
            raise KeyboardInterrupt
        return advance(self, step, until)

    monkeypatch.setattr(train.ImageTraining, "advance", interrupt_once)
    assert [call(*pretraining(image_file, out="killed", steps=4)) for _ in range(4)] == [130, 130, 0, 0]
    whole, killed = (load(Path(name) / "checkpoint.pt") for name in ("whole", "killed"))
    torch.testing.assert_close(killed, whole, rtol=0, atol=0)
    assert strict_json(Path("killed/metrics.json")) == strict_json(Path("whole/metrics.json"))


def test_what_its_run_folder_says(image_file):
    write(of_manual()[0], "nets/mine.py")
    assert call(*pretraining(image_file, "nets/mine.py:net")) == 0
    config = strict_json(Path("run/config.json"))
    settings = config["settings"]
    expected = {"model": "mine.py:net", "width": None, "shape": {"side": SIDE}, "rho": None, "augment": "none"}
    expected["model_digest"] = hashlib.sha256(Path("nets/mine.py").read_bytes()).hexdigest()
    expected["optimizer"] = {"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4}
    assert {name: settings[name] for name in expected} == expected
    facts = {"task": "images", "kind": "convolutional", "lr_label": "learning rate", "converged": 0.999}
    protocol = {"points": 21, "on_sphere": False, "batch_norm": True, "floor": 0.01}
    assert config["network"] == facts | {"diverges": True, "barrier": protocol}
    write(LINEAR)
    changed = ["--augment", "crop-flip", "--momentum", 0.5, "--weight-decay", 0]
    assert call(*pretraining(image_file, "net.py:net", "other", *changed)) == 0
    config = strict_json(Path("other/config.json"))
    assert config["settings"]["optimizer"] == {"name": "sgd", "momentum": 0.5, "weight_decay": 0}
    assert config["network"]["converged"] is None and config["network"]["barrier"]["batch_norm"] is False


# ------------------------------------------------------------------------------------------- against other programs


class Plain(nn.Module):
    """The network of CONVOLUTIONS, written in another way."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 5, 3, stride=2)
        self.classifier = nn.Linear(20, CLASSES)

    def forward(self, x):
        return self.classifier(F.relu(self.second(F.relu(self.norm(self.first(x))))).flatten(1))


def flat(network):
    """All parameters in order, kernels as [out, height, width, in]."""
    ordered = (p.permute(0, 2, 3, 1) if p.ndim == 4 else p for p in network.parameters())
    return torch.cat([parameter.detach().flatten() for parameter in ordered])


RECORD = """
import dataclasses
import models
{convolutions}
def record(classes, side):
    return dataclasses.replace(models.NETWORKS["resnet18"], build=lambda width, classes: net(classes, side), optimizer={options})
"""


@pytest.mark.parametrize(
    "options, kind",
    [
        (None, lambda parameters: torch.optim.SGD(parameters, 1e-2, momentum=0.9, weight_decay=5e-4)),
        ({}, lambda parameters: torch.optim.SGD(parameters, 1e-2)),
        (
            {"momentum": 0.8, "nesterov": True},
            lambda parameters: torch.optim.SGD(parameters, 1e-2, momentum=0.8, nesterov=True),
        ),
        (
            {"name": "adam", "betas": (0.7, 0.9), "weight_decay": 0.01},
            lambda parameters: torch.optim.Adam(parameters, 1e-2, betas=(0.7, 0.9), weight_decay=0.01),
        ),
        (
            {"name": "adamw", "eps": 1e-3, "weight_decay": 0.3},
            lambda parameters: torch.optim.AdamW(parameters, 1e-2, eps=1e-3, weight_decay=0.3),
        ),
    ],
)
def test_training_is_that_of_a_plain_loop(options, kind, image_file):
    """Of an nn.Module by its default optimiser, and of records by others; resumed once."""
    write(RECORD.format(convolutions=CONVOLUTIONS, options={"name": "sgd"} | (options or {})))
    model = "net.py:net" if options is None else "net.py:record"
    more = ["--augment", "none"]
    for steps in (1, 3):  # made longer
        assert call(*pretraining(image_file, model, "run", *more, steps=steps)) == 0
    with torch.random.fork_rng():
        torch.manual_seed(init_seed(1))
        network = Plain().train()
    optimizer, images = kind(network.parameters()), load_image_set(image_file)
    for epoch in range(3):
        for chosen in epoch_order(1, epoch, len(images.train_labels)).split(BATCH):
            optimizer.zero_grad()
            logits = network(normalise(images.train_images[chosen]))
            F.cross_entropy(logits, images.train_labels[chosen]).backward()
            optimizer.step()
    found = load(Path("run/checkpoint.pt"))
    torch.testing.assert_close(found["weights"][0], flat(network), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found["buffers"]["1.running_mean"], network.norm.running_mean, rtol=1e-3, atol=1e-5)


def test_a_record_on_the_sphere_trains_to_the_bits_of_the_one_it_is(image_file):
    write("import models\ndef net(classes, side):\n    return models.NETWORKS['si-convnet']\n")
    for model, out in (("net.py:net", "own"), ("si-convnet", "built-in")):
        more = ["--width", 2, "--rho", 7]
        assert call(*pretraining(image_file, model, out, *more, steps=3)) == 0
    found, expected = (load(Path(out) / "checkpoint.pt") for out in ("own", "built-in"))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert strict_json(Path("own/metrics.json")) == strict_json(Path("built-in/metrics.json"))
    mine, built_in = (strict_json(Path(out) / "config.json") for out in ("own", "built-in"))
    assert mine["network"] == built_in["network"]
    differing = {name for name in mine["settings"] if mine["settings"][name] != built_in["settings"].get(name)}
    assert differing == {"model", "model_digest", "shape"}  # which says the images' side
    assert mine["settings"].keys() - built_in["settings"].keys() == {"model_digest"}


def test_a_record_of_images_of_two_sizes(image_file, tmp_path):
    """Both are continued by one command, though the function builds another network for each size."""
    larger = tmp_path / "larger.pt"
    save_image_set(random_image_set(classes=4, train=20, test=8, side=10), larger)
    write(LINEAR)
    for data, out in ((image_file, "a"), (larger, "b")):
        assert call(*pretraining(data, out=out)) == 0
    assert call("finetune", "a", "b", "--model", "net.py:net", "--lr", 1e-3, "--steps", 1, "--out", "tuned") == 0
    sizes = [Run(f"tuned/{out}-flr1e-3").weights()["weights"].numel() for out in "ab"]
    assert sizes == [3 * 64 * 3 + 3, 3 * 100 * 4 + 4]


def test_a_function_that_computes_with_what_it_builds(image_file):
    """As no network without numbers could."""
    write(LINEAR.replace("classes))", "classes if nn.Linear(1, 1).weight.item() < 2 else 0))"))
    assert call(*pretraining(image_file)) == 0
    assert call("finetune", "run", "--model", "net.py:net", "--lr", 1e-3, "--steps", 1, "--out", "tuned") == 0


def test_dropout_of_torch_is_replaced_by_what_is_replayed():
    network = own.with_replayable_dropout(
        nn.Sequential(nn.Dropout(0.25), nn.Sequential(nn.Linear(2, 2), nn.Dropout()))
    )
    found = [module for module in network.modules() if isinstance(module, (nn.Dropout, dropout.Dropout))]
    assert [(type(module), module.p) for module in found] == [(dropout.Dropout, 0.25), (dropout.Dropout, 0.5)]


# ------------------------------------------------------------------------------------------------------- what is refused


def of_layers(layers):
    """A file whose network is these layers, as code, between a flatten and a linear layer."""
    return f"""
import random
import numpy
import torch
from torch import nn
from torch.nn import functional as F

class Layer(nn.Module):
    {layers}

def net(classes, side):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * side**2, 6), Layer(), nn.Linear(6, classes))
"""


def of_init(line):
    return of_layers(f"""def __init__(self):
        super().__init__()
        {line}

    def forward(self, x):
        return x""")


def of_forward(line, init="pass"):
    return of_layers(f"""def __init__(self):
        super().__init__()
        {init}

    def forward(self, x):
        {line}
        return x""")


def returning(value):
    return f"import models, torch\nfrom torch import nn\ndef net(classes, side):\n    return {value}\n"


BASE = "models.NETWORKS['resnet18']"
REFUSED = {
    "a file with a fault": ("def net(:\n", "SyntaxError.*line 1 of net.py"),
    "a file that raises": ("x = 1\nraise RuntimeError('no\\nway')\n", "RuntimeError: no; mend line 2 of net.py"),
    "a file that leaves": ("import sys\nsys.exit(0)\n", "SystemExit: 0; mend line 2 of net.py"),
    "null bytes": ("\0", "null bytes"),
    "no such function": ("def nett(classes, side):\n    pass\n", "has no function net; did you mean nett"),
    "a function that is none": ("net = 3\n", "has no function net"),
    "an import of what is not there": ("import of_nowhere\n", "ModuleNotFoundError.*line 1 of net.py"),
    "a function that raises": ("\ndef net(classes, side):\n    1 / 0\n", "ZeroDivisionError.*line 3 of net.py"),
    "a function of nothing": ("def net():\n    pass\n", "TypeError.*mend net.py"),
    "nothing returned": ("def net(classes, side):\n    pass\n", "returns NoneType, neither an nn.Module nor"),
    "a class returned": (returning("nn.Linear"), "returns type, neither"),
    "no parameters": (returning("nn.Sequential(nn.Flatten())"), "nothing to train"),
    "frozen parameters": (returning("nn.Linear(8, 3).requires_grad_(False)"), "nothing to train"),
    "another shape": (returning("nn.Linear(side, classes)"), r"output for 4 images is torch.float32 \[4, 3, 8, 3\]"),
    "other classes": (
        returning("nn.Sequential(nn.Flatten(), nn.Linear(3 * side**2, 7))"),
        r"\[4, 7\], not logits \[4, 3\]",
    ),
    "other inputs": (returning("nn.Sequential(nn.Flatten(), nn.Linear(5, 3))"), "RuntimeError"),
    "no tensor": (returning("nn.GRU(8, 3)"), "3D, got 4D"),
    "several outputs": (of_init("pass").replace("Layer()", "nn.Unflatten(1, (2, 3)), nn.RNN(3, 3)"), "TypeError|AttributeError"),
    "a tuple": (returning("nn.Sequential(nn.Flatten(1, 2), nn.RNN(8, 3))"), "its output is tuple, not a tensor of logits"),
    "another output in training": (
        of_init("pass").replace("return x", "return (x, x) if self.training else x").replace("Layer(), nn.Linear(6, classes)", "nn.Linear(6, classes), Layer()"),
        "its output is tuple",
    ),
    "half precision": (LINEAR.replace("classes))", "classes)).half()"), "is torch.float16: return it in float32"),
    "double precision": (LINEAR.replace("classes))", "classes)).double()"), "is torch.float64"),
    "no device": (LINEAR.replace("classes))", "classes)).to('meta')"), "1.weight is on meta"),
    "a lazy module": (
        returning("nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))"),
        "1.weight has no shape yet: call",
    ),
    "tied parameters": (
        of_init("self.a = nn.Linear(6, 6); self.b = nn.Linear(6, 6); self.b.weight = self.a.weight"),
        "2.b.weight shares its memory with 2.a.weight",
    ),
    "shared memory": (
        of_init("self.a = nn.Linear(6, 6); self.register_buffer('b', self.a.weight.data[0])"),
        "2.b shares its memory with 2.a.weight",
    ),
    "a changed buffer": (
        of_forward("self.seen += 1", init="self.register_buffer('seen', torch.zeros(()))"),
        "2.seen changes in training",
    ),
    "a buffer that is replaced": (
        of_forward("self.seen = self.seen + 1", init="self.register_buffer('seen', torch.zeros(()))"),
        "2.seen changes in training",
    ),
    "a frozen parameter that changes": (
        of_forward("self.seen.data += 1", init="self.seen = nn.Parameter(torch.zeros(()), requires_grad=False)"),
        "2.seen changes in training",
    ),
    "the same module again": (
        "from torch import nn\nNET = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))\ndef net(classes, side):\n    return NET\n",
        "returns tensors that it returned before",
    ),
    "a part that is the same again": (
        "from torch import nn\nPART = nn.Linear(192, 5)\ndef net(classes, side):\n"
        "    return nn.Sequential(nn.Flatten(), PART, nn.Linear(5, classes))\n",
        "returns tensors that it returned before",
    ),
    "instance norm": (
        returning(
            "nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True), nn.Flatten(), nn.Linear(192, 3))"
        ),
        "0 tracks running statistics",
    ),
    "batch norm without statistics": (
        returning("nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten(), nn.Linear(192, 3))"),
        "needs running statistics",
    ),
    "batch norm without momentum": (
        returning("nn.Sequential(nn.BatchNorm2d(3, momentum=None), nn.Flatten(), nn.Linear(192, 3))"),
        "and a momentum",
    ),
    "functional dropout": (of_forward("x = F.dropout(x, 0.001, self.training)"), "cannot be replayed: use nn.Dropout"),
    "other dropout": (of_init("pass").replace("Layer(),", "nn.AlphaDropout(0.5),"), "cannot be replayed"),
    "numbers of Python": (of_forward("x = x * (random.random() < 2)"), "cannot be replayed"),
    "numbers of NumPy": (of_forward("x = x * numpy.random.rand()"), "cannot be replayed"),
    "numbers of a generator": (
        of_forward("x = x * float(self.numbers.random())", init="self.numbers = numpy.random.default_rng(1)"),
        "cannot be replayed|holds more of its seed",
    ),
    "a build by Python's numbers": (
        of_init("self.a = nn.Parameter(torch.tensor(random.random()))"),
        "2.a is not the same for the same seed",
    ),
    "a build by NumPy's numbers": (
        of_init("self.register_buffer('b', torch.tensor(numpy.random.rand()))"),
        "2.b is not the same for the same seed",
    ),
    "another structure every time": (
        of_init("import itertools; self.a = nn.Parameter(torch.zeros(next(SIZES)))") + "\nimport itertools\nSIZES = itertools.count(1)\n",
        "built in another way the second time",
    ),
    "a tensor of the seed": (
        of_forward("x = x * self.mask", init="self.mask = torch.rand(6)"),
        "holds more of its seed than parameters and buffers",
    ),
    "a buffer that is not kept": (
        of_forward("x = x * self.mask", init="self.register_buffer('mask', torch.rand(6), persistent=False)"),
        "holds more of its seed",
    ),
    "weights that change": (
        of_forward("self.a.data *= 0.5; x = x * self.a", init="self.a = nn.Parameter(torch.ones(6))"),
        "changes its weights in forward",
    ),
    "weights that move": (
        of_forward("self.a.data = self.a.data.clone(); x = x * self.a", init="self.a = nn.Parameter(torch.ones(6))"),
        "changes its weights in forward",
    ),
    "no gradient": (of_forward("x = x.detach()").replace("nn.Linear(6, classes)", "nn.Flatten(), Last()") + """
class Last(nn.Module):
    def forward(self, x):
        return x[:, :3]
""", "does not require grad"),
    "a single image": (of_forward("x = x.squeeze()"), "IndexError|RuntimeError|output for 1 image"),
    "layers that want contiguous maps": (
        returning("nn.Sequential(nn.Conv2d(3, 4, 3), nn.Unflatten(1, (2, 2)), nn.Flatten(1, 2))"),
        "net.py",
    ),
    "a record on ticks": (returning("models.NETWORKS['si-mlp']"), "the record of a network on ticks"),
    "an unknown option": (
        "import dataclasses\n" + returning(f"dataclasses.replace({BASE}, optimizer=dict(name='sgd', dampening=0.5))"),
        "dampening is not supported, only momentum, weight_decay, nesterov",
    ),
    "an unknown optimiser": (
        "import dataclasses\n" + returning(f"dataclasses.replace({BASE}, optimizer=dict(name='lion'))"),
        "optimiser lion: is none of",
    ),
    "an option out of range": (
        "import dataclasses\n" + returning(f"dataclasses.replace({BASE}, optimizer=dict(name='adam', betas=(2.0, 0.9)))"),
        "ValueError: .*beta",
    ),
    "an option of another kind": (
        "import dataclasses\n" + returning(f"dataclasses.replace({BASE}, optimizer=dict(name='sgd', momentum='0.9'))"),
        "settings.optimizer.momentum is text",
    ),
    "an option that no file holds": (
        "import dataclasses\n" + returning(f"dataclasses.replace({BASE}, optimizer=dict(name='sgd', momentum={{1}}))"),
        "set is not JSON serializable",
    ),
    "a level that is none": (
        "import dataclasses\n" + returning(f"dataclasses.replace({BASE}, converged='always')"),
        "network.converged is text",
    ),
    "an unknown augmentation": (
        "import dataclasses\n" + returning(f"dataclasses.replace({BASE}, augment='mixup')"),
        "settings.augment is 'mixup', none of",
    ),
    "an anchor that is none": (
        "import dataclasses\n" + returning(f"dataclasses.replace({BASE}, swa_anchor='middle')"),
        "swa_anchor middle: is neither",
    ),
    "no angles": (
        "import dataclasses\n" + returning(f"dataclasses.replace({BASE}, width=1, in_angles=lambda *_: False)"),
        "in_angles of its record chooses none",
    ),
    "a build that returns something else": (
        "import dataclasses\n" + returning(f"dataclasses.replace({BASE}, build=lambda width, classes: None)"),
        "returns NoneType, not an nn.Module",
    ),
    "no classifier": (
        "import dataclasses\n"
        + returning(
            "dataclasses.replace(models.NETWORKS['si-convnet'], build=lambda w, c: nn.Sequential(nn.Conv2d(3, 3, 8), nn.Flatten()))"
        ),
        "AttributeError.*classifier",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_no_network_is_refused_in_one_line(fault, image_file, capsys):
    source, message = REFUSED[fault]
    write(source)
    line = refused(capsys, 2, *pretraining(image_file))
    assert "--model net.py:net: " in line and re.search(message, line), line


@pytest.mark.parametrize(
    "model, message",
    [
        ("gone.py:net", "gone.py cannot be read"),
        (".:net", "invalid choice: '.:net'.*FILE.py:FUNCTION"),
        ("net.py", "invalid choice"),
        ("net.py:", "invalid choice"),
        ("net.py:a b", "invalid choice"),
        ("fifo.py:net", "is no regular file"),
        ("folder.py:net", "is no regular file"),
        ("a\nb.py:net", "printable"),
        ("net.py:_torch", "has no function _torch"),
    ],
)
def test_names_that_are_no_network(model, message, image_file, capsys):
    os.mkfifo("fifo.py")
    Path("folder.py").mkdir()
    write(LINEAR), write(LINEAR, "a\nb.py")
    assert re.search(message, refused(capsys, 2, *pretraining(image_file, model)))


def test_what_does_not_fit_it_is_refused(image_file, capsys):
    write(LINEAR)
    for more, message in (
        (["--width", 3], "--width: is not for net.py:net; leave it out"),
        (["--depth", 3], "--depth: is not for net.py:net"),
        (["--rho", 3], "--rho 3: net.py:net is not trained on a sphere"),
        (["--lr", 1e-3, 1e-2], "one learning rate and seed per folder"),
    ):
        assert message in refused(capsys, 2, *pretraining(image_file, "net.py:net", "run", *more))
    ticks = ["train", "--data", "ticks", "--model", "net.py:net", "--lr", 1e-3, "--steps", 1, "--out", "run"]
    assert "--model net.py:net: is not for ticks; use si-mlp" in refused(capsys, 2, *ticks)


def test_one_that_is_too_large_is_refused(image_file, capsys, monkeypatch):
    write(LINEAR)
    parameters = 3 * SIDE**2 * CLASSES + CLASSES
    for bytes_per_parameter, message in ((47, "net.py:net: to try it out takes"), (49, None)):
        monkeypatch.setattr("data.device.free_memory", lambda _: bytes_per_parameter * parameters)
        if message:
            assert message in refused(capsys, 2, *pretraining(image_file))
    assert call(*pretraining(image_file)) == 0


def test_shapes_of_a_record_that_are_no_arguments(image_file):
    source = "import models\nfrom torch import nn\ndef net(classes, side):\n    import dataclasses\n    return dataclasses.replace("
    source += "models.NETWORKS['resnet18'], in_angles=None, shape={'blocks': 2}, build=lambda w, c, blocks: nn.Sequential(nn.Flatten(), "
    write(source + "nn.Linear(192, blocks), nn.Linear(blocks, c)))\n")
    assert call(*pretraining(image_file)) == 0
    assert Run("run").settings["shape"] == {"blocks": 2, "side": SIDE}


# ------------------------------------------------------------------------------------- continuing and measuring its runs


CONTINUING = [
    ["finetune", "runs/pretrain/a", "--lr", 1e-3, "--steps", 1, "--out", "runs/finetune"],
    ["finetune", "runs/pretrain/a", "--lr", 1e-2, "--steps", 1, "--out", "runs/finetune"],
    ["swa", "runs/pretrain/a", "--windows", 5, "--out", "runs/swa"],
]
MEASURING = [
    ["analyze", "geometry", "runs"],
    ["analyze", "bands", "runs"],
    ["analyze", "norms", "runs"],
    ["analyze", "sharpness", "runs", "--end", "--images", 10, "--probes", 2],
]
READING = [
    ["analyze", "runs", "runs"],
    ["analyze", "claims", "runs"],
    ["analyze", "figures", "runs", "--out", "figures"],
    ["analyze", "curves", "runs", "--out", "figures"],
]
SIGNED = "\nfrom pathlib import Path\nPath('was run').touch()\n"


@pytest.fixture
def continued(image_file):
    """Runs of a network of net.py, in runs."""
    write(CONVOLUTIONS + SIGNED)
    assert call(*pretraining(image_file, out="runs/pretrain/a")) == 0
    for command in CONTINUING:
        assert call(*command, "--model", "net.py:net") == 0
    Path("was run").unlink()


def test_no_code_is_run_because_a_run_folder_names_it(continued, capsys):
    """Not even where it lies where the run was made, or says that it is one of the networks that are there."""
    for path in Path("runs").rglob("config.json"):
        config = strict_json(path)
        config["argv"] = ["train.py", "--model", "net.py:net"]
        path.write_text(json.dumps(config))
    for command in (*CONTINUING, *MEASURING):
        line = refused(capsys, 2, *command)
        assert (
            "runs/" in line
            and "was trained with net.py:net" in line
            and line.endswith("give --model PATH/net.py:net")
        )
    for command in READING:
        assert call(*command) == 0
    for path in Path("runs").rglob("config.json"):
        config = strict_json(path)
        del config["settings"]["model_digest"]
        config["settings"]["width"] = 1
        path.write_text(json.dumps(config))
    for stage in ("finetune", "swa"):
        shutil.rmtree(f"runs/{stage}")  # complete, these need no network
    del models.NETWORKS["net.py:net"]  # which is of this process
    for command in (*CONTINUING, MEASURING[1]):
        assert "models.NETWORKS has no net.py:net" in refused(capsys, 2, *command)
    assert not Path("was run").exists()


def test_a_changed_file_is_refused_wherever_it_is_needed(continued, image_file, capsys):
    digest, _ = write(CONVOLUTIONS.replace("ReLU", "GELU")), None
    there = Run("runs/pretrain/a").settings["model_digest"]
    now = hashlib.sha256(Path(digest).read_bytes()).hexdigest()
    line = refused(capsys, 3, *pretraining(image_file, out="runs/pretrain/a"))
    assert f"settings model_digest: {there} there, {now} asked for" in line and "restore the file" in line
    for command in (*CONTINUING, *MEASURING):
        line = refused(capsys, 3, *command, "--model", "net.py:net")
        assert "runs/" in line and f"has changed (sha256 {there[:8]} there, now {now[:8]})" in line


def test_files_of_one_name_are_no_one_network(continued, image_file, capsys):
    write(CONVOLUTIONS.replace("ReLU", "GELU"), "other/net.py")
    assert call(*pretraining(image_file, "other/net.py:net", "runs/pretrain/b", lr=3e-2)) == 0
    line = refused(capsys, 2, "analyze", "claims", "runs")
    assert "model digest" in line and "runs/pretrain/b"[5:] in line
    shutil.copytree("other", "copied")
    command = ["finetune", "runs/pretrain/b", "--lr", 1e-3, "--steps", 1, "--out", "tuned"]
    assert call(*command, "--model", "copied/net.py:net") == 0  # the file may have moved
    assert "runs/pretrain/a: the file of net.py:net has changed" in refused(
        capsys,
        3,
        "finetune",
        "runs/pretrain/b",
        "runs/pretrain/a",
        *command[2:-1],
        "new",
        "--model",
        "other/net.py:net",
    )


def test_other_networks_are_not_taken_for_it(continued, image_file, capsys):
    assert call(*pretraining(image_file, "si-convnet", "built-in", "--width", 2)) == 0
    command = ["finetune", "built-in", "--lr", 1e-3, "--steps", 1, "--out", "tuned", "--model"]
    line = refused(capsys, 2, *command, "net.py:net")
    assert "built-in was trained with si-convnet, which needs no file; leave it out" in line
    assert "si-convnet is not FILE.py:FUNCTION" in refused(capsys, 2, *command, "si-convnet")
    write(CONVOLUTIONS, "else.py")
    line = refused(capsys, 2, *CONTINUING[0], "--model", "else.py:net")
    assert "was trained with net.py:net" in line and "give --model that, not else.py:net" in line
    assert not Path("was run").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda settings: settings.pop("shape"), "settings.shape has no `side`"),
        (lambda settings: settings.update(shape={"depth": 2}), "settings.shape has no `side`"),
        (lambda settings: settings.pop("model_digest"), "settings.width is null"),
        (lambda settings: settings.update(model_digest=3), "settings.model_digest is a whole number, not text"),
        (lambda settings: settings["optimizer"].update(betas=[0.9, "x"]), "settings.optimizer.betas"),
    ],
)
def test_damaged_settings_of_it_are_refused(change, message, continued, capsys):
    path = Path("runs/pretrain/a/config.json")
    config = strict_json(path)
    change(config["settings"])
    path.write_text(json.dumps(config))
    assert message in refused(capsys, 2, *CONTINUING[0], "--model", "net.py:net")


def test_a_run_of_another_size_than_it_says_is_refused(image_file, capsys):
    write(LINEAR)
    assert call(*pretraining(image_file)) == 0
    path = Path("run/config.json")
    config = strict_json(path)
    config["settings"]["shape"]["side"] = 5
    path.write_text(json.dumps(config))
    assert call("analyze", "norms", "run", "--model", "net.py:net") == 2
    assert "checkpoint.pt: is not of this run and its network" in capsys.readouterr().err
    config["settings"]["classes"] = 2**52
    path.write_text(json.dumps(config))
    assert "net.py" in refused(capsys, 2, "analyze", "norms", "run", "--model", "net.py:net")
