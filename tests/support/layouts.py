"""Faces as the data sets' own downloads lay them out."""

import shutil
from pathlib import Path

from tests.support.faces import Faces, write_faces, write_zip
from trainable.config import DataConfig
from trainable.data import FaceTable, open_table


def opened(images: Path, target: str = "Smiling", **settings: object) -> FaceTable:
    """The table of `images`, which nobody names."""
    return open_table(DataConfig(images=images, target=target, **settings))


def as_celeba30k(tmp_path: Path, inside: str) -> tuple[Faces, Path]:
    faces = write_faces(tmp_path / "made", 20)
    archive = write_zip(faces.images, tmp_path / "CelebA30k.zip", inside)
    shutil.copy(faces.table, tmp_path / "CelebA30k.csv")
    return faces, archive


def as_official(root: Path) -> Faces:
    faces = write_faces(root, 20, "img_align_celeba", "made.csv")
    faces.table.unlink()
    lines = [
        f"{file} {smiling:2d} {male:2d}"
        for file, smiling, male in zip(faces.files, faces.smiling, faces.male, strict=True)
    ]
    (root / "list_attr_celeba.txt").write_text("\n".join(["20", "Smiling Male ", *lines]) + "\n")
    parts = [0] * 14 + [1] * 3 + [2] * 3
    pairs = zip(faces.files, parts, strict=True)
    (root / "list_eval_partition.txt").write_text("".join(f"{f} {part}\n" for f, part in pairs))
    people = "".join(f"{file} {2880 + number // 3}\n" for number, file in enumerate(faces.files))
    (root / "identity_CelebA.txt").write_text(people)
    return faces


def as_said(faces: Faces, table: FaceTable) -> bool:
    """Does `table` hold the files and labels of `faces`, and are its images there?"""
    return (
        tuple(table.rows["file"]) == faces.files
        and [2 * label - 1 for label in table.rows["label"]] == list(faces.smiling)
        and all((table.images / file).is_file() for file in faces.files)
    )
