"""sweep store: what lies on this machine, and clearing it; and the limit as people write it."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from sweep.__main__ import app
from sweep.request.config import SweepConfig, check_config, load_config, parse_bytes
from trainable.errors import RequestError
from trainable.frozen.store import Chunk, Shelf

RUN = CliRunner()
IMAGES = torch.zeros(10, 3, 8, 8, dtype=torch.uint8)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """One shelf of two chunks in the store that the command looks at."""
    monkeypatch.setenv("SWEEP_STORE", str(tmp_path / "store"))
    key = {"holds": "decoded images", "image_size": 8}
    shelf = Shelf.open(tmp_path / "store", key)
    for name in ("a", "b"):
        shelf.write(name, IMAGES)
    return shelf


def test_it_lists_keys_sizes_and_ages(shelf: Shelf) -> None:
    facts = json.loads(RUN.invoke(app, ["store", "--json"]).stdout)
    (found,) = facts["shelves"]
    assert found["key"] == json.loads((shelf.folder / "key.json").read_bytes())
    on_disk = sum((shelf.folder / name).stat().st_size for name in ("a", "b"))
    assert (found["chunks"], found["bytes"], facts["bytes"]) == (2, on_disk, on_disk)
    assert 0 <= found["unused_seconds"] < 60
    table = RUN.invoke(app, ["store"]).stdout
    assert "decoded images, 8 px" in table and "ago" in table


def test_clearing_leaves_what_is_in_use(shelf: Shelf) -> None:
    chunk = shelf.read("a")
    assert isinstance(chunk, Chunk)
    cleared = RUN.invoke(app, ["store", "--clear"])
    assert cleared.exit_code == 0 and "1 chunks are in use" in cleared.stdout
    assert shelf.has("a") and not shelf.has("b")


def test_a_shelf_that_lost_its_key_is_listed_as_unknown_and_can_be_cleared(shelf: Shelf) -> None:
    (shelf.folder / "key.json").unlink()
    listed = RUN.invoke(app, ["store"])
    assert listed.exit_code == 0 and "key.json is missing" in listed.stdout
    assert RUN.invoke(app, ["store", "--clear"]).exit_code == 0
    assert not shelf.has("a") and not shelf.has("b")


def test_an_empty_store_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_STORE", str(tmp_path / "none"))
    for arguments in (["store"], ["store", "--json"], ["store", "--clear"]):
        assert RUN.invoke(app, arguments).exit_code == 0
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("200GB", 200 * 10**9), ("1.5 TB", 1_500_000_000_000), ("500m", 5 * 10**8), ("4096", 4096)],
)
def test_a_limit_is_written_as_people_write_sizes(text: str, expected: int) -> None:
    assert parse_bytes("--store-limit", text) == expected


def config_of(tmp_path: Path, **changed: object) -> SweepConfig:
    facts = {
        "name": "run",
        "data": {"images": str(tmp_path), "target": "Smiling"},
        "trial": {"strategy": "head"},
        "search": {"method": "grid"},
    }
    return check_config(facts | changed, {}, "test")


def test_the_configuration_takes_it_too_and_gives_it_back(tmp_path: Path) -> None:
    config = config_of(tmp_path, store={"limit": "2GB"}, sharing="off")
    assert config.store.limit == 2 * 10**9 and config.sharing == "off"
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(json.loads(config.model_dump_json())))
    assert load_config(path) == config
    assert load_config(path, ["store.limit=3GB"]).store.limit == 3 * 10**9


@pytest.mark.parametrize("text", ["much", "-1GB", "2 PB", ""])
def test_what_is_no_size_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(RequestError, match="--store-limit must be a size such as 200GB") as caught:
        parse_bytes("--store-limit", text)
    assert "\n" not in str(caught.value)
