"""VGG-16 held against torchvision's: names, values, weights from anywhere, what trains and how fast."""

import http.client
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from tests.support.faces import WIDTH
from tests.support.vgg import first_trained
from trainable.config import Strategy, TrialConfig
from trainable.errors import RequestError
from trainable.network.model import (
    Backbone,
    TransferVGG16,
    build_model,
    feature_layers,
    fitted,
    forward_frozen,
    load_backbone,
    make_optimizer,
    map_shapes,
    multiply_adds,
)
from trainable.network.weights import IMAGENET, Weights, imagenet_file
from trainable.records.files import sha256_of

Text = Callable[[pytest.ExceptionInfo[Exception]], str]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)


def meta_vgg16(classes: int = 1000) -> torchvision.models.VGG:
    """torchvision's own VGG-16 without values."""
    with torch.device("meta"):
        model: nn.Module = torchvision.models.vgg16(num_classes=classes)
    return model


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.fixture(scope="module")
def features() -> dict[str, Tensor]:
    """Random values for torchvision's `features` at full width, under the names of its state dict."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(meta.shape, generator=generator) * (2 / meta[0].numel()) ** 0.5
        if meta.ndim > 1
        else torch.randn(meta.shape, generator=generator) * 0.1
        for name, meta in meta_vgg16().state_dict().items()
        if name.startswith("features.")
    }


@pytest.fixture(scope="module")
def narrow() -> dict[str, Tensor]:
    """A whole state dict of VGG-16 with a twentieth of the channels and a small classifier."""
    backbone = load_backbone("none", WIDTH)
    generator = torch.Generator().manual_seed(2)
    inputs = backbone.features["28.bias"].numel() * 49
    sizes = {"0": (24, inputs), "3": (16, 24), "6": (1000, 16)}
    classifier = {}
    for index, size in sizes.items():
        classifier[f"classifier.{index}.weight"] = torch.randn(size, generator=generator) * 0.05
        classifier[f"classifier.{index}.bias"] = torch.randn(size[0], generator=generator) * 0.05
    return {f"features.{name}": value for name, value in backbone.features.items()} | classifier


def build(config: TrialConfig, backbone: Backbone | None = None) -> TransferVGG16:
    """A narrow model, the same head each time."""
    torch.manual_seed(0)
    return build_model(config, backbone or load_backbone("none", WIDTH))


# ---------------------------------------------------------------- against torchvision


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_features_are_torchvisions_to_the_last_bit(
    tmp_path: Path, features: dict[str, Tensor], suffix: str
) -> None:
    path = tmp_path / f"weights.{suffix}"
    safetensors.torch.save_file(features, path) if suffix != "pth" else torch.save(features, path)
    backbone = load_backbone(str(path), 1.0)
    witness = meta_vgg16()
    witness.load_state_dict(features, assign=True, strict=False)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = witness.features(images)
        for strategy in ("head", "block5"):
            model = build(TrialConfig(strategy=strategy, head="linear"), backbone)
            hidden = model.prefix(images)
            assert torch.equal(model.features[model.cut :](hidden), expected)
    assert expected.abs().mean() > 0.01


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_full_width_model_has_torchvisions_parameter_names_and_shapes(strategy: Strategy) -> None:
    everything = meta_vgg16().state_dict()
    backbone = Backbone(
        1.0,
        *(
            {n.removeprefix(part): v for n, v in everything.items() if n.startswith(part)}
            for part in ("features.", "classifier.")
        ),
    )
    model = build(TrialConfig(strategy=strategy, head="pretrained"), backbone)
    assert shapes(model.state_dict()) == shapes(meta_vgg16(classes=1).state_dict())
    assert [type(layer) for layer in model.features] == [type(m) for m in meta_vgg16().features]


def test_the_head_of_the_first_report_is_25088_4096_1024_1() -> None:
    with torch.device("meta"):
        backbone = Backbone(1.0, {n: torch.empty_like(v) for n, v in full_features().items()}, {})
        model = build_model(TrialConfig(head="mlp", dropout=0.3), backbone)
    kinds = [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    assert [type(layer) for layer in model.classifier] == kinds
    linear = [(m.in_features, m.out_features) for m in model.classifier if isinstance(m, nn.Linear)]
    assert linear == [(25088, 4096), (4096, 1024), (1024, 1)]
    assert {layer.p for layer in model.classifier if isinstance(layer, nn.Dropout)} == {0.3}


def full_features() -> dict[str, Tensor]:
    return dict(meta_vgg16().features.state_dict())


@pytest.mark.parametrize(
    ("head", "sizes"), [("linear", []), ("64", [64]), ("512-64", [512, 64]), ("8-4-2", [8, 4, 2])]
)
def test_a_head_has_the_hidden_sizes_asked_for(head: str, sizes: list[int]) -> None:
    model = build(TrialConfig(head=head))
    linear = [m for m in model.classifier if isinstance(m, nn.Linear)]
    assert [layer.out_features for layer in linear] == [*sizes, 1]
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2,)


def test_the_pretrained_head_is_vggs_classifier_with_a_new_last_layer(
    tmp_path: Path, narrow: dict[str, Tensor]
) -> None:
    path = tmp_path / "narrow.safetensors"
    safetensors.torch.save_file(narrow, path)
    model = build(TrialConfig(head="pretrained"), load_backbone(str(path), WIDTH)).eval()
    witness = nn.Sequential(
        nn.Linear(narrow["classifier.0.weight"].shape[1], 24),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(24, 16),
        nn.ReLU(),
        nn.Dropout(),
    ).eval()
    witness.load_state_dict(
        {n[11:]: v for n, v in narrow.items() if n.startswith(("classifier.0", "classifier.3"))}
    )
    maps = torch.rand(5, narrow["classifier.0.weight"].shape[1])
    last = model.classifier[6]
    assert isinstance(last, nn.Linear)
    assert torch.equal(model.classifier(maps), last(witness(maps)))
    assert last.out_features == 1


def test_a_pretrained_head_needs_a_whole_classifier_of_the_right_width(
    narrow: dict[str, Tensor], tmp_path: Path, refused: Text
) -> None:
    with pytest.raises(RequestError) as caught:
        build(TrialConfig(head="pretrained"))
    assert "classifier" in refused(caught)
    for lacking in ("classifier.0.bias", "classifier.3.weight"):
        torch.save({n: v for n, v in narrow.items() if n != lacking}, tmp_path / "w.pth")
        with pytest.raises(RequestError) as caught:
            build(TrialConfig(head="pretrained"), load_backbone(str(tmp_path / "w.pth"), WIDTH))
        assert "classifier" in refused(caught)
    torch.save(narrow | {"classifier.0.weight": torch.zeros(24, 7)}, tmp_path / "w.pth")
    with pytest.raises(RequestError) as caught:
        build(TrialConfig(head="pretrained"), load_backbone(str(tmp_path / "w.pth"), WIDTH))
    assert "classifier.0.weight" in refused(caught)


@pytest.mark.parametrize("width", [0.01, 0.05, 0.25, 0.5, 1.0])
def test_a_width_scales_every_convolution(width: float) -> None:
    given = {name: v.shape for name, v in load_backbone("none", width).features.items()}
    for name, full in full_features().items():
        assert given[name][0] == max(1, round(full.shape[0] * width))
    assert given["0.weight"][1] == 3


@pytest.mark.parametrize("side", [32, 50, 64])
def test_any_image_side_from_32_pixels_gives_one_logit_an_image(side: int) -> None:
    assert build(TrialConfig(head="linear"))(torch.zeros(3, 3, side, side)).shape == (3,)


def test_multiply_adds_are_those_that_a_forward_pass_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = meta_vgg16()
    for first, last in ((0, 31), (0, 24), (24, 31), (10, 17)):
        images = torch.zeros(1, 3, 64, 64, device="meta")
        with FlopCounterMode(display=False) as before:
            hidden = model.features[:first](images)
        with FlopCounterMode(display=False) as counter:
            model.features[first:last](hidden)
        assert multiply_adds(1.0, 64, first, last) == counter.get_total_flops() / 2
        assert multiply_adds(1.0, 64, 0, first) == before.get_total_flops() / 2


@pytest.mark.parametrize("side", [32, 50, 64])
def test_the_shapes_of_maps_are_those_that_a_forward_pass_has(side: int) -> None:
    layers = feature_layers(WIDTH)
    maps = torch.zeros(1, 3, side, side, device="meta")
    found = [tuple(maps.shape)]
    for layer in layers:
        maps = layer(maps)
        found.append(tuple(maps.shape))
    assert found == [(1, channels, side, side) for side, channels in map_shapes(layers, side)]


# ---------------------------------------------------------------- weights from anywhere


def test_random_weights_are_torchvisions_initialisation_from_seed_0() -> None:
    """So they were in every run on record that was made with them."""
    generator, first = torch.Generator().manual_seed(0), torch.zeros(3, 3, 3, 3)
    nn.init.kaiming_normal_(first, mode="fan_out", nonlinearity="relu", generator=generator)
    features = load_backbone("none", 0.05).features
    assert torch.equal(features["0.weight"], first)
    assert not any(features[name].any() for name in features if name.endswith("bias"))


def test_random_weights_are_the_same_for_every_trial_and_carry_a_signal() -> None:
    torch.manual_seed(1)
    one = load_backbone("none", 0.25)
    torch.manual_seed(2)
    other = load_backbone("none", 0.25)
    assert one.digest() == other.digest()
    with torch.no_grad():
        hidden = build(TrialConfig(strategy="head"), one).prefix(torch.randn(4, 3, 64, 64))
    assert hidden.std() > 0.1


def test_a_digest_is_of_names_and_values(narrow: dict[str, Tensor], tmp_path: Path) -> None:
    def digest(state: dict[str, Tensor]) -> str:
        torch.save(state, tmp_path / "w.pth")
        return load_backbone(str(tmp_path / "w.pth"), WIDTH).digest()

    changed = {name: tensor.clone() for name, tensor in narrow.items()}
    assert digest(changed) == digest(narrow)
    changed["features.0.bias"][0] += 1e-6
    assert digest(changed) != digest(narrow)


def test_half_precision_weights_are_read_as_float32(
    narrow: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save({name: tensor.half() for name, tensor in narrow.items()}, tmp_path / "w.pth")
    backbone = load_backbone(str(tmp_path / "w.pth"), WIDTH)
    assert {tensor.dtype for tensor in backbone.features.values()} == {torch.float32}


@pytest.fixture
def torch_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchvision's cache in a folder of the test."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def test_imagenet_weights_come_from_torchvisions_cache(
    torch_cache: Path, features: dict[str, Tensor]
) -> None:
    torch_cache.mkdir(parents=True)
    torch.save(features, torch_cache / "vgg16-397923af.pth")
    assert imagenet_file() == torch_cache / "vgg16-397923af.pth"
    backbone = load_backbone("imagenet", 1.0)
    assert torch.equal(backbone.features["24.weight"], features["features.24.weight"])


def test_without_cache_and_network_the_file_to_put_where_is_told(
    torch_cache: Path, monkeypatch: pytest.MonkeyPatch, refused: Text
) -> None:
    nobody = "http://127.0.0.1:9/vgg16-397923af.pth"
    monkeypatch.setattr(IMAGENET.value, "url", nobody)
    with pytest.raises(RequestError) as caught:
        load_backbone("imagenet", 1.0)
    assert str(torch_cache / "vgg16-397923af.pth") in refused(caught)
    assert "model.weights" in refused(caught)


def test_a_download_that_breaks_off_is_a_refusal(
    torch_cache: Path, monkeypatch: pytest.MonkeyPatch, refused: Text
) -> None:
    def breaks_off(*args: Any, **options: Any) -> None:
        raise http.client.IncompleteRead(b"half")

    monkeypatch.setattr(torch.hub, "urlopen", breaks_off)
    with pytest.raises(RequestError) as caught:
        load_backbone("imagenet", 1.0)
    assert "vgg16-397923af.pth" in refused(caught)


def test_a_download_is_read_and_kept_for_the_next_time(
    torch_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    features: dict[str, Tensor],
) -> None:
    """Its name ends with the first digits of its digest, as torchvision's do."""
    torch.save(features, made := tmp_path / "made.pth")
    served = made.rename(tmp_path / f"vgg16-{sha256_of(made)[:8]}.pth")
    monkeypatch.setattr(IMAGENET.value, "url", served.as_uri())
    first = load_backbone("imagenet", 1.0)
    assert torch.equal(first.features["24.weight"], features["features.24.weight"])
    served.unlink()
    assert list(torch_cache.iterdir()) == [imagenet_file()]
    assert load_backbone("imagenet", 1.0).digest() == first.digest()


def test_a_download_with_another_hash_is_refused_and_not_kept(
    torch_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Text
) -> None:
    served = tmp_path / "vgg16-397923af.pth"
    served.write_bytes(b"<html>please log in</html>")
    monkeypatch.setattr(IMAGENET.value, "url", served.as_uri())
    with pytest.raises(RequestError) as caught:
        load_backbone("imagenet", 1.0)
    assert "hash" in refused(caught)
    assert not list(torch_cache.iterdir())


def test_imagenet_weights_fit_the_full_width_only(refused: Text) -> None:
    with pytest.raises(RequestError) as caught:
        load_backbone("imagenet", 0.25)
    assert "model.width" in refused(caught)


class Harmful:
    """Its pickle writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "the pickle ran")


def harmful(path: Path) -> None:
    torch.save({"features.0.weight": Harmful(path.parent / "ran")}, path)


def plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"features.0.weight": Harmful(path.parent / "ran")}))


def web_page(path: Path) -> None:
    path.write_text("<!DOCTYPE html>\n<html>\nnot found</html>\n")


def half_a_file(path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(10_000)}, path)
    path.write_bytes(path.read_bytes()[:20_000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("content", [harmful, plain_pickle, web_page, half_a_file, empty])
@pytest.mark.parametrize("where", ["w.pth", "w.safetensors", "vgg16-397923af.pth"])
def test_a_file_that_is_no_state_dict_is_refused_and_no_code_in_it_runs(
    torch_cache: Path, refused: Text, content: Callable[[Path], None], where: str
) -> None:
    torch_cache.mkdir(parents=True)
    path = torch_cache / where
    content(path)
    with pytest.raises(RequestError) as caught:
        load_backbone("imagenet" if path == imagenet_file() else str(path), 1.0)
    assert str(path) in refused(caught)
    assert not (torch_cache / "ran").exists()


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, torch.zeros(3)])
def test_a_file_that_holds_something_else_than_tensors_is_refused(
    tmp_path: Path, refused: Text, content: object
) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(RequestError) as caught:
        load_backbone(str(tmp_path / "w.pth"), WIDTH)
    assert "state dict" in refused(caught)


def test_weights_must_fit_by_name_and_shape(
    tmp_path: Path, refused: Text, narrow: dict[str, Tensor]
) -> None:
    path = tmp_path / "w.pth"
    with pytest.raises(RequestError) as caught:
        load_backbone(str(path), WIDTH)
    assert str(path) in refused(caught)
    torch.save({n: v for n, v in narrow.items() if n != "features.17.bias"}, path)
    with pytest.raises(RequestError) as caught:
        load_backbone(str(path), WIDTH)
    assert "lacks features.17.bias" in refused(caught)
    torch.save(narrow, path)
    with pytest.raises(RequestError) as caught:
        load_backbone(str(path), 0.25)
    assert "features.0.weight" in refused(caught)
    assert "0.25" in refused(caught)


def test_weights_of_another_width_are_refused_with_the_width_that_fits_them(
    tmp_path: Path, refused: Text
) -> None:
    path = tmp_path / "w.pth"
    for width in (1 / 64, 0.25, 1.0):
        state = {f"features.{n}": v for n, v in load_backbone("none", width).features.items()}
        torch.save(state, path)
        with pytest.raises(RequestError) as caught:
            load_backbone(str(path), 0.5)
        assert f"; model.width={width:g} fits them" in refused(caught)
    torch.save(state | {"features.2.bias": torch.zeros(3)}, path)  # of no width
    with pytest.raises(RequestError) as caught:
        load_backbone(str(path), 0.5)
    assert "fits them" not in refused(caught)
    torch.save(state | {"features.0.weight": torch.zeros(128, 3, 3, 3)}, path)
    with pytest.raises(RequestError) as caught:
        load_backbone(str(path), 0.5)
    assert "fits them" not in refused(caught), "no width is beyond 1"


# ---------------------------------------------------------------- what trains


def one_step(model: TransferVGG16, config: TrialConfig) -> None:
    optimizer = make_optimizer(config, model)
    model(torch.randn(4, 3, 32, 32)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_what_a_strategy_freezes_stays_to_the_last_bit_and_everything_else_moves(
    strategy: Strategy, optimizer: str
) -> None:
    backbone = load_backbone("none", WIDTH)
    digest = backbone.digest()
    config = TrialConfig(
        strategy=strategy, optimizer=optimizer, head="8", lr=0.01, weight_decay=0.1
    )
    model = build(config, backbone)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    one_step(model, config)
    first = first_trained(strategy)
    for name, p in model.named_parameters():
        trains = name.startswith("classifier") or int(name.split(".")[1]) >= first
        assert p.requires_grad == trains
        assert (p.grad is not None) == trains
        assert torch.equal(p, before[name]) != trains, name
    assert backbone.digest() == digest  # which other trials share


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("head", ["linear", "8-4"])
def test_every_parameter_is_frozen_or_in_exactly_one_optimizer_group(
    strategy: Strategy, head: str
) -> None:
    config = TrialConfig(strategy=strategy, head=head, lr=0.1, backbone_lr_ratio=0.25)
    model = build(config)
    groups = make_optimizer(config, model).param_groups
    grouped = [p for group in groups for p in group["params"]]
    assert len({id(p) for p in grouped}) == len(grouped)
    assert {id(p) for p in grouped} == {id(p) for p in model.parameters() if p.requires_grad}
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    for name, p in model.trained().items():
        assert rates[id(p)] == pytest.approx(0.1 if name.startswith("classifier") else 0.025)


def test_a_parameter_that_would_neither_train_nor_be_frozen_ends_the_trial() -> None:
    model = build(TrialConfig(strategy="head", head="linear"))
    model.register_parameter("stray", nn.Parameter(torch.zeros(1)))
    with pytest.raises(AssertionError, match="stray"):
        make_optimizer(TrialConfig(strategy="head", head="linear"), model)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_an_optimizer_steps_as_torchs_unfused_one(name: str) -> None:
    config = TrialConfig(
        optimizer=name,
        lr=0.01,
        weight_decay=0.05,
        momentum=0.8,
        head="8",
        dropout=0,
        backbone_lr_ratio=0.5,
    )
    ours, theirs = build(config), build(config)
    groups: list[dict[str, Any]] = [
        {"params": list(theirs.classifier.parameters()), "lr": 0.01},
        {"params": list(theirs.features[24:].parameters()), "lr": 0.005},
    ]
    witnesses: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "adam": lambda: torch.optim.Adam(groups, weight_decay=0.05, foreach=False, fused=False),
        "adamw": lambda: torch.optim.AdamW(groups, weight_decay=0.05, foreach=False, fused=False),
        "sgd": lambda: torch.optim.SGD(
            groups, momentum=0.8, weight_decay=0.05, foreach=False, fused=False
        ),
    }
    witness = witnesses[name]()
    optimizer = make_optimizer(config, ours)
    for step in range(3):
        images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(step))
        for model, stepper in ((ours, optimizer), (theirs, witness)):
            stepper.zero_grad()
            model(images).square().mean().backward()
            stepper.step()
    for (_, one), (_, other) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-6, rtol=1e-4)


def test_a_copy_of_what_trained_lies_apart_and_can_be_put_back() -> None:
    config = TrialConfig(head="8", lr=0.1)
    model = build(config)
    kept = model.trained_copy()
    assert set(kept) == set(model.trained())
    logits = model.eval()(torch.ones(2, 3, 32, 32))
    one_step(model, config)
    assert not torch.equal(model(torch.ones(2, 3, 32, 32)), logits)
    model.set_trained(kept)
    assert torch.equal(model(torch.ones(2, 3, 32, 32)), logits)


def test_what_trained_elsewhere_is_not_put_back(refused: Text) -> None:
    model = build(TrialConfig(head="8"))
    for other in (TrialConfig(head="9"), TrialConfig(head="8", strategy="head")):
        with pytest.raises(RequestError) as caught:
            model.set_trained(build(other).trained_copy())
        assert "do not fit" in refused(caught)


def test_a_width_beyond_1_is_not_advised_since_none_can_be_asked_for(refused: Text) -> None:
    wide = {f"features.{n}": v for n, v in feature_layers(2.0).state_dict().items()}
    with pytest.raises(RequestError) as caught:
        fitted(Weights("wide.pth", wide), 0.5)
    assert refused(caught).endswith("wide.pth has (128, 3, 3, 3)")


def test_weights_that_lack_a_layer_are_said_to_be_another_network_s_only_where_it_is_known(
    narrow: dict[str, Tensor], refused: Text
) -> None:
    cut_short = {name: value for name, value in narrow.items() if name != "features.17.bias"}
    for state, told in (
        (cut_short, "lacks features.17.bias"),
        ({"anything": torch.zeros(1)}, "lacks features.0.weight"),
        ({"layer1.0.conv1.weight": torch.zeros(1)}, "it is a ResNet, not VGG-16"),
    ):
        with pytest.raises(RequestError) as caught:
            fitted(Weights("w.pth", state), WIDTH)
        assert refused(caught).endswith(told)


@pytest.mark.parametrize("strategy", ["head", "block4"])
def test_an_image_alone_has_the_frozen_features_that_it_has_among_others(
    strategy: Strategy,
) -> None:
    """To the last bit: so a last batch of one image is no other training."""
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    model = build(TrialConfig(strategy=strategy, head="linear"))
    among, alone = model.prefix(images), model.prefix(images[1:2])
    assert torch.equal(alone, among[1:2])
    assert not torch.equal(alone, among[:1])


def test_features_of_fewer_images_than_threads_are_those_that_they_have_among_others() -> None:
    """512 channels on 28 × 28 maps, as in VGG-16 at 224 px: there torch has another kernel for such batches."""
    draw = torch.Generator().manual_seed(1)
    layer = nn.Sequential(nn.Conv2d(512, 512, 3, padding=1)).requires_grad_(False)
    maps = torch.randn(5, 512, 28, 28, generator=draw).to(memory_format=torch.channels_last)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        among = forward_frozen(layer, maps)
        assert torch.equal(among, layer(maps))
        for images in (1, 2, 3, 4):
            assert torch.equal(forward_frozen(layer, maps[:images]), among[:images])
    finally:
        torch.set_num_threads(before)
