"""Make a W&B workspace with the panels of the report: `lockdec dashboard --project P --entity E`.

The panels are data (`definition`), which a test compares with the metrics that runs log. `workspace` translates them to
wandb-workspaces, and only `main` connects to a server.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from lockdec.errors import LockdecError
from lockdec.tracking.weights_and_biases import STEP

NAME = "lockdec: how low"
GROUPS = ("bridge.kind", "cross_attention.d_k", "fewshot.shots")  # of config; one line, bar or point for each
DIMENSIONS = ("cross_attention.heads", "cross_attention.d_q", "cross_attention.d_k", "cross_attention.d_v")
BRIDGE = ("bridge.kind", "bridge.parameters", "fewshot.shots")
CONTROLS = ("prior", "locked", "shuffled", "nearest_neighbour")  # that every run with an encoder has
QUALITY = ("token_f1", "cider_d", "exact")


def definition() -> dict[str, Any]:
    """The workspace as plain data.

    A panel has a `kind` (scatter, line, bar, parallel, media) and a `title`; `x` and `columns` name keys of a run's
    config where they start with `config:`, else metrics.
    """
    return {
        "name": NAME,
        "group_by": list(GROUPS),
        "sections": [
            {
                "name": "How low",
                "panels": [
                    *(
                        _against(f"{name} against d_k", "config:cross_attention.d_k", f"metrics/{name}")
                        for name in QUALITY
                    ),
                    _against("token_f1 against d_v", "config:cross_attention.d_v", "metrics/token_f1"),
                    _against("token_f1 against shots", "config:fewshot.shots", "metrics/token_f1"),
                    _against("token_f1 against trained parameters", "parameters/trainable", "metrics/token_f1"),
                ],
            },
            {
                "name": "Bridges",
                "panels": [
                    *(
                        _against(f"{name} against its size", "config:bridge.parameters", f"metrics/{name}")
                        for name in QUALITY
                    ),
                    {
                        "kind": "parallel",
                        "title": "from bridges to quality",
                        "columns": [*(f"config:{name}" for name in BRIDGE), "metrics/token_f1"],
                    },
                ],
            },
            {
                "name": "Controls",
                "panels": [
                    _against("gap over prior against d_k", "config:cross_attention.d_k", "gap_over_prior/token_f1"),
                    {
                        "kind": "bar",
                        "title": "token_f1 beside its controls",
                        "y": [
                            "metrics/token_f1",
                            *(f"controls/{name}/token_f1" for name in CONTROLS),
                        ],
                    },
                    _against(
                        "cross-attention: norm against entropy",
                        "looking/attention_entropy",
                        "looking/cross_to_residual_norm",
                    ),
                ],
            },
            {
                "name": "Learning",
                "panels": [
                    _over_steps("finetune/loss", "finetune/val_loss"),
                    _over_steps("finetune/attention_entropy"),
                    _over_steps("finetune/cross_to_residual_norm"),
                    _over_steps("finetune/gradient_norm"),
                    _over_steps("finetune/learning_rate"),
                    _over_steps("prior/loss"),
                    _over_steps("pretrain/loss", "pretrain/val_loss"),
                ],
            },
            {
                "name": "Cost",
                "panels": [
                    {"kind": "bar", "title": "seconds", "y": ["cost/seconds"]},
                    {"kind": "bar", "title": "peak memory in MB", "y": ["cost/peak_memory_mb"]},
                    _over_steps("finetune/tokens_per_second"),
                ],
            },
            {
                "name": "All settings",
                "panels": [
                    {
                        "kind": "parallel",
                        "title": "from sizes to quality",
                        "columns": [*(f"config:{name}" for name in (*DIMENSIONS, "fewshot.shots")), "metrics/token_f1"],
                    },
                    {"kind": "media", "title": "captions", "keys": ["captions"]},
                ],
            },
        ],
    }


def _against(title: str, x: str, y: str) -> dict[str, Any]:
    return {"kind": "scatter", "title": title, "x": x, "y": y, "log_x": not x.startswith("looking/")}


def _over_steps(*metrics: str) -> dict[str, Any]:
    return {"kind": "line", "title": ", ".join(metrics), "x": STEP, "y": list(metrics)}


def workspace(of: Mapping[str, Any], project: str, entity: str) -> Any:
    """The definition as an object of wandb-workspaces. Connects to no server.

    Raises:
        LockdecError: wandb-workspaces is not installed.
    """
    try:
        panels: Any = import_module("wandb_workspaces.reports.v2")
        spaces: Any = import_module("wandb_workspaces.workspaces")
    except ImportError as error:
        raise LockdecError("the dashboard needs wandb-workspaces: pip install 'lockdec[dashboard]'") from error

    def named(name: str) -> Any:
        config = name.removeprefix("config:")
        return panels.SummaryMetric(name) if config == name else panels.Config(config)

    def panel(one: Mapping[str, Any]) -> Any:
        title = one["title"]
        match one["kind"]:
            case "scatter":
                return panels.ScatterPlot(title=title, x=named(one["x"]), y=named(one["y"]), log_x=one["log_x"])
            case "line":
                return panels.LinePlot(title=title, x=one["x"], y=list(one["y"]), groupby_aggfunc="mean")
            case "bar":
                return panels.BarPlot(title=title, metrics=list(one["y"]), groupby_aggfunc="mean")
            case "parallel":
                columns = [panels.ParallelCoordinatesPlotColumn(metric=named(name)) for name in one["columns"]]
                return panels.ParallelCoordinatesPlot(title=title, columns=columns)
            case _:
                return panels.MediaBrowser(title=title, media_keys=list(one["keys"]))

    return spaces.Workspace(
        entity=entity,
        project=project,
        name=of["name"],
        sections=[
            spaces.Section(name=section["name"], panels=[panel(one) for one in section["panels"]], is_open=True)
            for section in of["sections"]
        ],
        runset_settings=spaces.RunsetSettings(groupby=[spaces.Config(name) for name in of["group_by"]]),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the workspace and print its URL, or end with one plain line."""
    parser = argparse.ArgumentParser(prog="lockdec dashboard", description="Make a W&B workspace.")
    parser.add_argument("--project", required=True, help="the W&B project (logger.project)")
    parser.add_argument("--entity", required=True, help="the W&B user or team (logger.entity)")
    given = parser.parse_args(arguments)
    import wandb

    try:
        made = workspace(definition(), given.project, given.entity)
        if not wandb.login(prompt=False, verify=False):
            raise LockdecError("you are not logged in to W&B: run `wandb login` first, or set WANDB_API_KEY")
        print(made.save().url)
    except LockdecError as error:
        sys.exit(f"lockdec: {error}")
    except (wandb.errors.Error, OSError) as error:
        sys.exit(f"lockdec: W&B refused the workspace ({str(error).splitlines()[0]})")


if __name__ == "__main__":
    main()
