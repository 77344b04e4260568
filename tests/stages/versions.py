"""The record of each stage's version and code: `python -m tests.stages.versions` writes it anew.

A stage's artifacts are reused as long as its `version` stays, so a change of its code that changes results and not the
version would be silent. The record, `versions.json` beside this file, holds a hash of the code at its last review. It
covers the stage's own module, those of the stages that it extends, and those in its `code`.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lockdec.stages.stage import Stage
from tests.stages.declared import STAGES

RECORD = Path(__file__).with_name("versions.json")
RENEW = "python -m tests.stages.versions"


def code_hash(source: str) -> str:
    """The sha256 of Python source, whatever its formatting, comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [line for line in node.body if not _is_text(line)] or [ast.Pass()]
    return hashlib.sha256(_written(tree).encode()).hexdigest()


def _written(node: object) -> str:
    """A syntax tree as text that every Python writes alike: some have fields that others lack, empty in this code."""
    if isinstance(node, list):
        return f"[{', '.join(map(_written, node))}]"
    if isinstance(node, ast.AST):
        fields = (f"{name}={_written(value)}" for name, value in ast.iter_fields(node) if value not in (None, []))
        return f"{type(node).__name__}({', '.join(fields)})"
    return repr(node)


def recorded(stage: type[Stage]) -> dict[str, Any]:
    """What the record has to say of a stage: its version, and the hash of each module that decides its result."""
    family = [base.__module__ for base in stage.__mro__ if issubclass(base, Stage) and base is not Stage]
    modules = sorted({*family, *stage.code})
    return {"version": stage.version, "code": {module: code_hash(_source(module)) for module in modules}}


def unreviewed(stage: type[Stage], record: Mapping[str, Any]) -> str | None:
    """What to do about a stage whose code is not that of the record; None where it is."""
    now, before = recorded(stage), record.get(stage.__name__, {})
    if now == before:
        return None
    name, version = stage.__name__, f"version {stage.version}"
    if not before or stage.version != before["version"]:
        return f"{name}: {version} is not in the record yet: run {RENEW}"
    changed = sorted(module for module, code in now["code"].items() if before["code"].get(module) != code)
    gone = sorted(before["code"].keys() - now["code"].keys())
    return (
        f"{name}: {', '.join(changed or gone)} changed, but the stage is still {version}, so artifacts of the old code "
        f"are reused. If the same config can now give another result, raise {name}.version in "
        f"{stage.__module__}. Then, or if every result stays the same, run {RENEW}"
    )


def _source(module: str) -> str:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{module}: named in the `code` of a stage, and not there")
    return Path(spec.origin).read_text(encoding="utf-8")


def _is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


if __name__ == "__main__":
    content = {stage.__name__: recorded(stage) for stage in sorted(STAGES, key=lambda stage: stage.__name__)}
    RECORD.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"{RECORD.name}: {len(content)} stages")
