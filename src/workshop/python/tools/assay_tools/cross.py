"""Conversions between formats. Each path checks its own result: what it wrote is run beside the original on the same numbers, and a
result that computes something else is no result. Where the original cannot be run, `checked` is false and `max_difference` null."""

from pathlib import Path

from . import models, safe  # noqa: F401, I001
import numpy as np
import torch

from .checks import compared, outputs_of
from .files import named, named_output
from .onnx_files import example_of, onnx_session, read_onnx, try_run
from .protocol import Job, Refused
from .weights import pytorch_to_safetensors, safetensors_to_pytorch

LARGE_ONNX = 1_500_000_000


def run(job: Job) -> dict:
    path = job.parameter("path", str, "")
    convert = PATHS.get(path)
    if convert is None:
        raise Refused("unsupported_parameter", "there is no backend for this path", "path")
    job.progress(0.0, "load")
    with job.attempt("unsupported_model_format", "a library does not take this model"):
        return {"path": path, **convert(job)}


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
    original = outputs_of(loaded.module, loaded.example)
    path = job.output / named_output(job, "model", ".onnx")
    job.all_read()
    program = exported(loaded, dynamic)
    try:
        onnx_program = torch.onnx.export(program, (), dynamo=True, input_names=list(loaded.inputs), external_data=False, verbose=False)
    except torch.onnx.errors.OnnxExporterError as error:
        raise Refused("unsupported_model_format", f"the exporter to ONNX does not take this model ({type(error).__name__})") from error
    job.progress(0.7, "write")
    weights = sum(each.numel() * each.element_size() for each in loaded.module.state_dict().values())
    onnx_program.save(path, external_data=weights > LARGE_ONNX)
    job.progress(0.85, "check")
    session = onnx_session(path)
    got = session.run(None, {entry.name: value.numpy() for entry, value in zip(session.get_inputs(), loaded.example)})
    inputs = [{"name": entry.name, "shape": [str(each) for each in entry.shape], "type": entry.type} for entry in session.get_inputs()]
    return {"output": path.name, "architecture": loaded.architecture, "inputs": inputs, **compared(got, original)}


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
    path = job.output / named_output(job, "model", ".onnx")
    job.all_read()
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
    predicted = model.predict(example, verbose=0)
    original = [np.asarray(each) for each in (predicted if isinstance(predicted, (list, tuple)) else [predicted])]
    model.export(path, format="onnx", verbose=False)
    job.progress(0.85, "check")
    session = onnx_session(path)
    got = session.run(None, {session.get_inputs()[0].name: example})
    return {"output": path.name, **compared(got, original)}


# ---- from ONNX


def onnx_to_openvino(job: Job) -> dict:
    import openvino

    source = named(job.input("model"), "model.onnx")
    path = job.output / named_output(job, "model", ".xml")
    job.all_read()
    read_onnx(source)
    session = onnx_session(source)
    example = example_of(session)
    original = try_run(session, example)
    job.progress(0.3, "convert")
    model = openvino.convert_model(str(source))
    openvino.save_model(model, str(path), compress_to_fp16=False)
    job.progress(0.8, "check")
    got = None
    if original is not None:
        config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        compiled = openvino.Core().compile_model(str(path), "CPU", config)
        answer = compiled(list(example.values()))
        got = [answer[index] for index in range(len(compiled.outputs))]
    return {"output": path.name, "weights": path.with_suffix(".bin").name, **compared(got, original)}


def onnx_module(job: Job) -> tuple[models.Loaded, list[np.ndarray]]:
    import onnx
    import onnx2torch
    from onnx import numpy_helper

    source = named(job.input("model"), "model.onnx")
    model = read_onnx(source)
    session = onnx_session(source)
    example = example_of(session)
    original = try_run(session, example)
    if original is None:
        raise Refused("unsupported_model_format", "the model does not run on made-up numbers of the shapes it names")
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
    path = job.output / named_output(job, "model", ".pt2")
    job.all_read()
    loaded, original = onnx_module(job)
    job.progress(0.5, "export")
    torch.export.save(exported(loaded), path)
    job.progress(0.8, "check")
    got = outputs_of(torch.export.load(path).module(), loaded.example)
    return {"output": path.name, **compared(got, original)}


# ---- to LiteRT


def onnx_to_tflite(job: Job) -> dict:
    path = job.output / named_output(job, "model", ".tflite")
    job.all_read()
    loaded, original = onnx_module(job)
    return to_tflite(job, path, loaded, original)


def pytorch_to_tflite(job: Job) -> dict:
    path = job.output / named_output(job, "model", ".tflite")
    loaded = models.load(job)
    job.all_read()
    return to_tflite(job, path, loaded, outputs_of(loaded.module, loaded.example))


def to_tflite(job: Job, path: Path, loaded: models.Loaded, original: list[np.ndarray]) -> dict:
    import litert_torch
    from ai_edge_litert.interpreter import Interpreter

    job.progress(0.3, "convert")
    try:
        converted = litert_torch.convert(loaded.module, loaded.example)
    except Exception as error:
        raise Refused("unsupported_model_format", f"litert-torch does not take this model ({type(error).__name__})") from error
    converted.export(str(path))
    job.progress(0.85, "check")
    interpreter = Interpreter(str(path), num_threads=job.threads)
    runner = interpreter.get_signature_runner()
    details = runner.get_input_details()
    values = {name: value.numpy().astype(details[name]["dtype"]) for name, value in zip(sorted(details, key=place), loaded.example)}
    answer = runner(**values)
    got = [answer[name] for name in sorted(answer, key=place)]
    described = [{"name": name, "shape": [int(each) for each in details[name]["shape"]], "type": np.dtype(details[name]["dtype"]).name} for name in values]
    return {
        "output": path.name, "format": "tflite", "converter": "litert-torch", "architecture": loaded.architecture,
        "file_size": path.stat().st_size, "inputs": described, **compared(got, original),
    }


def place(name: str) -> tuple[int, str]:
    """`args_10` comes after `args_9`."""
    digits = name.rpartition("_")[2]
    return (int(digits) if digits.isdigit() else 0, name)


def pytorch_to_gguf(job: Job) -> dict:
    """The first half: safetensors that the built-in converter reads. Those that are there already, it reads where they are."""
    folder = job.input("model")
    named_output(job, "model", ".gguf")
    if not folder.is_dir():
        raise Refused("unsupported_model_format", "give a folder: the weights with config.json and the tokenizer")
    if any(folder.glob("*.safetensors")):
        job.all_read()
        return {"output": "gguf", "files": []}
    job.parameters.pop("output_name", None)
    return pytorch_to_safetensors(job)


PATHS = {
    "pytorch_to_onnx": pytorch_to_onnx,
    "onnx_to_pytorch": onnx_to_pytorch,
    "safetensors_to_pytorch": safetensors_to_pytorch,
    "pytorch_to_safetensors": pytorch_to_safetensors,
    "onnx_to_tflite": onnx_to_tflite,
    "keras_to_onnx": keras_to_onnx,
    "pytorch_to_gguf": pytorch_to_gguf,
    "gguf_to_onnx": gguf_to_onnx,
    "onnx_to_openvino": onnx_to_openvino,
    "pytorch_to_tflite_litert": pytorch_to_tflite,
}
