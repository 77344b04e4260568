"""What importing and finetuning decoders of real size takes: memory, disk and time.

python -m benchmarks.decoder_sizes 135m 1b --folder /tmp/decoder_sizes                 # --only-import: no finetuning

A checkpoint of each shape is made with random weights in bfloat16 (2.5 GB at 1.24 B), imported, and finetuned for a few
steps on tiny data, each by a command of its own; then it is deleted. The figures go into
docs/performance/decoder_sizes.json, from which `python docs/scaling.py` fills the table of docs/scaling.md, with larger
decoders by arithmetic.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).parent.parent / "docs" / "performance" / "decoder_sizes.json"
LLAMA: dict[str, dict[str, Any]] = {  # as SmolLM2, Llama 3.2 and Mistral have them
    "135m": {"layers": 30, "d_model": 576, "heads": 9, "kv_heads": 3, "d_ff": 1536, "vocab": 49_152, "tied": True},
    "1b": {"layers": 16, "d_model": 2048, "heads": 32, "kv_heads": 8, "d_ff": 8192, "vocab": 128_256, "tied": True},
    "3b": {"layers": 28, "d_model": 3072, "heads": 24, "kv_heads": 8, "d_ff": 8192, "vocab": 128_256, "tied": True},
    "7b": {"layers": 32, "d_model": 4096, "heads": 32, "kv_heads": 8, "d_ff": 14_336, "vocab": 32_000, "tied": False},
}
STEPS = 10
CELL = ("cross_attention.layers=last_6", f"finetune.steps={STEPS}", "finetune.batch_size=8", "trainer.threads=1")


def tensors(shape: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The name and the shape of every tensor of a Llama."""
    d, kv = shape["d_model"], shape["d_model"] // shape["heads"] * shape["kv_heads"]
    yield "model.embed_tokens.weight", (shape["vocab"], d)
    for number in range(shape["layers"]):
        place = f"model.layers.{number}."
        for name, size in (("q_proj", d), ("k_proj", kv), ("v_proj", kv), ("o_proj", d)):
            yield f"{place}self_attn.{name}.weight", (size, d)
        for name in ("gate_proj", "up_proj"):
            yield f"{place}mlp.{name}.weight", (shape["d_ff"], d)
        yield f"{place}mlp.down_proj.weight", (d, shape["d_ff"])
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{place}{name}.weight", (d,)
    yield "model.norm.weight", (d,)
    if not shape["tied"]:
        yield "lm_head.weight", (shape["vocab"], d)


def numbers(shape: Mapping[str, Any]) -> int:
    """How many numbers its weights are."""
    total = 0
    for _, sizes in tensors(shape):
        count = 1
        for size in sizes:
            count *= size
        total += count
    return total


def make_checkpoint(shape: Mapping[str, Any], folder: Path) -> None:
    """Write a Llama with random weights in bfloat16, a file for each part, and a tokenizer that knows bytes alone."""
    import tokenizers
    import torch
    from safetensors.torch import save_file
    from tokenizers import decoders, models, pre_tokenizers
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    folder.mkdir(parents=True)
    torch.manual_seed(0)
    parts: dict[str, dict[str, Any]] = {}
    for name, sizes in tensors(shape):
        part = name.split(".")[2] if name.startswith("model.layers.") else name.split(".")[-2]
        parts.setdefault(f"model-{part}.safetensors", {})[name] = sizes
    for file, listed in parts.items():
        drawn = {
            name: torch.ones(sizes, dtype=torch.bfloat16)
            if len(sizes) == 1
            else torch.empty(sizes, dtype=torch.bfloat16).normal_(std=0.02)
            for name, sizes in listed.items()
        }
        save_file(drawn, folder / file, {"format": "pt"})
    where = {name: file for file, listed in parts.items() for name in listed}
    index = {"metadata": {"total_size": 2 * numbers(shape)}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    options: dict[str, Any] = {
        "vocab_size": shape["vocab"],
        "hidden_size": shape["d_model"],
        "intermediate_size": shape["d_ff"],
        "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["kv_heads"],
        "max_position_embeddings": 256,
        "tie_word_embeddings": shape["tied"],
        "bos_token_id": 0,
        "eos_token_id": 1,
        "architectures": ["LlamaForCausalLM"],
        "dtype": "bfloat16",
    }
    LlamaConfig(**options).save_pretrained(folder)
    alphabet = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    fast = tokenizers.Tokenizer(models.BPE(vocab={token: row for row, token in enumerate(alphabet)}, merges=[]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    wrap: Any = PreTrainedTokenizerFast
    wrap(tokenizer_object=fast, bos_token="<s>", eos_token="</s>").save_pretrained(folder)


def run(outputs: Path, name: str, *overrides: str) -> dict[str, Any]:
    """The result.json of one command on tiny data."""
    folder = outputs / name
    places = (f"paths.outputs={outputs}", f"hydra.run.dir={folder}")
    command = [sys.executable, "-m", "lockdec.run", "debug=tiny", "decoder=llama", *places, *overrides]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return result


def measured(shape: Mapping[str, Any], folder: Path, cell: bool = True) -> dict[str, Any]:
    """Figures of one shape; everything in the folder is deleted.

    Args:
        cell: whether it is also finetuned.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        make_checkpoint(shape, folder / "checkpoint")
        path = f"decoder.path={folder / 'checkpoint'}"
        bare = run(folder / "out", "bare", path, "pipeline.order=[attach]")
        found = of_import(shape, bare, run(folder / "out", "import", path, "pipeline.order=[pretrain]"))
        if cell:
            found |= of_cell(
                run(folder / "out", "cell", path, "pipeline.order=[pretrain,attach,unlock,finetune]", *CELL)
            )
        return found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def of_import(shape: Mapping[str, Any], bare: Mapping[str, Any], imported: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of two runs: one without any decoder, and one that imports."""
    return {
        "numbers": numbers(shape),
        "bare_peak_mb": bare["cost"]["peak_memory_mb"],
        "import_seconds": imported["stages"]["pretrain"]["seconds"],
        "import_peak_mb": imported["cost"]["peak_memory_mb"],
        "decoder_bytes": sum(imported["stages"]["pretrain"]["weights"].values()),
    }


def of_cell(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of a run that finetunes."""
    trained = cell["stages"]["finetune"]
    return {
        "cell_bytes": sum(trained["weights"].values()),
        "cell_peak_mb": cell["cost"]["peak_memory_mb"],
        "unlock_seconds": cell["stages"]["unlock"]["seconds"],
        "prefix_seconds": cell["finetune"]["prefix_seconds"],
        "finetune_seconds": trained["seconds"],
        "steps": STEPS,
    }


def main() -> None:
    """Measure the shapes that are named, and keep the figures beside those of the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="+", choices=list(LLAMA), metavar="SHAPE", help=", ".join(LLAMA))
    parser.add_argument("--folder", type=Path, required=True, help="is emptied; with room for the weights")
    parser.add_argument("--only-import", action="store_true", help="do not finetune")
    parser.add_argument("--beside", default="", help="what else the machine was doing, for the page")
    given = parser.parse_args()
    for name in given.shapes:
        found = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.is_file() else {}
        found[name] = measured(LLAMA[name], given.folder / name, not given.only_import) | {"beside": given.beside}
        FIGURES.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        print(name, json.dumps(found[name]), flush=True)


if __name__ == "__main__":
    main()
