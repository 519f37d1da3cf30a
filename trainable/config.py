"""Every setting of a trial, its unit and range; what all trials of a run share; and the trial's identity."""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from trainable.errors import RequestError
from trainable.metric import Metric

Strategy = Literal["head", "block5", "block4", "block3", "full"]
Augmentation = Literal["none", "flip", "flip_jitter"]
Precision = Literal["float32", "bfloat16", "float16"]
"""Number format of the forward pass: float32, or autocast to a half precision; float16 needs its loss scaled."""
SMALLEST_IMAGE = 32  # pixels: VGG-16 halves an image five times


def absolute(given: str | Path, what: str) -> Path:
    """A path as the user wrote it, made absolute, with `~` expanded.

    Raises:
        RequestError: it begins with the home of an unknown user.
    """
    try:
        return Path(given).expanduser().absolute()
    except RuntimeError:
        raise RequestError(
            f"{what} must be a path, but {str(given)!r} begins with the home of a user who is unknown here"
        ) from None


class StrictModel(BaseModel):
    """Configuration is frozen data: checked once at the edge, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


HEADS: Final = ("mlp", "pretrained", "linear")
"""Heads with a name; others are hidden sizes."""


def _head(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _known_head(value: str) -> str:
    if value in HEADS or re.fullmatch(r"[1-9]\d*(-[1-9]\d*)*", value):
        return "mlp" if value == "4096-1024" else value  # one model, one identity
    raise ValueError(f"must be {', '.join(HEADS)}, or hidden sizes such as 512-64")


Head = Annotated[str, BeforeValidator(_head), AfterValidator(_known_head)]


CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
"""Canonical JSON: keys sorted, no blanks. Digests and identities are computed from it."""


class TrialConfig(StrictModel):
    """The settings of one trial that change its result. The number of epochs is a budget of the run.

    A new setting needs a default at which it does nothing, and an entry in `later` with that default: at this value the
    setting is not part of a trial's identity, so that recorded trials, which lack it, keep theirs.
    """

    later: ClassVar[Mapping[str, object]] = {}
    """Settings that the oldest recorded trials lack, each with the value for what the code did before it existed.

    The settings of commit 21d5110 are not among them: each is part of the identity wherever it has an effect.
    """

    strategy: Strategy = "block5"
    """Which layers train: only the head, or also VGG-16 from this block on."""
    augmentation: Augmentation = "none"
    """Augmentation of training images: none, random horizontal flips, or flips with random changes of colour."""
    lr: float = Field(1e-4, gt=0, allow_inf_nan=False)
    """Learning rate of the head."""
    backbone_lr_ratio: float = Field(1.0, gt=0, le=1)
    """Learning rate of the trained convolutions, as a share of `lr`."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """torch's own optimizer, in its fused implementation."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of SGD; the other optimizers ignore it."""
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Decoupled weight decay with adamw, an L2 penalty with the other optimizers."""
    head: Head = "mlp"
    """Hidden layers above the convolutions: mlp is 4096-1024, pretrained VGG-16's own 4096-4096, linear none."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Dropout probability in the head."""
    batch_size: int = Field(32, ge=1)
    """Images per step."""
    class_weight: Literal["none", "balanced"] = "none"
    """balanced: each class weighs n / (2 n_class) in the training loss, as in scikit-learn."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning-rate schedule after the warm-up."""
    warmup_epochs: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Epochs over which the learning rate rises from 0."""
    schedule_epochs: int | None = Field(None, ge=1)
    """Length of the cosine; the learning rate stays constant after it. A sweep fills in its first number of epochs."""
    seed: int = Field(0, ge=0)
    """Draws initialisation, batch order and dropout."""
    views: int | None = Field(None, ge=1)
    """flip_jitter draws from a pool of this many views of each image; None: a new view every epoch."""
    augmentation_seed: int = Field(0, ge=0)
    """Draws the views; trials of a sweep share it, so that they see the same images."""

    @model_validator(mode="after")
    def _cosine_has_a_length(self) -> "TrialConfig":
        if self.schedule == "cosine" and self.schedule_epochs is None:
            raise ValueError("schedule: cosine needs schedule_epochs, its length in epochs")
        return self

    def effective(self) -> dict[str, Any]:
        """The settings with an effect in this trial: momentum needs SGD, a backbone's rate needs a trained backbone."""
        idle = {
            "momentum": self.optimizer != "sgd",
            "backbone_lr_ratio": self.strategy == "head",
            "dropout": self.head == "linear",
            "schedule_epochs": self.schedule == "constant",
            "augmentation_seed": self.augmentation == "none",
            "views": self.augmentation != "flip_jitter" or self.views is None,
        }
        return {
            name: value for name, value in self.model_dump().items() if not idle.get(name, False)
        }

    def identity(self) -> dict[str, Any]:
        """The effective settings, without those that came later and have the value for what was done before."""
        return {
            name: value
            for name, value in self.effective().items()
            if name not in self.later or value != self.later[name]
        }

    def with_seed(self, seed: int) -> Self:
        """The same setting, drawn anew: initialisation, batch order and dropout."""
        return type(self)(**{**self.model_dump(), "seed": seed})

    @cached_property
    def setting_id(self) -> str:
        """The same for trials that differ only in their seed."""
        return self.with_seed(0).trial_id

    @cached_property
    def trial_id(self) -> str:
        """First 12 hex digits of the SHA-256 of the canonical JSON of `identity`."""
        return hashlib.sha256(CANONICAL(self.identity()).encode()).hexdigest()[:12]


class SplitConfig(StrictModel):
    """How the images are split: stratified by scikit-learn, or by the official partition file or a column."""

    seed: int = Field(42, ge=0, lt=2**32)  # the range of scikit-learn's generator
    """Seed of the split."""
    validation: float = Field(0.1, gt=0, lt=1)
    """Share of the images in the validation set."""
    test: float = Field(0.1, gt=0, lt=1)
    """Share of the images in the held-out test set."""
    official: bool = False
    """By list_eval_partition, or by folders train, val and test."""
    column: str | None = None
    """A column of the table with each image's part: train, val, test or similar words, or 0, 1, 2."""
    group: str | None = None
    """`identity` (of identity_CelebA.txt beside the table) or a column of the table: images with the same value,
    such as those of one person, go into one part."""

    @property
    def is_given(self) -> bool:
        """Are the parts given, and not drawn?"""
        return self.official or self.column is not None

    @model_validator(mode="after")
    def _given_parts_are_given(self) -> "SplitConfig":
        if self.official and self.group is not None:
            raise ValueError("must have no group, since the official parts are given")
        if self.column is not None and (self.official or self.group is not None):
            raise ValueError(
                "must have neither official nor group beside a column, which gives the parts"
            )
        return self


def _word(value: object) -> object:
    """YAML reads true and null as other than text."""
    if value is None:
        raise ValueError('must be text, but it is null; write it in quotes: "null"')
    return _or_text(value)


def _or_text(value: object) -> object:
    return str(value) if isinstance(value, bool | int | float) else value


Word = Annotated[str, BeforeValidator(_word)]


def _split(value: object) -> object:
    return {"official": True} if value == "official" else value


class DataConfig(StrictModel):
    """Where the images and their table are, and which column is the target."""

    images: Annotated[Path, AfterValidator(lambda given: absolute(given, "data.images"))]
    """A folder or a zip; images at its root or in a subfolder."""
    table: Annotated[Path, AfterValidator(lambda given: absolute(given, "data.table"))] | None = (
        None
    )
    """A CSV, TSV, Parquet or Excel file or CelebA's own .txt; by default found beside the images."""
    file_column: str | None = None
    """The column of file names, if several columns could be it."""
    target: str
    """The column to predict; it has two values, or `positive` names the one that counts as 1."""
    positive: Annotated[str | None, BeforeValidator(_or_text)] = Field(
        None, coerce_numbers_to_str=True
    )
    """The value of the target column that counts as 1, against all others; by default the larger of two."""
    missing_values: tuple[Word, ...] | None = None
    """Words that mean a missing value, as an empty field always does. None: a word that could be one, such as NA
    beside two other values, is refused."""
    image_size: int = Field(224, ge=SMALLEST_IMAGE)
    """Side in pixels of the square that VGG-16 sees."""
    missing: Literal["refuse", "drop"] = "refuse"
    """What to do with rows that have no image or no label."""
    row_count: Literal["refuse", "ignore"] = "refuse"
    """What to do if the number of rows of CelebA's own .txt differs from its first line."""
    identities: Literal["refuse", "incomplete", "ignore"] = "refuse"
    """What to do if identity_CelebA.txt lacks images of the table: treat each as a person of its own (incomplete),
    or do not use the file (ignore)."""
    unreadable: Literal["refuse", "drop"] = "refuse"
    """What to do with images that can't be decoded, found before the start."""
    split: Annotated[SplitConfig, BeforeValidator(_split)] = SplitConfig()
    """How images are split into training, validation and test sets; only `official` uses list_eval_partition."""


def _weights(given: str) -> str:
    return given if given in ("imagenet", "none") else str(absolute(given, "model.weights"))


class ModelConfig(StrictModel):
    """The pretrained backbone."""

    weights: Annotated[str, AfterValidator(_weights)] = "imagenet"
    """torchvision's ImageNet weights, none (random), or a state dict in a .pth or .safetensors file."""
    width: float = Field(1.0, gt=0, le=1)
    """Share of VGG-16's channels."""


Family = Literal["fixed", "epoch"]
"""Views of images that recur in every epoch, or that belong to one epoch only."""


class Kept(NamedTuple):
    """One thing that is kept on a node: features before layer `cut` of a family of views; at cut 0, decoded images.

    It is recorded as text, such as `24 fixed`.
    """

    cut: int
    family: Family

    def __str__(self) -> str:
        return f"{self.cut} {self.family}"

    @staticmethod
    def read(given: object) -> object:
        """Read it from its text; returns anything else unchanged.

        Raises:
            ValueError: other text.
        """
        if not isinstance(given, str):
            return given
        found = re.fullmatch(r"(\d+) (fixed|epoch)", given)
        if not found:
            raise ValueError("must be a layer and a family of views, such as `24 fixed`")
        return Kept(int(found[1]), found[2])  # type: ignore[arg-type]


class Sharing(StrictModel):
    """Which frozen work a node keeps: decided by cost before the first trial (sweep.frozen.policy)."""

    kept: frozenset[Annotated[Kept, BeforeValidator(Kept.read), PlainSerializer(str)]] = frozenset()
    resident: bool = False
    """Features, and after them pixels, are held in the device's memory as far as it has room, without a loader."""
    limit_bytes: int | None = None
    """Disk space that the store may use; None: half of what is free."""


class RunSettings(StrictModel):
    """What all trials of a run share, resolved at the start and the same in every session."""

    folder: Path
    """The run folder."""
    images: Path
    """The folder that the split's file names are relative to."""
    image_size: int
    weights: str
    width: float
    epochs: int = Field(ge=1)
    metric: Metric = Metric.VAL_ACCURACY
    collapse_epochs: int | None = Field(2, ge=1)
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Precision = "float32"
    tf32: bool = True
    """float32 convolutions on a GPU may round to TF32 internally; True is torch's default, which old runs used."""
    graphs: bool = False
    """Training steps on a GPU are captured once as a CUDA graph, and replayed."""
    views_made_on: Literal["host", "device"] = "host"
    """Where jittered views are made: on the device for a whole batch, with other last bits than one by one."""
    gpu_share: float = Field(1.0, gt=0, le=1)
    """Share of a GPU's memory that one trial may use."""
    threads: int = Field(1, ge=1)
    """Threads of torch in a trial; another number changes the last bits."""
    workers: int = Field(1, ge=1)
    """Threads that decode images ahead of training."""
    store_format: Literal["computed", "float16"] = "computed"
    """Number format of stored features; float16 rounds them, even if they are not shared."""
    sharing: Sharing | None = None
    """None: frozen layers run for every batch."""
    store: Path | None = None
    """The node's folder for shared features; None: `SWEEP_STORE`, or else the user's cache."""
