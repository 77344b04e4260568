"""The W&B workspace and the W&B sweep, without an account: what they name exists."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lockdec.config.checking import checked
from lockdec.config.schema import config_folder
from lockdec.tracking.dashboard import definition, workspace
from lockdec.tracking.loggers import flat
from lockdec.tracking.weights_and_biases import PARTS_OF_CONFIG, PARTS_OF_METRICS
from tests.conftest import TinyRun, composed

SWEEP = yaml.safe_load((config_folder() / "hparams_search" / "wandb.yaml").read_text(encoding="utf-8"))


def panels() -> list[dict[str, Any]]:
    return [panel for section in definition()["sections"] for panel in section["panels"]]


def names() -> set[str]:
    """Every metric and `config:` key that a panel shows."""
    found: set[str] = set()
    for panel in panels():
        for key in ("x", "y", "columns"):
            value = panel.get(key, [])
            found |= {value} if isinstance(value, str) else set(value)
    return found


def test_the_panels_show_what_runs_log(tiny: TinyRun) -> None:
    result = tiny.result
    sections = {name: result[name] for name in PARTS_OF_METRICS if name in result}
    of_cell = {name.removeprefix("/") for name in flat(sections, "")}
    config = {name: result[name] for name in PARTS_OF_CONFIG}
    for name in names():
        if name.startswith("config:"):
            node: Any = config
            for part in name.removeprefix("config:").split("."):
                node = node[part]
        elif name.split("/")[0] not in ("finetune", "prior", "pretrain", "trainer"):  # those: test_loggers.py
            assert name in of_cell, name


def test_the_definition_is_pure_and_plain() -> None:
    assert json.loads(json.dumps(definition())) == definition()
    assert {panel["kind"] for panel in panels()} == {"scatter", "line", "bar", "parallel", "media"}


def test_the_workspace_says_all_of_the_definition() -> None:
    made = workspace(definition(), "project", "entity")
    text = made._to_model().model_dump_json(by_alias=True)
    assert (made.project, made.entity) == ("project", "entity")
    sections = json.loads(text)["spec"]["section"]["panelBankConfig"]["sections"]
    shown = [section for section in sections if section["panels"]]
    assert [section["name"] for section in shown] == [section["name"] for section in definition()["sections"]]
    assert [len(section["panels"]) for section in shown] == [len(s["panels"]) for s in definition()["sections"]]
    for name in names():
        section, _, key = name.removeprefix("config:").partition(".")
        assert (f"config:{section}.value.{key}" if name.startswith("config:") else name) in text, name  # as W&B has it
    grouping = json.loads(text)["spec"]["section"]["runSets"][0]["grouping"]
    assert [group["name"] for group in grouping] == [
        "bridge.value.kind",
        "cross_attention.value.d_k",
        "fewshot.value.shots",
    ]


def test_without_a_login_one_plain_line_says_so(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    answer = subprocess.run(
        [sys.executable, "-m", "lockdec.tracking.dashboard", "--project", "p", "--entity", "e"],
        env=environment | {"HOME": str(tmp_path), "NETRC": str(tmp_path / "none"), "WANDB_SILENT": "true"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 1
    assert (
        answer.stderr.strip() == "lockdec: you are not logged in to W&B: run `wandb login` first, or set WANDB_API_KEY"
    )


def arguments(chosen: dict[str, Any]) -> list[str]:
    """What `wandb agent` puts in the place of the macros, without what starts Python."""
    given = [f"{name}={value}" for name, value in chosen.items()]
    start = SWEEP["command"].index("${program}") + 1
    return [part for word in SWEEP["command"][start:] for part in (given if word == "${args_no_hyphens}" else [word])]


def one_of(parameter: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "value" in parameter:
        return st.just(parameter["value"])
    if "values" in parameter:
        return st.sampled_from(parameter["values"])
    return st.floats(parameter["min"], parameter["max"])


@given(st.fixed_dictionaries({name: one_of(parameter) for name, parameter in SWEEP["parameters"].items()}))
@settings(max_examples=5, deadline=None)
def test_what_a_wandb_sweep_would_run_composes(chosen: dict[str, Any]) -> None:
    config = composed(*arguments(chosen))
    checked(config)
    assert config.cross_attention.d_k == chosen["cross_attention.d_k"]
    assert (config.evaluate.split, config.logger.mode, config.logger.kinds) == ("val", "online", ["wandb"])


def test_a_wandb_sweep_optimises_a_metric_of_the_cell(tiny: TinyRun) -> None:
    assert SWEEP["command"][:4] == ["${env}", "${interpreter}", "-m", "${program}"]
    assert SWEEP["metric"]["name"].split("/")[1] in tiny.result["metrics"]
