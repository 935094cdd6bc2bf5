"""`transformers` as the oracle of images: makes a tiny random SmolVLM, converts it and its projector with the official converter, and
writes what `transformers` computes for one image. `vision.py LLAMA_CPP OUT` leaves OUT/model.gguf, OUT/mmproj.gguf and
OUT/expected.json. The image has the size of a tile, so that no resizing is compared. Deterministic: seeds are fixed, CPU only.
"""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

LLAMA_CPP = Path(sys.argv[1]).resolve()
OUT = Path(sys.argv[2]).resolve()
sys.path.insert(1, str(LLAMA_CPP / "gguf-py"))

import gguf  # noqa: E402
import torch  # noqa: E402
import transformers as hf  # noqa: E402

FOLDER = OUT / "tiny model"
TILE = 64
REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MARKS = ["<image>", "<fake_token_around_image>", "<global-img>", "<row_1_col_1>"]
BEFORE, AFTER = [17, 4, 1023, 88, 512], [3000, 9, 21, 77, 1500]


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def packed(tensor: torch.Tensor) -> str:
    return base64.b64encode(tensor.detach().numpy().astype("<f4").tobytes()).decode()


def tokenizer() -> list[str]:
    """Llama 3's vocabulary and the marks of images behind it."""
    reader = gguf.GGUFReader(LLAMA_CPP / "models" / "ggml-vocab-llama-bpe.gguf")
    value = lambda key: reader.get_field(key).contents()  # noqa: E731
    tokens, types, merges = (value(f"tokenizer.ggml.{key}") for key in ("tokens", "token_type", "merges"))
    names = tokens + MARKS
    special = [i for i, kind in enumerate(types) if kind in (3, 4)] + list(range(len(tokens), len(names)))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": REGEX}, "behavior": "Isolated", "invert": False}
    write_json(FOLDER / "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "added_tokens": [{"id": i, "content": names[i], **flags} for i in special],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level, "decoder": {**byte_level, "add_prefix_space": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
            "vocab": {t: i for i, t in enumerate(names) if i not in set(special)}, "merges": [m.split(" ") for m in merges],
        },
    })
    write_json(FOLDER / "tokenizer_config.json", {
        "bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "tokenizer_class": "PreTrainedTokenizerFast",
    })
    return names


def build(names: list[str]) -> hf.SmolVLMForConditionalGeneration:
    text = dict(model_type="llama", hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                vocab_size=len(names), max_position_embeddings=512, rms_norm_eps=1e-5, rope_theta=10000.0, pad_token_id=128001,
                bos_token_id=128000, eos_token_id=128001, architectures=["LlamaForCausalLM"])
    vision = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=TILE, patch_size=16,
                  model_type="smolvlm_vision")
    config = hf.SmolVLMConfig(text_config=text, vision_config=vision, scale_factor=2, image_token_id=names.index("<image>"),
                              pad_token_id=128001, tie_word_embeddings=False)
    model = hf.SmolVLMForConditionalGeneration(config)
    generator = torch.Generator().manual_seed(20261129)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            if parameter.ndim == 1:
                parameter.copy_(noise * 0.1 + (0.0 if "bias" in name else 1.0))
            else:
                parameter.copy_(noise * (0.6 if "embed" in name else 0.15))
    return model.eval()


def convert(target: Path, *options: str) -> None:
    command = [sys.executable, LLAMA_CPP / "convert_hf_to_gguf.py", FOLDER, "--outfile", target, "--outtype", "f32", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"the converter failed\n{done.stderr[-3000:]}")


FOLDER.mkdir(parents=True, exist_ok=True)
names = tokenizer()
model = build(names)
model.save_pretrained(FOLDER)
write_json(FOLDER / "preprocessor_config.json", {
    "image_processor_type": "SmolVLMImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"longest_edge": TILE},
    "max_image_size": {"longest_edge": TILE},
})
convert(OUT / "model.gguf")
convert(OUT / "mmproj.gguf", "--mmproj")

rows = torch.arange(TILE).float()
red, green = torch.meshgrid(rows * 4 % 256, rows * 7 % 256, indexing="ij")
pixels = torch.stack([red, green, (red + green) % 256])
values = ((pixels / 255.0 - 0.5) / 0.5).expand(1, 2, 3, TILE, TILE)
image, fake, overview, row = (names.index(mark) for mark in MARKS)
newlines = names.index("ĊĊ")
with torch.no_grad():
    features = model.model.get_image_features(pixel_values=values)
    features = getattr(features, "pooler_output", features)
    count = features.shape[-2]
    layout = [fake, row, *[image] * count, newlines, fake, overview, *[image] * count, fake]
    ids = torch.tensor([[*BEFORE, *layout, *AFTER]])
    logits = model(input_ids=ids, pixel_values=values, attention_mask=torch.ones_like(ids)).logits[0, -1]
write_json(OUT / "expected.json", {
    "tile": TILE, "image": image, "before": BEFORE, "after": AFTER, "layout": layout, "vectors": packed(features.reshape(-1, features.shape[-1])),
    "logits": packed(logits), "pixels": base64.b64encode(bytes(pixels.permute(1, 2, 0).to(torch.uint8).flatten().tolist())).decode(),
})
