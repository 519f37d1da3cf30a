"""Identifies a file of weights by its bytes and name, and the network of a state dict by names and shapes."""

import re
import zipfile
from codecs import getincrementaldecoder
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from torch import Tensor

HEAD_BYTES: Final = 4096  # of a file, enough for the marks of each kind; assumed
MAGIC: Final = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer instead of the file: fetch it with `git lfs pull`",
    ),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes them"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "compressed with gzip: unpack it"),
    (b"BZh", "compressed with bzip2: unpack it"),
    (b"\xfd7zXZ", "compressed with xz: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
    (b"Rar!", "a RAR archive: unpack it"),
    (b"GGUF", "a GGUF file"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
)
NAMES: Final = (
    (
        r"\.data-\d{5}-of-\d{5}|\.index|saved_model\.pb|\.ckpt\.meta",
        "part of a TensorFlow checkpoint",
    ),
    (r"\.onnx", "an ONNX model"),
    (r"\.tflite", "a TensorFlow Lite model"),
)
LEVELDB_END: Final = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"
"""The end of a LevelDB table, as are TensorFlow's index and old .ckpt."""
NETWORKS: Final = (
    ("a ResNet", r"layer1\.0\.conv1\.weight"),
    ("a DenseNet", r"features\.denseblock1\."),
    ("an EfficientNet, MobileNet or ConvNeXt", r"features\.0\.0\.weight"),
    ("a SqueezeNet", r"features\.\d+\.squeeze\.weight"),
    ("an Inception network", r"Mixed_5b\.|inception3a\."),
    ("a vision transformer", r"encoder\.layers\.encoder_layer_0\.|blocks\.0\.attn\."),
    ("a VGG with Keras' names", r"block1_conv1"),
)
CONVOLUTIONS: Final = {5: "AlexNet", 8: "VGG-11", 10: "VGG-13", 13: "VGG-16", 16: "VGG-19"}


def what_is(path: Path) -> str:
    """What the file at `path` is, if it can't be a state dict; "" if it may be one.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        size = file.seek(0, 2)
        file.seek(max(0, size - len(LEVELDB_END)))
        end = file.read()
    if not head:
        return "empty"
    for magic, kind in MAGIC:
        if head.startswith(magic):
            return kind
    if head.startswith(b"PK\x03\x04"):
        return _of_zip(path)
    if is_safetensors(head):
        return ""
    if end == LEVELDB_END:
        return "part of a TensorFlow checkpoint"
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it"
    for pattern, kind in NAMES:
        if re.search(f"(?:{pattern})$", path.name):
            return kind
    return _of_text(head)


def is_safetensors(head: bytes) -> bool:
    """Does a file begin like safetensors: the length of its JSON in eight bytes, then the JSON?"""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 10**8


def _of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as opened:
            names = opened.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return "cut short or damaged (a download that broke off?): fetch it again"
    if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
        return "a TorchScript archive, which holds code: save the model's state_dict() instead"
    if any(name.endswith("/data.pkl") for name in names):
        return ""
    if "config.json" in names and any(name.endswith(".h5") for name in names):
        return "a Keras model"
    if any("exported_program" in name or name.endswith("models/model.json") for name in names):
        return "a program by torch.export: save the model's state_dict() instead"
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays"
    return f"a zip of other files ({names[0] if names else 'none'}): unpack it, and give the weights inside"


def _of_text(head: bytes) -> str:
    """What a file that begins as text is; "" for others."""
    begin = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if begin.startswith(b"<?xml") and b"<html" not in begin.lower():
        return "an XML page, as from a server that does not have the file: fetch it again"
    if begin.startswith(b"<"):
        return "a web page, saved instead of the file (a sign-in? an error?): fetch it again"
    try:
        text = getincrementaldecoder("utf-8")().decode(begin[:512]).strip()
    except UnicodeDecodeError:
        return ""
    if not text or not all(character.isprintable() or character.isspace() for character in text):
        return ""
    return f"text that begins {text.splitlines()[0][:40]!r}"


def what_network(state: Mapping[str, Tensor]) -> str:
    """The network of a state dict, if it is a known one; otherwise ""."""
    for network, pattern in NETWORKS:
        if any(re.search(rf"(?:^|\.){pattern}", name) for name in state):
            return network
    layers = {name for name in state if re.fullmatch(r"(?:features\.)?\d+\.\w+", name)}
    convolutions = sum(name.endswith(".weight") and state[name].ndim == 4 for name in layers)
    network = CONVOLUTIONS.get(convolutions, "")
    if network and any(name.endswith(".running_mean") for name in layers):
        return f"{network} with batch normalisation ({network.lower().replace('-', '')}_bn)"
    return network
