"""Tiny decoders with random weights, saved by `transformers` with a tokenizer of their family's kind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

# Llama 3.1's way to stretch wavelengths: a config inside the config, which has to survive being stored.
ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


def save_gpt2(folder: Path, texts: Sequence[str], **changes: Any) -> None:
    """A GPT-2 whose one special token begins, ends and pads, as in the real ones."""
    fast = tokenizers.Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learn(fast, texts, ["<|endoftext|>"], initial_alphabet=alphabet)
    ends = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    wrapped(fast, **ends).save_pretrained(folder)
    sizes: dict[str, Any] = {"vocab_size": 400, "n_positions": 48, "n_embd": 32, "n_layer": 2, "n_head": 2}
    config = GPT2Config(**(sizes | {"bos_token_id": 0, "eos_token_id": 0} | changes))
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(folder)


def save_llama(folder: Path, texts: Sequence[str], **changes: Any) -> None:
    """A Llama with grouped queries, no padding token, and a tokenizer that puts a blank before every text."""
    fast = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    fast.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    parts = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    fast.decoder = decoders.Sequence(parts)
    learn(fast, texts, ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))])
    # Only training needs the bytes among the special tokens; in them they would not be text.
    learned = json.loads(fast.to_str())
    learned["added_tokens"] = learned["added_tokens"][:3]
    fast = tokenizers.Tokenizer.from_str(json.dumps(learned))
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    wrapped(fast, **special).save_pretrained(folder)
    sizes: dict[str, Any] = {
        "vocab_size": 410,  # more than the tokenizer fills, as in many real ones
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 48,
        "rope_parameters": ROPE,
    }
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**(sizes | changes))).save_pretrained(folder)


def wrapped(fast: tokenizers.Tokenizer, **special: str) -> Any:
    """The tokenizer as `transformers` saves it."""
    wrap: Any = PreTrainedTokenizerFast
    return wrap(tokenizer_object=fast, **special)


def learn(fast: tokenizers.Tokenizer, texts: Sequence[str], special: list[str], **options: Any) -> None:
    """Fill a tokenizer with 400 tokens."""
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False, **options)
    fast.train_from_iterator(texts, trainer)


SAVE = {"gpt2": save_gpt2, "llama": save_llama}
