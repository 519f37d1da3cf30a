"""A sweep written as Ray Tune's and torchvision's documentation teach: the peer of benchmarks/sharing.py.

It is self-contained and uses nothing from this project. It includes everything that helps without sharing work between
trials: actors are reused, the backbone is built once and passed on, frozen layers run without gradients, channels are
last in memory, the optimizer is fused, worker processes decode ahead, images travel as bytes and are normalised as a
batch, Tune writes no logs; on a GPU, bfloat16 autocast and pinned memory. It writes no weights.

    python benchmarks/plain_ray_tune.py --images FOLDER --table CSV --target COLUMN --settings FILE.json
        [--split split.parquet] [--epochs 10] [--image-size 224] [--concurrent 2] [--out result.json]
"""

import time

PROGRAM_STARTED = time.time()

import argparse  # noqa: E402  the clock starts before the imports
import copy  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1000000")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")

import pandas as pd  # noqa: E402
import ray  # noqa: E402
import safetensors.torch  # noqa: E402
import torch  # noqa: E402
import torchvision  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.schedulers import ASHAScheduler  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402
from torchvision.io import ImageReadMode, decode_image  # noqa: E402
from torchvision.models.vgg import cfgs, make_layers  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

FIRST_TRAINED = {"head": 31, "block5": 24, "block4": 17, "block3": 10, "full": 0}
HIDDEN = {"mlp": [4096, 1024], "linear": []}
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


class Faces(Dataset[tuple[Tensor, Tensor]]):
    """Images (3, size, size) uint8 and labels 0 or 1."""

    def __init__(self, folder: Path, rows: pd.DataFrame, transform: v2.Transform) -> None:
        self.folder = folder
        self.files = list(rows["file"])
        self.labels = torch.tensor(rows["label"].to_numpy(), dtype=torch.float32)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = decode_image(str(self.folder / self.files[index]), mode=ImageReadMode.RGB)
        return self.transform(image), self.labels[index]


class FaceClassifier(nn.Module):
    """VGG-16 with frozen layers before `first_trained` and a head with one logit."""

    def __init__(self, backbone: nn.Sequential, first_trained: int, head: str) -> None:
        super().__init__()
        features = copy.deepcopy(backbone)
        self.frozen = features[:first_trained].requires_grad_(False)
        self.trained = features[first_trained:].requires_grad_(True)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        channels = [layer.out_channels for layer in features if isinstance(layer, nn.Conv2d)][-1]
        layers: list[nn.Module] = []
        inputs = channels * 7 * 7
        for size in HIDDEN[head] if head in HIDDEN else map(int, head.split("-")):
            layers += [nn.Linear(inputs, size), nn.ReLU(inplace=True), nn.Dropout(0.5)]
            inputs = size
        self.classifier = nn.Sequential(*layers, nn.Linear(inputs, 1))

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            maps = self.frozen(images)
        maps = self.avgpool(self.trained(maps))
        logits: Tensor = self.classifier(maps.flatten(1)).squeeze(1)
        return logits


def pretrained_features(weights: str, width: float) -> nn.Sequential:
    """The convolutions of VGG-16, or of one with `width` times the channels."""
    features: nn.Sequential
    if width == 1:
        features = torchvision.models.vgg16(weights=None).features
    else:
        features = make_layers([c if c == "M" else max(1, round(c * width)) for c in cfgs["D"]])
        for layer in features:
            if isinstance(layer, nn.Conv2d):  # as torchvision initialises a VGG
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
    if weights != "none":
        if weights.endswith(".safetensors"):
            state = safetensors.torch.load_file(weights)
        else:
            state = torch.load(weights, weights_only=True, map_location="cpu")
        prefix = "features."
        features.load_state_dict(
            {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}
        )
    return features


def train(
    config: dict[str, Any],
    backbone: nn.Sequential,
    rows: pd.DataFrame,
    options: argparse.Namespace,
) -> None:
    """One trial: train, validate after each epoch, report."""
    from torch.backends import cudnn  # a function sent by Ray can't refer to it

    started = time.time()
    setting = config["setting"]
    torch.set_num_threads(options.cpus_per_trial)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cudnn.benchmark = True
    layout = torch.channels_last if options.channels_last else torch.contiguous_format

    resize = v2.Resize((options.image_size, options.image_size), antialias=True)
    augment = {
        "none": [],
        "flip": [v2.RandomHorizontalFlip()],
        "flip_jitter": [v2.RandomHorizontalFlip(), v2.ColorJitter(0.2, 0.2, 0.2)],
    }[setting["augmentation"]]
    normalize = v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        ]
    )
    workers: dict[str, Any] = {"num_workers": options.loader_workers, "pin_memory": device != "cpu"}
    if options.loader_workers:
        workers |= {"persistent_workers": True, "prefetch_factor": 4}
    faces = {part: rows[rows["part"] == part] for part in ("train", "validation")}
    train_loader = DataLoader(
        Faces(options.images, faces["train"], v2.Compose([resize, *augment])),
        batch_size=setting["batch_size"],
        shuffle=True,
        **workers,
    )
    val_loader = DataLoader(
        Faces(options.images, faces["validation"], resize), batch_size=64, **workers
    )

    model = FaceClassifier(backbone, FIRST_TRAINED[setting["strategy"]], setting["head"])
    model = model.to(device).to(memory_format=layout)
    parameters = [p for p in model.parameters() if p.requires_grad]
    momentum = {"momentum": 0.9} if setting["optimizer"] == "sgd" else {}
    optimizer = OPTIMIZERS[setting["optimizer"]](
        parameters, lr=setting["lr"], fused=True, **momentum
    )
    criterion = nn.BCEWithLogitsLoss()

    def batches(loader: DataLoader[Any]) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in loader:
            images = images.to(device, non_blocking=True)
            yield (
                normalize(images).contiguous(memory_format=layout),
                labels.to(device, non_blocking=True),
            )

    def logits_of(images: Tensor) -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            logits: Tensor = model(images).float()
        return logits

    for epoch in range(1, options.epochs + 1):
        epoch_started = time.time()
        model.train()
        loss_sum = torch.zeros((), device=device)
        for images, labels in batches(train_loader):
            loss = criterion(logits_of(images), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach() * len(labels)

        model.eval()
        val_loss_sum = torch.zeros((), device=device)
        correct = torch.zeros((), device=device)
        with torch.inference_mode():
            for images, labels in batches(val_loader):
                logits = logits_of(images)
                val_loss_sum += criterion(logits, labels) * len(labels)
                correct += ((logits > 0) == (labels > 0.5)).sum()
        tune.report(
            {
                "epoch": epoch,
                "train_loss": loss_sum.item() / len(faces["train"]),
                "val_loss": val_loss_sum.item() / len(faces["validation"]),
                "val_accuracy": correct.item() / len(faces["validation"]),
                "seconds": time.time() - epoch_started,
                "trial_started": started,
                "ended": time.time(),
                "pid": os.getpid(),
            }
        )


class History(tune.Callback):  # type: ignore[misc]  # Ray ships no types
    """Every row that a trial reported, since Tune only keeps the last one."""

    columns = ("epoch", "train_loss", "val_loss", "val_accuracy", "seconds", "ended")

    def __init__(self) -> None:
        self.trials: dict[str, dict[str, Any]] = {}

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any
    ) -> None:
        facts = {
            "setting": result["config"]["setting"],
            "pid": result["pid"],
            "started": result["trial_started"],
            "epochs": [],
        }
        kept = self.trials.setdefault(trial.trial_id, facts)
        kept["epochs"].append({name: result[name] for name in self.columns})
        kept["ended"] = result["ended"]


def read_rows(options: argparse.Namespace) -> pd.DataFrame:
    """Columns file, label (0 or 1) and part (train or validation)."""
    split: pd.DataFrame
    if options.split:
        kept = [("part", "in", ["train", "validation"])]
        split = pd.read_parquet(options.split, filters=kept)
        return split
    from sklearn.model_selection import train_test_split

    table = pd.read_csv(options.table)
    label = (table[options.target] > 0).astype(int)
    rows = pd.DataFrame({"file": table.iloc[:, 0], "label": label})
    rest, _ = train_test_split(rows, test_size=0.1, random_state=42, stratify=rows["label"])
    training, validation = train_test_split(
        rest, test_size=1 / 9, random_state=42, stratify=rest["label"]
    )
    parts = [training.assign(part="train"), validation.assign(part="validation")]
    split = pd.concat(parts)
    return split


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--table", type=Path, help="CSV whose first column is the file name")
    parser.add_argument("--target", help="column of two values; the positive one is above 0")
    parser.add_argument("--split", type=Path, help="parquet with file, label, part; else 80/10/10")
    parser.add_argument("--settings", type=Path, required=True, help="JSON list of settings")
    parser.add_argument("--optuna", type=int, metavar="N", help="N suggestions from their values")
    parser.add_argument("--asha", action="store_true", help="stop weak trials")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--weights", default="none")
    parser.add_argument("--concurrent", type=int, default=1)
    parser.add_argument("--cpus-per-trial", type=int, default=1)
    parser.add_argument("--gpus-per-trial", type=float, default=0.0)
    parser.add_argument("--loader-workers", type=int, default=0)
    parser.add_argument("--channels-last", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if not options.split and not (options.table and options.target):
        parser.error("give --split, or --table and --target")
    options.images = options.images.absolute()
    settings = json.loads(options.settings.read_text())

    torch.manual_seed(0)
    backbone = pretrained_features(options.weights, options.width)
    rows = read_rows(options)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(options.concurrent)
    init_started = time.time()
    # A slow last batch must not look like a trial that hangs: Tune waits two seconds by default.
    ray.init(runtime_env={"env_vars": {"TUNE_FUNCTION_THREAD_TIMEOUT_S": "60"}})
    tune_started = time.time()
    history, search = History(), None
    if options.optuna:
        from ray.tune.search.optuna import OptunaSearch

        search = OptunaSearch(seed=0)
        names = settings[0].keys()
        values = {name: sorted({setting[name] for setting in settings}) for name in names}
        space = {"setting": {name: tune.choice(list(each)) for name, each in values.items()}}
    else:
        space = {"setting": tune.grid_search(settings)}
    with tempfile.TemporaryDirectory() as storage:
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(train, backbone=backbone, rows=rows, options=options),
                {"cpu": options.cpus_per_trial, "gpu": options.gpus_per_trial},
            ),
            param_space=space,
            tune_config=tune.TuneConfig(
                metric="val_accuracy",
                mode="max",
                search_alg=search,
                scheduler=ASHAScheduler(max_t=options.epochs, reduction_factor=3)
                if options.asha
                else None,
                num_samples=options.optuna or 1,
                max_concurrent_trials=options.concurrent,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(storage_path=storage, callbacks=[history], verbose=0),
        )
        results = tuner.fit()
    tune_ended = time.time()
    if results.num_errors:
        raise SystemExit(f"{results.num_errors} trials failed: {results.errors[0]}")
    ray.shutdown()
    found: dict[str, Any] = {
        "wall_seconds": time.time() - PROGRAM_STARTED,
        "ray_init_seconds": tune_started - init_started,
        "tune_seconds": tune_ended - tune_started,
        "program_started": PROGRAM_STARTED,
        "trials": list(history.trials.values()),
    }
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    for trial in found["trials"]:
        last = trial["epochs"][-1]
        print(
            trial["setting"], f"epoch {last['epoch']}", f"val_accuracy {last['val_accuracy']:.4f}"
        )
    print(f"{found['wall_seconds']:.1f} s, of which Tune {found['tune_seconds']:.1f} s")


if __name__ == "__main__":
    main()
