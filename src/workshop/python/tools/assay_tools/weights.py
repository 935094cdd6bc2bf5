"""State dicts between the two containers, safetensors and files of torch.save: what was written is read back and compared by bits."""

import json
import shutil
from pathlib import Path

from . import safe  # noqa: I001
import torch

from .files import named_output
from .protocol import Job, Refused

MAX_FILES = 256
MAX_DESCRIPTION = 64 * 1024 * 1024
PICKLED = (".bin", ".pt", ".pth")
DESCRIPTIONS = ("*.json", "tokenizer.model", "*.txt", "*.jinja")


def files_of(job: Job, suffixes: tuple[str, ...]) -> list[Path]:
    path = job.input("model")
    if path.is_file():
        return [path]
    if job.parameter("output_name", str, None) is not None:
        raise Refused("unsupported_parameter", "`output_name` is the name of one file, and those of a folder keep the names models have", "output_name")
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

    sources = files_of(job, (".safetensors",))
    alone = named_output(job, "pytorch_model", ".bin")
    job.all_read()
    written, tensors = [], 0
    for index, source in enumerate(sources):
        job.progress(index / len(sources), "convert")
        try:
            weights = load_file(source)
        except (SafetensorError, OSError, ValueError) as error:
            raise Refused("invalid_safetensors", f"{safe.label(source)}: it is no safetensors file") from error
        target = job.output / (alone if len(sources) == 1 else f"pytorch_model-{index + 1:05}-of-{len(sources):05}.bin")
        torch.save(weights, target)
        check_same(weights, safe.read_state_dict(target))
        tensors += len(weights)
        written.append(target.name)
    return {"output": written[0], "files": written, "tensors": tensors, "checked": True, "max_difference": 0.0}


def pytorch_to_safetensors(job: Job) -> dict:
    from safetensors.torch import load_file, save_file

    folder = job.input("model")
    sources = files_of(job, PICKLED)
    alone = named_output(job, "model", ".safetensors")
    pickles = safe.pickles_allowed(job)
    job.all_read()
    weight_map: dict[str, str] = {}
    size, written = 0, []
    for index, source in enumerate(sources):
        job.progress(index / len(sources), "convert")
        # Tensors that share memory are written each for itself: safetensors has no other form.
        weights = {name: value.detach().to_dense().contiguous().clone() for name, value in safe.read_state_dict(source, pickles=pickles).items()}
        target = alone if len(sources) == 1 else f"model-{index + 1:05}-of-{len(sources):05}.safetensors"
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
