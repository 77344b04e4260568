"""The command as a user types it: help, mistakes, sweeps, and the three ways to install."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import ConfigCompositionException

from lockdec.__main__ import COMMANDS, main
from lockdec.run import _without_secrets, explain
from tests.conftest import composed
from tests.faults.warm import Warm

REPOSITORY = Path(__file__).parents[1]


def test_help_lists_the_groups_and_imports_neither_torch_nor_lightning(tmp_path: Path) -> None:
    code = (
        "import runpy, sys; sys.argv = ['lockdec', '--help']\n"
        "try: runpy.run_module('lockdec.run', run_name='__main__')\n"
        "except SystemExit: pass\nprint('IMPORTED', {'torch', 'lightning', 'wandb'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    for group in ("cross_attention", "data", "decoder", "encoder", "fewshot", "logger", "stage", "text", "trainer"):
        assert f"\n{group}: " in answer.stdout
    assert "IMPORTED set()" in answer.stdout


def test_without_a_command_there_is_a_list_of_them_and_no_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lockdec"])
    main()
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[: len(COMMANDS)]] == [
        ["lockdec", command] for command in COMMANDS
    ]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("mistake", "line"),
    [
        ("cross_attention.dk=2", "cross_attention.dk: no such key (allowed: heads, d_q, d_k, d_v,"),
        ("cross_attention.d_k=two", "cross_attention.d_k=two: Value 'two' of type 'str' could not be converted to Int"),
        (
            "decoder.rope_scaling={factor: 8}",
            "decoder.rope_scaling is null here, and on the command line nothing below it",
        ),
        ("+seed=3", "+seed: this key is there already; write seed=..., without the plus"),
        ("encoder=3", "encoder=3: no such option (there are: drawing_and_name, efficientnet_lite0"),
        ("encoder=nope", "encoder=nope: no such option (there are: drawing_and_name, efficientnet_lite0"),
        ("experiment=null", "experiment=null: a group cannot be null; leave it out, or use GROUP=[]"),
        ("+Authorization=x", "Authorization - no such key, nor a stage of this name (allowed: attach,"),
        ("encoder.colour=red", "encoder.colour: no such key (allowed: _target_,"),
        ("cross_attention.d_k=0", "cross_attention.d_k=0: use a whole number of at least 1"),
        (
            "experiment=[adamw,nope]",
            "experiment=nope: no such option (there are: adamw, adapt, locked_translation, music, tran",
        ),
        ("objective=f1", "objective=f1 is not one of: bleu1, "),
        ("hydra.job.chdir=true", "hydra.job.chdir=true: paths are relative to the folder that lockdec is started in"),
        ("seed=0,1", "seed=0,1: several values are a sweep: python -m lockdec.run -m debug=tiny seed=0,1; "),
        ("name=" + "n" * 300, "name=nnnnnnnnnnnnnnnnnnnn...: use at most 128 bytes, not 300"),
        ("finetune=null", "finetune: stages.prior.prompt reads finetune.prompt, but there is no such section"),
        ("decoder.heads=5", "decoder.heads=5 does not divide d_model=32"),
        ("fewshot.shots=5000", "fewshot.shots=5000: there are only 120 training inputs"),
        ("data.split=sideways", "data.split=sideways: "),
        ("data=folder", "data.path has to be given: data.path=..."),
        ("data.resolution=big", "lockdec: data.resolution=big: input should be a valid integer"),
        ("data.resolution=null", "lockdec: data.resolution=null: input should be a valid integer"),
        ("encoder.resolution=x", "lockdec: encoder.resolution=x: input should be a valid integer"),
        ("text.sources=null", "lockdec: text.sources=null: input should be a valid dictionary"),
        ("paths.outputs=/dev/null/x", "paths.outputs: cannot write /dev/null/x"),
    ],
)
def test_a_mistake_gets_one_plain_line(mistake: str, line: str, warm: Warm, tmp_path: Path) -> None:
    answer = warm.lockdec("debug=tiny", mistake, cwd=tmp_path)
    assert answer.returncode != 0
    assert answer.stderr.count("\n") == 1, answer.stderr
    assert answer.stderr.startswith("lockdec: ")
    assert line in answer.stderr
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {"config.yaml", "result.json"}, "what needs the data to be found is recorded; nothing else is left"
    assert bool(left) == bool(list(tmp_path.iterdir()))


def test_an_option_of_one_bridge_in_a_sweep_of_bridges_says_what_to_type(warm: Warm, tmp_path: Path) -> None:
    sweep = ("-m", "debug=tiny", "dry_run=true", "bridge=prefix_linear,prefix_mlp")
    answer = warm.lockdec(*sweep, "bridge.length=4", cwd=tmp_path)
    assert "no such key (allowed: parameters); where a sweep chooses bridge, write ++bridge.length=" in answer.stderr
    assert "2 cells: 0 finished, 2 to run" in warm.lockdec(*sweep, "++bridge.length=4", cwd=tmp_path).stdout


def test_a_section_of_one_option_in_a_sweep_of_options_says_what_to_type(warm: Warm, tmp_path: Path) -> None:
    sweep = ("-m", "dry_run=true", "encoder=efficientnet_lite0,vae")
    answer = warm.lockdec(*sweep, "pretrain_vae.steps=4", cwd=tmp_path)
    assert "; where a sweep chooses encoder, write ++pretrain_vae.steps=..." in answer.stderr
    assert "++" not in warm.lockdec(*sweep, "finetune.stps=4", cwd=tmp_path).stderr


def test_a_mistake_in_the_config_costs_no_import_of_torch(tmp_path: Path) -> None:
    code = (
        "import runpy, sys; sys.argv = ['lockdec', 'fewshot.shots=0']\n"
        "try: runpy.run_module('lockdec.run', run_name='__main__')\n"
        "except SystemExit as end: print(end)\nprint('IMPORTED', {'torch', 'lightning'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines() == ["lockdec: fewshot.shots=0 must be at least 1", "IMPORTED set()"]


def test_the_traceback_comes_on_request(warm: Warm, tmp_path: Path) -> None:
    answer = warm.lockdec("debug=tiny", "decoder.heads=5", cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert answer.returncode != 0
    assert "Traceback" in answer.stderr


def test_a_run_shows_stages_metrics_captions_and_where_it_lies(warm: Warm, tmp_path: Path) -> None:
    answer = warm.lockdec("debug=tiny", "data.limit=64", "~text.sources.wikipedia", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    folder = next((tmp_path / "outputs" / "runs" / "default").iterdir())
    for word in ("pretrain", "evaluate", "made", "nearest_neighbour", "cider_d", "reference", str(folder.name)):
        assert word in answer.stdout
    assert (folder / "report.html").is_file()
    assert "Traceback" not in answer.stderr


def test_a_sweep_continues_past_a_failed_cell_says_which_and_can_be_finished(warm: Warm, tmp_path: Path) -> None:
    """Shots 8, 5000 and 16: the middle cell cannot work."""
    quick = (
        "data.limit=64",
        "~text.sources.wikipedia",
        "pretrain.steps=2",
        "pipeline.order=[pretrain,attach,unlock,finetune]",
    )
    command = ("-m", "debug=tiny", *quick, "fewshot.shots=8,5000,16", "sweep_name=s")
    first = warm.lockdec(*command, cwd=tmp_path)
    sweep = tmp_path / "outputs" / "sweeps" / "s"
    assert first.returncode == 1
    assert "2 of 3 cells done" in first.stdout
    assert "cell 1 failed: fewshot.shots=5000: there are only 48 training inputs" in first.stdout
    statuses = [json.loads((sweep / str(cell) / "result.json").read_text())["status"] for cell in range(3)]
    assert statuses == ["ok", "failed", "ok"]
    assert (sweep / "report.html").is_file()
    assert (sweep / "results.csv").is_file()
    times = {cell: (sweep / cell / "result.json").stat().st_mtime_ns for cell in ("0", "2")}

    again = warm.lockdec(*command, cwd=tmp_path)
    assert again.returncode == 1
    assert "s: 2 of 3 cells done" in again.stdout
    assert times == {cell: (sweep / cell / "result.json").stat().st_mtime_ns for cell in ("0", "2")}


def test_a_wheel_carries_its_configs(tmp_path: Path) -> None:
    """Built, unpacked elsewhere, run from a third place; `tests/installed/check.sh` uses a clean environment."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(tmp_path / "dist"), str(REPOSITORY)], check=True)
    wheel = next((tmp_path / "dist").glob("*.whl"))
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()
    elsewhere: dict[str, Any] = {
        "cwd": tmp_path / "elsewhere",
        "env": os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        "capture_output": True,
        "text": True,
        "check": True,
    }
    answer = subprocess.run([sys.executable, "-m", "lockdec.run", "--help"], **elsewhere)
    assert "cross_attention: low" in answer.stdout
    code = "from lockdec.config.schema import config_folder; print(config_folder())"
    place = subprocess.run([sys.executable, "-c", code], **elsewhere)
    assert place.stdout.strip() == str(tmp_path / "site" / "lockdec" / "conf")


def test_a_checkout_works_without_being_installed(tmp_path: Path) -> None:
    code = "from lockdec.config.schema import config_folder; print(config_folder())"
    answer = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {[str(REPOSITORY), *sys.path]!r}; {code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == str(REPOSITORY / "conf")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("finetune.stpes=3", r"^finetune\.stpes: no such key \(allowed: steps, batch_size, .*, optimizer\)$"),
        ("finetune.optimizer.rate=3", r"^finetune\.optimizer\.rate: no such key \(allowed: kind, learning_rate, "),
        ("fintune.steps=3", r"^fintune: no such key \(allowed: .*\bfinetune\b"),
        ("pretrain_vae.steps=3", r"^pretrain_vae: no such key \(allowed: "),
        (
            "trainer.threads=many",
            r"^trainer\.threads=many: Value 'many' of type 'str' could not be converted to Integer$",
        ),
    ],
)
def test_a_key_or_type_that_hydra_refuses_is_named_in_one_line(override: str, message: str) -> None:
    with pytest.raises(ConfigCompositionException) as error:
        composed(override)
    assert re.search(message, explain(error.value))


def test_a_folder_of_configs_leaves_the_terminal_to_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """`-cd` begins like `-c`, of which Hydra's answer is printed at once."""
    for word, kept in (("-cd", True), ("--cfg", False), ("--cfg=job", False), ("-c", False)):
        monkeypatch.setattr(sys, "argv", ["lockdec.run", word, "conf"])
        terminal = sys.stdout
        with _without_secrets():
            assert (sys.stdout is terminal) == kept
