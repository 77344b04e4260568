"""A config from a stranger builds, imports and runs only what it may, whatever it names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lockdec.config.building import TRUSTED, Builder
from lockdec.data.captions import CaptionSet
from lockdec.encoders.contract import Encoder, PretrainedHere
from lockdec.errors import ConfigError, StoreError
from lockdec.stages.stage import Stage
from lockdec.store.reading import read_config
from tests.faults.warm import Command

KINDS: list[Any] = [Stage, CaptionSet, Encoder | PretrainedHere, Any, dict[str, Stage]]
TARGETS = [
    "os.system",
    "builtins.eval",
    "subprocess.run",
    "lockdecoy.Thing",
    "lockdec.run.os.system",
    "lockdec.run.os",
    "lockdec.store.json",
    "lockdec.store.hashlib",
    "lockdec.run.main",
    "lockdec.store.writing.write_text",
    "lockdec.store.Store",
    "lockdec.stages.stage.ABC",
    "lockdec.stages.pretrain.L.Trainer",
    "lockdec.",
    "lockdec.stages..pretrain",
    "lockdec.stages.pretrain.__builtins__",
    ["os", "system"],
    None,
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_a_target_that_does_not_belong_is_refused_before_anything_is_called(target: Any, kind: Any, mark: Path) -> None:
    node: dict[str, Any] = {"_target_": target, "command": f"touch {mark}", "path": str(mark), "text": "x"}
    places = [node, {"inner": node}] if kind == dict[str, Stage] else [node]
    for place in places[-1:]:
        with pytest.raises(ConfigError, match=r"_target_=.* (is not trusted|cannot be imported|is not)"):
            Builder(TRUSTED).build(place, "encoder", kind)
    assert not mark.exists()


def test_a_target_deep_inside_a_stage_is_refused(undisturbed: Command, mark: Path) -> None:
    """The stages of a real run's config are built, until one thing in them is another."""
    stages = read_config(undisturbed.folder / "config.yaml")["stages"]
    places = (("pretrain", "data"), ("pretrain", "decoder"), ("attach", "encoder"), ("pretrain", "callbacks"))
    for name, place in places:
        assert Builder(TRUSTED).build(stages[name], name, Stage)
        evil = {"_target_": "os.system", "command": f"touch {mark}"}
        node = stages[name] | {place: {"mine": evil} if place == "callbacks" else evil}
        with pytest.raises(ConfigError, match=rf"{name}\.{place}.*_target_=os\.system is not trusted"):
            Builder(TRUSTED).build(node, name, Stage)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: ${oc.env:HOME}", "not resolved"),
        ("a: !!python/object/apply:os.system ['true']", "it has a tag"),
        ("a: &x [1]\nb: *x", "alias"),
        ("a: " + "[" * 200 + "]" * 200, "nested too deeply"),
        ("- 1", "not the config of a run"),
        ("1: 2", "the key 1 is not a text"),
        ("a: [", "not YAML"),
        ("a: {2020-01-01: 1}", "not a text"),
        ("a: 2020-01-01", "date 2020-01-01 is neither a text nor a number"),
        ("a: !!set {b, c}", "it has a tag"),
        ("a: !!binary aGVsbG8=", "it has a tag"),
        ("a: .nan", "nan is not a number"),
        ("a: 1.0e+999", "inf is not a number"),
        ("a: 1" + "0" * 30, "a number of more than 64 bits"),
        ("a: " + "1" * 400, "a number of 400 characters"),
        ("a: " + "1:" * 10_000 + "1", "a number of 20001 characters"),
        ('a: "\\ud800"', "not YAML|lone surrogate"),
    ],
)
def test_a_config_that_no_run_wrote_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(StoreError, match=said):
        read_config(tmp_path / "config.yaml")


ALL_COMMANDS = """
import sys
from lockdec.__main__ import main

for arguments in (["caption", ".", "x.png"], ["export", ".", "out"], ["report", "."], ["store", "list"]):
    sys.argv = ["lockdec", *arguments]
    try:
        main()
        status = 0
    except SystemExit as end:
        status = end.code
    print(f"ENDED {arguments[0]}: {'well' if not status else status}")
"""
BEFORE_LOCKDEC = {
    "importlib",
    "contextlib",
    "collections",
    "functools",
    "keyword",
    "operator",
    "reprlib",
    "types",
    "warnings",
}


@pytest.mark.parametrize("form", ["script", "module"])
def test_no_command_imports_from_the_folder_that_it_reads(form: str, tmp_path: Path, undisturbed: Command) -> None:
    """The current folder is a run with a file for every module of Python and of the packages that lockdec needs.

    Installed as a script, nothing of it is imported by any command. With `-m`, Python itself imports a few before
    lockdec leaves that folder out, whatever the command.
    """
    run = tmp_path / "run"
    shutil.copytree(undisturbed.folder, run)
    packages = ("numpy", "torch", "yaml", "PIL", "pydantic", "rich", "omegaconf", "transformers", "lightning", "emoji")
    names = (sys.stdlib_module_names | {*packages, "sitecustomize_", "hydra_plugins"}) - BEFORE_LOCKDEC
    for name in names:
        (run / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name + ' '!r})")
    (tmp_path / "lockdec").write_text(ALL_COMMANDS)
    start = [str(tmp_path / "lockdec")] if form == "script" else ["-m", "lockdec", "report", "."]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    answer = subprocess.run([sys.executable, *start], cwd=run, env=environment, capture_output=True, text=True)
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()
    assert "Traceback" not in answer.stderr
    assert answer.returncode == 0, answer.stderr
    if form == "script":
        ended = re.findall(r"^ENDED (\w+): (.*)$", answer.stdout, re.MULTILINE)
        assert [name for name, _ in ended] == ["caption", "export", "report", "store"]
        assert [name for name, how in ended if how == "well"] == ["export", "report"], ended


def test_a_class_of_the_users_own_is_found_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what the user names, and only where no installed module has the name."""
    (tmp_path / "my_thumbnails.py").write_text("class Thumbnail: pass")
    (tmp_path / "random.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert type(Builder().build({"_target_": "my_thumbnails.Thumbnail"}, "encoder")).__name__ == "Thumbnail"
    with pytest.raises(ConfigError, match="not trusted"):
        Builder(TRUSTED).build({"_target_": "random.Thumbnail"}, "encoder")
