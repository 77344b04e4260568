"""Decoders that somebody else pretrained, through the whole pipeline and offline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

import lockdec
from lockdec.caption import main as caption
from lockdec.config.building import Builder
from lockdec.data.openmoji import OpenMoji
from lockdec.data.tokenizer import Tokenizer, pad, real_targets
from lockdec.errors import ConfigError, DataError, LockdecError
from lockdec.evaluation.finished import find_run
from lockdec.evaluation.stored import load_captioner, load_decoder, precision_of
from lockdec.pipeline.assembling import assemble
from lockdec.plugs.writing import write_plug
from lockdec.stages.import_decoder import ImportDecoder
from lockdec.stages.stage import Work
from lockdec.store import Artifact, Store
from lockdec.store.tensors import load_tensors
from lockdec.transformer.decoding.tokens import SpecialTokens
from lockdec.transformer.fast import precision
from tests.conftest import TinyRun, composed, run_tiny
from tests.stages.checkpoints import SAVE
from tests.transformer.importing.gguf_files import write_gguf_of

NAMES = OpenMoji(limit=160).references("train")


@pytest.fixture(scope="session", params=SAVE)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint of each family."""
    folder = tmp_path_factory.mktemp("checkpoint") / str(request.param)
    SAVE[request.param](folder, NAMES)
    return folder


def run_imported(outputs: Path, folder: Path, *overrides: str) -> TinyRun:
    return run_tiny(outputs, "imported", f"decoder={folder.name}", f"decoder.path={folder}", *overrides)


def test_the_whole_pipeline_runs_on_it(checkpoint: Path, tiny: TinyRun) -> None:
    run = run_imported(tiny.outputs, checkpoint)
    assert run.result["status"] == "ok"
    assert run.result["stages"]["attach"]["reused"]
    assert run.result["unlock"] == {"max_abs_logit_delta": 0.0}
    assert run.result["frozen"] == {"encoder_ok": True, "decoder_ok": True}
    assert run.result["metrics"]["loss"] != run.result["controls"]["locked"]["loss"]
    assert Path(run.result["decoder"]["source"]).name == checkpoint.name
    assert run.result["decoder"]["d_model"] == 32
    captions = [json.loads(line) for line in (run.folder / "captions.jsonl").read_text().splitlines()]
    assert len(captions) == 20

    artifact = Store(tiny.outputs / "stages").find("pretrain", run.result["stages"]["pretrain"]["key"])
    assert artifact is not None
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint)
    tokens = torch.arange(40).reshape(2, 20) * 7 % 400
    torch.testing.assert_close(load_decoder(artifact)(tokens), model.eval()(tokens).logits, atol=1e-4, rtol=0)


def test_captions_that_are_longer_than_its_positions_are_refused_before_any_work(
    checkpoint: Path, tmp_path: Path
) -> None:
    config = composed(
        "debug=tiny",
        f"paths.outputs={tmp_path}",
        f"decoder={checkpoint.name}",
        f"decoder.path={checkpoint}",
        "evaluate.max_new_tokens=49",
    )
    with pytest.raises(ConfigError, match=r"^decoder\.max_len=48 is too little for .*evaluate\.max_new_tokens=49"):
        assemble(config, Builder())


def test_its_tokenizer_comes_along(checkpoint: Path, tmp_path: Path) -> None:
    ours, theirs = Tokenizer.from_huggingface(checkpoint), AutoTokenizer.from_pretrained(checkpoint)
    blank = " " if checkpoint.name == "gpt2" else ""  # a word at the start is the same token as one inside
    (alone, (_, *inside)) = ours.encode_batch([NAMES[0], f"a {NAMES[0]}"])
    assert alone == theirs.encode(blank + NAMES[0], add_special_tokens=False) == inside[-len(alone) :]
    gpt2, llama = SpecialTokens(bos=0, eos=0, pad=0), SpecialTokens(bos=1, eos=2, pad=2)
    assert ours.special == {"gpt2": gpt2, "llama": llama}[checkpoint.name]
    texts = [*NAMES, "Zwölf  Boxkämpfer", "<|endoftext|></s>"]
    assert ours.decode_batch(ours.batch(texts, max_len=400)) == texts
    ours.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert (again.special, again.sequences(texts, 30)) == (ours.special, ours.sequences(texts, 30))


@given(st.lists(st.lists(st.integers(3, 9), max_size=6), min_size=1, max_size=5), st.sampled_from([0, 2]))
def test_the_end_is_a_target_and_padding_is_not(texts: list[list[int]], pad_id: int) -> None:
    """Also where the same token pads and ends (pad_id 2)."""
    tokens = pad([[1, *text, 2] for text in texts], pad_id)
    real = real_targets(tokens, eos_id=2)
    assert [tokens[row, 1:][real[row]].tolist() for row in range(len(texts))] == [[*text, 2] for text in texts]


def test_other_weights_are_another_artifact(checkpoint: Path) -> None:
    stage = ImportDecoder(path=str(checkpoint))
    before = stage.fingerprints()
    weights = checkpoint / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert stage.fingerprints() != before
    weights.write_bytes(whole)
    assert stage.fingerprints() == before


def test_where_a_checkpoint_lies_is_no_part_of_the_key(checkpoint: Path, tmp_path: Path, tiny: TinyRun) -> None:
    shutil.copytree(checkpoint, tmp_path / "elsewhere")
    keys = [
        dict(assemble(composed("debug=tiny", f"decoder={checkpoint.name}", f"decoder.path={folder}"), Builder()).keys)
        for folder in (checkpoint, tmp_path / "elsewhere")
    ]
    assert keys[0] == keys[1]


def test_a_gguf_file_is_a_checkpoint(tiny: TinyRun, tmp_path: Path) -> None:
    SAVE["gpt2"](tmp_path / "gpt2", NAMES)
    path = write_gguf_of(tmp_path / "tiny.gguf", tmp_path / "gpt2")
    run = run_tiny(tiny.outputs, "gguf", "decoder=gpt2", f"decoder.path={path}")
    assert run.result["status"] == "ok"
    of_folder, of_file = Tokenizer.from_huggingface(tmp_path / "gpt2"), Tokenizer.from_huggingface(path)
    assert of_file.encode_batch(NAMES) == of_folder.encode_batch(NAMES)
    assert of_file.special == of_folder.special


def test_a_tokenizer_is_the_same_once_it_is_saved(checkpoint: Path, tmp_path: Path) -> None:
    imported = Tokenizer.from_huggingface(checkpoint)
    imported.save(tmp_path / "tokenizer.json")
    assert Tokenizer.load(tmp_path / "tokenizer.json").fingerprint == imported.fingerprint


def test_a_decoder_in_bfloat16_goes_through_the_whole_pipeline(tiny: TinyRun, tmp_path: Path, capsys: Any) -> None:
    SAVE["llama"](tmp_path / "llama", NAMES)
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "llama", dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "llama")
    run = run_imported(tiny.outputs, tmp_path / "llama", "decoder.dtype=bfloat16", "cross_attention.layers=last_1")
    assert run.result["unlock"] == {"max_abs_logit_delta": 0.0}
    assert run.result["frozen"] == {"encoder_ok": True, "decoder_ok": True}
    assert run.result["stages"]["pretrain"]["weights"] == {"bfloat16": 2 * model.num_parameters()}
    trained = run.result["cross_attention"]["parameters"]
    assert run.result["stages"]["finetune"]["weights"] == {"float32": 4 * trained}
    hidden = 2 * run.result["decoder"]["d_model"]  # bytes of a token's states below the highest layer
    assert run.result["finetune"]["prefix_bytes"] % hidden == 0
    assert run.result["metrics"]["loss"] != run.result["controls"]["locked"]["loss"]
    picture = next((run.folder / "drawings").glob("*.png"))
    caption([str(run.folder), str(picture)])
    assert capsys.readouterr().out.strip()
    write_plug(find_run(run.folder), tmp_path / "plug")
    [whole] = lockdec.load(run.folder).caption(picture)
    for decoder in (run.folder, tmp_path / "llama"):  # in bfloat16, too
        [plugged] = lockdec.load(tmp_path / "plug", decoder=decoder).caption(picture)
        assert (plugged.text, plugged.log_prob) == (whole.text, whole.log_prob)
    full = run_imported(tiny.outputs, tmp_path / "llama", "decoder.dtype=bfloat16", "bridge=full")
    assert full.result["frozen"] == {"encoder_ok": True, "decoder_ok": True}
    assert full.result["stages"]["pretrain"]["reused"]
    assert full.result["stages"]["finetune"]["weights"] == {"float32": 4 * full.result["parameters"]["trainable"]}
    assert full.result["controls"]["locked"]["loss"] == run.result["controls"]["locked"]["loss"]


def test_a_run_captions_in_the_precision_in_which_it_was_trained(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """On a machine that would choose another one, too."""
    SAVE["llama"](tmp_path / "llama", NAMES)
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "llama", dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "llama")
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda _: True)
    run = find_run(run_imported(tiny.outputs, tmp_path / "llama").folder)
    assert run.result["finetune"]["dtype"] == run.result["prior"]["dtype"] == "bfloat16"
    write_plug(run, tmp_path / "plug")
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda _: False)
    assert {weight.dtype for weight in load_decoder(*run.decoder).parameters()} == {torch.float32}
    captioner = load_captioner(*run.decoder, run.artifact("finetune"))
    assert precision_of(captioner) == "bfloat16"
    picture = next((run.folder / "drawings").glob("*.png"))
    [whole], [plugged] = (
        lockdec.load(run.folder).caption(picture),
        lockdec.load(tmp_path / "plug", decoder=run.folder).caption(picture),
    )
    assert (plugged.text, plugged.log_prob) == (whole.text, whole.log_prob)
    capsys.readouterr()
    run_imported(tiny.outputs, tmp_path / "llama", "finetune.steps=3")  # here, beside the prior of before
    said = " ".join(capsys.readouterr().out.split())
    assert "the prior is of the decoder in bfloat16, and the captions are of it in float32" in said


@pytest.mark.parametrize(("units", "computed", "atol"), [(False, torch.float32, 1e-4), (True, torch.bfloat16, 0.05)])
def test_half_precision_is_kept_on_disk_and_computed_in_by_a_device_with_units_for_it(
    units: bool, computed: torch.dtype, atol: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda _: units)
    SAVE["llama"](tmp_path / "llama", NAMES)
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "llama", dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "llama")
    (tmp_path / "artifact").mkdir()
    work = Work("pretrain", tmp_path / "artifact", {}, [], torch.device("cpu"))
    ImportDecoder(path=str(tmp_path / "llama")).make(work)
    kept = load_tensors(tmp_path / "artifact" / "decoder.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {torch.bfloat16}
    artifact = Artifact(tmp_path / "artifact", "pretrain", "0" * 64, {}, {}, {}, 0.0, reused=False)
    tokens = torch.arange(40).reshape(2, 20)
    logits = load_decoder(artifact)(tokens)
    assert logits.dtype == computed
    torch.testing.assert_close(logits.float(), model.float().eval()(tokens).logits, atol=atol, rtol=0)


def test_what_cannot_be_imported_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(LockdecError, match=r"decoder\.path=no/where: neither a folder or \.gguf file here nor a model"):
        run_tiny(tmp_path, "nowhere", "decoder=gpt2", "decoder.path=no/where")
    SAVE["gpt2"](tmp_path / "gpt2", NAMES)
    (tmp_path / "gpt2" / "model.safetensors").rename(tmp_path / "gpt2" / "pytorch_model.bin")
    with pytest.raises(LockdecError, match=r"gpt2: weights are read from model\.safetensors, and the folder has only"):
        run_imported(tmp_path, tmp_path / "gpt2")
    assert json.loads((tmp_path / "runs" / "imported" / "result.json").read_text())["stages"] == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"add_cross_attention": True}, "it has cross-attention of its own"),
        ({"vocab_size": 300}, "its tokenizer has 400 tokens, but the decoder knows only 300"),
        ({"activation_function": "silu"}, "activation_function=silu is not supported"),
    ],
)
def test_a_decoder_that_does_not_fit_is_refused(tiny: TinyRun, tmp_path: Path, change: Any, message: str) -> None:
    SAVE["gpt2"](tmp_path / "gpt2", NAMES, **change)
    with pytest.raises(LockdecError, match=message):
        run_imported(tiny.outputs, tmp_path / "gpt2", "pipeline.order=[pretrain]")


def test_a_checkpoint_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    SAVE["gpt2"](tmp_path / "gpt2", NAMES)
    for path in tmp_path.glob("gpt2/tokenizer*"):
        path.unlink()
    with pytest.raises(DataError, match=r"gpt2: no tokenizer in it \(one of: tokenizer.json"):
        Tokenizer.from_huggingface(tmp_path / "gpt2")
