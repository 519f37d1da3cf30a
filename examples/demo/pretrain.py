"""Make `backbone.safetensors`: a quarter-width VGG-16 trained on shapes, for a demo without a download.

    python examples/demo/pretrain.py [FILE]

It sees 16 kinds of drawn shapes and no faces, so a sweep on drawn faces is transfer learning. It trains with
BatchNorm, without which so deep a net hardly learns, and folds it into the convolutions at the end: VGG-16's
own layers remain, under torchvision's names. Takes about ten minutes on one core.
"""

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.vgg import cfgs, make_layers

WIDTH = 0.25  # of VGG-16's channels
SIDE = 64  # pixels of a shape's image
OVERSAMPLING = 2
TRAINING_IMAGES, HELD_OUT_IMAGES = 12_000, 1_000
EPOCHS, BATCH, LR, WEIGHT_DECAY = 8, 64, 2e-3, 1e-2
SEED = 1

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's training set, as for the demo's images
STD = (0.229, 0.224, 0.225)

KINDS = (
    "arc below",
    "arc above",
    "arc left",
    "arc right",
    "level line",
    "upright line",
    "falling line",
    "rising line",
    "disc",
    "ring",
    "bar",
    "frame",
    "half disc below",
    "half disc above",
    "triangle up",
    "triangle down",
)
ARCS = {
    "arc below": (20, 160),
    "arc left": (110, 250),
    "arc above": (200, 340),
    "arc right": (-70, 70),
}

Colour = tuple[int, int, int]


# ---------------------------------------------------------------- the shapes


def any_colour(rng: np.random.Generator) -> Colour:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue


def unlike(rng: np.random.Generator, other: Colour) -> Colour:
    """A colour that is distinguishable from the other one."""
    while True:
        mine = any_colour(rng)
        if sum(abs(a - b) for a, b in zip(mine, other, strict=True)) >= 90:
            return mine


def draw_kind(
    rng: np.random.Generator,
    canvas: ImageDraw.ImageDraw,
    kind: str,
    ink: Colour,
    place: tuple[float, float],
    side: float,
) -> None:
    """One shape anywhere in the square at `place` (its upper left corner), in any size that fits."""
    r = rng.uniform(0.16, 0.40) * side
    x, y = (corner + float(rng.uniform(r, side - r)) for corner in place)
    h = r * rng.uniform(0.5, 1.0)  # half its height, where width and height may differ
    pen = int(rng.uniform(1, 3.5) * OVERSAMPLING)
    tilt = rng.normal(0, 0.1) * r
    box = (x - r, y - h, x + r, y + h)
    match kind:
        case "arc below" | "arc above" | "arc left" | "arc right":
            canvas.arc(box, *ARCS[kind], fill=ink, width=pen)
        case "level line":
            canvas.line((x - r, y, x + r, y + tilt), fill=ink, width=pen)
        case "upright line":
            canvas.line((x, y - r, x + tilt, y + r), fill=ink, width=pen)
        case "falling line":
            canvas.line((x - r, y - r, x + r, y + r), fill=ink, width=pen)
        case "rising line":
            canvas.line((x - r, y + r, x + r, y - r), fill=ink, width=pen)
        case "disc":
            canvas.ellipse(box, fill=ink)
        case "ring":
            canvas.ellipse(box, outline=ink, width=pen)
        case "bar":
            canvas.rectangle(box, fill=ink)
        case "frame":
            canvas.rectangle(box, outline=ink, width=pen)
        case "half disc below":
            canvas.chord(box, 0, 180, fill=ink)
        case "half disc above":
            canvas.chord(box, 180, 360, fill=ink)
        case "triangle up":
            canvas.polygon(((x - r, y + h), (x + r, y + h), (x, y - h)), fill=ink)
        case "triangle down":
            canvas.polygon(((x - r, y - h), (x + r, y - h), (x, y + h)), fill=ink)
        case _:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, but is {kind!r}")


def draw_image(rng: np.random.Generator, kinds: NDArray[np.int64]) -> NDArray[np.uint8]:
    """A noisy image (SIDE, SIDE, 3) with a shape of each kind: one large one, or 2 x 2 small ones."""
    side = SIDE * OVERSAMPLING
    paper = any_colour(rng)
    image = Image.new("RGB", (side, side), paper)
    canvas = ImageDraw.Draw(image)
    for _ in range(rng.integers(0, 4)):  # thin ellipses as distractors
        left, right = np.sort(rng.uniform(0, side, 2)).tolist()
        top, bottom = np.sort(rng.uniform(0, side, 2)).tolist()
        canvas.ellipse((left, top, right, bottom), outline=any_colour(rng))
    room = side / len(kinds)
    for (row, column), kind in np.ndenumerate(kinds):
        place = column * room, row * room
        draw_kind(rng, canvas, KINDS[kind], unlike(rng, paper), place, room)
    turned = image.rotate(rng.normal(0, 8), Image.Resampling.BILINEAR, fillcolor=paper)
    brightness, noise = rng.uniform(0.6, 1.2), rng.uniform(2, 14)
    pixels = np.asarray(turned.reduce(OVERSAMPLING)) * np.float32(brightness)
    pixels += rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(noise)
    return np.clip(pixels, 0, 255, out=pixels).astype(np.uint8)


def draw_images(count: int, part: int) -> tuple[Tensor, Tensor]:
    """Images (count, 3, SIDE, SIDE) uint8 and the kind in each quarter (count, 2, 2) of an image.

    One in four images has one large shape, whose kind applies to all its quarters. Parts 0 and 1 share no image.
    """
    rng = np.random.default_rng((SEED, part))
    images, labels = [], []
    for _ in range(count):
        per_side = 1 if rng.random() < 0.25 else 2
        kinds = rng.integers(0, len(KINDS), (per_side, per_side))
        images.append(draw_image(rng, kinds))
        labels.append(np.broadcast_to(kinds, (2, 2)))
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return stacked, torch.from_numpy(np.stack(labels))


# ---------------------------------------------------------------- the net


def normalised(images: Tensor) -> Tensor:
    """uint8 to float32, normalised like the demo's images."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def layers(batch_norm: bool) -> nn.Sequential:
    """VGG-16's features at a quarter of the channels."""
    channels = [c if isinstance(c, str) else int(c * WIDTH) for c in cfgs["D"]]
    features: nn.Sequential = make_layers(channels, batch_norm=batch_norm)
    return features


def classifier(features: nn.Sequential, last: nn.Conv2d) -> nn.Sequential:
    """Scores (batch, kinds, 2, 2): five poolings leave one position per quarter of an image."""
    return nn.Sequential(features, last)


def train(net: nn.Sequential, images: Tensor, kinds: Tensor) -> Iterator[tuple[float, float]]:
    """Train in place; yields loss and accuracy of each epoch."""
    steps = len(images) // BATCH
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=EPOCHS * steps)
    for _ in range(EPOCHS):
        net.train()
        loss_sum, correct = 0.0, 0
        for batch in torch.randperm(len(images))[: steps * BATCH].split(BATCH):
            scores = net(normalised(images[batch]))
            loss = functional.cross_entropy(scores, kinds[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            loss_sum += loss.item()
            correct += int((scores.argmax(1) == kinds[batch]).sum())
        yield loss_sum / steps, correct / (4 * steps * BATCH)


def folded(features: nn.Sequential) -> nn.Sequential:
    """The same function without BatchNorm: its scale and shift go into the convolution before it."""
    kept: list[nn.Module] = []
    for layer in features.eval():
        if isinstance(layer, nn.BatchNorm2d):
            convolution = kept.pop()
            assert isinstance(convolution, nn.Conv2d)
            layer = fuse_conv_bn_eval(convolution, layer)
        kept.append(layer)
    return nn.Sequential(*kept)


@torch.no_grad()
def accuracy(net: nn.Sequential, images: Tensor, kinds: Tensor) -> float:
    net.eval()
    correct = 0
    for some, their in zip(images.split(250), kinds.split(250), strict=True):
        correct += int((net(normalised(some)).argmax(1) == their).sum())
    return correct / kinds.numel()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    default = Path(__file__).with_name("backbone.safetensors")
    parser.add_argument(
        "file", type=Path, nargs="?", default=default, help=f"default: {default.name} here"
    )
    file: Path = parser.parse_args().file
    torch.set_num_threads(1)  # the number of threads changes the low bits
    torch.manual_seed(SEED)
    started = time.monotonic()
    images, kinds = draw_images(TRAINING_IMAGES, part=0)
    print(f"{len(images):,} shapes drawn, {time.monotonic() - started:.0f} s", flush=True)
    last = nn.Conv2d(int(512 * WIDTH), len(KINDS), kernel_size=1)
    features = layers(batch_norm=True)
    net = classifier(features, last).to(memory_format=torch.channels_last)
    for epoch, (loss, share) in enumerate(train(net, images, kinds), 1):
        seconds = time.monotonic() - started
        print(f"epoch {epoch}: loss {loss:.3f}, accuracy {share:.3f}, {seconds:.0f} s", flush=True)

    state = folded(features).half().state_dict()
    weights = {f"features.{name}": value.contiguous() for name, value in state.items()}
    plain = layers(batch_norm=False)  # measure what is written: rounded to float16
    plain.load_state_dict({name: value.float() for name, value in state.items()})
    held_out = accuracy(classifier(plain, last), *draw_images(HELD_OUT_IMAGES, part=1))
    about = {
        "format": "pt",
        "what": "features of VGG-16 at a quarter of the width, BatchNorm folded in, trained on drawn shapes",
        "width": str(WIDTH),
        "held_out_accuracy": f"{held_out:.3f}",
        "made_by": "examples/demo/pretrain.py",
    }
    aside = file.with_name(file.name + ".partial")
    save_file(weights, aside, metadata=about)
    aside.chmod(0o644)  # safetensors makes it readable only by its owner
    aside.replace(file)
    error = math.sqrt(held_out * (1 - held_out) / HELD_OUT_IMAGES)
    print(f"held-out accuracy {held_out:.3f} +- {error:.3f} (n = {HELD_OUT_IMAGES:,}); {file}")


if __name__ == "__main__":
    main()
