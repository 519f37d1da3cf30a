"""The demo's drawn faces and its backbone: what the demo sweep and the README rely on."""

import csv
import subprocess
import sys
from pathlib import Path

import faces
import numpy as np
import pretrain
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.support.project import ROOT

DEMO = ROOT / "examples" / "demo"


def read(folder: Path) -> tuple[dict[str, bytes], list[dict[str, str]]]:
    """The files of the images, and the rows of the table."""
    images = {path.name: path.read_bytes() for path in (folder / "images").iterdir()}
    with (folder / "faces.csv").open(encoding="utf-8", newline="") as table:
        return images, list(csv.DictReader(table))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "faces"
    command = [sys.executable, str(DEMO / "faces.py"), "20", str(folder), "--jobs", "2"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="module")
def attributes() -> dict[str, np.ndarray]:
    """0 and 1 for each of 4,000 faces, not drawn."""
    many = [faces.draw_attributes(np.random.default_rng((0, i))) for i in range(1, 4001)]
    return {name: np.array([has[name] for has in many], dtype=float) for name in faces.ATTRIBUTES}


def test_a_face_depends_only_on_the_seed_and_its_number(drawn: Path, tmp_path: Path) -> None:
    assert faces.main(["5", str(tmp_path / "fewer"), "--jobs", "1"]) == 0
    images, rows = read(drawn)
    fewer_images, fewer_rows = read(tmp_path / "fewer")
    assert fewer_rows == rows[:5]
    assert fewer_images == {name: images[name] for name in sorted(images)[:5]}
    assert faces.main(["5", str(tmp_path / "others"), "--seed", "1", "--jobs", "1"]) == 0
    assert not set(read(tmp_path / "others")[0].values()) & set(images.values())


def test_the_folder_has_the_form_of_celeba(drawn: Path) -> None:
    images, rows = read(drawn)
    assert [row["filename"] for row in rows] == sorted(images)
    assert sorted(images)[0] == "000001.jpg"
    assert list(rows[0]) == ["filename", *faces.ATTRIBUTES]
    assert {value for row in rows for name, value in row.items() if name != "filename"} == {
        "-1",
        "1",
    }
    with Image.open(drawn / "images" / "000001.jpg") as image:
        assert (image.size, image.mode, image.format) == ((178, 218), "RGB", "JPEG")


def test_the_table_says_what_the_drawing_function_says(drawn: Path) -> None:
    for number, row in enumerate(read(drawn)[1], 1):
        _, attributes = faces.draw_face(0, number)
        assert {name: int(row[name]) for name in faces.ATTRIBUTES} == attributes


def test_a_finished_folder_is_left_alone_and_another_one_refused(
    drawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in drawn.rglob("*")}
    assert faces.main(["20", str(drawn)]) == 0
    assert capsys.readouterr().out.endswith("nothing to do\n")
    assert faces.main(["21", str(drawn)]) == 2
    error = capsys.readouterr().err
    assert "must be new" in error
    assert error.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in drawn.rglob("*")} == before


def test_what_a_killed_run_left_is_no_data_set_and_is_drawn_again(tmp_path: Path) -> None:
    left = tmp_path / "faces.partial" / "images"
    left.mkdir(parents=True)
    (left / "000007.jpg").write_bytes(b"half an image")
    assert faces.main(["2", str(tmp_path / "faces"), "--jobs", "1"]) == 0
    assert sorted(read(tmp_path / "faces")[0]) == ["000001.jpg", "000002.jpg"]
    assert not left.exists()


def test_the_classes_have_celebas_shares(attributes: dict[str, np.ndarray]) -> None:
    spread = 4 * (0.25 / 4000) ** 0.5  # four standard errors
    assert attributes["Smiling"].mean() == pytest.approx(0.475, abs=spread)
    assert attributes["Male"].mean() == pytest.approx(0.423, abs=spread)


@pytest.mark.parametrize(
    ("one", "other", "sign"),
    [
        ("Smiling", "Mouth_Slightly_Open", 1),
        ("Smiling", "High_Cheekbones", 1),
        ("Male", "Wearing_Lipstick", -1),
        ("Male", "Heavy_Makeup", -1),
        ("Male", "No_Beard", -1),
        ("Male", "5_o_Clock_Shadow", 1),
        ("Male", "Mustache", 1),
        ("Male", "Wearing_Necktie", 1),
        ("Male", "Wearing_Earrings", -1),
        ("Male", "Young", -1),
        ("Young", "Gray_Hair", -1),
    ],
)
def test_attributes_go_together_as_in_celeba(
    attributes: dict[str, np.ndarray], one: str, other: str, sign: int
) -> None:
    assert sign * np.corrcoef(attributes[one], attributes[other])[0, 1] > 0.1


@pytest.mark.parametrize("name", faces.ATTRIBUTES)
def test_each_attribute_can_be_seen_and_changes_nothing_else(name: str) -> None:
    plain = dict.fromkeys(faces.ATTRIBUTES, False) | {"No_Beard": True, "Young": True}
    changed = plain | {name: not plain[name]}
    one, other = (
        np.asarray(faces.draw_picture(np.random.default_rng(7), has), dtype=float)
        for has in (plain, changed)
    )
    difference = np.abs(one - other).max(axis=2) > 12  # a step in brightness that an eye can see
    assert difference.sum() > 150  # pixels of 38,804
    room = difference[:20, :40]  # the upper left corner
    assert room.sum() == 0  # is the same, noise and all


def test_the_backbone_fits_a_narrow_vgg16_by_name_and_is_finite() -> None:
    weights = load_file(DEMO / "backbone.safetensors")
    net = torch.nn.ModuleDict({"features": pretrain.layers(batch_norm=False)})
    net.load_state_dict({name: value.float() for name, value in weights.items()}, strict=True)
    assert all(value.dtype == torch.float16 for value in weights.values())
    assert all(bool(value.isfinite().all()) for value in weights.values())


def test_the_backbone_tells_a_disc_from_a_frame() -> None:
    """The features of an unseen shape are most like those of another one of its kind."""
    net = pretrain.layers(batch_norm=False)
    weights = load_file(DEMO / "backbone.safetensors")
    net.load_state_dict({name.removeprefix("features."): v.float() for name, v in weights.items()})
    rng = np.random.default_rng(0)
    kinds = np.array([pretrain.KINDS.index("disc"), pretrain.KINDS.index("frame")] * 16)
    images = np.stack([pretrain.draw_image(rng, kind.reshape(1, 1)) for kind in kinds])
    with torch.no_grad():
        maps = net(pretrain.normalised(torch.from_numpy(images).permute(0, 3, 1, 2)))
    features = torch.nn.functional.normalize(maps.mean((2, 3)), dim=1)
    likeness = features @ features.T - 9 * torch.eye(len(kinds))
    nearest = likeness.argmax(1).numpy()
    assert (kinds[nearest] == kinds).sum() >= 30  # of 32; about 16 if it knew nothing
