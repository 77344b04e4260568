"""Generation equals its definition, computed anew at every step, for every strategy; yet nothing is repeated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast
from unittest.mock import patch

import pytest
import torch
from jaxtyping import config
from torch import Tensor, nn
from torch.nn import functional as F

from lockdec.errors import LockdecError
from lockdec.transformer.attention import MultiHeadAttention
from lockdec.transformer.layers import LockingDecoderLayer
from lockdec.transformer.models import (
    AutoregressiveModel,
    Encoded,
    TransformerModel,
)
from tests.transformer.tiny_transformers import (
    BOS,
    EOS,
    IDS,
    PAD,
    VOCAB,
    captioner,
    decoder_config,
    encoded_batch,
    encoder_config,
    final_norm,
    shake,
    token_batch,
)

STRATEGIES: list[dict[str, Any]] = [
    {"strategy": "greedy"},
    {"strategy": "beam", "beams": 1},
    {"strategy": "beam", "beams": 3},
    {"strategy": "beam", "beams": 4, "length_penalty": 0.0},
    {"strategy": "beam", "beams": 3, "length_penalty": 2.5},
    {"strategy": "beam", "beams": 3, "early_stopping": True},
    {"strategy": "nucleus", "top_p": 0.8},
    {"strategy": "nucleus", "top_p": 1.0, "temperature": 0.5},
    {"strategy": "top_k", "top_k": 5, "temperature": 2.0},
]
LIMITS: list[dict[str, Any]] = [
    {},
    {"min_new_tokens": 4},
    {"repetition_penalty": 1.3, "no_repeat_ngram": 2},
]


STYLES: list[dict[str, Any]] = [
    {"position": "sinusoidal"},
    {"position": "rope", "norm_kind": "rms", "kv_heads": 1, "activation": "swiglu", "bias": "none"},
]

Scoring = Callable[[list[list[int]]], list[Tensor]]


@contextmanager
def unchecked() -> Iterator[None]:
    """Without the checks of shapes, which take most of the time of so small a model; `generate` runs with them."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


def next_scores(
    model: AutoregressiveModel,
    encoded: Encoded,
    pasts: list[list[int]],
    options: dict[str, Any],
    prompt: list[int],
) -> list[Tensor]:
    """What the next token of one input's unfinished sequences is chosen by, computed anew.

    The prompt is read after BOS; repetitions of it are none.
    """
    crowd = encoded.index(torch.zeros(len(pasts), dtype=torch.long))
    with torch.no_grad(), unchecked():
        logits: Tensor = model(torch.tensor([[*past[:1], *prompt, *past[1:]] for past in pasts]), crowd)
    rows = list(logits[:, -1].log_softmax(-1) if options["strategy"] == "beam" else logits[:, -1])
    factor, size = options.get("repetition_penalty", 1.0), options.get("no_repeat_ngram", 0)
    for past, scores in zip(pasts, rows, strict=True):
        for token in set(past):
            scores[token] = scores[token] * factor if scores[token] < 0 else scores[token] / factor
        generated = {tuple(past[i : i + size]) for i in range(len(past) - size + 1)} if size else set()
        for token in range(VOCAB):
            if (*past[len(past) - size + 1 :], token) in generated:
                scores[token] = -math.inf
        if len(past) - 1 < options.get("min_new_tokens", 0):
            scores[EOS] = -math.inf
    return rows


def choose_greedily(scores: Tensor, noise: float, options: dict[str, Any]) -> int:
    """The likeliest token; or where a uniform number falls among the likeliest tokens, best first."""
    if options["strategy"] == "greedy":
        return int(scores.argmax())
    probability = (scores.double() / options.get("temperature", 1.0)).softmax(-1).tolist()
    ranking = sorted(range(len(probability)), key=lambda token: -probability[token])
    kept: list[int] = []
    mass = 0.0
    for token in ranking:
        enough = mass >= options["top_p"] if "top_p" in options else len(kept) == options["top_k"]
        if enough:
            break
        kept.append(token)
        mass += probability[token]
    passed = 0.0
    for token in kept:
        passed += probability[token]
        if noise * mass < passed:
            return token
    return kept[-1]


def one_by_one(score: Scoring, noise: list[float], options: dict[str, Any]) -> list[int]:
    """Greedy search or sampling of one row."""
    past = [BOS]
    while len(past) <= len(noise) and past[-1] != EOS:
        past.append(choose_greedily(score([past])[0], noise[len(past) - 1], options))
    return past[1:]


def beam_by_definition(score: Scoring, longest: int, options: dict[str, Any]) -> list[list[int]]:
    """Beam search of one row, one sequence at a time: its finished sequences, best first."""
    beams, penalty = options["beams"], options.get("length_penalty", 1.0)
    unfinished, finished = [(0.0, [BOS])], []
    for length in range(1, longest + 1):
        candidates = []
        gained = score([past for _, past in unfinished])
        for (value, past), gains in zip(unfinished, gained, strict=True):
            candidates += [(value + float(gains[token]), [*past, token]) for token in range(VOCAB)]
        candidates = sorted(candidates, key=lambda pair: -pair[0])[: 2 * beams]
        going = []
        for rank, (value, past) in enumerate(candidates):
            if past[-1] == EOS or length == longest:
                if rank < beams:
                    finished.append((value / length**penalty, past))
            else:
                going.append((value, past))
        finished = sorted(finished, key=lambda pair: -pair[0])[:beams]
        unfinished = going[:beams]
        if length < longest and len(finished) == beams:
            hope = unfinished[0][0] / length**penalty
            if options.get("early_stopping", False) or hope <= finished[-1][0]:
                break
    return [sequence[1:] for _, sequence in finished]


def by_definition(
    model: AutoregressiveModel,
    encoded: Encoded,
    longest: int,
    seed: int,
    options: dict[str, Any],
    prompt: list[int] | None = None,
) -> list[list[int]]:
    """What `generate` has to return, without padding."""
    noise = torch.rand(longest, len(encoded), generator=torch.Generator().manual_seed(seed))
    rows = []
    for row in range(len(encoded)):
        one = encoded.index(torch.tensor([row]))

        score = partial(next_scores, model, one, options=options, prompt=prompt or [])
        if options["strategy"] == "beam":
            rows.append(beam_by_definition(score, longest, options)[0])
        else:
            rows.append(one_by_one(score, noise[:, row].tolist(), options))
    return rows


def unpadded(tokens: Tensor) -> list[list[int]]:
    """Each row up to and with its end."""
    rows: list[list[int]] = tokens.tolist()
    kept = [row[: row.index(EOS) + 1] if EOS in row else row for row in rows]
    assert all(set(row[len(short) :]) <= {PAD} for row, short in zip(rows, kept, strict=True))
    assert max(len(short) for short in kept) == tokens.shape[1], "a column of padding only"
    return kept


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_generation_equals_its_definition(strategy: dict[str, Any], limits: dict[str, Any]) -> None:
    options = strategy | limits
    lengths: set[int] = set()
    for seed in range(2):
        model, encoded = captioner(seed), encoded_batch(rows=4, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        generated = model.generate(encoded, **IDS, max_new_tokens=8, generator=generator, **options)
        assert unpadded(generated) == by_definition(model, encoded, 8, seed, options)
        lengths.update(map(len, unpadded(generated)))
    assert len(lengths) > 1, "the cases should differ in when they end"


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("style", STYLES)
def test_every_kind_of_decoder_generates_from_its_cache(style: dict[str, Any], norm: str) -> None:
    model, encoded = captioner(norm=norm, **style), encoded_batch(rows=4)
    for options in ({"strategy": "greedy"}, {"strategy": "beam", "beams": 3}):
        generated = model.generate(encoded, **IDS, max_new_tokens=8, **options)
        assert unpadded(generated) == by_definition(model, encoded, 8, 0, options)


@pytest.mark.parametrize(
    ("strategy", "limits"), [(strategy, LIMITS[number % len(LIMITS)]) for number, strategy in enumerate(STRATEGIES)]
)
def test_what_follows_a_prompt_equals_its_definition(strategy: dict[str, Any], limits: dict[str, Any]) -> None:
    """Also where an EOS stands in the prompt, as in that of a chat model."""
    options, prompt = strategy | limits, [5, EOS, 9, 9]
    model, encoded = captioner(1), encoded_batch(rows=4, seed=1)
    generator = torch.Generator().manual_seed(1)
    generated = model.generate(encoded, **IDS, max_new_tokens=8, generator=generator, prompt=prompt, **options)
    assert unpadded(generated) == by_definition(model, encoded, 8, 1, options, prompt)


@pytest.mark.parametrize("attending", ["all", "last_1"])
@pytest.mark.parametrize("style", STYLES)
def test_every_kind_of_decoder_reads_a_prompt(style: dict[str, Any], attending: str) -> None:
    model, encoded, prompt = captioner(0, attending, **style), encoded_batch(rows=4), list(range(3, 10))
    for options in ({"strategy": "greedy"}, {"strategy": "beam", "beams": 3}):
        generated = model.generate(encoded, **IDS, max_new_tokens=8, prompt=prompt, **options)
        assert unpadded(generated) == by_definition(model, encoded, 8, 0, options, prompt)


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_sequences_are_as_likely_as_the_model_says(strategy: dict[str, Any], limits: dict[str, Any]) -> None:
    """Also where something was ruled out."""
    options, prompt = strategy | limits, [5, EOS, 9]
    model, encoded, keep = captioner(1), encoded_batch(rows=4, seed=1), options.get("beams", 3)
    generator = torch.Generator().manual_seed(1)
    found = model.generate_several(
        encoded, keep, **IDS, max_new_tokens=6, generator=generator, prompt=prompt, **options
    )
    wanted, sequences = list[float](), unpadded(found.tokens.flatten(0, 1))
    for place, ids in enumerate(sequences):
        with torch.no_grad():
            logits = model(torch.tensor([[BOS, *prompt, *ids[:-1]]]), encoded.index(torch.tensor([place // keep])))
        wanted.append(-float(F.cross_entropy(logits[0, len(prompt) :], torch.tensor(ids), reduction="sum")))
    torch.testing.assert_close(found.log_probs.flatten(), torch.tensor(wanted), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_prefill_equals_reading_token_by_token(beams: int) -> None:
    model, encoded = captioner(max_len=64), encoded_batch(rows=4)
    prompt = torch.tensor([[BOS, *range(3, 22)]]).expand(4, -1)  # more than one piece of the cache
    with torch.inference_mode():
        filled, stepped = (model.cache(encoded, 40, beams) for _ in range(2))
        at_once = model.prefill(prompt, filled).repeat_interleave(beams, 0)
        for place in range(prompt.shape[1]):
            last = model.step(prompt[:, place : place + 1].repeat_interleave(beams, 0), stepped)
        torch.testing.assert_close(at_once, last, atol=1e-5, rtol=1e-5)
        for token in range(3, 6):
            following = torch.full((4 * beams, 1), token)
            torch.testing.assert_close(
                model.step(following, filled), model.step(following, stepped), atol=1e-5, rtol=1e-5
            )


@pytest.mark.parametrize("beams", [1, 3])
def test_a_prompt_is_read_once_in_a_single_pass(beams: int) -> None:
    model, encoded, read = captioner(1), encoded_batch(rows=4, seed=1), list[tuple[int, ...]]()
    model.embedding.tokens.register_forward_hook(lambda _, inputs, __: read.append(tuple(inputs[0].shape)))
    model.generate(encoded, **IDS, max_new_tokens=3, prompt=[5, 6, 7], strategy="beam", beams=beams)
    assert read[0] == (1, 4), "BOS and the prompt, once for all inputs and their beams"
    assert all(shape[1] == 1 for shape in read[1:])
    assert len(read) <= 3


def test_a_prompt_is_read_once_below_the_layers_that_attend() -> None:
    model, encoded, rows = captioner(1, "last_1"), encoded_batch(rows=4, seed=1), list[list[int]]()
    for layer in model.decoder.layers:
        rows.append([])
        layer.register_forward_hook(lambda _, __, hidden, seen=rows[-1]: seen.append(len(hidden)))
    model.generate(encoded, **IDS, max_new_tokens=2, min_new_tokens=2, prompt=[5, 6, 7])
    assert [seen[0] for seen in rows] == [1] * (len(rows) - 1) + [4]
    assert all(seen[1] == 4 for seen in rows)


def test_a_prompt_takes_room() -> None:
    model, encoded = captioner(max_len=16), encoded_batch(rows=2)
    assert model.generate(encoded, **IDS, max_new_tokens=12, min_new_tokens=12, prompt=[5] * 4).shape == (2, 12)
    with pytest.raises(LockdecError, match=r"a sequence of 17 tokens is longer than decoder\.max_len=16"):
        model.generate(encoded, **IDS, max_new_tokens=12, prompt=[5] * 5)


def test_the_best_of_a_beam_search_are_kept_in_their_order() -> None:
    model, encoded = captioner(), encoded_batch()
    options: dict[str, Any] = {"strategy": "beam", "beams": 4}
    found = model.generate_several(encoded, 3, max_new_tokens=6, **IDS, **options)
    for row, sequences in enumerate(found.tokens):
        one = encoded.index(torch.tensor([row]))
        score = partial(next_scores, model, one, options=options, prompt=[])
        assert unpadded(sequences) == beam_by_definition(score, 6, options)[:3]
    with pytest.raises(LockdecError, match=r"generation\.beams=4: too few to keep 5 sequences"):
        model.generate_several(encoded, 5, max_new_tokens=6, **IDS, **options)


def test_beams_that_do_not_exist_are_as_unlikely_as_can_be() -> None:
    found = captioner().generate_several(encoded_batch(), 25, max_new_tokens=1, **IDS, strategy="beam", beams=25)
    real = found.log_probs > -math.inf
    assert real.sum(1).tolist() == [VOCAB] * len(real)
    for tokens, exist in zip(found.tokens, real, strict=True):
        assert sorted(tokens[exist].flatten().tolist()) == list(range(VOCAB))


def test_several_draws_of_an_input_are_drawn_apart() -> None:
    model, encoded = captioner(), encoded_batch()
    options: dict[str, Any] = {"strategy": "nucleus", "top_p": 1.0, "temperature": 3.0, "max_new_tokens": 6}
    several = model.generate_several(encoded, 5, generator=torch.Generator().manual_seed(0), **IDS, **options)
    apart = encoded.index(torch.arange(len(encoded)).repeat_interleave(5))
    alone = model.generate(apart, generator=torch.Generator().manual_seed(0), **IDS, **options)
    assert torch.equal(several.tokens.flatten(0, 1), alone)
    assert len({tuple(tokens) for tokens in several.tokens[0].tolist()}) > 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_finished_sequences_may_stay_in_the_batch(strategy: dict[str, Any]) -> None:
    model, encoded = captioner(1), encoded_batch(rows=4, seed=1)
    rows: dict[float, list[int]] = {}
    results = []
    for share in (0.0, 0.99):  # nothing is dropped; everything at once
        rows[share] = []
        hook = model.embedding.tokens.register_forward_hook(
            lambda _, inputs, __, seen=rows[share]: seen.append(len(inputs[0]))
        )
        with patch("lockdec.transformer.decoding.tokens.ACTIVE", share):
            generator = torch.Generator().manual_seed(3)
            results.append(model.generate(encoded, **IDS, max_new_tokens=8, generator=generator, **strategy))
        hook.remove()
    assert torch.equal(*results)
    assert len(set(rows[0.0])) == 1
    assert len(set(rows[0.99])) > 1


def test_the_joined_transformer_generates_like_its_decoder() -> None:
    sizes: dict[str, Any] = {"norm": "post", "position": "sinusoidal", "activation": "relu"}
    model = TransformerModel(encoder_config(**sizes), decoder_config(**sizes)).eval()
    shake(model)
    source = token_batch()
    source[1, 4:] = PAD
    encoded = model.encode(source)
    assert torch.equal(encoded.mask, source != PAD)
    for options in ({"strategy": "greedy"}, {"strategy": "beam", "beams": 3}):
        generated = model.generate(source, **IDS, max_new_tokens=8, **options)
        assert unpadded(generated) == by_definition(model.decoder, encoded, 8, 0, options)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_row_does_not_depend_on_the_other_rows(strategy: dict[str, Any]) -> None:
    model, encoded, other = captioner(), encoded_batch(rows=4), encoded_batch(rows=4, seed=9)
    mixed = Encoded(torch.cat((encoded.states[:2], other.states[2:])), torch.cat((encoded.mask[:2], other.mask[2:])))
    results = []
    for batch in (encoded, mixed):
        generator = torch.Generator().manual_seed(3)
        results.append(unpadded(model.generate(batch, **IDS, max_new_tokens=8, generator=generator, **strategy)))
    assert results[0][:2] == results[1][:2]
    assert results[0][2:] != results[1][2:]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_ngram_is_repeated(strategy: dict[str, Any]) -> None:
    model, encoded = captioner(), encoded_batch(rows=5)
    for size in (1, 2, 3):
        for row in unpadded(model.generate(encoded, **IDS, max_new_tokens=16, no_repeat_ngram=size, **strategy)):
            row = [BOS, *row]
            ngrams = [tuple(row[i : i + size]) for i in range(len(row) - size + 1)]
            assert len(ngrams) == len(set(ngrams))


def test_nothing_is_computed_twice() -> None:
    model, encoded, longest = captioner(1), encoded_batch(rows=4, seed=1), 8
    projected: list[int] = []
    embedded: list[tuple[int, ...]] = []
    for module in model.modules():
        if isinstance(module, MultiHeadAttention):
            module.key.register_forward_hook(lambda _, inputs, __: projected.append(len(inputs[0])))
    model.embedding.tokens.register_forward_hook(lambda _, inputs, __: embedded.append(tuple(inputs[0].shape)))
    lengths = [len(row) for row in unpadded(model.generate(encoded, **IDS, max_new_tokens=longest))]
    assert projected == [4, 4], "keys are projected once per layer and input"
    going = [sum(length > step for length in lengths) for step in range(max(lengths))]
    assert embedded == [(rows, 1) for rows in going], "one token per step, of the active sequences"
    assert going[0] > going[-1]
    projected.clear()
    model.generate(encoded, **IDS, strategy="beam", beams=3, max_new_tokens=longest)
    assert projected == [4, 4], "beams share their input's keys"


def test_it_stops_when_every_sequence_is_finished() -> None:
    model = captioner()
    steps: list[int] = []
    with torch.no_grad():  # the end is the likeliest token everywhere
        model.embedding.tokens.weight.zero_()
        final_norm(model).weight.zero_()
        cast(nn.LayerNorm, final_norm(model)).bias.fill_(1.0)
        model.embedding.tokens.weight[EOS] = 1.0
    model.embedding.tokens.register_forward_hook(lambda *_: steps.append(1))
    generated = model.generate(encoded_batch(), **IDS, max_new_tokens=12)
    assert torch.equal(generated, torch.full((3, 1), EOS))
    assert len(steps) == 1
    assert model.generate(encoded_batch(), **IDS, max_new_tokens=12, min_new_tokens=5).shape == (3, 6)


def test_a_locked_model_generates_the_same_for_every_input() -> None:
    model = captioner()
    model.lock()
    generated = model.generate(encoded_batch(rows=4), **IDS, max_new_tokens=9)
    assert torch.equal(generated, model.generate(encoded_batch(rows=4, seed=8, dim=3), **IDS, max_new_tokens=9))
    assert (generated == generated[0]).all()
    beams = model.generate(encoded_batch(rows=4), **IDS, strategy="beam", max_new_tokens=9)
    assert (beams == beams[0]).all()


def test_only_sampling_draws_random_numbers() -> None:
    model, encoded = captioner(), encoded_batch()
    for options, draws in (("greedy", False), ("beam", False), ("nucleus", True), ("top_k", True)):
        state = torch.get_rng_state()
        model.generate(encoded, **IDS, max_new_tokens=4, strategy=options)
        assert torch.equal(torch.get_rng_state(), state) != draws


def log_probability(model: AutoregressiveModel, encoded: Encoded, generated: Tensor) -> Tensor:
    """Of each generated sequence in 32 bits, over its length."""
    begun = torch.cat((torch.full((len(generated), 1), BOS), generated), dim=1)
    with torch.no_grad():
        gains = model(begun[:, :-1], encoded).log_softmax(-1).gather(2, generated.unsqueeze(2)).squeeze(2)
    real = (begun[:, :-1] != EOS).cumprod(1)
    return cast(Tensor, (gains * real).sum(1) / real.sum(1))


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("strategy", [{"strategy": "greedy"}, {"strategy": "beam", "beams": 3}])
def test_16_bits_find_sequences_as_likely_as_32_bits_do(strategy: dict[str, Any], whole: bool) -> None:
    """Under autocast and by a model that is all of 16 bits."""
    model, encoded, exact = captioner(), encoded_batch(rows=16, states=20), captioner()
    expected = log_probability(exact, encoded, exact.generate(encoded, **IDS, max_new_tokens=8, **strategy))
    seen = Encoded(encoded.states.bfloat16(), encoded.mask) if whole else encoded
    if whole:
        model.bfloat16()
    found: set[torch.dtype] = set()
    first = cast(LockingDecoderLayer, model.decoder.layers[0])
    first.feed_forward.output.register_forward_hook(lambda _, __, out: found.add(out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not whole):
        generated = model.generate(seen, **IDS, max_new_tokens=8, **strategy)
    assert found == {torch.bfloat16}
    assert (log_probability(exact, encoded, generated) - expected).abs().mean() < 0.02
    other = log_probability(exact, encoded, generated.roll(1, dims=0))
    assert (other - expected).abs().mean() > 0.05, "sequences of other inputs should be less likely"


def test_generated_tokens_may_be_trained_on() -> None:
    model, encoded = captioner(), encoded_batch()
    model(model.generate(encoded, **IDS, max_new_tokens=9), encoded).sum().backward()


def test_sequences_longer_than_the_model_are_refused_before_any_work() -> None:
    with pytest.raises(LockdecError, match=r"17 tokens is longer than decoder.max_len=16"):
        captioner().generate(encoded_batch(), **IDS, max_new_tokens=17)
    assert captioner().generate(encoded_batch(), **IDS, max_new_tokens=16).shape[1] <= 16
