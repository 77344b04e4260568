"""Write report.html, results.csv and results.json from the result.json files below some folders."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from lockdec import redaction
from lockdec.errors import StoreError
from lockdec.evaluation.metrics import LOWER_IS_BETTER
from lockdec.evaluation.result import CONTROLS, EARLIER
from lockdec.report import figures, gallery, headline, tables
from lockdec.report.confidence import confidence
from lockdec.report.over_inputs import OverInputs, over_inputs
from lockdec.report.results import STATUSES, Collection, Run, Skipped, config_text, read
from lockdec.report.settings import FACETS, HEADLINE_METRIC
from lockdec.report.statistics import Estimate
from lockdec.report.study import ALL_METRICS, MARGIN, METRIC_LABELS, Study
from lockdec.store.writing import write_bytes

HERE = Path(__file__).parent
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_TURNS = re.compile(r"\\u(?:061c|200[ef]|202[a-e]|206[6-9])")  # as JSON writes Unicode's bidirectional controls
# These keep the page below 8 MB, beside 2 MB of Plotly and at most 2 MB of drawings: a row takes about 1.2 kB.
MOST_CELLS, MOST_SETTINGS, MOST_COMPARISONS = 1_000, 500, 500
DIGITS = dict.fromkeys(ALL_METRICS, 3) | {"chrf": 1}
TABLE_METRICS = ("token_f1", "exact", "cider_d", "chrf", "bleu4", "rouge_l", "loss")


@dataclass(frozen=True)
class Written:
    """Where a report was written, and what it had to leave out."""

    report: Path
    runs: int
    skipped: tuple[Skipped, ...]


def write_report(folders: Sequence[Path], output: Path | None = None) -> Written:
    """Rebuild the report of a run, of a sweep, or of several together.

    Args:
        folders: run folders, sweep folders, or folders above them. One run folder gives the report of a run.
        output: where report.html goes; by default the folder itself, or the one that holds all of several.

    A single run gets report.html; anything else results.csv and results.json as well. DataError when there is
    nothing to report; StoreError when the output folder cannot be written.
    """
    collection = read(folders)
    target = output or (
        folders[0] if len(folders) == 1 else Path(os.path.commonpath([folder.resolve() for folder in folders]))
    )
    single = len(folders) == 1 and (folders[0] / "result.json").exists() and len(collection.runs) == 1
    study = Study(collection.runs)
    title = ", ".join(folder.resolve().name for folder in folders)
    if single and collection.runs[0].text("name"):
        title = f"{collection.runs[0].text('name')}, {title}"
    page = render(collection, study, title, collection.runs[0] if single else None)
    try:
        target.mkdir(parents=True, exist_ok=True)
        if not single:
            _write(target / "results.csv", tables.results_csv(collection.runs))
            _write(target / "results.json", tables.results_json(collection, study))
        _write(target / "report.html", page)
    except OSError as error:
        raise StoreError(f"{target}: the report cannot be written here ({error.strerror})") from error
    return Written(target / "report.html", len(collection.runs), collection.skipped)


def _write(path: Path, text: str) -> None:
    """A text in UTF-8; what is not Unicode, as in some names of folders, becomes a question mark."""
    write_bytes(path, text.encode(errors="replace"))


def render(collection: Collection, study: Study, title: str, run: Run | None) -> str:
    """The page as one HTML text. `run` is given for the report of a single run."""
    shown, damaged = _figures(study, run)
    exhibits, notes = gallery.exhibits(_who(study, run))
    inputs = over_inputs(run) if run else OverInputs()
    script = (HERE / "page.js").read_text(encoding="utf-8")
    plotly, plotly_hash = _plotly() if shown else ("", "")
    return _template().render(
        secrets=redaction.known(),
        title=title,
        run=run,
        runs=collection.runs,
        inputs=inputs,
        study=study,
        statuses=_counts([r.status for r in collection.runs]),
        sentences=headline.of_run(run, inputs) if run else headline.of_study(study),
        checks=headline.checks(run) if run else [],
        warnings=headline.warnings(collection.runs),
        notes=[*study.notes, *notes, *damaged, *_earlier(collection.runs)],
        skipped=collection.skipped,
        unfinished=collection.unfinished,
        figures=shown,
        exhibits=exhibits,
        facets=FACETS,
        metrics=study.metrics or [m for m in ALL_METRICS if run and run.number(f"metrics.{m}") is not None],
        metric_labels={metric: METRIC_LABELS.get(metric, metric) for metric in ALL_METRICS},
        digits=DIGITS,
        attributes=_attributes(run) if run else [],
        table_metrics=[m for m in TABLE_METRICS if m in study.metrics],
        controls=_controls(study, run),
        meanings_of=CONTROLS,
        lower_is_better=LOWER_IS_BETTER,
        margin=MARGIN,
        sizes_differ=any(full is not setting for setting, full in study.full_size.items()),
        cells=collection.runs[:MOST_CELLS],
        settings=study.settings[:MOST_SETTINGS],
        comparisons=study.comparisons[:MOST_COMPARISONS],
        left_out={
            "cells": max(0, len(collection.runs) - MOST_CELLS),
            "settings": max(0, len(study.settings) - MOST_SETTINGS),
            "comparisons": max(0, len(study.comparisons) - MOST_COMPARISONS),
        },
        cell_facets=_cell_facets(study, collection.runs),
        reuse=_reuse(collection),
        versions=_distinct(collection.runs, "versions."),
        seeds_used=sorted({r.text("seed") for r in collection.runs} - {""}, key=lambda text: (len(text), text)),
        commands=list(dict.fromkeys(r.text("command") for r in collection.runs if r.text("command"))),
        config=config_text(run) if run else "",
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=_hash(script),
        plotly=plotly,
        plotly_hash=plotly_hash,
        data=_embedded(_chart_data(study, shown)) if shown else "",
    )


def _figures(study: Study, run: Run | None) -> tuple[list[figures.Figure], list[str]]:
    """The figures of the page, and a line for each curve that is damaged."""
    if run is not None:
        curves, notes = figures.learning_curves([("", run)])
        return [*confidence(run), *curves], notes
    first = [s for s in (study.best, study.smallest) if s is not None]
    ordered = list(dict.fromkeys([*first, *study.settings]))
    cells = [(s, next(iter(s.runs.values()))) for s in ordered[: figures.MOST_SERIES]]
    names = [" · ".join(filter(None, (study.label(s), f"seed {run.text('seed')}"))) for s, run in cells]
    curves, notes = figures.learning_curves(list(zip(names, (run for _, run in cells), strict=True)))
    return figures.of_study(study) + curves, notes


def _attributes(run: Run) -> list[str]:
    """The attributes that were counted in the captions of a run."""
    prefix = "attributes.caption."
    return [name.removeprefix(prefix) for name in run.values if name.startswith(prefix)]


def _controls(study: Study, run: Run | None) -> Sequence[str]:
    """The controls that the run, or any run of the study, was compared with; all of them where none was."""
    if run is None:
        return study.controls or list(CONTROLS)
    return [c for c in CONTROLS if run.number(f"controls.{c}.{HEADLINE_METRIC}") is not None] or list(CONTROLS)


def _who(study: Study, run: Run | None) -> list[tuple[str, Run, str]]:
    """The columns of the gallery."""
    if run is not None:
        return [("captioner", run, "caption"), *((control, run, control) for control in _controls(study, run))]
    if study.best is None:
        return []
    best = next(iter(study.best.runs.values()))
    who = [(f"highest mean ({study.label(study.best) or 'the only setting'})", best, "caption")]
    if study.smallest is not None and study.smallest is not study.best:
        smallest = next(iter(study.smallest.runs.values()))
        who.append((f"smallest ({study.label(study.smallest)})", smallest, "caption"))
    return [*who, *((control, best, control) for control in _controls(study, run))]


def _chart_data(study: Study, shown: Sequence[figures.Figure]) -> dict[str, Any]:
    def column(metric: str, view: str) -> list[list[float | None] | None]:
        found = (study.estimate(setting, metric, view) for setting in study.settings)
        return [None if e is None else _rounded(e) for e in found]

    controls = _controls(study, None)
    return {
        "metrics": {m: {"label": METRIC_LABELS.get(m, m), "digits": DIGITS[m]} for m in study.metrics},
        "margin": {"metric": HEADLINE_METRIC, "value": -MARGIN},
        "settings": [
            {"label": study.label(s) or "the only setting", "parameters": s.parameters} for s in study.settings
        ],
        "estimates": {m: {view: column(m, view) for view in ("score", *controls, "full")} for m in study.metrics},
        "fronts": {
            m: {view: [study.number(s) for s in study.front(m, view)] for view in ("score", *controls)}
            for m in study.metrics
        },
        "figures": [asdict(figure) for figure in shown],
    }


def _rounded(estimate: Estimate) -> list[float | None]:
    digits = (estimate.mean, estimate.low, estimate.high, estimate.n)
    return [None if value is None else round(value, 5) for value in digits]


def _cell_facets(study: Study, runs: Sequence[Run]) -> list[str]:
    """The facets worth a column in the table of all cells: those in which cells differ, and the sizes."""
    always = ("cross_attention.d_q", "cross_attention.d_k", "cross_attention.d_v", "fewshot.shots")
    return [
        name
        for name in FACETS
        if name != "overrides"
        and (name in always or name in study.varying)
        and any(run.values.get(name) is not None for run in runs)
    ]


def _reuse(collection: Collection) -> dict[str, Any]:
    """How often each stage was made and reused, and how many seconds reuse saved."""
    stages: dict[str, dict[str, Any]] = {}
    used = {stage.key for run in collection.runs for stage in run.stages}
    before = [stage for stage in collection.shared if stage.key in used]
    for stage in [*before, *(stage for run in collection.runs for stage in run.stages)]:
        row = stages.setdefault(
            stage.name,
            {"keys": set(), "made": 0, "reused": 0, "made_seconds": 0.0, "reused_seconds": 0.0, "made_in": 0.0},
        )
        row["keys"].add(stage.key)
        kind = "reused" if stage.reused else "made"
        row[kind] += 1
        row[f"{kind}_seconds"] += stage.seconds
        if stage.reused and row["made_in"] is not None:
            row["made_in"] = None if stage.made_in is None else row["made_in"] + stage.made_in
    spent = sum(row["made_seconds"] + row["reused_seconds"] for row in stages.values())
    made_before = [stage.name for stage in before]
    alone = sum(
        (row["made"] - made_before.count(name) + row["reused"]) * row["made_seconds"] / row["made"]
        if row["made"]
        else row["made_in"] or row["reused_seconds"]
        for name, row in stages.items()
    )
    return {
        "stages": stages,
        "spent": spent,
        "alone": alone,
        "before": list(dict.fromkeys(made_before)),
        "unknown": [name for name, row in stages.items() if not row["made"] and row["made_in"] is None],
    }


def _earlier(runs: Sequence[Run]) -> list[str]:
    """What is measured or made otherwise in runs of earlier releases."""
    notes = list[str]()
    for metric, meaning in EARLIER.items():
        if count := sum(run.number(f"metrics.{metric}") is not None for run in runs):
            which = (
                "The run was" if len(runs) == 1 else f"Of {len(runs)} runs, {count} {'was' if count == 1 else 'were'}"
            )
            notes.append(f"{which} written by an earlier release, with {meaning}.")
    versions: dict[str, set[int]] = {}
    for stage in (stage for run in runs for stage in run.stages):
        if stage.version is not None:
            versions.setdefault(stage.name, set()).add(stage.version)
    for name, several in versions.items():
        if len(several) > 1:
            numbers = ", ".join(map(str, sorted(several)))
            notes.append(f"{name}: made by several versions of its code ({numbers}), which give other results; "
                         "the same command again makes all cells by today's.")  # fmt: skip
    return notes


def _distinct(runs: Sequence[Run], prefix: str) -> dict[str, list[str]]:
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        for name in run.values:
            if name.startswith(prefix):
                found.setdefault(name.removeprefix(prefix), {})[run.text(name)] = None
    return {name: list(values) for name, values in found.items()}


def _counts(names: Sequence[str]) -> dict[str, int]:
    return {name: names.count(name) for name in STATUSES if name in names}


@cache
def _template() -> Template:
    """The template of the page; to compile it takes longer than to fill it in."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {"number": headline.number, "unescaped": unquote}
    return environment.get_template("page.html")


@pass_context
def _shown(context: Context, value: object) -> object:
    """A text from a run without secrets, and without characters that change the direction of the text after it."""
    if isinstance(value, Markup) or not isinstance(value, str | Path):
        return value
    return _STEERING.sub("\N{REPLACEMENT CHARACTER}", redaction.text(str(value), context["secrets"]))


def _embedded(data: object) -> Markup:
    """JSON that cannot end the script element around it, without characters that change the direction of text."""
    text = _TURNS.sub(r"\\ufffd", json.dumps(data, separators=(",", ":"), allow_nan=False))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _hash(script: str) -> Markup:
    """The hash of a script as the page's policy names it; no secret, although it looks like one."""
    return Markup(base64.b64encode(hashlib.sha256(script.encode()).digest()).decode())


@cache
def _plotly() -> tuple[Markup, Markup]:
    """Plotly's script, compressed as the page carries it, and its hash."""
    from plotly.offline import get_plotlyjs

    script = str(get_plotlyjs())
    return Markup(base64.b64encode(gzip.compress(script.encode(), 6, mtime=0)).decode()), _hash(script)
