"""`transformers` and the official converter as the oracle of folders of models that see: makes tiny random ones of the Idefics3 family,
converts each with its projector, and writes what `transformers` computes for one image. `vision_folders.py LLAMA_CPP OUT CASE` leaves
OUT/CASE/"tiny model"/, OUT/CASE/model-TYPE.gguf, OUT/CASE/mmproj-TYPE.gguf and OUT/CASE/expected.json. The image has the size of a
tile, so that no resizing is compared where the longest edge is that of a tile. Deterministic: seeds are fixed, CPU only.
`vision_folders.py LLAMA_CPP OUT --digests` converts the folders that are already in OUT and prints the SHA-256 of each result as JSON.
"""

import base64
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

LLAMA_CPP = Path(sys.argv[1]).resolve()
CASE = sys.argv[3]
OUT = Path(sys.argv[2]).resolve() / CASE
sys.path.insert(1, str(LLAMA_CPP / "gguf-py"))

import gguf  # noqa: E402
import torch  # noqa: E402
import transformers as hf  # noqa: E402

FOLDER = OUT / "tiny model"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MARKS = ["<image>", "<fake_token_around_image>", "<global-img>", "<row_1_col_1>"]
BEFORE, AFTER = [17, 4, 1023, 88, 512], [3000, 9, 21, 77, 1500]
SPLIT = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
PRE = {
    "llama-bpe": [{"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": False}, SPLIT],
    "starcoder": [{"type": "Digits", "individual_digits": True}, {**SPLIT, "use_regex": True}],
}
SMOL = dict(kind="SmolVLM", vocabulary="llama-bpe", dtype=torch.float32, tied=False, shard="200MB", processor="flat")
CASES = {
    "smolvlm": dict(**SMOL, types=("f32", "auto"), longest=64, tile=64, patch=16, merge=2, inner=32, units=64, heads=2, layers=2),
    # As the published SmolVLM of 2.2B: patches that do not fill a tile, and fields left to their defaults.
    "smolvlm-odd": {**SMOL, "longest": 70, "vocabulary": "starcoder", "dtype": torch.bfloat16, "tied": True, "shard": "1MB", "processor": "nested",
                    "types": ("auto", "f16", "f32"), "tile": 70, "patch": 11, "merge": 3, "inner": 48, "units": 80, "heads": 4, "layers": 3},
    "idefics3": {**SMOL, "longest": 96, "kind": "Idefics3", "vocabulary": "starcoder", "dtype": torch.float16, "processor": "both", "types": ("auto", "bf16"),
                 "tile": 96, "patch": 12, "merge": 4, "inner": 32, "units": 96, "heads": 8, "layers": 1},
    "idefics3-tied": {**SMOL, "longest": 256, "kind": "Idefics3", "vocabulary": "starcoder", "tied": True, "shard": "1MB", "types": ("auto", "f32"), "tile": 64,
                      "patch": 8, "merge": 2, "inner": 64, "units": 32, "heads": 2, "layers": 2},
}
GIVEN = CASES.get(CASE, {})


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def packed(tensor: torch.Tensor) -> str:
    return base64.b64encode(tensor.detach().numpy().astype("<f4").tobytes()).decode()


def tokenizer() -> list[str]:
    """A vocabulary of the llama.cpp sources and the marks of images behind it."""
    name = GIVEN["vocabulary"]
    reader = gguf.GGUFReader(LLAMA_CPP / "models" / f"ggml-vocab-{name}.gguf")
    value = lambda key: reader.get_field(key).contents()  # noqa: E731
    tokens, types, merges = (value(f"tokenizer.ggml.{key}") for key in ("tokens", "token_type", "merges"))
    names = tokens + MARKS
    special = [i for i, kind in enumerate(types) if kind in (3, 4)] + list(range(len(tokens), len(names)))
    # Llama 3 has its special tokens behind the vocabulary, StarCoder within it.
    apart = set(special if name == "llama-bpe" else range(len(tokens), len(names)))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    write_json(FOLDER / "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "added_tokens": [{"id": i, "content": names[i], **flags} for i in special],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": PRE[name]},
        "post_processor": SPLIT, "decoder": {**SPLIT, "add_prefix_space": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": False, "byte_fallback": False, "ignore_merges": name == "llama-bpe",
            "vocab": {t: i for i, t in enumerate(names) if i not in apart}, "merges": [m.split(" ") for m in merges],
        },
    })
    ends = {"llama-bpe": ("<|begin_of_text|>", "<|end_of_text|>"), "starcoder": ("<|endoftext|>", "<|endoftext|>")}[name]
    write_json(FOLDER / "tokenizer_config.json", {
        "bos_token": ends[0], "eos_token": ends[1], "tokenizer_class": "PreTrainedTokenizerFast",
    })
    write_json(FOLDER / "chat_template.json", {"chat_template": "{% for m in messages %}{{ m.role }}{% endfor %}"})
    return names


def build(names: list[str]):
    kind, tied = GIVEN["kind"], GIVEN["tied"]
    bos, eos = (128000, 128001) if GIVEN["vocabulary"] == "llama-bpe" else (0, 0)
    text = dict(model_type="llama", hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                vocab_size=len(names), max_position_embeddings=512, rms_norm_eps=1e-5, rope_theta=10000.0, pad_token_id=eos,
                bos_token_id=bos, eos_token_id=eos, architectures=["LlamaForCausalLM"], tie_word_embeddings=tied)
    vision = dict(hidden_size=GIVEN["inner"], intermediate_size=GIVEN["units"], num_hidden_layers=GIVEN["layers"],
                  num_attention_heads=GIVEN["heads"], image_size=GIVEN["tile"], patch_size=GIVEN["patch"], model_type=f"{kind.lower()}_vision")
    make = getattr(hf, f"{kind}Config")
    config = make(text_config=text, vision_config=vision, scale_factor=GIVEN["merge"], image_token_id=names.index("<image>"),
                  pad_token_id=eos, tie_word_embeddings=tied)
    model = getattr(hf, f"{kind}ForConditionalGeneration")(config)
    generator = torch.Generator().manual_seed(20261129)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            if parameter.ndim == 1:
                parameter.copy_(noise * 0.1 + (0.0 if "bias" in name else 1.0))
            else:
                parameter.copy_(noise * (0.6 if "embed" in name else 0.15))
    return model.to(GIVEN["dtype"])


def describe_images() -> None:
    """As three releases of `transformers` write it."""
    tile = GIVEN["tile"]
    settings = {"image_processor_type": f"{GIVEN['kind']}ImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_resize": True,
                "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "do_image_splitting": True,
                "size": {"longest_edge": GIVEN["longest"]}, "max_image_size": {"longest_edge": tile}}
    processor = {"processor_class": f"{GIVEN['kind']}Processor", "image_seq_len": 4}
    if GIVEN["processor"] == "nested":
        write_json(FOLDER / "processor_config.json", {**processor, "image_processor": {**settings, "image_mean": [0.48, 0.46, 0.41]}})
        return
    write_json(FOLDER / "preprocessor_config.json", settings)
    if GIVEN["processor"] == "both":
        write_json(FOLDER / "processor_config.json", {**processor, "image_std": [0.27, 0.26, 0.28]})


def change_config() -> None:
    """What published folders have, and `save_pretrained` does not write."""
    path = FOLDER / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if CASE == "smolvlm-odd":
        for name in ("layer_norm_eps", "hidden_act", "num_channels"):
            del config["vision_config"][name]
        del config["text_config"]["head_dim"]
        config["text_config"]["architectures"] = ["VLlama3ForCausalLM"]
        settings = {"temperature": 0.4, "top_k": 40, "do_sample": True}
        write_json(FOLDER / "generation_config.json", settings)
    if CASE == "idefics3":
        config["vision_config"].pop("model_type")
        del config["pad_token_id"]
        config["bos_token_id"] = 7
    write_json(path, config)


def convert(kind: str, outtype: str, *options: str) -> None:
    target = OUT / f"{kind}-{outtype}.gguf"
    command = [sys.executable, LLAMA_CPP / "convert_hf_to_gguf.py", FOLDER, "--outfile", target, "--outtype", outtype, *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"the converter failed\n{done.stderr[-3000:]}")


def expected(names: list[str]) -> dict:
    tile = GIVEN["tile"]
    model = getattr(hf, f"{GIVEN['kind']}ForConditionalGeneration").from_pretrained(FOLDER, dtype=torch.float32).eval()
    mean, std = (torch.tensor(list(read(name))).view(1, 3, 1, 1) for name in ("image_mean", "image_std"))
    rows = torch.arange(tile).float()
    red, green = torch.meshgrid(rows * 4 % 256, rows * 7 % 256, indexing="ij")
    pixels = torch.stack([red, green, (red + green) % 256])
    values = ((pixels / 255.0 - mean) / std).expand(1, 2, 3, tile, tile)
    image, fake, overview, row = (names.index(mark) for mark in MARKS)
    newlines = [names.index(each) for each in (["ĊĊ"] if "ĊĊ" in names else ["Ċ", "Ċ"])]
    with torch.no_grad():
        features = model.model.get_image_features(pixel_values=values)
        features = getattr(features, "pooler_output", features)
        count = features.shape[-2]
        layout = [fake, row, *[image] * count, *newlines, fake, overview, *[image] * count, fake]
        ids = torch.tensor([[*BEFORE, *layout, *AFTER]])
        logits = model(input_ids=ids, pixel_values=values, attention_mask=torch.ones_like(ids)).logits[0, -1]
    bytes_of = bytes(pixels.permute(1, 2, 0).to(torch.uint8).flatten().tolist())
    return {
        "tile": tile, "image": image, "before": BEFORE, "after": AFTER, "layout": layout,
        "vectors": packed(features.reshape(-1, features.shape[-1])), "logits": packed(logits), "pixels": base64.b64encode(bytes_of).decode(),
    }


def read(name: str):
    """A setting of images, as the official converter finds it."""
    found: dict = {}
    for file, inner in (("preprocessor_config.json", "media_proc_cfg"), ("processor_config.json", "image_processor")):
        path = FOLDER / file
        if path.is_file():
            given = json.loads(path.read_text(encoding="utf-8"))
            found = {**found, **given, **given.get(inner, {})}
    return found[name]


def make() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    tokens = tokenizer()
    build(tokens).save_pretrained(FOLDER, max_shard_size=GIVEN["shard"])
    describe_images()
    change_config()
    for outtype in GIVEN["types"]:
        convert("model", outtype)
        convert("mmproj", outtype, "--mmproj")
    write_json(OUT / "expected.json", expected(tokens))


def digests() -> None:
    global OUT, FOLDER
    found = {}
    for OUT in sorted(OUT.parent.iterdir()):
        FOLDER = OUT / "tiny model"
        for outtype in ("auto", "f32"):
            for kind, *options in (["model"], ["mmproj", "--mmproj"]):
                convert(kind, outtype, *options)
                result = (OUT / f"{kind}-{outtype}.gguf").read_bytes()
                found[f"{OUT.name} {kind} {outtype}"] = hashlib.sha256(result).hexdigest()
    print(json.dumps(found, indent=2))


if CASE == "--digests":
    digests()
else:
    make()
