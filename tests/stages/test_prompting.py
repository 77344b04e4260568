"""A prompt: the same words before every caption in training, evaluation, controls and use, and never learned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoTokenizer

import lockdec
from lockdec.config.building import Builder
from lockdec.data.openmoji import OpenMoji
from lockdec.data.tokenizer import Prompt, Tokenizer
from lockdec.encoders.encoded import EncodedSet
from lockdec.errors import ConfigError, StoreError
from lockdec.evaluation.finished import find_run, open_captioner
from lockdec.evaluation.stored import (
    CROSS_ATTENTION_WEIGHTS,
    load_captioner,
    load_decoder,
    load_prompt,
    load_tokenizer,
)
from lockdec.pipeline.assembling import assemble
from lockdec.stages.evaluate import Evaluate
from lockdec.stages.finetune import Finetune
from lockdec.stages.prompting import require_room
from lockdec.store import Artifact, Store
from lockdec.training.batching import CaptionBatch
from tests.conftest import TinyRun, composed, run_over, run_tiny
from tests.stages.checkpoints import save_gpt2, save_llama

PROMPT = "A drawing of"
CHAT = (
    "{% if messages[0].role != 'system' %}{{ '<s>be brief</s>' }}{% endif %}{% for message in messages %}"
    "{{ '<s>' + message.role + ':' + message.content + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant:' }}{% endif %}"
)
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def prompted(tiny: TinyRun) -> TinyRun:
    """The tiny run with a prompt; it shares everything before finetuning with the one without."""
    return run_tiny(tiny.outputs, "prompted", f"finetune.prompt={PROMPT}")


def artifacts(run: TinyRun) -> Mapping[str, Artifact]:
    store = Store(run.outputs / "stages")
    return {name: store.open(name, entry["key"]) for name, entry in run.result["stages"].items()}


def stages_of(run: TinyRun, *overrides: str) -> tuple[Finetune, Evaluate]:
    stages = assemble(composed("debug=tiny", f"paths.outputs={run.outputs}", *overrides), Builder()).stages
    finetune, evaluate = stages["finetune"], stages["evaluate"]
    assert isinstance(finetune, Finetune)
    assert isinstance(evaluate, Evaluate)
    return finetune, evaluate


def kept_captions(run: TinyRun) -> Rows:
    return [json.loads(line) for line in (run.folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()]


def test_it_moves_finetuning_and_what_follows_alone(prompted: TinyRun, tiny: TinyRun) -> None:
    stages, before = prompted.result["stages"], tiny.result["stages"]
    assert {name for name in stages if stages[name]["key"] != before[name]["key"]} == {"finetune", "prior", "evaluate"}
    assert prompted.result["prompt"]["text"] == PROMPT
    assert prompted.result["prompt"]["tokens"] > 2
    one, other = (run["finetune"].path(CROSS_ATTENTION_WEIGHTS) for run in (artifacts(prompted), artifacts(tiny)))
    assert one.read_bytes() != other.read_bytes()


def test_every_caption_of_training_follows_it_and_only_the_caption_is_learned(prompted: TinyRun) -> None:
    """The loss is recomputed here from the logits of the caption's positions alone, one pair at a time."""
    made, (stage, _) = artifacts(prompted), stages_of(prompted, f"finetune.prompt={PROMPT}")
    prompt = load_prompt(made["finetune"])
    assert prompt is not None
    tokenizer = load_tokenizer(made["pretrain"]).with_prompt(prompt)
    model = load_captioner(made["pretrain"], made["unlock"])
    with torch.no_grad():  # so that each position depends on its input
        for weight in model.cross_attention_parameters().values():
            weight.add_(0.1)
    fit = replace(stage.fit, state_noise=0.0, state_dropout=0.0)
    module = replace(stage, fit=fit).module(model, tokenizer.special.eos, len(prompt.tokens))
    pairs, encoded = stage.support[:5], EncodedSet.open(made["attach"].folder)
    tokens = tokenizer.batch([pair.caption for pair in pairs], 48)
    start = [tokenizer.special.bos, *prompt.tokens]
    assert tokens[:, : len(start)].tolist() == [start] * 5
    states = encoded.batch([pair.index for pair in pairs])
    loss = float(module.objective(CaptionBatch(tokens, states, torch.arange(5))))
    total, count = 0.0, 0
    for row, pair in enumerate(pairs):
        ids = tokenizer.encode_batch([pair.caption])[0]
        whole = torch.tensor([[*start, *ids, tokenizer.special.eos]])
        logits = model(whole[:, :-1], states.index(torch.tensor([row])))[0, len(start) - 1 :].detach()
        total += float(F.cross_entropy(logits, whole[0, len(start) :], reduction="sum"))
        count += len(ids) + 1
    assert loss == pytest.approx(total / count, rel=1e-4)


def test_the_locked_control_is_the_plain_decoder_that_continues_the_prompt(prompted: TinyRun) -> None:
    made, (_, evaluate) = artifacts(prompted), stages_of(prompted)
    decoder, tokenizer = load_decoder(made["pretrain"]), load_tokenizer(made["pretrain"])
    tokens = [tokenizer.special.bos, *tokenizer.encode_batch([PROMPT])[0]]
    start = len(tokens)
    while len(tokens) < start + evaluate.decode.max_new_tokens:
        tokens.append(int(decoder(torch.tensor([tokens]))[0, -1].argmax()))
        if tokens[-1] == tokenizer.special.eos:
            break
    assert {row["locked"] for row in kept_captions(prompted)} == {tokenizer.decode(tokens[start:])}


def test_captions_and_losses_are_those_after_the_prompt(prompted: TinyRun) -> None:
    """Greedily, token by token, without any cache."""
    made, (_, evaluate) = artifacts(prompted), stages_of(prompted)
    model, plain = load_captioner(made["pretrain"], made["finetune"]), load_tokenizer(made["pretrain"])
    encoded, total, count = EncodedSet.open(made["attach"].folder), 0.0, 0
    start = [plain.special.bos, *plain.encode_batch([PROMPT])[0]]
    rows = evaluate.data.splits["test"]
    for row, kept in zip(rows, kept_captions(prompted), strict=True):
        states, tokens = encoded.batch([row]), list(start)
        for _ in range(evaluate.decode.max_new_tokens):
            tokens.append(int(model(torch.tensor([tokens]), states)[0, -1].argmax()))
            if tokens[-1] == plain.special.eos:
                break
        assert kept["caption"] == plain.decode(tokens[len(start) :])
        ids = [*plain.encode_batch([kept["references"][0]])[0], plain.special.eos]
        logits = model(torch.tensor([[*start, *ids[:-1]]]), states)[0, len(start) - 1 :].detach()
        total, count = total + float(F.cross_entropy(logits, torch.tensor(ids), reduction="sum")), count + len(ids)
    assert prompted.result["metrics"]["loss"] == pytest.approx(total / count, rel=1e-4)


def test_attention_maps_have_a_grid_for_every_word_of_the_caption_alone(prompted: TinyRun) -> None:
    captions = {row["id"]: row["caption"] for row in kept_captions(prompted)}
    lines = (prompted.folder / "attention.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines
    for found in map(json.loads, lines):
        assert found["words"] == captions[found["id"]].split()
        assert len(found["weights"]) == len(found["words"])


def test_a_finished_run_captions_new_inputs_after_its_prompt(prompted: TinyRun) -> None:
    _, evaluate = stages_of(prompted)
    rows = evaluate.data.splits["test"][:6]
    kept = kept_captions(prompted)[:6]
    assert open_captioner(find_run(prompted.folder)).tokenizer.prompt is not None
    found = lockdec.load(prompted.folder).caption(list(evaluate.data.inputs(rows)))
    assert [caption.text for caption in found] == [row["caption"] for row in kept]


def test_no_prompt_and_no_chat_are_what_a_stage_is_without_them(tiny: TinyRun) -> None:
    keys = assemble(composed("debug=tiny", "finetune.prompt=null", "finetune.chat=false"), Builder()).keys
    assert keys["finetune"] == tiny.result["stages"]["finetune"]["key"]
    named = assemble(composed("debug=tiny", "finetune.prompt='null'"), Builder()).keys
    assert named["finetune"] != keys["finetune"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["finetune.prompt=' '"], r"finetune\.prompt is blank"),
        (["finetune.chat=true"], r"finetune\.chat=true: finetune\.prompt is null"),
        (["finetune.chat=true", "finetune.prompt=Name it."], r"finetune\.chat=true: the decoder has no chat template"),
        (
            ["finetune.prompt='a a a a a a a a'", "evaluate.max_new_tokens=42"],
            r"decoder\.max_len=48 is too little for a prompt of at least 8 tokens and evaluate\.max_new_tokens=42",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        assemble(composed("debug=tiny", *overrides), Builder())


def test_tokens_are_counted_as_soon_as_there_is_a_tokenizer(tiny: TinyRun) -> None:
    finetuned = set(tiny.outputs.glob("stages/finetune/*"))
    words = "xylophone quizzical jovial kumquat zephyr wharf vexing"
    with pytest.raises(ConfigError, match=r"a prompt of at least \d+ tokens and evaluate\.max_new_tokens=24"):
        run_tiny(tiny.outputs, "no_room", f"finetune.prompt='{words}'", "evaluate.max_new_tokens=24")
    assert set(tiny.outputs.glob("stages/finetune/*")) == finetuned


def test_captions_that_are_cut_are_counted(tiny: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "xylophone quizzical jovial kumquat zephyr wharf"  # leaves hardly any room for a caption
    run = run_over(tiny, tmp_path, "cut", f"finetune.prompt='{words}'", "evaluate.max_new_tokens=2")
    cut, pairs = run.result["finetune"]["cut_captions"], run.result["fewshot"]["pairs"]
    assert 0 < cut <= pairs
    printed = " ".join(capsys.readouterr().out.split())
    assert f"finetune: {cut} of {pairs} captions are longer than decoder.max_len=48 leaves room for" in printed
    assert "evaluate: " in printed
    assert "cut_captions" not in tiny.result["finetune"]


def test_prompt_and_caption_have_to_fit() -> None:
    require_room(16, 32, 48)
    with pytest.raises(ConfigError, match=r"decoder\.max_len=48 is too little for a prompt of at least 17 tokens"):
        require_room(17, 32, 48)
    require_room(46, None, 48)
    with pytest.raises(ConfigError, match=r"is too little for a prompt of at least 47 tokens and a caption: shorten"):
        require_room(47, None, 48)


def test_a_prompt_of_another_tokenizer_is_refused(tiny: TinyRun) -> None:
    tokenizer = load_tokenizer(artifacts(tiny)["pretrain"])
    with pytest.raises(StoreError, match=r"49000 is no token of the tokenizer \(0 to 383\)"):
        tokenizer.with_prompt(Prompt("red", (5, 49000), blank=True))


@pytest.mark.parametrize("save", [save_gpt2, save_llama])
def test_its_tokens_and_the_captions_are_those_of_both_in_one_text(save: Any, tmp_path: Path) -> None:
    names = OpenMoji(limit=160).references("train")
    save(tmp_path, names)
    plain = Tokenizer.from_huggingface(tmp_path)
    tokenizer = plain.with_prompt(plain.read_prompt("a drawing of: "))
    for name, sequence in zip(names, tokenizer.sequences(names, 99), strict=True):
        whole = plain.encode_batch([f"a drawing of: {name}"])[0]
        assert sequence == [plain.special.bos, *whole, plain.special.eos]
        assert tokenizer.decode(sequence) == name


def test_a_chat_model_is_asked_in_its_own_template(tiny: TinyRun, tmp_path: Path) -> None:
    """Rendered and tokenised by transformers; an EOS inside the template ends nothing."""
    names = OpenMoji(limit=160).references("train")
    folder = tmp_path / "llama"
    save_llama(folder, names)
    theirs: Any = AutoTokenizer.from_pretrained(folder)
    theirs.chat_template = CHAT
    theirs.save_pretrained(folder)
    imported = ("decoder=llama", f"decoder.path={folder}", "finetune.prompt=Name it.", "finetune.chat=true")
    run = run_tiny(tiny.outputs, "chat", *imported)
    prompt, made = load_prompt(artifacts(run)["finetune"]), artifacts(run)
    assert prompt is not None
    asked = theirs.apply_chat_template(
        [{"role": "user", "content": "Name it."}], add_generation_prompt=True, return_dict=False
    )
    assert [theirs.bos_token_id, *prompt.tokens] == asked
    assert theirs.eos_token_id in prompt.tokens
    tokenizer = load_tokenizer(made["pretrain"]).with_prompt(prompt)
    assert tokenizer.decode(tokenizer.sequences(["red hat"], 99)[0]) == "red hat"
    assert run.result["metrics"]["loss"] > 0
    assert any(row["caption"] for row in kept_captions(run))


def test_the_data_says_which_words_suit_an_imported_decoder(tiny: TinyRun, tmp_path: Path) -> None:
    save_gpt2(tmp_path / "gpt2", OpenMoji(limit=160).references("train"))
    imported = ("decoder=gpt2", f"decoder.path={tmp_path / 'gpt2'}")
    assert stages_of(tiny, *imported)[0].prompt == "A drawing of:"
    assert stages_of(tiny, *imported, "finetune.prompt=null")[0].prompt is None
    assert stages_of(tiny)[0].prompt is None, "a decoder pretrained on captions needs none"
    with pytest.raises(ConfigError, match="the decoder has no chat template"):
        run_tiny(tiny.outputs, "no_chat", *imported, "finetune.chat=true")
