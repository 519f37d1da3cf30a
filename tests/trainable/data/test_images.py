"""The opening of images: of which parts, and as what pixels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests.support.faces import Faces, sha256_of, write_faces
from trainable.data import (
    LabelledImages,
    load_pixels,
    open_test_data,
    open_training_data,
    read_split,
)
from trainable.data.views import ORIGINAL
from trainable.errors import RequestError

Text = Callable[[pytest.ExceptionInfo[Exception]], str]


def test_training_sees_two_parts_and_the_final_test_the_third(
    faces: Faces, split_file: Path
) -> None:
    split = pd.read_parquet(split_file)
    data = open_training_data(split_file, faces.images, 32)
    test = open_test_data(split_file, faces.images, 32)
    for part, images in (
        ("train", data.training),
        ("validation", data.validation),
        ("test", test),
    ):
        rows = split[split["part"] == part]
        assert list(images.files) == rows["file"].tolist()
        assert images.labels.tolist() == rows["label"].tolist()
    assert sorted(data.training.files + data.validation.files + test.files) == list(faces.files)


def test_rows_of_the_test_part_stay_on_the_disk(split_file: Path) -> None:
    assert set(read_split(split_file, ("train", "validation"))["part"]) == {"train", "validation"}


@pytest.mark.parametrize("content", [None, b"", b"PAR1 and then nothing"])
def test_a_split_that_cannot_be_read_is_named(
    tmp_path: Path, refused: Text, content: bytes | None
) -> None:
    path = tmp_path / "split.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RequestError) as caught:
        read_split(path, ("train",))
    assert str(path) in refused(caught)


def gradient(mode: str) -> Image.Image:
    """Red from left to right, green from top to bottom, blue half."""
    side = np.linspace(0, 255, 64)
    red, green = np.meshgrid(side, side)
    pixels = np.stack([red, green, np.full_like(red, 128)], axis=2).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize(
    ("mode", "suffix", "off_by"),
    [
        ("RGB", "png", 0),
        ("RGB", "bmp", 0),
        ("RGB", "webp", 6),
        ("RGB", "jpg", 6),
        ("RGBA", "png", 0),
        ("CMYK", "jpg", 6),
        ("P", "png", 20),
        ("P", "gif", 20),
    ],
)
def test_a_picture_of_any_mode_is_read_as_its_colours(
    tmp_path: Path, mode: str, suffix: str, off_by: int
) -> None:
    path = tmp_path / f"picture.{suffix}"
    gradient(mode).save(path, quality=95) if suffix in ("jpg", "webp") else gradient(mode).save(
        path
    )
    with Image.open(path) as image:
        assert image.mode == mode
    pixels = load_pixels(path, 64)
    expected = torch.from_numpy(np.array(gradient("RGB"))).permute(2, 0, 1)
    assert pixels.dtype == torch.uint8
    assert (pixels.float() - expected).abs().mean() <= off_by


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "png"), ("L", "jpg"), ("LA", "png"), ("1", "png")]
)
def test_a_grey_picture_has_three_equal_channels(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"picture.{suffix}"
    gradient("L").convert(mode).save(path)
    pixels = load_pixels(path, 64)
    assert torch.equal(pixels[0], pixels[1])
    assert torch.equal(pixels[0], pixels[2])
    grey = torch.from_numpy(np.array(gradient("L"))).float()
    assert (pixels[0].float().mean() - grey.mean()).abs() < 3


def test_sixteen_bits_of_grey_are_scaled_not_cut_off(tmp_path: Path) -> None:
    grey = np.array(gradient("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    pixels = load_pixels(tmp_path / "deep.png", 64)
    assert torch.equal(pixels, torch.from_numpy(grey).expand(3, 64, 64))


def test_a_picture_that_says_it_lies_on_its_side_is_set_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    lying = gradient("RGB").transpose(Image.Transpose.ROTATE_90)
    lying.save(tmp_path / "lying.png", exif=exif)
    gradient("RGB").save(tmp_path / "upright.png")
    assert torch.equal(
        load_pixels(tmp_path / "lying.png", 48), load_pixels(tmp_path / "upright.png", 48)
    )


def test_a_picture_that_is_not_square_is_resized_whole(tmp_path: Path) -> None:
    gradient("RGB").resize((40, 90)).save(tmp_path / "tall.png")
    pixels = load_pixels(tmp_path / "tall.png", 64)
    assert pixels.shape == (3, 64, 64)
    assert pixels[0, :, 0].max() < 20
    assert pixels[0, :, -1].min() > 235
    assert pixels[1, -1].min() > 235


def test_a_damaged_image_stops_the_batches_with_its_error(tmp_path: Path) -> None:
    faces = write_faces(tmp_path, 6)
    (faces.images / faces.files[4]).write_bytes(b"no picture")
    digests = sha256_of(faces)
    images = LabelledImages(faces.images, faces.files, torch.zeros(6), 32, digests)
    with pytest.raises(OSError, match=faces.files[4]):
        list(images.batches(range(6), 2, lambda file: ORIGINAL, 2))
