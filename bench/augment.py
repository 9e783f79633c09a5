"""What augmenting the training images of an epoch costs, per image, against image after image.

    python bench/augment.py --images 5000 --side 32 [--out FILE]

Ours is what train.py does: RandAugment of the whole set, then crops and flips of its batches. `baseline` are torchvision's
transforms on images of Pillow; their RandAugment has 14 operations, of other ranges. Times are the fastest of the repeats.
Then follows what an operation of RandAugment costs where all images draw it.
"""

import sys
import time
from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional as F
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.common import BASELINE, NOTHING_KEPT, machine, say  # noqa: E402
from data import augment  # noqa: E402
from data.commandline import Parser, positive_int, run  # noqa: E402
from data.device import device_of  # noqa: E402
from data.files import write_json  # noqa: E402


def smooth_images(size, side, device):
    random = torch.Generator().manual_seed(0)
    smooth = F.interpolate(256 * torch.rand(size, 3, 4, 4, generator=random), size=(side, side), mode="bicubic")
    return (smooth + 10 * torch.randn(smooth.shape, generator=random)).clamp(0, 255).byte().to(device)


def ours(kind, images):
    if kind == augment.RANDAUGMENT:
        images = augment.randaugment(images, augment.randaugment_choices(0, 0, len(images)))
    choices = augment.crops_and_flips(0, 0, len(images), images.shape[-1]).to(images.device)
    for batch, chosen in zip(images.split(128), choices.split(128)):
        augment.crop_and_flip(batch, chosen)


def baseline(kind, pictures):
    side = pictures[0].width
    first = [transforms.RandAugment(augment.ROUNDS, 14)] if kind == augment.RANDAUGMENT else []
    crop = transforms.RandomCrop(side, padding=augment.padding_of(side))
    augmented = transforms.Compose([*first, crop, transforms.RandomHorizontalFlip(), transforms.PILToTensor()])
    for picture in pictures:
        augmented(picture)


def operation_alone(index, images):
    """An operation of RandAugment, with its first sign, on all images."""
    choices = torch.full((len(images), 1), 2 * index), torch.rand(len(images), 1, 2)
    augment.randaugment(images, choices)


def microseconds(function, what, images, repeats):
    """The fastest of the repeats, after one that warms up, per image."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function(what, images)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 1e6 * min(times[1:]) / len(images)


def main():
    parser = Parser(__doc__.splitlines()[0], "python bench/augment.py --images 5000 --side 32")
    parser.add_argument("--images", type=positive_int, default=5000, help="of an epoch")
    parser.add_argument("--side", type=positive_int, default=32, help="of the images, in pixels")
    parser.add_argument("--repeats", type=positive_int, default=5, help="measurements of each")
    parser.add_argument("--threads", type=positive_int, default=1, help="of the processor")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="for ours")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    images = smooth_images(args.images, args.side, device_of(args.device))
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images.cpu()]
    costs = {"operations": {}}
    print(f"{'microseconds per image':24} {'ours':>8} {BASELINE:>9} {'ratio':>6}")
    for kind in augment.CHOICES[1:]:
        say(f"{kind}: measuring")
        mine = microseconds(ours, kind, images, args.repeats)
        other = microseconds(baseline, kind, pictures, args.repeats)
        costs[kind] = {"ours": mine, BASELINE: other}
        print(f"{kind:24} {mine:8.1f} {other:9.1f} {other / mine:6.1f}")
    for index, name in enumerate(augment.OPERATIONS):
        costs["operations"][name] = microseconds(operation_alone, index, images, args.repeats)
        print(f"{name:24} {costs['operations'][name]:8.1f}")
    if args.out:
        asked = {name: value for name, value in vars(args).items() if name != "out"}
        write_json(args.out, asked | machine(args.device) | {"microseconds_per_image": costs})


if __name__ == "__main__":
    run(main, at_interrupt=NOTHING_KEPT)
