"""The benchmark's own images: the demo's faces (178 × 218 pixels), drawn by all cores, in CelebA's layout."""

import csv
import multiprocessing
import sys
import time
from functools import partial
from itertools import chain, repeat
from typing import Final

from benchmarks.gpu_stages.job import ROOT, Job, Note

sys.path.insert(0, str(ROOT / "examples" / "demo"))  # its programs are not a package
import faces

LONGEST: Final = 50.0  # seconds; after that, what was drawn must suffice


def draw(job: Job, note: Note) -> None:
    """Faces 1, 2, … and their tables; fewer than asked for if time runs out, in the same proportions."""
    images = job.faces / "faces"
    images.mkdir(parents=True)
    asked = job.training + job.validation + job.test
    began = time.monotonic()
    rows = []
    with multiprocessing.get_context("fork").Pool(job.cpus) as pool:
        drawn = pool.imap(partial(faces.write_face, 0, images), range(1, asked + 1), chunksize=16)
        for row in drawn:
            rows.append(row)
            if time.monotonic() - began > LONGEST:
                break
    for late in set(images.iterdir()) - {images / str(row[0]) for row in rows}:
        late.unlink()  # drawn, perhaps in part, by a process that was ended
    training, validation, test = parts(len(rows), job.training, job.validation, job.test)
    column = 1 + faces.ATTRIBUTES.index("Smiling")
    smiling = [(row[0], row[column]) for row in rows]
    part = chain(repeat(0, training), repeat(1, validation), repeat(2, test))
    for name, header, lines in (
        (job.table.name, "Smiling", smiling),
        ("list_eval_partition.csv", "partition", zip((row[0] for row in rows), part, strict=True)),
    ):
        with (job.faces / name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image_id", header])
            writer.writerows(lines)
    seconds = time.monotonic() - began
    note(
        asked=asked,
        training=training,
        validation=validation,
        test=test,
        seconds=seconds,
        images_per_second=len(rows) / seconds,
    )


def parts(drawn: int, training: int, validation: int, test: int) -> tuple[int, int, int]:
    """How many images of each part there are if `drawn` were made."""
    share = drawn / (training + validation + test)
    some = min(round(validation * share), validation), min(round(test * share), test)
    return drawn - sum(some), *some
