"""The winner as an ONNX network from uint8 pixels to logit and probability; it normalises, but does not resize."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from trainable.data.views import MEAN, STD, normalise
from trainable.errors import RequestError
from trainable.network.model import POOLED, TransferVGG16

OPSET: Final = 17  # from 2022, like file format 8: every onnxruntime since 1.12 reads both
FORMAT: Final = 8
MOST_BYTES: Final = (
    2**31 - 2**20
)  # the most that a protobuf can hold, minus room for what is not weights
TOLERANCE: Final = 1e-5
"""How far a probability may differ from torch's in float32: other kernels add in another order
(docs/how-to/use-the-winner.md)."""
CHECKED_IMAGES: Final = 3
"""More than one, since the file must take any number of images; assumed."""


def refuse_without_onnx() -> None:
    """Raises RequestError if the packages for ONNX are not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise RequestError(
            f"an .onnx file needs the package {error.name}, but it is not installed; "
            "pip install 'face-attribute-sweep[onnx]', or export a .safetensors file"
        ) from None


class _Graph:
    """A chain of nodes, each of which takes the output of the one before, and their constants."""

    def __init__(self, start: str) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.last = start

    def constant(self, name: str, values: np.ndarray[Any, Any]) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add(
        self, kind: str, *others: str, gives: str = "", first: str = "", **attributes: Any
    ) -> None:
        """Append a node of `kind` with the inputs `first` (if given), the last node's output, and `others`."""
        from onnx import helper

        output = gives or f"{kind} {len(self.nodes)}"
        inputs = [*([first] if first else []), self.last, *others]
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        self.last = output


def onnx_bytes(model: TransferVGG16, size: int, facts: Mapping[str, str]) -> bytes:
    """A network from `pixels` (batch, 3, `size`, `size`) uint8 to `logit` and `probability` (batch,) float32.

    `facts` are stored as its metadata.

    Raises:
        RequestError: the file would be larger than the format allows.
    """
    from onnx import TensorProto, checker, helper

    parameters = sum(p.numel() * 4 for p in model.parameters())
    if parameters > MOST_BYTES:
        raise RequestError(
            f"an .onnx file holds at most 2 GB, but the winner has {parameters / 1e9:.1f} GB; export a .safetensors "
            "file"
        )
    graph = _Graph("pixels")
    graph.add("Cast", to=TensorProto.FLOAT)
    graph.add("Div", graph.constant("white", np.array(255, np.float32)))
    graph.add("Sub", graph.constant("mean", np.array(MEAN, np.float32).reshape(1, 3, 1, 1)))
    graph.add("Div", graph.constant("deviation", np.array(STD, np.float32).reshape(1, 3, 1, 1)))
    _add_layers(graph, "features", model.features)
    _add_pooling(graph, size // 32)
    graph.add("Flatten")
    _add_layers(graph, "classifier", model.classifier)
    graph.add("Squeeze", graph.constant("columns", np.array([1])), gives="logit")
    graph.add("Sigmoid", gives="probability")
    rows = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch"])
        for name in ("logit", "probability")
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 3, size, size])
    made = helper.make_model(
        helper.make_graph(graph.nodes, "winner", [pixels], rows, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=FORMAT,
        producer_name="face-attribute-sweep",
    )
    helper.set_model_props(made, dict(facts))
    checker.check_model(made)
    content: bytes = made.SerializeToString()
    return content


def _add_layers(graph: _Graph, name: str, layers: nn.Sequential) -> None:
    for number, layer in enumerate(layers):
        match layer:
            case nn.Conv2d() | nn.Linear():
                held = [
                    graph.constant(f"{name}.{number}.{part}", tensor.detach().numpy())
                    for part, tensor in layer.named_parameters()
                ]
                if isinstance(layer, nn.Conv2d):
                    graph.add("Conv", *held, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
                else:
                    graph.add("Gemm", *held, transB=1)
            case nn.ReLU():
                graph.add("Relu")
            case nn.MaxPool2d():
                graph.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
            case nn.Dropout():  # has no effect in evaluation
                pass
            case _:
                raise AssertionError(f"{name}.{number} is {layer}")


def _add_pooling(graph: _Graph, side: int) -> None:
    """VGG's adaptive pooling of maps with this side, which ONNX lacks: averaging matrices for rows and columns."""
    if side == POOLED:
        return
    means = nn.functional.adaptive_avg_pool1d(torch.eye(side), POOLED).numpy()  # (side, POOLED)
    graph.add("MatMul", graph.constant("means", means))
    graph.add("MatMul", first=graph.constant("means of rows", means.T))


@torch.no_grad()
def largest_difference(content: bytes, model: TransferVGG16, size: int) -> float:
    """The largest difference of a probability between onnxruntime and `model` in float32, on images of noise.

    Raises:
        RequestError: it is larger than TOLERANCE.
    """
    import onnxruntime

    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(
        0, 256, (CHECKED_IMAGES, 3, size, size), generator=draw, dtype=torch.uint8
    )
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (given,) = session.run(["probability"], {"pixels": pixels.numpy()})
    own = model.eval()(normalise(pixels)).sigmoid().numpy()
    found = float(np.abs(given - own).max())
    if not found <= TOLERANCE:
        raise RequestError(
            f"the .onnx file must give the winner's probabilities within {TOLERANCE:g}, but one differs by {found:.2g} "
            "in onnxruntime; export a .safetensors file"
        )
    return found
