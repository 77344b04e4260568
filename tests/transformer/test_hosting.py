"""Language models of transformers, hosted: bit for bit what they were, and with everything that lockdec does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

from lockdec.errors import LockdecError
from lockdec.transformer.autoregressive import Prefix
from lockdec.transformer.fast import Packing, cross_entropy
from lockdec.transformer.hosting import HostedDecoderModel
from lockdec.transformer.models import CrossAttentionConfig, Encoded, LockingDecoderModel, LockingModel
from tests.transformer.tiny_transformers import encoded_batch, make_talkative, shake

VOCAB, BOS, EOS, PAD = 31, 1, 2, 2
LIKE_LLAMA: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 20,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
}
ENDS: dict[str, Any] = {"vocab_size": VOCAB, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}


def made(name: str, **sizes: Any) -> Any:
    """A model of transformers, by the name of its family, with random weights."""
    kind, config = getattr(transformers, f"{name}ForCausalLM"), getattr(transformers, f"{name}Config")
    model = kind(config(**sizes))
    shake(model)
    return model.eval()


NOT_IMPORTED: dict[str, Callable[[], Any]] = {
    "Falcon": lambda: made("Falcon", **ENDS, hidden_size=16, num_hidden_layers=3, num_attention_heads=4, alibi=True),
    "GPT-J": lambda: made("GPTJ", **ENDS, n_embd=16, n_layer=3, n_head=2, rotary_dim=4, n_positions=20),
    "Phi": lambda: made("Phi", **LIKE_LLAMA | {"num_key_value_heads": 4}),
    "BLOOM": lambda: made("Bloom", **ENDS, hidden_size=16, n_layer=3, n_head=4),
    "StableLM": lambda: made("StableLm", **LIKE_LLAMA),
    "OLMo 2": lambda: made("Olmo2", **LIKE_LLAMA),
    "MPT": lambda: made("Mpt", **ENDS, d_model=16, n_layers=3, n_heads=4, max_seq_len=20),
    "Cohere, scaled logits": lambda: made("Cohere", **LIKE_LLAMA),
    "Gemma 2, capped logits": lambda: made("Gemma2", **LIKE_LLAMA, head_dim=4),
    "Mixtral": lambda: made("Mixtral", **LIKE_LLAMA, num_local_experts=2),
}
IMPORTED: dict[str, Callable[[], Any]] = {
    "Llama": lambda: made("Llama", **LIKE_LLAMA),
    "Qwen 3": lambda: made("Qwen3", **LIKE_LLAMA, head_dim=8),
    "GPT-NeoX": lambda: made(
        "GPTNeoX",
        **ENDS,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=20,
    ),
}
FAMILIES = NOT_IMPORTED | IMPORTED


def cross_attention(**changes: Any) -> CrossAttentionConfig:
    return CrossAttentionConfig(**({"heads": 2, "d_q": 1, "d_k": 2, "d_v": 3} | changes))


def tokens(rows: int = 3, length: int = 9) -> Tensor:
    return torch.randint(3, VOCAB, (rows, length), generator=torch.Generator().manual_seed(0))


def trained(host: nn.Module, **changes: Any) -> HostedDecoderModel:
    """A hosted model whose cross-attention has weights as if long trained."""
    model = HostedDecoderModel(host).eval()
    model.attach(cross_attention(**changes), 10)
    model.unlock()
    shake(model.decoder, seed=3)
    return model


@pytest.mark.parametrize("name", FAMILIES)
def test_locked_it_is_the_model_bit_for_bit(name: str) -> None:
    host = FAMILIES[name]()
    expected = host(tokens(), use_cache=False).logits
    assert expected.std() > 0.001, "the logits should differ"
    model = HostedDecoderModel(host).eval()
    assert torch.equal(model(tokens()), expected)
    for unlock in ("zero_output", "tanh_gate", "rezero", "layerscale"):
        model.attach(cross_attention(unlock=unlock), 10)
        model.unlock()
        assert torch.equal(model(tokens(), encoded_batch()), expected)
    shake(model.decoder)
    assert not torch.equal(model(tokens(), encoded_batch()), expected)
    model.lock()
    assert torch.equal(model(tokens()), expected)
    assert torch.equal(host(tokens(), use_cache=False).logits, expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_cache_changes_nothing(name: str) -> None:
    """One token after the other, or the first ones at once, and all at once."""
    model, encoded = trained(FAMILIES[name]()), encoded_batch()
    whole = model(tokens(), encoded)
    for together in (1, 4):
        cache = model.cache(encoded, max_len=9)
        first = model.prefill(tokens()[:, :together], cache)
        steps = [first, *(model.step(tokens()[:, n : n + 1], cache) for n in range(together, 9))]
        torch.testing.assert_close(torch.stack(steps, dim=1), whole[:, together - 1 :], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_locked_greedy_and_beam_search_are_those_of_transformers(name: str) -> None:
    host = FAMILIES[name]()
    model = HostedDecoderModel(host).eval()
    model.attach(cross_attention(), 10)
    model.unlock()
    start = torch.tensor([[BOS, 5, 6]])
    for options in ({}, {"num_beams": 3}):
        expected = host.generate(
            start, max_new_tokens=8, do_sample=False, eos_token_id=EOS, pad_token_id=PAD, **options
        )
        strategy: dict[str, Any] = {"strategy": "beam", "beams": 3} if options else {}
        ours = model.generate(
            encoded_batch(rows=1), bos_id=BOS, eos_id=EOS, pad_id=PAD, prompt=[5, 6], max_new_tokens=8, **strategy
        )
        assert ours.tolist() == expected[:, 3:].tolist()


def talkative() -> HostedDecoderModel:
    """A hosted model some of whose sequences end before others."""
    host = made("Olmo2", **LIKE_LLAMA, tie_word_embeddings=True)
    make_talkative(host.get_input_embeddings().weight, host.model.norm, EOS, seed=1)
    return trained(host)


@pytest.mark.parametrize("strategy", ["greedy", "beam", "nucleus", "top_k"])
@pytest.mark.parametrize("prompt", [[], [5, 6]])
def test_inputs_do_not_depend_on_their_batch(strategy: str, prompt: list[int]) -> None:
    """Rows of the cache are dropped, moved and forked; each input gets what it gets alone."""
    model, encoded = talkative(), encoded_batch(rows=6)
    options: dict[str, Any] = {"bos_id": BOS, "eos_id": EOS, "pad_id": PAD, "max_new_tokens": 10, "prompt": prompt}
    options |= {"strategy": strategy, "beams": 3}
    if strategy in ("nucleus", "top_k"):  # they differ by their noise: all inputs at once draw the same twice
        drawn = [model.generate(encoded, generator=torch.Generator().manual_seed(7), **options) for _ in range(2)]
        assert torch.equal(*drawn)
        return
    together = model.generate(encoded, **options)
    for row in range(6):
        alone = model.generate(Encoded(encoded.states[row : row + 1], encoded.mask[row : row + 1]), **options)
        assert together[row, : alone.shape[1]].tolist() == alone[0].tolist()
    ends = (together == EOS).int().argmax(1).tolist()
    assert len(set(ends)) > 1, "some should end before others"


def test_masked_states_change_nothing_and_others_do() -> None:
    model, encoded = trained(NOT_IMPORTED["Phi"]()), encoded_batch()
    before = model(tokens(), encoded)
    masked = Encoded(encoded.states.masked_fill(~encoded.mask.unsqueeze(2), 9.0), encoded.mask)
    assert torch.equal(model(tokens(), masked), before)
    moved = Encoded(encoded.states + 0.1, encoded.mask)
    assert not torch.equal(model(tokens(), moved), before)


@pytest.mark.parametrize("layers", ["last_1", [0, 2]])
def test_only_the_chosen_layers_attend(layers: Any) -> None:
    model = trained(NOT_IMPORTED["GPT-J"](), layers=layers)
    chosen = {2} if layers == "last_1" else {0, 2}
    assert {int(name.split(".")[2]) for name in model.cross_attention_parameters()} == chosen
    maps = model.attention_maps(tokens(), encoded_batch())
    assert len(maps) == len(chosen)
    assert all(torch.allclose(attended.weights.sum(-1), torch.ones(())) for attended in maps)
    packing = Packing(torch.ones(3, 9, dtype=torch.bool))
    assert torch.equal(
        model.real_hidden(tokens(), packing, encoded_batch())[:27],
        model.hidden(tokens(), encoded_batch()).flatten(0, 1),
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_what_the_frozen_layers_make_of_tokens_is_read_again_bit_for_bit(name: str) -> None:
    model, encoded = trained(FAMILIES[name](), layers="last_1"), encoded_batch()
    assert model.frozen_layers == 2
    whole, maps = model.hidden(tokens(), encoded), model.attention_maps(tokens(), encoded)
    prefix = model.prefix(tokens(), 2)
    assert torch.equal(model.hidden(tokens(), encoded, prefix), whole)
    assert torch.equal(model.attention_maps(tokens(), encoded, prefix)[0].weights, maps[0].weights)
    moved = Prefix(prefix.hidden + 1.0, 2)
    assert not torch.equal(model.hidden(tokens(), encoded, moved), whole), "the states should have been read"
    assert torch.equal(model.hidden(tokens(), encoded), whole), "the layers below should run again"


def test_a_model_that_cannot_continue_from_the_states_below_a_layer_always_runs_as_a_whole() -> None:
    host = made("Phi", **LIKE_LLAMA)
    first, last = host.model.layers[0], host.model.layers[-1]
    first.register_forward_hook(lambda _, given, states: setattr(last, "earlier", states))
    theirs = last.forward
    last.forward = lambda states, **options: theirs(states + last.earlier.mean(), **options)
    model = trained(host, layers="last_1")
    assert model.decoder.below_cross_attention == 2
    assert model.frozen_layers == 0


@pytest.mark.parametrize("name", IMPORTED)
def test_hosted_and_imported_agree_while_locked_and_both_learn_in_a_step(name: str) -> None:
    host = IMPORTED[name]()
    imported, hosted = LockingDecoderModel.from_huggingface(host).eval(), HostedDecoderModel(host).eval()
    torch.testing.assert_close(hosted(tokens()), imported(tokens()), atol=1e-4, rtol=0)
    for model in (imported, hosted):
        assert step_lowers_the_loss(model)


@pytest.mark.parametrize("name", NOT_IMPORTED)
def test_only_cross_attention_learns(name: str) -> None:
    model = HostedDecoderModel(NOT_IMPORTED[name]()).eval()
    before = deepcopy(model.host.state_dict())
    assert step_lowers_the_loss(model)
    assert all(torch.equal(before[key], weight) for key, weight in model.host.state_dict().items())


def step_lowers_the_loss(model: LockingModel) -> bool:
    """Attach, unlock, and take one step of gradient descent."""
    torch.manual_seed(0)
    model.attach(cross_attention(), 10)
    model.unlock()
    model.freeze_decoder()
    learns = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {id(parameter) for parameter in learns} == set(map(id, model.cross_attention_parameters().values()))

    def loss() -> Tensor:
        logits = model(tokens()[:, :-1], encoded_batch())
        return F.cross_entropy(logits.flatten(0, 1), tokens()[:, 1:].flatten())

    before = loss()
    torch.autograd.backward(before)
    with torch.no_grad():
        for parameter in learns:
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=0.1)
    return bool(loss() < before)


def test_a_copy_attends_with_its_own_weights() -> None:
    model = trained(NOT_IMPORTED["StableLM"]())
    copy = deepcopy(model)
    shake(copy.decoder, seed=9)
    assert not torch.equal(copy(tokens(), encoded_batch()), model(tokens(), encoded_batch()))


@pytest.mark.parametrize("name", ["OLMo 2", "BLOOM"])
@pytest.mark.parametrize("ranks", [1, 20])
def test_its_head_gives_the_same_loss_in_parts(name: str, ranks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where other ranks take more parts than there are positions here."""
    model = HostedDecoderModel(FAMILIES[name]()).requires_grad_(False)
    hidden, wanted = model.hidden(tokens()).flatten(0, 1)[:9].requires_grad_(), torch.arange(9)
    gradients = []
    for most in (1 << 24, 3 * VOCAB):
        monkeypatch.setattr(sys.modules[cross_entropy.__module__], "MOST_FROZEN", most)
        loss = cross_entropy(model.logits, hidden, wanted, VOCAB, agreed=lambda needed: max(needed, ranks))
        gradients.append(torch.autograd.grad(loss, hidden)[0])
    torch.testing.assert_close(*gradients)
    assert gradients[0].any()


@pytest.mark.parametrize("name", ["OLMo 2", "Mixtral", "BLOOM"])
def test_a_checkpoint_is_hosted_from_its_folder(name: str, tmp_path: Path) -> None:
    host = FAMILIES[name]()
    host.save_pretrained(tmp_path)
    model = HostedDecoderModel.from_huggingface(tmp_path)
    assert torch.equal(model(tokens()), host(tokens(), use_cache=False).logits)
    model.require_hostable()
    assert not model.attached
    half = HostedDecoderModel.from_huggingface(tmp_path, torch.bfloat16)
    half.attach(cross_attention(), 10)
    half.unlock()
    assert {weight.dtype for weight in half.cross_attention_parameters().values()} == {torch.float32}
    half.lock()
    locked = half(tokens())
    half.unlock()
    assert locked.dtype == torch.bfloat16
    assert torch.equal(half(tokens(), encoded_batch()), locked)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Linear(2, 2), "Linear cannot be hosted: it is not a causal language model of transformers"),
        (
            lambda: made("Mamba", vocab_size=VOCAB, hidden_size=16, num_hidden_layers=3, state_size=4),
            "MambaForCausalLM cannot be hosted: it keeps a state instead of a cache of keys and values",
        ),
        (lambda: made("Phi", **LIKE_LLAMA).model, "PhiModel cannot be hosted: it is not a causal language model"),
    ],
)
def test_what_cannot_be_hosted_is_refused_by_its_class(make: Any, message: str) -> None:
    with pytest.raises(LockdecError, match=message):
        HostedDecoderModel(make())


def test_a_layer_that_is_called_in_another_way_is_refused() -> None:
    host = made("Phi", **LIKE_LLAMA)
    for layer in host.model.layers:
        theirs = layer.forward
        layer.forward = lambda wrapped, theirs=theirs, **options: theirs(wrapped["x"], **options)
        layer.register_forward_pre_hook(lambda _, args: ({"x": args[0]},))
    with pytest.raises(
        LockdecError, match="PhiForCausalLM cannot be hosted: its PhiDecoderLayer takes no hidden states"
    ):
        HostedDecoderModel(host).require_hostable()


def test_files_that_are_too_small_for_their_config_are_refused(tmp_path: Path) -> None:
    made("Phi", **LIKE_LLAMA).save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text().replace('"hidden_size": 16', '"hidden_size": 65536')
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(LockdecError, match=r"its config calls for [\d,]+ weights, and the files hold"):
        HostedDecoderModel.from_huggingface(tmp_path)
