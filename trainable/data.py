"""The image table in any of its layouts, the split, labels, and the opening of images.

Training and validation images are opened by `open_training_data`; test images by `open_test_data` alone.
"""

import os
import shutil
import stat
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from filelock import FileLock
from PIL import Image, ImageOps
from sklearn.model_selection import train_test_split
from torch import Tensor

from trainable.config import DataConfig, RequestError, SplitConfig, did_you_mean
from trainable.views import View, look

Part = Literal["train", "validation", "test"]
PARTS: Final[tuple[Part, ...]] = ("train", "validation", "test")
SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
FEW_VALIDATION_IMAGES: Final = 10  # of a class: below this a validation accuracy says little


# ---------------------------------------------------------------- the table


@dataclass(frozen=True)
class FaceTable:
    """The rows of a table that have an image, and where those images are."""

    images: Path
    """The folder that file names are relative to."""
    table: Path
    target: str
    classes: tuple[str, str]
    """What the table calls label 0 and label 1."""
    rows: pd.DataFrame
    """file, label (0 | 1), where known partition (train | validation | test) and identity."""
    attributes: pd.DataFrame
    """The table as it was read, one row a row of `rows`."""
    dropped: tuple[str, ...] = ()
    """Files that the table names and nobody found (`data.missing: drop`)."""


def open_table(config: DataConfig) -> FaceTable:
    """Read the table, find its images and check both.

    Raises:
        RequestError: a missing table, column or image, labels other than two values, a duplicate file name.
    """
    root = unpacked(config.images)
    path = config.table or find_table(config.images, root)
    if not path.is_file():
        raise RequestError(
            f"data.table must be a CSV or a CelebA .txt, but there is no file {path}"
        )
    frame = read_table(path)
    if config.target not in frame.columns:
        hint = did_you_mean(config.target, frame.columns)
        raise RequestError(
            f"data.target must be a column of {path}, but it has no column {config.target!r}{hint}"
        )
    name_column = _file_column(frame, path)
    files = frame[name_column].astype(str)
    _refuse_duplicates(files, path)
    labels, classes = _labels(frame[config.target], config, path)
    images = find_images(root, list(files))
    there = _present(images, files)
    missing = list(files[~there])
    if missing and config.missing == "refuse":
        raise RequestError(
            f"every row of {path} must have an image, but {len(missing):,} of {len(files):,} have none in "
            f"{images}: {', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}; "
            "data.missing=drop goes on without them"
        )
    rows = pd.DataFrame({"file": files, "label": labels})
    for column, found in (
        ("partition", _partition(path, root)),
        ("identity", _identity(path, root)),
    ):
        if found is not None:
            rows[column] = rows["file"].map(found)
    return FaceTable(
        images=images,
        table=path,
        target=config.target,
        classes=classes,
        rows=rows[there].reset_index(drop=True),
        attributes=frame[there].drop(columns=name_column).reset_index(drop=True),
        dropped=tuple(missing),
    )


def find_table(images: Path, root: Path) -> Path:
    """The table that lies beside the images, under one of the names that people have.

    Raises:
        RequestError: none is there, or several and none has a known name.
    """
    folders = list(dict.fromkeys([root, images.parent, root.parent]))
    names = ["list_attr_celeba.csv", "list_attr_celeba.txt", f"{images.stem}.csv"]
    for folder in (*folders, root.parent.parent):  # Kaggle's images lie two folders deep
        for name in names:
            if (folder / name).is_file():
                return folder / name
    for folder in folders:
        tables = sorted(folder.glob("*.csv"))
        if len(tables) == 1:
            return tables[0]
    raise RequestError(
        f"data.table must name the table of the images, since none of {', '.join(names)} "
        f"and no single CSV lies in {' or '.join(map(str, folders))}"
    )


def read_table(path: Path) -> pd.DataFrame:
    """A CSV, or CelebA's own .txt: a count, the attribute names, then rows that begin with the file name.

    Raises:
        RequestError: the file is no such table.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        first, second = lines.readline().strip(), lines.readline().split()
    if first.isdigit():
        frame = _read_csv(path, sep=r"\s+", skiprows=2, header=None)
        width = frame.shape[1]
        if len(second) not in (width - 1, width):
            raise RequestError(
                f"line 2 of {path} must name the {width - 1} columns after the file name, "
                f"but it names {len(second)}"
            )
        frame.columns = pd.Index(["image_id", *second][-width:])
    else:
        frame = _read_csv(path)
    if frame.empty:
        raise RequestError(f"{path} must have rows, but it has none")
    return frame


def _read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """What pandas reads, each column as a whole: in chunks, one stray word makes half a column text."""
    try:
        frame: pd.DataFrame = pd.read_csv(path, encoding="utf-8-sig", low_memory=False, **options)
    except UnicodeDecodeError:
        raise RequestError(
            f"{path} must be UTF-8 text, but it is not; save it again as UTF-8"
        ) from None
    except ValueError as error:  # pandas' parser and empty-file errors are such
        raise RequestError(
            f"{path} must be a table, but reading it says: {str(error).strip()}"
        ) from None
    return frame


def _file_column(frame: pd.DataFrame, path: Path) -> str:
    for name in frame.columns:
        values = frame[name]
        if values.dtype.kind not in "ifb" and values.notna().all():
            if values.astype(str).str.lower().str.endswith(SUFFIXES).all():
                return str(name)
    raise RequestError(
        f"{path} must have a column of image file names ({', '.join(SUFFIXES[:3])}, …), but none of "
        f"{', '.join(map(str, frame.columns[:5]))}{', …' if frame.shape[1] > 5 else ''} is one"
    )


def _refuse_duplicates(files: "pd.Series[str]", path: Path) -> None:
    again = np.flatnonzero(files.duplicated())
    if len(again):
        row = int(again[0])
        first = int(np.flatnonzero(files == files.iloc[row])[0])
        raise RequestError(
            f"file names in {path} must be unique, but {files.iloc[row]!r} is in rows {first + 1} and {row + 1} "
            f"({len(again):,} such rows); remove one of each"
        )


def _labels(
    column: "pd.Series[int]", config: DataConfig, path: Path
) -> tuple["pd.Series[int]", tuple[str, str]]:
    where = f"column {config.target!r} of {path}"
    if column.isna().any():
        row = int(np.flatnonzero(column.isna())[0])
        raise RequestError(f"{where} must have a value in every row, but row {row + 1} has none")
    values = sorted(column.unique().tolist())
    if len(values) != 2:
        shown = ", ".join(map(repr, values[:5])) + (", …" if len(values) > 5 else "")
        raise RequestError(f"{where} must have two values, but it has {len(values)}: {shown}")
    if config.positive is not None:
        named = [value for value in values if str(value) == config.positive]
        if not named:
            raise RequestError(
                f"data.positive must be one of the values {values[0]!r} and {values[1]!r} of {where}, "
                f"but it is {config.positive!r}"
            )
        values.sort(key=lambda value: value == named[0])
    return (column == values[1]).astype("int64"), (str(values[0]), str(values[1]))


def find_images(root: Path, files: Sequence[str]) -> Path:
    """`root` or the first subfolder of it where any of `files` lie.

    Raises:
        RequestError: none is there.
    """
    probe, wanted = files[:20], set(files)
    for folder, subfolders, here in os.walk(root):
        subfolders.sort()
        if not wanted.isdisjoint(here) or any((Path(folder) / name).is_file() for name in probe):
            return Path(folder)
    raise RequestError(
        f"data.images must hold the images that the table names, but none of {', '.join(probe[:3])}, … "
        f"is in {root} or a folder below it"
    )


def _present(images: Path, files: "pd.Series[str]") -> "pd.Series[bool]":
    folders = {str(Path(name).parent) for name in files}
    there = {
        os.path.normpath(os.path.join(folder, name))
        for folder in folders
        if (images / folder).is_dir()
        for name in os.listdir(images / folder)
    }
    return files.map(lambda name: os.path.normpath(name) in there)


def _beside(table: Path, root: Path, *names: str) -> Path | None:
    for folder in (table.parent, root, root.parent):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    return None


def _partition(table: Path, root: Path) -> "dict[str, str] | None":
    path = _beside(table, root, "list_eval_partition.csv", "list_eval_partition.txt")
    if path is None:
        return None
    frame = _two_columns(path)
    unknown = set(frame.iloc[:, 1]) - {0, 1, 2}
    if unknown:
        raise RequestError(
            f"{path} must hold 0, 1 and 2, but it holds {sorted(map(str, unknown))[0]}"
        )
    return {str(file): PARTS[int(part)] for file, part in frame.itertuples(index=False)}


def _identity(table: Path, root: Path) -> "dict[str, int] | None":
    path = _beside(table, root, "identity_CelebA.txt")
    if path is None:
        return None
    return {str(file): int(who) for file, who in _two_columns(path).itertuples(index=False)}


def _two_columns(path: Path) -> pd.DataFrame:
    frame = _read_csv(path) if path.suffix == ".csv" else _read_csv(path, sep=r"\s+", header=None)
    if frame.shape[1] != 2 or frame.empty or frame.iloc[:, 1].dtype.kind not in "iu":
        raise RequestError(
            f"{path} must hold a file name and a number in each row, but it does not"
        )
    return frame


# ---------------------------------------------------------------- the zip


def unpacked(images: Path) -> Path:
    """The folder of the images; a zip is extracted once, beside itself, into `<name>.extracted`.

    Raises:
        RequestError: neither folder nor zip; a damaged, encrypted or unsafe zip; no room.
    """
    if images.is_dir():
        return images
    if not images.is_file():
        raise RequestError(f"data.images must be a folder or a zip, but there is no {images}")
    if not zipfile.is_zipfile(images):
        raise RequestError(f"data.images must be a folder or a zip, but {images} is neither")
    stat_ = images.stat()
    target = images.with_name(f"{images.name}.extracted")
    mark = f"{stat_.st_size} bytes, changed {stat_.st_mtime_ns}\n"
    done = target / ".complete"
    if done.is_file() and done.read_text() == mark:
        return target
    try:
        with FileLock(images.with_name(f".{images.name}.lock")):
            if done.is_file() and done.read_text() == mark:
                return target
            partial = target.with_name(f".{target.name}.partial")
            for old in (partial, target):
                if old.exists():
                    shutil.rmtree(old)
            _extract(images, partial)
            (partial / ".complete").write_text(mark)
            partial.rename(target)
    except (OSError, NotImplementedError) as error:
        raise RequestError(
            f"{images} must be extracted beside itself, but that can't be done ({error}); "
            "extract it yourself and give the folder as data.images"
        ) from None
    return target


def _extract(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            for member in members:
                _refuse_unsafe(archive, member)
            size = sum(member.file_size for member in members)
            free = shutil.disk_usage(archive.parent).free
            if size > free:
                raise RequestError(
                    f"extracting {archive} needs {size / 1e9:.1f} GB, but {archive.parent} has "
                    f"{free / 1e9:.1f} GB free; make room or give the extracted folder as data.images"
                )
            folder.mkdir()
            opened.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise RequestError(f"{archive} must be a whole zip, but it is damaged: {error}") from None


def _refuse_unsafe(archive: Path, member: zipfile.ZipInfo) -> None:
    name = member.filename.replace("\\", "/")
    if ".." in name.split("/") or name.startswith("/") or name[1:2] == ":":
        raise RequestError(
            f"members of {archive} must stay inside it, but {member.filename!r} points outside; not extracted"
        )
    if stat.S_ISLNK(member.external_attr >> 16):
        raise RequestError(
            f"{archive} must hold no links, but {member.filename!r} is one; not extracted"
        )
    if member.flag_bits & 0x1:
        raise RequestError(
            f"{archive} must not be encrypted, but {member.filename!r} is; extract it yourself"
        )


# ---------------------------------------------------------------- the split


def make_split(table: FaceTable, config: SplitConfig) -> pd.DataFrame:
    """`table.rows` with a column `part` (train | validation | test), in the table's order.

    Two stratified steps of scikit-learn's `train_test_split` with one seed: first the test images, then the
    validation images from the rest; or the parts of the official partition file.

    Raises:
        RequestError: a part would lack a class, or the partition file is missing or incomplete.
    """
    rows = table.rows
    if config.official:
        part = _official_parts(table)
    else:
        n = len(rows)
        n_test, n_validation = round(n * config.test), round(n * config.validation)
        if min(n_test, n_validation, n - n_test - n_validation) < 2:
            raise RequestError(
                f"a split needs at least two images a part, but {n} images give "
                f"{n - n_test - n_validation} / {n_validation} / {n_test}; add images or change data.split"
            )
        part = pd.Series("train", index=rows.index)
        try:
            rest, test = train_test_split(
                rows.index, test_size=n_test, random_state=config.seed, stratify=rows["label"]
            )
            _, validation = train_test_split(
                rest,
                test_size=n_validation,
                random_state=config.seed,
                stratify=rows["label"].loc[rest],
            )
        except ValueError as error:
            raise RequestError(
                f"{table.target} in {table.table} can't be split with both classes in each part: {error}"
            ) from None
        part[test], part[validation] = "test", "validation"
    split = rows.drop(columns="partition", errors="ignore").assign(part=part)
    for name in PARTS:
        found = split.loc[split["part"] == name, "label"].value_counts()
        for label in (0, 1):
            if found.get(label, 0) == 0:
                raise RequestError(
                    f"each part must hold both classes of {table.target}, but {name} has no image with "
                    f"{table.classes[label]} ({int((rows['label'] == label).sum())} of {len(rows):,} in all); "
                    "add images or change data.split"
                )
    return split


def _official_parts(table: FaceTable) -> "pd.Series[str]":
    if "partition" not in table.rows:
        raise RequestError(
            f"data.split: official needs list_eval_partition.csv or .txt beside {table.table}, but there is none"
        )
    part = table.rows["partition"]
    if part.isna().any():
        file = table.rows.loc[part.isna(), "file"].iloc[0]
        raise RequestError(f"the partition file must name every image, but it lacks {file}")
    return part


def balance(split: pd.DataFrame) -> pd.DataFrame:
    """Images of each class in each part: index part, columns negative, positive, images, positive_share."""
    groups = split.groupby("part")["label"]
    counts = pd.DataFrame({"images": groups.size(), "positive": groups.sum()}).reindex(list(PARTS))
    counts["negative"] = counts["images"] - counts["positive"]
    counts["positive_share"] = counts["positive"] / counts["images"]
    return counts[["negative", "positive", "images", "positive_share"]]


def split_warnings(split: pd.DataFrame) -> list[str]:
    """What a person should know of a split before trusting a validation accuracy on it."""
    counts = balance(split).loc["validation", ["negative", "positive"]]
    return [
        f"only {count:.0f} {name} validation images: validation figures will be coarse"
        for name, count in counts.items()
        if count < FEW_VALIDATION_IMAGES
    ]


def read_split(path: Path, parts: Sequence[Part]) -> pd.DataFrame:
    """The rows of `parts` in a split.parquet; rows of other parts are not brought into memory.

    Raises:
        RequestError: no such file, or a damaged one.
    """
    try:
        frame: pd.DataFrame = pq.read_table(path, filters=[("part", "in", list(parts))]).to_pandas()
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{path} must be the run's split, but reading it says: {error}"
        ) from None
    return frame


# ---------------------------------------------------------------- the images


def upright(image: Image.Image) -> Image.Image:
    """`image` as RGB, from grey, CMYK or palette too, and turned where it says that it lies on its side (EXIF)."""
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I;16"):  # Pillow's own conversion cuts 16 bits off at 255
        turned = Image.fromarray((np.asarray(turned) >> 8).astype(np.uint8))
    return turned.convert("RGB")


def load_pixels(path: Path, size: int) -> Tensor:
    """The image at `path`, `upright`, resized bilinearly to a square: (3, `size`, `size`) uint8."""
    with Image.open(path) as image:
        colours = upright(image)
    array = np.array(colours.resize((size, size), Image.Resampling.BILINEAR))
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


@dataclass
class LabelledImages:
    """Images of one part with their labels, decoded when asked for and kept where memory allows."""

    folder: Path
    files: tuple[str, ...]
    labels: Tensor  # (images,) float32 of 0 and 1
    image_size: int
    cache_bytes: int = 0
    _kept: Tensor | None = field(init=False, default=None, repr=False)
    _known: list[bool] = field(init=False, default_factory=list, repr=False)

    def __post_init__(self) -> None:
        shape = (len(self.files), 3, self.image_size, self.image_size)
        if np.prod(shape) <= self.cache_bytes:
            self._kept = torch.empty(shape, dtype=torch.uint8)
            self._known = [False] * len(self.files)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def kept_bytes(self) -> int:
        """Memory set aside for decoded images."""
        return 0 if self._kept is None else self._kept.nbytes

    def pixels(self, index: int) -> Tensor:
        """Image `index`: (3, image_size, image_size) uint8."""
        path = self.folder / self.files[index]
        if self._kept is None:
            return load_pixels(path, self.image_size)
        if not self._known[index]:
            self._kept[index] = load_pixels(path, self.image_size)
            self._known[index] = True
        return self._kept[index]

    def batches(
        self, order: Sequence[int], batch_size: int, see: Callable[[str], View], workers: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Positions (batch,) and pixels (batch, 3, size, size) uint8 in `order`, decoded ahead by `workers` threads.

        Pillow and torch release the interpreter's lock where they work, so threads decode side by side.
        """

        def assemble(positions: Sequence[int]) -> tuple[Tensor, Tensor]:
            views = [look(self.pixels(index), see(self.files[index])) for index in positions]
            return torch.tensor(positions), torch.stack(views)

        chunks = (order[start : start + batch_size] for start in range(0, len(order), batch_size))
        with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
            ahead = deque(pool.submit(assemble, chunk) for chunk in islice(chunks, 2 * workers))
            try:
                while ahead:
                    batch = ahead.popleft().result()
                    ahead.extend(pool.submit(assemble, chunk) for chunk in islice(chunks, 1))
                    yield batch
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class TrainingData:
    """What a trial may see."""

    training: LabelledImages
    validation: LabelledImages


def open_training_data(
    split: Path, images: Path, image_size: int, cache_bytes: int = 0
) -> TrainingData:
    """Training and validation images of a split.parquet; the test part is not read."""
    rows = read_split(split, ("train", "validation"))
    training = _open(rows[rows["part"] == "train"], images, image_size, cache_bytes)
    left = cache_bytes - training.kept_bytes
    validation = _open(rows[rows["part"] == "validation"], images, image_size, left)
    return TrainingData(training, validation)


def open_test_data(split: Path, images: Path, image_size: int) -> LabelledImages:
    """The test images of a split.parquet. Only the final test calls this, once a sweep."""
    return _open(read_split(split, ("test",)), images, image_size, 0)


def _open(rows: pd.DataFrame, images: Path, image_size: int, cache_bytes: int) -> LabelledImages:
    return LabelledImages(
        folder=images,
        files=tuple(rows["file"]),
        labels=torch.tensor(rows["label"].to_numpy(), dtype=torch.float32),
        image_size=image_size,
        cache_bytes=cache_bytes,
    )
