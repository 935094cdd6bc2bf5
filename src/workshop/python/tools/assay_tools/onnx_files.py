"""ONNX files of strangers: read as one file of ONNX's own operators, and run on made-up numbers."""

from pathlib import Path

from . import models, safe  # noqa: I001
import numpy as np
import torch

from .protocol import Refused


def read_onnx(path: Path):
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
        onnx.checker.check_model(model)
    except Exception as error:
        raise Refused("unsupported_model_format", f"{safe.label(path)}: it is no ONNX model") from error
    nodes, tensors = parts_of(model)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
        raise Refused("unsupported_model_format", "the model keeps its weights in other files: give one file with all of it")
    if any(node.domain not in ("", "ai.onnx") for node in nodes):
        raise Refused("unsupported_model_format", "the model has operators that are not ONNX's own")
    return model


def parts_of(model) -> tuple[list, list]:
    """All nodes and tensors, also of the graphs inside of nodes (branches, loops) and of functions."""
    nodes, tensors, graphs = [], [], [model.graph]
    for function in model.functions:
        nodes.extend(function.node)
    seen = 0
    while graphs or seen < len(nodes):
        if graphs:
            graph = graphs.pop()
            nodes.extend(graph.node)
            tensors.extend(graph.initializer)
            tensors.extend(each for sparse in graph.sparse_initializer for each in (sparse.values, sparse.indices))
            continue
        for attribute in nodes[seen].attribute:
            tensors.extend([attribute.t, *attribute.tensors])
            sparse = [attribute.sparse_tensor, *attribute.sparse_tensors]
            tensors.extend(each for one in sparse for each in (one.values, one.indices))
            graphs.extend([attribute.g] if attribute.HasField("g") else [])
            graphs.extend(attribute.graphs)
        seen += 1
    return nodes, tensors


def onnx_session(path: Path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def example_of(session, length: int = 16) -> dict[str, np.ndarray]:
    """Numbers of the shapes and types a model names; an axis without a length gets `length`, the first one 1."""
    random = np.random.default_rng(0)
    kinds = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(int32)": np.int32}
    made = {}
    for entry in session.get_inputs():
        kind = kinds.get(entry.type)
        if kind is None:
            raise Refused("unsupported_model_format", f"an input of the type {entry.type} is not converted")
        shape = [each if isinstance(each, int) and each > 0 else (1 if axis == 0 else length) for axis, each in enumerate(entry.shape)]
        if np.prod(shape, dtype=np.float64) > models.MAX_INPUT:
            raise Refused("unsupported_model_format", "an input has too many values")
        made[entry.name] = (random.random(shape) if np.issubdtype(kind, np.floating) else random.integers(0, 2, shape)).astype(kind)
    return made


def try_run(session, example: dict) -> list[np.ndarray] | None:
    """Null where the made-up numbers do not fit the model (an axis that two inputs share, say)."""
    try:
        return session.run(None, example)
    except Exception:
        return None
