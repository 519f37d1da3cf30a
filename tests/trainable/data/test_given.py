"""Images that a person names: what can't be read is refused by its name before anything is decoded."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.bad_zips import UNOPENED, UNREAD, encrypted, zip_of
from tests.support.unreadable import UNREADABLE
from trainable.data import given as given_module
from trainable.data.given import given_images
from trainable.errors import RequestError

Text = Callable[[pytest.ExceptionInfo[Exception]], str]


def says(refused: Text, path: Path) -> str:
    """The refusal of what is at `path`, when its digest is asked for, as before the seal is."""
    with pytest.raises(RequestError) as caught:
        for each in given_images(path):
            each.digest()
    return refused(caught)


@pytest.mark.parametrize("how", UNOPENED)
def test_a_zip_whose_list_of_files_can_not_be_read_is_refused(
    tmp_path: Path, refused: Text, how: str
) -> None:
    damage, told = UNOPENED[how]
    damage(path := tmp_path / "new.zip")
    said = says(refused, path)
    assert said.startswith(f"{path} must be a whole zip, but it is damaged: ") and told in said


@pytest.mark.parametrize("how", UNREAD)
def test_an_image_in_a_zip_that_can_not_be_read_is_refused_by_its_name(
    tmp_path: Path, refused: Text, how: str
) -> None:
    damage, told = UNREAD[how]
    damage(path := tmp_path / "new.zip")
    said = says(refused, path)
    assert said.startswith(f"{path}/a.jpg must be readable, but") and told in said


def test_an_encrypted_image_is_refused_by_its_name(tmp_path: Path, refused: Text) -> None:
    encrypted(path := tmp_path / "new.zip")
    assert says(refused, path) == (
        f"an image in a zip must not be encrypted, but {path}/a.jpg is; extract it yourself"
    )


def test_an_image_in_a_zip_that_would_fill_the_memory_is_refused_unread(
    tmp_path: Path, refused: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    zip_of(path := tmp_path / "new.zip")
    monkeypatch.setattr(given_module, "MOST_BYTES", 4_999)
    assert says(refused, path) == (
        f"an image in a zip must have at most 4,999 bytes, but {path}/a.jpg has 5,000; leave it out"
    )
    monkeypatch.setattr(given_module, "MOST_BYTES", 5_000)
    assert len(given_images(path)) == 1


def test_a_file_that_is_there_and_can_not_be_read_is_refused_with_the_systems_words(
    tmp_path: Path, refused: Text
) -> None:
    (path := tmp_path / "new.jpg").symlink_to(UNREADABLE)
    assert says(refused, path) == f"{path} must be readable, but: Input/output error"
