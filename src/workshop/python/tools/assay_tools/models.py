"""Makes a module in evaluation mode, with an example of its inputs, of what a caller has: an exported program (.pt2), a Hugging Face
folder with safetensors, a GGUF file, or one safetensors file with the name of an architecture of torchvision. No code of a model runs:
a folder that brings its own is refused."""

import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from . import safe  # noqa: I001
import torch

from .protocol import Job, Refused

MAX_CONFIG = 16 * 1024 * 1024
MAX_INPUT = 1 << 26
CAUSAL, ENCODER, IMAGES = "ForCausalLM", "Model", "ForImageClassification"
OTHER_CONFIGS = ("tokenizer_config.json", "processor_config.json", "preprocessor_config.json", "generation_config.json")
LAYERS = re.compile(r"(_layers|_layer|^depth|^n_blocks)$")
LENGTHS = re.compile(r"(_size|_dim|_heads|_experts|^n_embd|^n_head|^n_inner|^d_model|^d_ff)$")
KINDS = ("ForCausalLM", "ForSequenceClassification", "ForTokenClassification", "ForMaskedLM", "ForImageClassification", "Model")


@dataclass
class Loaded:
    module: torch.nn.Module
    inputs: dict[str, torch.Tensor]
    """Axes whose length may vary, by input."""
    dynamic: dict[str, dict[int, str]]
    architecture: str

    @property
    def example(self) -> tuple[torch.Tensor, ...]:
        return tuple(self.inputs.values())


class FirstOutput(torch.nn.Module):
    """Inputs by position, and the one output that counts, as a tensor."""

    def __init__(self, model: torch.nn.Module, names: list[str], output: str, more: dict):
        super().__init__()
        self.model, self.names, self.output, self.more = model, names, output, more

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        return self.model(**dict(zip(self.names, values)), **self.more)[self.output]


def load(job: Job) -> Loaded:
    torch.manual_seed(0)
    torch.set_num_threads(job.threads)
    path = job.input("model")
    if path.is_dir():
        return from_folder(path, job)
    with path.open("rb") as file:
        start = file.read(4)
    if safe.pickles_allowed(job) and (start[:1] == b"\x80" or is_saved_pickle(path)):
        return from_pickle(path, job)
    if start[:2] == b"PK":
        return from_program(path)
    if start == b"GGUF":
        raise Refused("unsupported_model_format", "a GGUF file takes the path gguf_to_onnx", "model_path")
    if start[:1] == b"\x80":
        raise Refused("unsupported_model_format", "a pickle is not read here: give an exported program (.pt2) or safetensors; the operator may allow pickles in the jail: workshop.pickles", "model_path")
    return from_named(path, job)


def is_saved_pickle(path: Path) -> bool:
    """A zip of torch.save, which has one pickle of everything; an exported program has its graph as JSON."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError):
        return False
    return any(name.count("/") == 1 and name.endswith("/data.pkl") for name in names)


def from_pickle(path: Path, job: Job) -> Loaded:
    """A whole module, which is run as the original runs it: on one image, or on `input_shape`."""
    module = safe.read_pickle(path)
    if not isinstance(module, torch.nn.Module):
        raise Refused("unsupported_model_format", f"{safe.label(path)}: the pickle is no module of PyTorch")
    return Loaded(module.eval(), {"input": torch.randn(*input_shape(job, [1, 3, 224, 224]))}, {}, type(module).__name__[:80])


def from_program(path: Path) -> Loaded:
    try:
        program = torch.export.load(path)
    except Refused:
        raise
    except Exception as error:
        raise Refused("unsupported_model_format", f"{safe.label(path)}: it is no exported program of torch.export.save") from error
    if program.example_inputs is None:
        raise Refused("unsupported_model_format", "the exported program has no example of its inputs")
    args, kwargs = program.example_inputs
    if kwargs or not args or not all(isinstance(each, torch.Tensor) for each in args):
        raise Refused("unsupported_model_format", "the exported program takes something that is no tensor by position")
    names = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    module = program.module()
    try:
        module.eval()
    except NotImplementedError:  # exported modules are in the mode they were exported in
        pass
    return Loaded(module, dict(zip(names, args)), {}, "exported program")


def config_of(folder: Path) -> dict:
    path = folder / "config.json"
    try:
        if path.stat().st_size > MAX_CONFIG:
            raise Refused("invalid_model_config", "config.json is too large")
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused("invalid_model_config", "config.json is missing or no JSON") from error
    if not isinstance(config, dict):
        raise Refused("invalid_model_config", "config.json is no object")
    for name in ("config.json", *OTHER_CONFIGS):
        if names_code(folder / name):
            raise Refused("invalid_model_config", f"{name}: `auto_map` names code of the model's own, which is never run")
    return config


def names_code(path: Path) -> bool:
    """Transformers is told not to run it; a model that needs it would be read in another way than its maker means."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= MAX_CONFIG else {}
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "auto_map" in found


def class_of(config: dict) -> tuple[type, str]:
    import transformers

    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and len(names) == 1 else None
    if not isinstance(name, str) or re.fullmatch(r"[A-Z][A-Za-z0-9_]{0,79}", name) is None:
        raise Refused("invalid_model_config", "config.json: `architectures` does not name one class")
    kind = next((kind for kind in KINDS if name.endswith(kind)), None)
    found = getattr(transformers, name, None)
    if kind is None or not isinstance(found, type) or not issubclass(found, transformers.PreTrainedModel):
        raise Refused("unsupported_model_format", f"transformers has no {name} that takes tokens or images")
    return found, kind


def from_folder(folder: Path, job: Job) -> Loaded:
    config = config_of(folder)
    cls, kind = class_of(config)
    if not any(folder.glob("*.safetensors")):
        raise Refused("unsupported_model_format", "the folder has no safetensors: pickled weights take the path pytorch_to_safetensors first")
    assert_weights_fit(folder, config)
    return wrap(pretrained(cls, folder), kind, job)


def from_gguf(path: Path, job: Job) -> Loaded:
    import transformers

    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager", local_files_only=True
        )
    except Exception as error:
        raise Refused("unsupported_model_format", "transformers does not read a decoder from this GGUF file") from error
    return wrap(model, CAUSAL, job)


def assert_weights_fit(folder: Path, config: dict) -> None:
    """A model as large as its configuration says is made before weights are read: every layer has a tensor, and every length has values."""
    from safetensors import SafetensorError, safe_open

    tensors, size = 0, 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                tensors += len(file.keys())
        except (SafetensorError, OSError, ValueError) as error:
            raise Refused("invalid_safetensors", f"{safe.label(path)}: it is no safetensors file") from error
        size += path.stat().st_size
    left = [config]
    while left:
        for key, value in left.pop().items():
            if isinstance(value, dict):
                left.append(value)
            elif isinstance(value, int) and value > (tensors if LAYERS.search(key) else size if LENGTHS.search(key) else value):
                raise Refused("invalid_model_config", f"config.json: {key[:40]} is larger than the weights can be of")


def pretrained(cls: type, folder: Path) -> torch.nn.Module:
    try:
        model, report = cls.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, trust_remote_code=False, dtype=torch.float32,
            attn_implementation="eager", output_loading_info=True,
        )
    except Exception as error:
        raise Refused("invalid_model_config", f"transformers does not load this folder ({type(error).__name__})") from error
    if report["missing_keys"] or report["mismatched_keys"]:
        raise Refused("invalid_safetensors", "the weights lack tensors of the model, or have other shapes")
    return model


def wrap(model: torch.nn.Module, kind: str, job: Job) -> Loaded:
    model.eval()
    config = model.config
    name = type(model).__name__
    if kind == IMAGES:
        size = getattr(config, "image_size", 224)
        side = size if isinstance(size, int) else 224
        pixels = torch.randn(1, getattr(config, "num_channels", 3), side, side)
        return Loaded(FirstOutput(model, ["pixel_values"], "logits", {}).eval(), {"pixel_values": pixels}, {}, name)
    length = job.parameter("sequence_length", int, 16)
    if not 2 <= length <= min(4096, getattr(config, "max_position_embeddings", 4096)):
        raise Refused("invalid_value", "`sequence_length` is not from 2 to the positions of the model", "sequence_length")
    tokens = torch.randint(0, config.vocab_size, (1, length))
    if kind == CAUSAL:
        model.config.use_cache = False
        wrapped = FirstOutput(model, ["input_ids"], "logits", {"use_cache": False})
        return Loaded(wrapped.eval(), {"input_ids": tokens}, {"input_ids": {1: "sequence"}}, name)
    output = "last_hidden_state" if kind == ENCODER else "logits"
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    dynamic = {"input_ids": {1: "sequence"}, "attention_mask": {1: "sequence"}}
    return Loaded(FirstOutput(model, list(inputs), output, {}).eval(), inputs, dynamic, name)


def from_named(path: Path, job: Job) -> Loaded:
    """One safetensors file and the name of an architecture of torchvision."""
    name = job.parameter("architecture", str, None)
    if name is None:
        raise Refused("missing_required_parameter", "one file of weights needs `architecture`: a model of torchvision by name", "architecture")
    import torchvision
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if name not in torchvision.models.list_models():
        raise Refused("invalid_value", "`architecture` is no model of torchvision", "architecture")
    try:
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise Refused("invalid_safetensors", f"{safe.label(path)}: it is no safetensors file") from error
    head = [tensor.shape[0] for key, tensor in weights.items() if re.fullmatch(r"(fc|classifier(\.\d+)?|heads?\.head|head)\.bias", key)]
    more = {} if not head else {"num_classes": head[-1]}
    try:
        module = torchvision.models.get_model(name, weights=None, **more).eval()
        module.load_state_dict(weights, strict=True)
    except (RuntimeError, TypeError, ValueError) as error:
        raise Refused("invalid_safetensors", "the weights are not those of `architecture`", "architecture") from error
    shape = input_shape(job, [1, 3, 224, 224])
    return Loaded(module, {"pixel_values": torch.randn(*shape)}, {}, name)


def input_shape(job: Job, default: list[int]) -> list[int]:
    shape = job.parameter("input_shape", list, default)
    size = 1
    for length in shape:
        if not isinstance(length, int) or isinstance(length, bool) or not 1 <= length <= 65536:
            raise Refused("invalid_value", "`input_shape` is not a list of whole numbers from 1 to 65536", "input_shape")
        size *= length
    if not 1 <= len(shape) <= 8 or size > MAX_INPUT:
        raise Refused("invalid_value", "`input_shape` has too many axes or values", "input_shape")
    return shape
