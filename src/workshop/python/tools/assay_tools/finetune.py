"""Trains LoRA on a causal model of a Hugging Face folder with peft and trl. The seed is fixed, so on one machine the same request
gives the same adapter. Leaves lora/ (PEFT) and merged/ (safetensors); the built-in converter makes GGUF files of both."""

import json
import math
import shutil
import tempfile
from pathlib import Path

from . import data
from .protocol import Job, Refused

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
EXPORTS = ("lora", "safetensors", "gguf", "gguf_adapter")
MAX_LOSSES = 200


def run(job: Job) -> dict:
    settings = Settings(job)
    job.progress(0.0, "dataset")
    form, rows = data.read(job.input("dataset"))
    job.log(f"data set: {len(rows)} rows of the form {form}")
    job.progress(0.02, "load")
    return train(job, settings, form, rows)


class Settings:
    """The request's fields, each within its bounds."""

    def __init__(self, job: Job):
        self.job = job
        self.epochs = self.number("num_epochs", float, 1.0, 0.001, 1000)
        self.learning_rate = self.number("learning_rate", float, 2e-4, 1e-9, 1.0)
        self.rank = self.number("lora_r", int, 16, 1, 1024)
        self.alpha = self.number("lora_alpha", int, 16, 1, 65536)
        self.dropout = self.number("lora_dropout", float, 0.0, 0.0, 0.9)
        self.length = self.number("max_seq_length", int, 2048, 8, 131072)
        self.batch = self.number("batch_size", int, 2, 1, 256)
        self.accumulate = self.number("gradient_accumulation_steps", int, 4, 1, 1024)
        self.steps = self.number("max_steps", int, -1, -1, 1_000_000)
        self.warmup = self.number("warmup_steps", int, 0, 0, 100_000)
        self.seed = self.number("seed", int, 42, 0, 2**32 - 1)
        self.four_bit = job.parameter("use_4bit", bool, True)
        self.name = job.parameter("model_name", str, "base")
        exports = job.parameters.get("exports") or ["lora"]
        self.exports = [exports] if isinstance(exports, str) else exports
        if not isinstance(self.exports, list) or not set(map(str, self.exports)) <= set(EXPORTS):
            raise Refused("invalid_value", f"`exports` takes {', '.join(EXPORTS)}", "exports")

    def number(self, name: str, kind: type, default, least, most):
        value = self.job.parameter(name, kind, default)
        if value != default and not least <= value <= most:
            raise Refused("invalid_value", f"`{name}` is not from {least} to {most}", name)
        return value


def train(job: Job, settings: Settings, form: str, rows: list[dict]) -> dict:
    from . import models, safe  # noqa: F401
    import datasets
    import peft
    import torch
    import transformers
    import trl

    datasets.disable_caching()
    datasets.disable_progress_bars()
    transformers.set_seed(settings.seed)
    torch.set_num_threads(job.threads)
    cuda = torch.cuda.is_available()
    if settings.four_bit:
        job.log("use_4bit: fell to false; the environment has no bitsandbytes" + ("" if cuda else ", and there is no CUDA here"))
    folder = job.input("model")
    model, tokenizer = load(folder, models)
    if form == "messages" and tokenizer.chat_template is None:
        raise Refused("invalid_value", "the model has no chat template for `messages`: use `prompt` and `completion`", data.FIELD)
    targets = [name for name in PROJECTIONS if any(key.endswith(f".{name}") for key, _ in model.named_modules())]
    lora = peft.LoraConfig(
        task_type="CAUSAL_LM", r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=targets or "all-linear",
    )
    losses: list[float] = []
    with tempfile.TemporaryDirectory() as work:
        with job.attempt("invalid_value", "the tokenizer or the chat template of the model does not take the data set", data.FIELD):
            trainer = trl.SFTTrainer(
                model=model, args=arguments(settings, trl, work, cuda), train_dataset=datasets.Dataset.from_list(rows),
                processing_class=tokenizer, peft_config=lora, callbacks=[reporter(job, transformers, losses)],
            )
            rows_left = keep_what_teaches(job, trainer, len(rows))
        with job.attempt("invalid_model_config", "a library does not train this model", "model_name"):
            trainer.train()
    if not losses or not all(math.isfinite(each) for each in losses):
        raise Refused("invalid_value", "the loss is no longer a number: use a lower `learning_rate`", "learning_rate")
    job.progress(0.9, "export")
    trained = trainer.model
    trained.eval()
    trainable = sum(each.numel() for each in trained.parameters() if each.requires_grad)
    export(job, settings, trained, folder)
    kept = losses if len(losses) <= MAX_LOSSES else [losses[i * len(losses) // MAX_LOSSES] for i in range(MAX_LOSSES)]
    return {
        "rows": rows_left, "form": form, "steps": len(losses), "first_loss": round(losses[0], 6), "last_loss": round(losses[-1], 6),
        "losses": [round(each, 6) for each in kept], "device": "cuda" if cuda else "cpu", "use_4bit": False, "backend": "peft + trl",
        "trainable": trainable, "target_modules": targets,
        "exports": settings.exports,
    }


def keep_what_teaches(job: Job, trainer, asked: int) -> int:
    """Rows of one token, and those whose answer lies beyond `max_seq_length`, teach nothing, and a batch of them has no loss at all."""

    def teaches(labels) -> list[bool]:
        return [bool((each[1:] != -100).any()) for each in labels]

    rows = trainer.train_dataset.with_format("numpy").filter(teaches, input_columns="labels", batched=True).with_format(None)
    trainer.train_dataset = rows
    if len(rows) == 0:
        raise Refused("invalid_value", "no row has anything to learn within `max_seq_length` tokens", data.FIELD)
    if len(rows) < asked:
        job.log(f"{asked - len(rows)} of {asked} rows have nothing to learn within max_seq_length tokens and are left out")
    return len(rows)


def load(folder: Path, models):
    import transformers

    if not folder.is_dir():
        raise Refused("invalid_model_config", "the model is no folder: give a Hugging Face folder with safetensors", "model_name")
    config = models.config_of(folder)
    cls, kind = models.class_of(config)
    if kind != models.CAUSAL:
        raise Refused("unsupported_model_format", "only models that write text (ForCausalLM) are trained", "model_name")
    if not any(folder.glob("*.safetensors")):
        raise Refused("unsupported_model_format", "the folder has no safetensors", "model_name")
    models.assert_weights_fit(folder, config)
    model = models.pretrained(cls, folder)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise Refused("invalid_model_config", f"transformers does not load the tokenizer ({type(error).__name__})", "model_name") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise Refused("invalid_model_config", "the tokenizer has neither a token for padding nor one for the end", "model_name")
    return model, tokenizer


def arguments(settings: Settings, trl, work: str, cuda: bool):
    return trl.SFTConfig(
        output_dir=work, num_train_epochs=settings.epochs, max_steps=settings.steps, learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch, gradient_accumulation_steps=settings.accumulate, warmup_steps=settings.warmup,
        max_length=settings.length, packing=False, logging_steps=1, save_strategy="no", report_to="none", seed=settings.seed,
        data_seed=settings.seed, use_cpu=not cuda, bf16=False, fp16=False, gradient_checkpointing=False, dataloader_pin_memory=False,
        disable_tqdm=True, lr_scheduler_type="linear", optim="adamw_torch",
    )


def reporter(job: Job, transformers, losses: list[float]):
    class Reporter(transformers.TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            if logs and "loss" in logs:
                losses.append(float(logs["loss"]))
                job.progress(0.05 + 0.85 * state.global_step / max(1, state.max_steps), f"step {state.global_step} of {state.max_steps}")

    return Reporter()


def export(job: Job, settings: Settings, trained, folder: Path) -> None:
    import transformers

    from .weights import copy_descriptions

    target = job.output / "lora"
    trained.save_pretrained(target, safe_serialization=True, save_embedding_layers=False)
    for each in target.iterdir():
        if each.name not in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.rmtree(each) if each.is_dir() else each.unlink()
    config = json.loads((target / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = settings.name
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()
    (target / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True))
    if "safetensors" in settings.exports or "gguf" in settings.exports:
        merged = trained.merge_and_unload()
        # Published ones often break rules that saving holds them to; the file is copied as it is.
        merged.generation_config = transformers.GenerationConfig()
        merged.save_pretrained(job.output / "merged", safe_serialization=True)
        copy_descriptions(folder, job.output / "merged")
