"""The language prior: what it learns, what it never sees, and what it is equivalent to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lockdec.config.building import Builder
from lockdec.evaluation.captioner import EncodedCaptioner
from lockdec.evaluation.configuration import EvaluateConfig
from lockdec.evaluation.controls import ConstantState
from lockdec.evaluation.stored import CROSS_ATTENTION_WEIGHTS, load_captioner, load_decoder, load_prompt, load_tokenizer
from lockdec.pipeline.assembling import Assembly, assemble
from lockdec.stages.evaluate import Evaluate
from lockdec.stages.prior import Prior, attach_vectors
from lockdec.stages.stage import Work
from lockdec.store import Artifact
from lockdec.transformer.models import CrossAttentionConfig, DecoderConfig, Encoded, LockingDecoderModel
from tests.conftest import TinyRun, composed, run_over

SIZES = DecoderConfig(vocab_size=30, max_len=12, d_model=16, layers=3, heads=2, d_ff=32)
CPU = torch.device("cpu")


@pytest.fixture
def stage(assembled: Assembly) -> Prior:
    stage = assembled.stages["prior"]
    assert isinstance(stage, Prior)
    return stage


BUILDER = Builder()  # one, which reads the data once


def prior_key(*overrides: str) -> str:
    return assemble(composed("debug=tiny", "paths.outputs=/nowhere", *overrides), BUILDER).keys["prior"]


@pytest.mark.parametrize("norm", ["pre", "post", "parallel"])
def test_it_is_cross_attention_of_any_size_over_one_state_that_never_changes(norm: str) -> None:
    """With one state, attention has no choice: what a layer adds is W_o W_v c, and the prior learns that vector."""
    torch.manual_seed(0)
    any_size, prior = (LockingDecoderModel(replace(SIZES, norm=norm)).eval() for _ in range(2))
    prior.load_state_dict(any_size.state_dict())
    sizes = CrossAttentionConfig(heads=2, d_q=3, d_k=2, d_v=4, unlock="plain", layers="last_2")
    any_size.attach(sizes, encoder_dim=5)
    any_size.unlock()
    constant = torch.randn(1, 1, 5)
    vectors = attach_vectors(prior, "last_2")
    tokens, one = torch.randint(0, 30, (4, 9)), torch.ones(4, 1, dtype=torch.bool)
    locked = LockingDecoderModel(replace(SIZES, norm=norm)).eval()
    locked.load_state_dict({n: w for n, w in prior.state_dict().items() if ".cross_attention." not in n})
    assert prior(tokens, ConstantState().batch(range(4))).equal(locked(tokens)), "at first it adds nothing"
    with torch.no_grad():
        for name, vector in vectors.items():
            weights = any_size.cross_attention_parameters()
            value = weights[name.replace(".output.", ".value.")]
            vector.copy_((weights[name] @ value @ constant[0, 0])[:, None])
    expected = any_size(tokens, Encoded(constant.expand(4, 1, 5), one))
    assert not torch.allclose(expected, locked(tokens), atol=1e-2)
    torch.testing.assert_close(prior(tokens, ConstantState().batch(range(4))), expected, atol=1e-5, rtol=1e-5)


def test_it_follows_from_the_decoder_and_the_captions_of_the_support_set_alone() -> None:
    same = prior_key()
    encoders = ("encoder.grid=1", "stages.attach.normalise=whiten", "data.resolution=64", "encoder=vae")
    sizes = ("cross_attention.d_k=1", "cross_attention.heads=1", "cross_attention.unlock=rezero", "finetune.steps=3")
    assert {prior_key(one) for one in (*encoders, *sizes)} == {same}
    others = ("fewshot.shots=8", "seed=1", "prior.steps=3", "pretrain.seed=1", "cross_attention.layers=last_1",
              "finetune.prompt=a", "fewshot.references=all", "data.split_seed=1")  # fmt: skip
    assert len({same, *map(prior_key, others)}) == len(others), "here all inputs have one caption: `all` is `one`"


def test_cells_of_other_sizes_and_encoders_share_it(tiny: TinyRun, tmp_path: Path) -> None:
    cell = run_over(tiny, tmp_path, "cell", "cross_attention.d_k=1", "encoder.grid=2")
    assert cell.result["stages"]["prior"]["reused"]
    assert not cell.result["stages"]["attach"]["reused"]


def test_its_vectors_learn_and_nothing_else_does(made: Mapping[str, Artifact], tiny: TinyRun, stage: Prior) -> None:
    weights = load_file(made["prior"].path(CROSS_ATTENTION_WEIGHTS))
    vectors = {name: weight for name, weight in weights.items() if name.endswith(".output.weight")}
    assert {weight.shape for weight in vectors.values()} == {(32, 1)}
    assert len(vectors) == 2
    assert all(weight.any() for weight in vectors.values())
    assert all((weight == 1).all() for name, weight in weights.items() if name.endswith(".value.weight"))
    assert tiny.result["prior"]["parameters"] == 2 * 32


def test_it_predicts_the_captions_that_it_was_taught_better_than_the_locked_decoder(
    made: Mapping[str, Artifact], stage: Prior, assembled: Assembly, tmp_path: Path
) -> None:
    evaluate = assembled.stages["evaluate"]
    assert isinstance(evaluate, Evaluate)
    captioner = blind(made, made["prior"], evaluate.decode)
    taught = [(pair.caption,) for pair in stage.support]
    rows, read = range(len(taught)), captioner.read(taught, tmp_path)
    assert captioner.loss(rows, read) < captioner.loss(rows, read, locked=True) - 0.01


def blind(made: Mapping[str, Artifact], prior: Artifact, decode: EvaluateConfig) -> EncodedCaptioner:
    tokenizer = load_tokenizer(made["pretrain"])
    return EncodedCaptioner(load_captioner(made["pretrain"], prior), tokenizer, ConstantState(), decode, CPU)


def test_it_learns_the_same_from_a_frozen_prefix_after_a_prompt(
    made: Mapping[str, Artifact], stage: Prior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with imported decoders: the prompt is before every caption, and the lower layers run once."""
    upper = replace(stage, prompt="A drawing of", fit=replace(stage.fit, layers="last_1"))
    found = {}
    for name in ("prefix", "plain"):
        if name == "plain":
            monkeypatch.setattr("lockdec.stages.prior.ranks.several", lambda: True)
        folder = tmp_path / name
        folder.mkdir()
        metrics = upper.make(Work("prior", folder, {"pretrain": made["pretrain"]}, [], CPU))
        assert ("prefix_layers" in metrics["prior"]) is (name == "prefix")
        assert metrics["prior"]["parameters"] == 32
        found[name] = load_file(folder / CROSS_ATTENTION_WEIGHTS)
    for name, weight in found["prefix"].items():
        torch.testing.assert_close(weight, found["plain"][name], atol=1e-4, rtol=1e-3)
    prompted = Artifact(tmp_path / "prefix", "prior", "0" * 64, {}, {}, {}, 0.0, False)
    prompt = load_prompt(prompted)
    assert prompt is not None
    assert prompt.text == "A drawing of"


def test_the_decoder_is_left_as_it_was(made: Mapping[str, Artifact]) -> None:
    model, decoder = load_captioner(made["pretrain"], made["prior"]), load_decoder(made["pretrain"])
    model.lock()
    tokens = torch.tensor([[1, 40, 50, 60]])
    assert model(tokens).equal(decoder(tokens))
