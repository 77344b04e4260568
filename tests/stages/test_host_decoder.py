"""Language models of families that are not imported, hosted through the whole pipeline and offline."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, FalconConfig, FalconForCausalLM, PhiConfig, PhiForCausalLM

import lockdec
from lockdec.caption import main as caption
from lockdec.data.openmoji import OpenMoji
from lockdec.errors import ConfigError, LockdecError
from lockdec.evaluation.finished import find_run
from lockdec.evaluation.stored import load_decoder
from lockdec.export import export
from lockdec.plugs.writing import write_plug
from lockdec.store import Store
from lockdec.transformer.fast import precision
from tests.conftest import TinyRun, run_tiny
from tests.stages.checkpoints import save_gpt2, save_llama

NAMES = OpenMoji(limit=160).references("train")


def save_falcon(folder: Path) -> None:
    """A Falcon with relative positions, in bfloat16, with the tokenizer of a GPT-2."""
    save_gpt2(folder, NAMES)
    sizes: dict[str, Any] = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"bos_token_id": 0, "eos_token_id": 0}
    torch.manual_seed(0)
    FalconForCausalLM(FalconConfig(**sizes, alibi=True)).bfloat16().save_pretrained(folder)


def save_phi(folder: Path) -> None:
    """A Phi, with the tokenizer of a Llama."""
    save_llama(folder, NAMES)
    sizes: dict[str, Any] = {"vocab_size": 410, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "max_position_embeddings": 48}
    torch.manual_seed(0)
    PhiForCausalLM(PhiConfig(**sizes)).save_pretrained(folder)


SAVE: dict[str, Callable[[Path], None]] = {"falcon": save_falcon, "phi": save_phi}


@pytest.fixture(scope="session", params=SAVE)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint of a family that is not imported."""
    folder = tmp_path_factory.mktemp("hosted") / str(request.param)
    SAVE[request.param](folder)
    return folder


def run_hosted(outputs: Path, folder: Path, *overrides: str) -> TinyRun:
    return run_tiny(outputs, f"hosted_{folder.name}", "decoder=hosted", f"decoder.path={folder}", *overrides)


def test_the_whole_pipeline_runs_on_it(
    checkpoint: Path, tiny: TinyRun, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda _: False)  # a Falcon's own would be computed so
    run = run_hosted(tiny.outputs, checkpoint, "cross_attention.layers=last_1")
    assert run.result["status"] == "ok"
    assert run.result["finetune"]["prefix_layers"] == 1
    assert run.result["unlock"] == {"max_abs_logit_delta": 0.0}
    assert run.result["frozen"] == {"encoder_ok": True, "decoder_ok": True}
    assert run.result["metrics"]["loss"] != run.result["controls"]["locked"]["loss"]
    assert run.result["decoder"]["hosted"]
    assert run.result["decoder"]["d_model"] == 32
    assert len((run.folder / "captions.jsonl").read_text().splitlines()) == 20

    artifact = Store(tiny.outputs / "stages").find("pretrain", run.result["stages"]["pretrain"]["key"])
    assert artifact is not None
    theirs: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    tokens = torch.arange(40).reshape(2, 20) * 7 % 400
    assert torch.equal(load_decoder(artifact)(tokens), theirs.eval()(tokens, use_cache=False).logits)

    trained = tiny.outputs / "stages" / "finetune" / run.result["stages"]["finetune"]["key"]
    assert sum(path.stat().st_size for path in trained.iterdir()) < 100_000
    export(run.folder, tmp_path / "exported")
    shutil.copytree(tmp_path / "exported", tmp_path / "elsewhere")
    text = tmp_path / "picture.png"
    picture(text)
    spoken = [captioned(folder, text, capsys) for folder in (run.folder, tmp_path / "elsewhere")]
    assert spoken[0] == spoken[1]
    write_plug(find_run(run.folder), tmp_path / "plug")
    [plugged] = lockdec.load(tmp_path / "plug", decoder=checkpoint).caption(text)
    assert plugged == lockdec.load(run.folder).caption(text)[0]


def picture(path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (72, 72), "orange").save(path)


def captioned(folder: Path, path: Path, capsys: Any) -> str:
    capsys.readouterr()
    caption([str(folder), str(path)])
    return str(capsys.readouterr().out)


def test_its_files_are_linked_and_not_copied(checkpoint: Path, tiny: TinyRun, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "moved")
    only = "pipeline.order=[pretrain]"
    run = run_hosted(tmp_path, tmp_path / "moved", only)
    weights = next((tmp_path / "stages" / "pretrain").glob("*/hosted/model.safetensors"))
    assert weights.stat().st_ino == (tmp_path / "moved" / "model.safetensors").stat().st_ino
    shutil.rmtree(tmp_path / "moved")
    shutil.copytree(checkpoint, tmp_path / "back")
    again = run_hosted(tmp_path, tmp_path / "back", only)
    assert again.result["stages"]["pretrain"]["reused"]
    assert again.result["stages"]["pretrain"]["key"] == run.result["stages"]["pretrain"]["key"]


def test_the_same_family_hosted_and_imported_is_equal_while_locked(tiny: TinyRun, tmp_path: Path) -> None:
    save_llama(tmp_path / "llama", NAMES)
    losses = []
    for kind in ("hosted", "llama"):
        run = run_tiny(tiny.outputs, f"{kind}_both", f"decoder={kind}", f"decoder.path={tmp_path / 'llama'}")
        losses.append(run.result["controls"]["locked"]["loss"])
        captions = [json.loads(line)["locked"] for line in (run.folder / "captions.jsonl").read_text().splitlines()]
        assert len(set(captions)) == 1
        losses.append(captions[0])
    assert losses[0] == pytest.approx(losses[2], abs=1e-5)
    assert losses[1] == losses[3]


def test_what_cannot_be_hosted_is_refused_in_one_line(tiny: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    with pytest.raises(ConfigError, match=r"tiny.gguf: a .gguf file cannot be hosted; import it \(decoder=llama\)"):
        run_tiny(tiny.outputs, "gguf_hosted", "decoder=hosted", f"decoder.path={tmp_path / 'tiny.gguf'}")
    save_phi(tmp_path / "phi")
    adapts = "pipeline.order=[pretrain,adapt,attach,unlock,finetune,evaluate]"
    stages = "stage=[host,adapt,attach,unlock,finetune,evaluate]"
    with pytest.raises(ConfigError, match=r"stages\.adapt: a hosted decoder is kept as it is"):
        run_hosted(tiny.outputs, tmp_path / "phi", stages, adapts)
    config = (tmp_path / "phi" / "config.json").read_text().replace('"phi"', '"bert"')
    (tmp_path / "phi" / "config.json").write_text(config)
    with pytest.raises(LockdecError, match=r"phi: "):
        run_hosted(tiny.outputs, tmp_path / "phi")
