"""Augmentation: torchvision's transforms, drawn as a pure function of (augmentation seed, epoch, image)."""

from collections import Counter
from collections.abc import Sequence
from itertools import permutations
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import v2

from tests.support.faces import Faces, sha256_of
from trainable.data import LabelledImages, load_pixels
from trainable.data.views import ORIGINAL, View, draws, look, look_all, normalise, view

NAMES = [f"{number:06d}.jpg" for number in range(1, 6001)]
FACTORS = {0: 0.875, 1: 1.1875, 2: 0.8125}  # brightness, contrast, saturation; exact in float32


@pytest.fixture
def images(faces: Faces) -> LabelledImages:
    """All of `faces` at 32 px."""
    labels = torch.zeros(len(faces.files))
    return LabelledImages(faces.images, faces.files, labels, 32, sha256_of(faces))


def test_the_evaluation_view_is_the_pipeline_of_the_reports(faces: Faces) -> None:
    of_torchvision = transforms.Compose(
        [
            transforms.Resize((64, 64)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    path = faces.images / faces.files[0]
    expected = of_torchvision(Image.open(path).convert("RGB"))
    seen = normalise(look(load_pixels(path, 64), ORIGINAL)[None])[0]
    assert torch.equal(seen, expected)


@given(st.integers(0, 2**63), st.integers(1, 10_000), st.text())
def test_without_augmentation_every_epoch_sees_the_original(
    seed: int, epoch: int, file: str
) -> None:
    assert view("none", seed, epoch, file) == ORIGINAL


@given(st.integers(0, 2**63), st.integers(1, 10_000), st.text())
def test_a_flip_only_mirrors_and_a_jitter_mirrors_the_same_images(
    seed: int, epoch: int, file: str
) -> None:
    flip, jitter = view("flip", seed, epoch, file), view("flip_jitter", seed, epoch, file)
    assert flip.jitter == ()
    assert flip.mirrored == jitter.mirrored
    assert sorted(which for which, _ in jitter.jitter) == [0, 1, 2]
    assert all(0.8 <= factor <= 1.2 for _, factor in jitter.jitter)


def test_another_seed_epoch_or_image_is_another_draw() -> None:
    one = view("flip_jitter", 0, 1, "000001.jpg")
    assert one == view("flip_jitter", 0, 1, "000001.jpg")
    others = [(1, 1, "000001.jpg"), (0, 2, "000001.jpg"), (0, 1, "000002.jpg"), (0, 11, "1.jpg")]
    assert one not in [view("flip_jitter", *place) for place in others]


def test_views_are_those_that_landed_commits_drew() -> None:
    """A trial that goes on sees what it would have seen: no version may draw others."""
    assert view("flip_jitter", 0, 1, "000001.jpg") == View(
        True, ((1, 1.0150137026794255), (0, 0.9824768440797925), (2, 0.9897439879365266))
    )
    assert view("flip_jitter", 3, 2, "a/ü.png") == View(
        False, ((0, 1.0939667745493353), (2, 0.9793683719821275), (1, 1.0007735985331239))
    )


@pytest.mark.parametrize("pool", [1, 3])
def test_a_pool_of_views_comes_over_and_over_and_a_flip_has_none(pool: int) -> None:
    def seen(epoch: int, pool: int | None) -> list[View]:
        return [view("flip_jitter", 0, epoch, file, pool) for file in NAMES[:20]]

    for epoch in range(1, 8):
        first = (epoch - 1) % pool + 1  # epochs count from 1
        assert seen(epoch, pool) == seen(first, None)
        flips = [view("flip", 0, epoch, file, pool) for file in NAMES[:20]]
        assert flips == [view("flip", 0, epoch, file) for file in NAMES[:20]]
    assert len({tuple(seen(epoch, None)) for epoch in range(1, 8)}) == 7


def test_draws_are_distributed_as_torchvisions() -> None:
    views = [view("flip_jitter", 0, epoch, file) for epoch in (1, 2) for file in NAMES]
    mirrored = [seen.mirrored for seen in views]
    assert stats.binomtest(sum(mirrored), len(mirrored), 0.5).pvalue > 0.01
    orders = Counter(tuple(which for which, _ in seen.jitter) for seen in views)
    assert set(orders) == set(permutations(range(3)))
    assert stats.chisquare(list(orders.values())).pvalue > 0.01
    factors = np.array([[dict(seen.jitter)[which] for which in range(3)] for seen in views])
    for column in factors.T:
        assert stats.kstest(column, stats.uniform(0.8, 0.4).cdf).pvalue > 0.01
    drawn_apart = np.column_stack([factors, mirrored, [seen.jitter[0][0] for seen in views]])
    correlations = np.corrcoef(drawn_apart.T) - np.eye(5)
    assert np.abs(correlations).max() < 4 / np.sqrt(len(views))


def test_two_epochs_mirror_independently() -> None:
    pairs = Counter(
        tuple(view("flip", 0, epoch, file).mirrored for epoch in (1, 2)) for file in NAMES
    )
    assert len(pairs) == 4
    assert stats.chisquare(list(pairs.values())).pvalue > 0.01


def test_colour_jitter_is_torchvisions_in_each_of_the_six_orders(faces: Faces) -> None:
    pixels = load_pixels(faces.images / faces.files[1], 32)
    brightness, contrast, saturation = ((FACTORS[which],) * 2 for which in range(3))
    jitter = v2.ColorJitter(brightness, contrast, saturation)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = {jitter(pixels).numpy().tobytes() for _ in range(100)}
    seen = {
        look(pixels, View(jitter=tuple((which, FACTORS[which]) for which in order)))
        .numpy()
        .tobytes()
        for order in permutations(range(3))
    }
    assert len(seen) > 1
    assert seen == expected


def test_a_mirrored_view_is_pillows_mirror(faces: Faces) -> None:
    pixels = load_pixels(faces.images / faces.files[2], 32)
    mirror = Image.fromarray(pixels.permute(1, 2, 0).numpy()).transpose(
        Image.Transpose.FLIP_LEFT_RIGHT
    )
    seen = look(pixels, View(mirrored=True)).permute(1, 2, 0).numpy()
    assert np.array_equal(seen, np.array(mirror))


def seen_by_file(
    images: LabelledImages, order: Sequence[int], batch_size: int, workers: int
) -> dict[str, Tensor]:
    """What epoch 3 sees of each image."""
    batches = images.batches(
        order, batch_size, lambda file: view("flip_jitter", 5, 3, file), workers
    )
    return {
        images.files[position]: pixels
        for positions, batch in batches
        for position, pixels in zip(positions.tolist(), batch, strict=True)
    }


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (7, 4), (40, 3), (64, 1)])
def test_an_image_looks_the_same_in_any_batch_order_and_number_of_workers(
    images: LabelledImages, batch_size: int, workers: int
) -> None:
    alone = {
        file: look(load_pixels(images.folder / file, 32), view("flip_jitter", 5, 3, file))
        for file in images.files
    }
    order = np.random.default_rng(batch_size).permutation(len(images)).tolist()
    seen = seen_by_file(images, order, batch_size, workers)
    assert seen.keys() == alone.keys()
    assert all(torch.equal(seen[file], alone[file]) for file in alone)


def test_batches_come_in_the_order_asked_for_and_leave_no_image_out(images: LabelledImages) -> None:
    order = [5, 0, 39, 7, 7, 12, 3]
    batches = list(images.batches(order, 3, lambda file: ORIGINAL, 4))
    assert [positions.tolist() for positions, _ in batches] == [[5, 0, 39], [7, 7, 12], [3]]
    assert [tuple(pixels.shape) for _, pixels in batches] == [
        (3, 3, 32, 32),
        (3, 3, 32, 32),
        (1, 3, 32, 32),
    ]


# ---------------------------------------------------------------- all of a batch at once, on a device

SIDES = st.integers(32, 300)
FACTOR = st.floats(0.8, 1.2)
VIEWS = st.builds(
    lambda mirrored, order, factors: View(mirrored, tuple(zip(order, factors, strict=True))),
    st.booleans(),
    st.permutations(range(3)),
    st.tuples(FACTOR, FACTOR, FACTOR),
)


def noise(count: int, height: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def assert_nearly_equal(found: Tensor, expected: Tensor) -> None:
    """Within 2 grey levels, and 99.9 % of all values equal."""
    assert found.dtype is torch.uint8 and found.shape == expected.shape
    apart = (found.int() - expected.int()).abs()
    assert apart.max() <= 2
    assert (apart == 0).double().mean() >= 0.999


@given(st.lists(VIEWS, min_size=1, max_size=4), SIDES, SIDES, st.integers(0, 2**31))
@settings(max_examples=40)
def test_views_made_at_once_are_those_made_one_by_one(
    views: list[View], height: int, width: int, seed: int
) -> None:
    pixels = noise(len(views), height, width, seed)
    expected = torch.stack(list(map(look, pixels, views)))
    assert_nearly_equal(look_all(pixels, draws(views)), expected)


@pytest.mark.parametrize("size", [32, 64, 224])
def test_faces_jittered_at_once_are_those_jittered_one_by_one(faces: Faces, size: int) -> None:
    pixels = torch.stack([load_pixels(faces.images / file, size) for file in faces.files])
    views = [view("flip_jitter", 0, 1, file) for file in faces.files]
    expected = torch.stack(list(map(look, pixels, views)))
    assert_nearly_equal(look_all(pixels, draws(views)), expected)


@given(st.lists(VIEWS, min_size=2, max_size=6), st.integers(0, 2**31), st.randoms())
@settings(max_examples=30)
def test_a_view_made_at_once_does_not_depend_on_what_is_made_with_it(
    views: list[View], seed: int, shuffle: Random
) -> None:
    pixels, order = noise(len(views), 45, 37, seed), list(range(len(views)))
    whole = look_all(pixels, draws(views))
    shuffle.shuffle(order)
    again = look_all(pixels[order], draws([views[number] for number in order]))
    assert torch.equal(again, whole[order])
    for number, seen in enumerate(views):
        assert torch.equal(look_all(pixels[number : number + 1], draws([seen]))[0], whole[number])


def test_views_without_jitter_are_exact_at_once_too() -> None:
    pixels = noise(2, 33, 47, 0)
    seen = look_all(pixels, draws([ORIGINAL, View(mirrored=True)]))
    assert torch.equal(seen[0], pixels[0])
    assert torch.equal(seen[1], pixels[1].flip(2))


def test_what_goes_beyond_black_and_white_is_cut_off() -> None:
    pixels = torch.tensor([0, 3, 252, 255], dtype=torch.uint8).expand(1, 3, 2, 4)
    brighter = look_all(pixels, draws([View(jitter=((0, 1.2),))]))
    assert brighter[0, 0, 0].tolist() == [0, 3, 255, 255]
    darker = look_all(pixels, draws([View(jitter=((0, 0.8),))]))
    assert darker[0, 0, 0].tolist() == [0, 2, 201, 204]
    harder = look_all(pixels, draws([View(jitter=((1, 1.2),))]))
    assert harder[0, 0, 0].tolist() == [0, 0, 255, 255], "the mean grey is 127"


def test_the_mean_grey_of_a_large_bright_image_is_exact() -> None:
    """float32 counts to 2^24, which is 256 by 256 pixels of 255 and a few; here are nine times as many."""
    pixels = torch.full((1, 3, 768, 768), 255, dtype=torch.uint8)
    pixels[..., ::2] = 251
    seen = look_all(pixels, draws([View(jitter=((1, 0.0),))]))
    grey = torch.tensor([255.0, 251.0]) * 0.2989 + torch.tensor([255.0, 251.0]) * 0.587
    grey = (grey + torch.tensor([255.0, 251.0]) * 0.114).floor()
    assert seen.unique().tolist() == [int(grey.mean())]
