"""Imported decoders compute what `transformers` computes, and generate what its `generate` does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from lockdec.errors import LockdecError
from lockdec.transformer.models import CrossAttentionConfig, Encoded, LockingDecoderModel
from tests.transformer.tiny_transformers import encoded_batch, make_talkative, shake

# The end pads: beam search of transformers takes a padding token of 0 for none.
VOCAB, BOS, EOS, PAD = 31, 1, 2, 2


def gpt2(**changes: Any) -> Any:
    """A tiny GPT-2 of `transformers` with random weights."""
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


LLAMA31 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
NEOX: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 20,
}
CHECKPOINTS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: gpt2(),
    "gpt2, relu, narrow": lambda: gpt2(activation_function="relu", n_inner=20, n_head=2, n_layer=1),
    "gpt2, exact gelu, eps, untied": lambda: gpt2(
        activation_function="gelu", layer_norm_epsilon=1e-3, tie_word_embeddings=False
    ),
    "gpt2, reordered": lambda: gpt2(reorder_and_upcast_attn=True),
    "llama": lambda: shaken(LlamaForCausalLM(LlamaConfig(**llama_sizes()))),
    "llama, wide": lambda: shaken(LlamaForCausalLM(LlamaConfig(**llama_sizes(hidden_size=32, intermediate_size=64)))),
    "llama, tied": lambda: shaken(LlamaForCausalLM(LlamaConfig(**llama_sizes(tie_word_embeddings=True)))),
    "llama, all heads, biases": lambda: shaken(
        LlamaForCausalLM(
            LlamaConfig(**llama_sizes(num_key_value_heads=4, attention_bias=True, mlp_bias=True, rms_norm_eps=1e-3))
        )
    ),
    "llama 3.1": lambda: shaken(
        LlamaForCausalLM(LlamaConfig(**llama_sizes(num_key_value_heads=1, rope_parameters=LLAMA31)))
    ),
    "llama, wide heads": lambda: shaken(LlamaForCausalLM(LlamaConfig(**llama_sizes(head_dim=6)))),
    "mistral": lambda: shaken(MistralForCausalLM(MistralConfig(**llama_sizes(head_dim=8, sliding_window=20)))),
    "qwen3": lambda: shaken(Qwen3ForCausalLM(Qwen3Config(**llama_sizes(head_dim=128)))),
    "smollm3": lambda: shaken(
        SmolLM3ForCausalLM(SmolLM3Config(**llama_sizes(no_rope_layers=[1, 0, 1], pad_token_id=2)))
    ),
    "gemma3": lambda: shaken(
        Gemma3ForCausalLM(
            Gemma3TextConfig(
                **llama_sizes(
                    head_dim=6,
                    sliding_window=20,
                    query_pre_attn_scalar=6,
                    layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                )
            )
        )
    ),
    "neox": lambda: shaken(GPTNeoXForCausalLM(GPTNeoXConfig(**NEOX))),
    "neox, one after the other": lambda: shaken(
        GPTNeoXForCausalLM(GPTNeoXConfig(**NEOX, use_parallel_residual=False, tie_word_embeddings=True))
    ),
    "opt": lambda: shaken(
        OPTForCausalLM(
            OPTConfig(
                vocab_size=VOCAB,
                hidden_size=12,
                word_embed_proj_dim=12,
                ffn_dim=20,
                num_hidden_layers=3,
                num_attention_heads=3,
                max_position_embeddings=20,
                pad_token_id=1,
            )
        )
    ),
    "qwen2": lambda: shaken(Qwen2ForCausalLM(Qwen2Config(**llama_sizes()))),
    "qwen2, tied": lambda: shaken(
        Qwen2ForCausalLM(
            Qwen2Config(
                **llama_sizes(tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 1000.0})
            )
        )
    ),
}


def tokens(rows: int = 3, length: int = 20) -> Tensor:
    """Random tokens."""
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_imported_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    theirs = CHECKPOINTS[name]()
    theirs.save_pretrained(tmp_path)
    expected = theirs(tokens()).logits
    assert expected.std() > 0.2, "the logits should differ"
    for source in (theirs, tmp_path, str(tmp_path)):
        ours = LockingDecoderModel.from_huggingface(source).eval()
        assert ours.locked
        assert not ours.attached
        torch.testing.assert_close(ours(tokens()), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_an_imported_decoder_is_a_locking_decoder(name: str) -> None:
    ours = LockingDecoderModel.from_huggingface(CHECKPOINTS[name]()).eval()
    locked, encoded = ours(tokens()), encoded_batch()
    ours.attach(CrossAttentionConfig(heads=2, d_q=1, d_k=2, d_v=3, unlock="tanh_gate"), 10)
    ours.unlock()
    assert torch.equal(ours(tokens(), encoded), locked)
    shake(ours.decoder)
    assert not torch.equal(ours(tokens(), encoded), locked)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_generation_is_that_of_transformers(name: str) -> None:
    """From a cache, position by position; unlocked cross-attention that adds nothing yet leaves it as it is."""
    theirs = CHECKPOINTS[name]()
    theirs.generation_config.eos_token_id, theirs.generation_config.pad_token_id = EOS, PAD
    ours = LockingDecoderModel.from_huggingface(theirs).eval()
    ours.attach(CrossAttentionConfig(heads=2, d_q=1, d_k=2, d_v=3), 10)
    ours.unlock()
    expected = theirs.generate(torch.full((1, 1), BOS), max_new_tokens=12, min_new_tokens=12, do_sample=False)
    generated = ours.generate(
        encoded_batch(rows=1), bos_id=BOS, eos_id=EOS, pad_id=PAD, max_new_tokens=12, min_new_tokens=12
    )
    assert generated.tolist() == expected[:, 1:].tolist()


def seeing_gpt2(seed: int = 0) -> tuple[Any, LockingDecoderModel, Encoded]:
    """A GPT-2 with cross-attention, the same imported, and something to attend to."""
    theirs = gpt2(add_cross_attention=True)
    shake(theirs, seed)
    make_talkative(theirs.transformer.wte.weight, theirs.transformer.ln_f, EOS, seed)
    theirs.config.bos_token_id = theirs.generation_config.bos_token_id = BOS
    theirs.generation_config.eos_token_id, theirs.generation_config.pad_token_id = EOS, PAD
    return (
        theirs,
        LockingDecoderModel.from_huggingface(theirs).eval(),
        encoded_batch(rows=4, seed=seed, dim=12),
    )


def test_an_unlocked_decoder_is_gpt2_with_cross_attention() -> None:
    theirs, ours, encoded = seeing_gpt2()
    assert not ours.locked
    theirs_sees: dict[str, Tensor] = {
        "encoder_hidden_states": encoded.states,
        "encoder_attention_mask": encoded.mask.long(),
    }
    expected = theirs(tokens(rows=4), **theirs_sees).logits
    torch.testing.assert_close(ours(tokens(rows=4), encoded), expected, atol=1e-4, rtol=0)
    without_encoder = theirs(tokens(rows=4)).logits
    assert (expected - without_encoder).abs().max() > 0.1
    ours.lock()
    torch.testing.assert_close(ours(tokens(rows=4)), without_encoder, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"min_new_tokens": 5},
        {"repetition_penalty": 1.5},
        {"no_repeat_ngram_size": 2},
        {"num_beams": 2},
        {"num_beams": 4},
        {"num_beams": 4, "length_penalty": 0.0},
        {"num_beams": 3, "length_penalty": 2.0},
        {"num_beams": 3, "early_stopping": True},
        {"num_beams": 3, "min_new_tokens": 4, "no_repeat_ngram_size": 2},
        {"num_beams": 3, "repetition_penalty": 1.5, "length_penalty": 0.5},
    ],
)
def test_greedy_and_beam_search_generate_what_transformers_does(options: dict[str, Any]) -> None:
    renamed = {"num_beams": "beams", "no_repeat_ngram_size": "no_repeat_ngram"}
    ends = 0
    for seed in range(4):
        theirs, ours, encoded = seeing_gpt2(seed)
        expected = theirs.generate(
            torch.full((4, 1), BOS),
            encoder_hidden_states=encoded.states,
            encoder_attention_mask=encoded.mask.long(),
            max_new_tokens=10,
            do_sample=False,
            use_cache=False,
            **options,
        )[:, 1:]
        generated = ours.generate(
            encoded,
            bos_id=BOS,
            eos_id=EOS,
            pad_id=PAD,
            max_new_tokens=10,
            strategy="beam" if "num_beams" in options else "greedy",
            **{renamed.get(name, name): value for name, value in options.items()},
        )
        assert generated.tolist() == expected.tolist()
        ends += int((generated == EOS).any(1).sum())
    assert 0 < ends < 16, "some should end and some should not"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gpt2(activation_function="silu"), "activation_function=silu is not supported"),
        (lambda: gpt2(scale_attn_weights=False), "scale_attn_weights=False is not supported"),
        (
            lambda: gpt2(scale_attn_by_inverse_layer_idx=True),
            "scale_attn_by_inverse_layer_idx=True is not supported",
        ),
        (lambda: LlamaForCausalLM(LlamaConfig(**llama_sizes(hidden_act="gelu"))), "hidden_act=gelu is not"),
        (lambda: LlamaForCausalLM(LlamaConfig(**llama_sizes(mlp_bias=True))), "attention_bias=False is not"),
        (
            lambda: LlamaForCausalLM(
                LlamaConfig(**llama_sizes(rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}))
            ),
            "rope_type=linear is not supported",
        ),
        (
            lambda: Qwen2ForCausalLM(Qwen2Config(**llama_sizes(use_sliding_window=True))),
            "use_sliding_window=True is not supported",
        ),
        (lambda: GPT2Model(GPT2Config(n_layer=1, n_embd=12, n_head=3)), "not a language model of a family"),
        (lambda: nn.Linear(2, 2), r"Linear: not a language model of a family .*gpt2, llama, qwen2"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(LockdecError, match=message):
        LockingDecoderModel.from_huggingface(make())


def test_only_safetensors_are_read(tmp_path: Path) -> None:
    theirs = gpt2()
    theirs.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(LockdecError, match=r"read from model\.safetensors, and the folder has only pytorch_model\.bin"):
        LockingDecoderModel.from_huggingface(tmp_path)
    with pytest.raises(LockdecError, match="nowhere: no such file or folder"):
        LockingDecoderModel.from_huggingface(tmp_path / "nowhere")


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    theirs = gpt2()
    weights = {name: tensor for name, tensor in theirs.state_dict().items() if "h.1.ln_2" not in name}
    theirs.save_pretrained(tmp_path, state_dict={k: v for k, v in weights.items() if k != "lm_head.weight"})
    with pytest.raises(
        LockdecError, match=r"the checkpoint lacks transformer.h.1.ln_2.weight, transformer.h.1.ln_2.bias"
    ):
        LockingDecoderModel.from_huggingface(tmp_path)
