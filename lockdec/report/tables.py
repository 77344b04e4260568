"""The report for machines: results.csv (one row a run) and results.json (also settings and findings)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lockdec.evaluation.result import HARMLESS
from lockdec.report.results import Collection, Run, columns
from lockdec.report.settings import HEADLINE_METRIC, Setting
from lockdec.report.study import MARGIN, VIEWS, HowLow, Study

SCHEMA = 1


def results_csv(runs: Sequence[Run]) -> str:
    """One row a run, failed ones too, under the dotted names of result.json; empty where it has no value.

    Options that were typed, differ between the runs and are in no result.json follow, under their keys.
    """
    file, names = io.StringIO(), columns(runs)
    swept = _swept(runs, names)
    writer = csv.DictWriter(
        file, [*names, *dict.fromkeys(key for typed in swept for key in typed)], lineterminator="\n"
    )
    writer.writeheader()
    for run, typed in zip(runs, swept, strict=True):
        row = (run.row() | typed).items()
        writer.writerow({name: str(value).lower() if isinstance(value, bool) else value for name, value in row})
    return file.getvalue()


def _swept(runs: Sequence[Run], known: Sequence[str]) -> list[dict[str, str]]:
    """The options of each run that do not have one value in all of them, by their keys, as they were typed."""
    typed = [
        {key: value for key, equal, value in (text.lstrip("+").partition("=") for text in run.overrides) if equal}
        for run in runs
    ]
    keys = sorted({key for options in typed for key in options} - set(known))
    apart = [key for key in keys if not HARMLESS(key) and len({options.get(key) for options in typed}) > 1]
    return [{key: options[key] for key in apart if key in options} for options in typed]


def results_json(collection: Collection, study: Study) -> str:
    """Everything the report knows. Settings are referred to by their place in `settings`."""
    content = {
        "schema": SCHEMA,
        "runs": [run.row() for run in collection.runs],
        "settings": [
            {
                **dict(setting.facets),
                "label": study.label(setting),
                "runs": [run.label for run in setting.runs.values()],
                "seeds": [list(unit) for unit in setting.runs],
                "parameters": setting.parameters,
                "full_size": study.number(study.full_size[setting]),
                "estimates": {
                    metric: {
                        view: asdict(estimate)
                        for view in VIEWS
                        if (estimate := study.estimate(setting, metric, view)) is not None
                    }
                    for metric in study.metrics
                },
            }
            for setting in study.settings
        ],
        "how_low": [_how_low(finding, study) for finding in study.how_low],
        "paired_differences": [
            {
                "change": comparison.change,
                "first": study.number(comparison.first),
                "second": study.number(comparison.second),
                "metric": HEADLINE_METRIC,
                **asdict(comparison.difference),
                "verdict": comparison.verdict,
            }
            for comparison in study.comparisons
        ],
        "skipped": [{"path": str(skipped.path), "reason": skipped.reason} for skipped in collection.skipped],
        "unfinished": list(collection.unfinished),
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _how_low(finding: HowLow, study: Study) -> dict[str, Any]:
    def place(setting: Setting | None) -> int | None:
        return None if setting is None else study.number(setting)

    return {
        "axis": finding.line.axis.name,
        **dict(finding.line.fixed),
        "full_size": place(finding.full),
        "smallest": place(finding.smallest),
        "smallest_value": finding.smallest and finding.line.axis.value(finding.smallest),
        "margin": MARGIN,
        "metric": HEADLINE_METRIC,
        "losses": [{"setting": place(setting), **asdict(loss)} for setting, loss in finding.losses],
    }
