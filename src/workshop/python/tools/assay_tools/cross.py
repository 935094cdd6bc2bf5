"""Conversions between formats. Each path checks its own result: what it wrote is run beside the original on the same numbers, and a
result that computes something else is no result. Where the original cannot be run, `checked` is false and `max_difference` null."""

import json
import os
import shutil
import tempfile
from pathlib import Path

from . import safe  # noqa: I001
import numpy as np
import torch

from . import models
from .protocol import Job, Refused

MAX_FILES = 256
MAX_DESCRIPTION = 64 * 1024 * 1024
DESCRIPTIONS = ("*.json", "tokenizer.model", "*.txt", "*.jinja")
LARGE_ONNX = 1_500_000_000
"""Of the largest value of the original, or of one where all are smaller."""
TOLERANCE = 1e-3


def run(job: Job) -> dict:
    path = job.parameter("path", str, "")
    convert = PATHS.get(path)
    if convert is None:
        raise Refused("unsupported_parameter", "there is no backend for this path", "path")
    job.progress(0.0, "load")
    return {"path": path, **convert(job)}


def compared(difference: float | None, original: np.ndarray | None) -> dict:
    if difference is None or original is None:
        return {"checked": False, "max_difference": None}
    bound = TOLERANCE * max(1.0, float(np.abs(original).max(initial=0.0)))
    if not difference <= bound:
        raise Refused("unsupported_model_format", f"the result computes something else than the original (by {difference:.3g})")
    return {"checked": True, "max_difference": float(f"{difference:.3g}")}


def difference_of(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape:
        raise Refused("unsupported_model_format", "the result has outputs of another shape than the original")
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0.0))


def output_of(module: torch.nn.Module, example: tuple) -> np.ndarray:
    with torch.inference_mode():
        value = module(*example)
    while isinstance(value, (tuple, list)) and value:
        value = value[0]
    if not isinstance(value, torch.Tensor):
        raise Refused("unsupported_model_format", "the model's first output is no tensor")
    return value.detach().numpy()


# ---- to ONNX


def pytorch_to_onnx(job: Job) -> dict:
    return to_onnx(job, models.load(job))


def gguf_to_onnx(job: Job) -> dict:
    return to_onnx(job, models.from_gguf(job.input("model"), job))


def to_onnx(job: Job, loaded: models.Loaded) -> dict:
    job.progress(0.2, "export")
    dims = {name: torch.export.Dim(name, min=2, max=1 << 16) for axes in loaded.dynamic.values() for name in axes.values()}
    shapes = tuple({axis: dims[name] for axis, name in loaded.dynamic.get(key, {}).items()} for key in loaded.inputs)
    # Inputs of FirstOutput are one variadic parameter.
    dynamic = (shapes,) if isinstance(loaded.module, models.FirstOutput) and loaded.dynamic else None
    original = output_of(loaded.module, loaded.example)
    program = exported(loaded, dynamic)
    try:
        onnx_program = torch.onnx.export(program, (), dynamo=True, input_names=list(loaded.inputs), external_data=False, verbose=False)
    except torch.onnx.errors.OnnxExporterError as error:
        raise Refused("unsupported_model_format", f"the exporter to ONNX does not take this model ({type(error).__name__})") from error
    job.progress(0.7, "write")
    path = job.output / "model.onnx"
    weights = sum(each.numel() * each.element_size() for each in loaded.module.state_dict().values())
    onnx_program.save(path, external_data=weights > LARGE_ONNX)
    job.progress(0.85, "check")
    session = onnx_session(path)
    got = session.run(None, {entry.name: value.numpy() for entry, value in zip(session.get_inputs(), loaded.example)})[0]
    inputs = [{"name": entry.name, "shape": [str(each) for each in entry.shape], "type": entry.type} for entry in session.get_inputs()]
    return {"output": path.name, "architecture": loaded.architecture, "inputs": inputs, **compared(difference_of(got, original), original)}


def exported(loaded: models.Loaded, dynamic=None) -> torch.export.ExportedProgram:
    try:
        return torch.export.export(loaded.module, loaded.example, dynamic_shapes=dynamic, strict=False)
    except Exception as error:
        if dynamic is not None:
            return exported(loaded)
        raise Refused("unsupported_model_format", f"torch.export does not take this model ({type(error).__name__})") from error


def keras_to_onnx(job: Job) -> dict:
    import keras

    source = named(job.input("model"), "model.keras")
    with source.open("rb") as file:
        if file.read(2) != b"PK":
            raise Refused("unsupported_model_format", "it is no Keras 3 archive (.keras)")
    try:
        model = keras.models.load_model(source, compile=False, safe_mode=True)
    except Exception as error:
        raise Refused("unsupported_model_format", f"Keras does not load it in safe mode ({type(error).__name__})") from error
    shapes = model.input_shape
    if not isinstance(shapes, tuple) or len(model.inputs) != 1:
        raise Refused("unsupported_model_format", "only Keras models of one input are converted")
    shape = [1 if axis == 0 else length or 16 for axis, length in enumerate(shapes)]
    example = np.random.default_rng(0).random(shape, dtype=np.float32).astype(model.inputs[0].dtype)
    job.progress(0.3, "export")
    original = np.asarray(model.predict(example, verbose=0))
    path = job.output / "model.onnx"
    model.export(path, format="onnx", verbose=False)
    job.progress(0.85, "check")
    session = onnx_session(path)
    got = session.run(None, {session.get_inputs()[0].name: example})[0]
    return {"output": path.name, **compared(difference_of(got, original), original)}


def named(path: Path, name: str) -> Path:
    """The same file under the name a library wants: inputs of jobs have none."""
    link = Path(tempfile.gettempdir()) / f"assay-{os.getpid()}-{name}" if path.suffix != Path(name).suffix else path
    if link != path:
        link.unlink(missing_ok=True)
        link.symlink_to(path)
    return link


# ---- from ONNX


def read_onnx(path: Path):
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
        onnx.checker.check_model(model)
    except Exception as error:
        raise Refused("unsupported_model_format", f"{safe.label(path)}: it is no ONNX model") from error
    tensors = list(model.graph.initializer)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
        raise Refused("unsupported_model_format", "the model keeps its weights in other files: give one file with all of it")
    if any(node.domain not in ("", "ai.onnx") for node in model.graph.node):
        raise Refused("unsupported_model_format", "the model has operators that are not ONNX's own")
    return model


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
        shape = [each if isinstance(each, int) else (1 if axis == 0 else length) for axis, each in enumerate(entry.shape)]
        if np.prod(shape, dtype=np.float64) > models.MAX_INPUT:
            raise Refused("unsupported_model_format", "an input has too many values")
        made[entry.name] = (random.random(shape) if np.issubdtype(kind, np.floating) else random.integers(0, 2, shape)).astype(kind)
    return made


def onnx_to_openvino(job: Job) -> dict:
    import openvino

    source = named(job.input("model"), "model.onnx")
    read_onnx(source)
    session = onnx_session(source)
    example = example_of(session)
    original = try_run(session, example)
    job.progress(0.3, "convert")
    model = openvino.convert_model(str(source))
    openvino.save_model(model, str(job.output / "model.xml"), compress_to_fp16=False)
    job.progress(0.8, "check")
    got = None
    if original is not None:
        config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        compiled = openvino.Core().compile_model(str(job.output / "model.xml"), "CPU", config)
        got = difference_of(compiled(list(example.values()))[0], original)
    return {"output": "model.xml", "weights": "model.bin", **compared(got, original)}


def try_run(session, example: dict) -> np.ndarray | None:
    """Null where the made-up numbers do not fit the model (an axis that two inputs share, say)."""
    try:
        return session.run(None, example)[0]
    except Exception:
        return None


def onnx_module(job: Job) -> tuple[models.Loaded, np.ndarray]:
    import onnx
    import onnx2torch
    from onnx import numpy_helper

    source = named(job.input("model"), "model.onnx")
    model = read_onnx(source)
    session = onnx_session(source)
    example = example_of(session)
    original = session.run(None, example)[0]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        # Without a zero in the shape, `allowzero` says the same either way, and onnx2torch knows it only as 0.
        if node.op_type == "Reshape" and node.input[1] in constants and 0 not in constants[node.input[1]]:
            for attribute in node.attribute:
                if attribute.name == "allowzero":
                    attribute.i = 0
    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    try:
        module = onnx2torch.convert(model if opset <= 18 else onnx.version_converter.convert_version(model, 18)).eval()
    except NotImplementedError as error:
        kinds = sorted({node.op_type for node in model.graph.node})
        raise Refused("unsupported_model_format", f"onnx2torch does not have an operator of this model, which has {', '.join(kinds)[:150]}") from error
    except Exception as error:
        raise Refused("unsupported_model_format", f"onnx2torch does not take this model ({type(error).__name__})") from error
    inputs = {name: torch.from_numpy(value) for name, value in example.items()}
    return models.Loaded(with_fixed_shapes(module, tuple(inputs.values())), inputs, {}, "ONNX"), original


class FixedShape(torch.nn.Module):
    def __init__(self, kind: str, shape: tuple[int, ...]):
        super().__init__()
        self.kind, self.shape = kind, shape

    def forward(self, value: torch.Tensor, _shape: torch.Tensor) -> torch.Tensor:
        return value.reshape(self.shape) if self.kind == "OnnxReshape" else value.expand(self.shape)


def with_fixed_shapes(module: torch.nn.Module, example: tuple) -> torch.nn.Module:
    """onnx2torch reads shapes from tensors as it runs, which no exporter takes: they become the numbers of this one example."""
    found = {name: each for name, each in module.named_modules() if type(each).__name__ in ("OnnxReshape", "OnnxExpand")}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, each in found.items():
        each.register_forward_hook(lambda _module, _inputs, output, name=name: shapes.update({name: tuple(output.shape)}))
    with torch.inference_mode():
        module(*example)
    for name, shape in shapes.items():
        module.set_submodule(name, FixedShape(type(found[name]).__name__, shape))
    return module


def onnx_to_pytorch(job: Job) -> dict:
    loaded, original = onnx_module(job)
    job.progress(0.5, "export")
    path = job.output / "model.pt2"
    torch.export.save(exported(loaded), path)
    job.progress(0.8, "check")
    got = output_of(torch.export.load(path).module(), loaded.example)
    return {"output": path.name, **compared(difference_of(got, original), original)}


# ---- to LiteRT


def onnx_to_tflite(job: Job) -> dict:
    loaded, original = onnx_module(job)
    return to_tflite(job, loaded, original)


def pytorch_to_tflite(job: Job) -> dict:
    loaded = models.load(job)
    return to_tflite(job, loaded, output_of(loaded.module, loaded.example))


def to_tflite(job: Job, loaded: models.Loaded, original: np.ndarray) -> dict:
    import litert_torch
    from ai_edge_litert.interpreter import Interpreter

    job.progress(0.3, "convert")
    try:
        converted = litert_torch.convert(loaded.module, loaded.example)
    except Exception as error:
        raise Refused("unsupported_model_format", f"litert-torch does not take this model ({type(error).__name__})") from error
    path = job.output / output_name(job, "model.tflite")
    converted.export(str(path))
    job.progress(0.85, "check")
    interpreter = Interpreter(str(path), num_threads=job.threads)
    runner = interpreter.get_signature_runner()
    details = runner.get_input_details()
    values = {name: value.numpy().astype(details[name]["dtype"]) for name, value in zip(sorted(details, key=place), loaded.example)}
    got = next(iter(runner(**values).values()))
    described = [{"name": name, "shape": [int(each) for each in details[name]["shape"]], "type": np.dtype(details[name]["dtype"]).name} for name in values]
    return {
        "output": path.name, "format": "tflite", "converter": "litert-torch", "architecture": loaded.architecture,
        "file_size": path.stat().st_size, "inputs": described, **compared(difference_of(got, original), original),
    }


def place(name: str) -> tuple[int, str]:
    """`args_10` comes after `args_9`."""
    digits = name.rpartition("_")[2]
    return (int(digits) if digits.isdigit() else 0, name)


def output_name(job: Job, default: str) -> str:
    name = job.parameter("output_name", str, default)
    stem = name.removesuffix(".tflite")
    if not stem or len(stem) > 100 or not stem.isascii() or not stem[0].isalnum() or not all(c.isalnum() or c in "._-" for c in stem):
        raise Refused("invalid_value", "`output_name` is not a name of letters, digits, `.`, `_` and `-`", "output_name")
    return f"{stem}.tflite"


# ---- state dicts


def files_of(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(each for each in path.iterdir() if each.suffix in suffixes and each.is_file())
    if not 1 <= len(found) <= MAX_FILES:
        raise Refused("unsupported_model_format", f"the folder does not have 1 to {MAX_FILES} files of {', '.join(suffixes)}")
    return found


def check_same(read: dict[str, torch.Tensor], written: dict[str, torch.Tensor]) -> None:
    """By bits: a value that is no number is the same, too."""

    def bits(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.contiguous().view(-1).view(torch.uint8)

    def same(a: torch.Tensor, b: torch.Tensor) -> bool:
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits(a), bits(b))

    if read.keys() != written.keys() or not all(same(tensor, written[name]) for name, tensor in read.items()):
        raise Refused("unsupported_model_format", "what was written is not what was read")


def safetensors_to_pytorch(job: Job) -> dict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    sources = files_of(job.input("model"), (".safetensors",))
    written, tensors = [], 0
    for index, source in enumerate(sources):
        job.progress(index / len(sources), "convert")
        try:
            weights = load_file(source)
        except (SafetensorError, OSError, ValueError) as error:
            raise Refused("invalid_safetensors", f"{safe.label(source)}: it is no safetensors file") from error
        target = job.output / ("pytorch_model.bin" if len(sources) == 1 else f"pytorch_model-{index + 1:05}-of-{len(sources):05}.bin")
        torch.save(weights, target)
        check_same(weights, safe.read_state_dict(target))
        tensors += len(weights)
        written.append(target.name)
    return {"output": written[0], "files": written, "tensors": tensors, "checked": True, "max_difference": 0.0}


def pytorch_to_safetensors(job: Job) -> dict:
    from safetensors.torch import load_file, save_file

    folder = job.input("model")
    sources = files_of(folder, (".bin", ".pt", ".pth"))
    weight_map: dict[str, str] = {}
    size, written = 0, []
    for index, source in enumerate(sources):
        job.progress(index / len(sources), "convert")
        # Tensors that share memory are written each for itself: safetensors has no other form.
        weights = {name: value.detach().to_dense().contiguous().clone() for name, value in safe.read_state_dict(source, pickles=safe.pickles_allowed(job)).items()}
        target = "model.safetensors" if len(sources) == 1 else f"model-{index + 1:05}-of-{len(sources):05}.safetensors"
        save_file(weights, job.output / target, metadata={"format": "pt"})
        check_same(weights, load_file(job.output / target))
        size += sum(each.numel() * each.element_size() for each in weights.values())
        weight_map.update(dict.fromkeys(weights, target))
        written.append(target)
    if len(sources) > 1:
        index_file = {"metadata": {"total_size": size}, "weight_map": weight_map}
        (job.output / "model.safetensors.index.json").write_text(json.dumps(index_file, indent=1, sort_keys=True))
    if folder.is_dir():
        copy_descriptions(folder, job.output)
    return {"output": written[0], "files": written, "tensors": len(weight_map), "checked": True, "max_difference": 0.0}


def copy_descriptions(folder: Path, target: Path) -> None:
    """config.json and the tokenizer, so that the folder is a model."""
    found = sorted({each for pattern in DESCRIPTIONS for each in folder.glob(pattern)})[:MAX_FILES]
    for each in found:
        wanted = each.is_file() and each.stat().st_size <= MAX_DESCRIPTION and not each.name.endswith(".index.json")
        if wanted and safe.label(each) == each.name:
            shutil.copyfile(each, target / each.name)


PATHS = {
    "pytorch_to_onnx": pytorch_to_onnx,
    "onnx_to_pytorch": onnx_to_pytorch,
    "safetensors_to_pytorch": safetensors_to_pytorch,
    "pytorch_to_safetensors": pytorch_to_safetensors,
    "onnx_to_tflite": onnx_to_tflite,
    "keras_to_onnx": keras_to_onnx,
    "pytorch_to_gguf": pytorch_to_safetensors,
    "gguf_to_onnx": gguf_to_onnx,
    "onnx_to_openvino": onnx_to_openvino,
    "pytorch_to_tflite_litert": pytorch_to_tflite,
}
