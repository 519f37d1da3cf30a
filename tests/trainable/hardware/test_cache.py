"""The folder for what trials share, wherever the user's home is."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from trainable.errors import RequestError
from trainable.hardware.cache import default_folder


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without an entry in passwd and without HOME, as in many containers."""
    for name in ("HOME", "XDG_CACHE_HOME", "SWEEP_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 2)


@pytest.mark.usefixtures("nobody")
def test_a_store_that_is_named_needs_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_STORE", "/somewhere/store")
    assert default_folder() == Path("/somewhere/store")


@pytest.mark.usefixtures("nobody")
def test_who_has_no_home_is_told_what_to_set(
    refused: Callable[[pytest.ExceptionInfo[Exception]], str],
) -> None:
    with pytest.raises(RequestError) as caught:
        default_folder()
    assert "SWEEP_STORE=/some/folder" in refused(caught)


def test_without_a_store_it_lies_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWEEP_STORE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_folder() == Path("/somewhere/face-attribute-sweep")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_folder() == Path("/home/someone/.cache/face-attribute-sweep")
