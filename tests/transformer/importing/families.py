"""What the tests of all families share: tiny models of `transformers`, and what an imported one is equal in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from lockdec.transformer.models import CrossAttentionConfig, LockingDecoderModel
from tests.transformer.tiny_transformers import encoded_batch, shake

# The end pads: beam search of transformers takes a padding token of 0 for none.
VOCAB, BOS, EOS, PAD = 31, 1, 2, 2


def gpt2(**changes: Any) -> Any:
    """A tiny GPT-2 with random weights."""
    sizes = {"vocab_size": VOCAB, "n_positions": 20, "n_embd": 12, "n_layer": 3, "n_head": 3}
    return shaken(GPT2LMHeadModel(GPT2Config(**(sizes | changes))))


def llama_sizes(**changes: Any) -> dict[str, Any]:
    """Tiny sizes, in the words of the Llama family."""
    sizes: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 20,
    }
    return sizes | changes


def shaken(model: nn.Module) -> nn.Module:
    """Random weights large enough for attention to matter; evaluation mode."""
    shake(model)
    return model.eval()


def tokens(rows: int = 3, length: int = 20) -> Tensor:
    """Random tokens."""
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(0))


def require_same(theirs: Any, folder: Path) -> None:
    """Assert that an imported decoder computes and generates what `theirs` does, and that it can be unlocked.

    Args:
        folder: where the checkpoint is saved.
    """
    theirs.save_pretrained(folder)
    expected = theirs(tokens()).logits
    assert expected.std() > 0.2, "the logits should differ"
    for source in (theirs, folder, str(folder)):
        ours = LockingDecoderModel.from_huggingface(source).eval()
        assert ours.locked
        assert not ours.attached
        torch.testing.assert_close(ours(tokens()), expected, atol=1e-4, rtol=0)
    locked, encoded = ours(tokens()), encoded_batch()
    ours.attach(CrossAttentionConfig(heads=2, d_q=1, d_k=2, d_v=3, unlock="tanh_gate"), 10)
    ours.unlock()
    assert torch.equal(ours(tokens(), encoded), locked)
    require_same_generation(theirs, ours)
    shake(ours.decoder)
    assert not torch.equal(ours(tokens(), encoded), locked)


def require_same_generation(theirs: Any, ours: LockingDecoderModel) -> None:
    """From a cache, position by position; unlocked cross-attention that adds nothing yet leaves it as it is."""
    theirs.generation_config.eos_token_id, theirs.generation_config.pad_token_id = EOS, PAD
    expected = theirs.generate(torch.full((1, 1), BOS), max_new_tokens=12, min_new_tokens=12, do_sample=False)
    generated = ours.generate(
        encoded_batch(rows=1), bos_id=BOS, eos_id=EOS, pad_id=PAD, max_new_tokens=12, min_new_tokens=12
    )
    assert generated.tolist() == expected[:, 1:].tolist()
