"""The model card of a plug: what it is, how to use it, what it reaches, with front matter as the hub reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from lockdec.errors import visible

SHOWN = ("token_f1", "exact", "cider_d", "chrf", "loss")  # of the metrics
_TASKS = {"image": "image-to-text", "text": "text-generation", "array": "other"}


def card(record: Mapping[str, Any]) -> str:
    """The text of README.md, from what plug.json holds."""
    decoder, encoder, training = record["decoder"], record["encoder"], record["training"]
    metrics, controls = record["metrics"], record["controls"]
    data = _text(training["data"].get("name", "its data"))
    split = _text(training["data"].get("evaluated", "test"))
    source = _text(decoder["source"] or "pretrained by lockdec")
    shots = training["fewshot"].get("shots", "?")
    columns = ["captions", *map(_text, controls)]
    own = sorted({module for module in _modules(encoder["config"]) if module != "lockdec"})
    modules = " and ".join(f"`{module}`" for module in own)
    needed = f" The encoder needs the Python module{'s' * (len(own) > 1)} {modules}." if own else ""
    rows = [
        f"| {name} | " + " | ".join(_number(scores.get(name)) for scores in (metrics, *controls.values())) + " |"
        for name in SHOWN
        if name in metrics
    ]
    return f"""---
{_front_matter(record, data)}
---

# {_text(record["name"])}: a plug for a frozen decoder

It lets a frozen decoder caption what a frozen encoder encodes: {_kind(record)}, trained by
lockdec on {shots} pairs of {data}. The decoder itself is not in this folder.

- decoder: {source}, fingerprint `{decoder["fingerprint"][:12]}`
- encoder: {_text(encoder["name"])}, {encoder["dim"]} channels, fingerprint `{encoder["fingerprint"][:12]}`
{_bridges(record)}
- prompt: {_text(json.dumps(record["prompt"]["text"])) if record["prompt"] else "none"}

```
lockdec caption PLUG INPUT --decoder DECODER{"".join(f" --trust {module}." for module in own)}
```

where `PLUG` is this folder, and `DECODER` a run, a folder or the id of a model. Another decoder or encoder is
refused.{needed}

## What it reaches

On the {split} split of {data}, beside its controls:

| metric | {" | ".join(columns)} |
|---|{"---|" * len(columns)}
{chr(10).join(rows)}

## Licences

{chr(10).join(f"- {_text(name)}: {_text(licence)}" for name, licence in record["licences"].items())}
"""


def _modules(config: Any) -> Iterator[str]:
    """The packages of the classes that a config names."""
    if isinstance(config, Mapping):
        for name, value in config.items():
            yield from [str(value).partition(".")[0]] if name == "_target_" else _modules(value)
    elif isinstance(config, list):
        for value in config:
            yield from _modules(value)


def _kind(record: Mapping[str, Any]) -> str:
    """What was trained, in words."""
    bridge = record["bridge"]
    return "low-dimensional cross-attention" if bridge is None else f"the bridge {_text(bridge['kind'])}"


def _bridges(record: Mapping[str, Any]) -> str:
    """A line for cross-attention, and one for another bridge, where there is one."""
    attention, bridge, lines = record["cross_attention"], record["bridge"], []
    if bridge is not None:
        settings = ", ".join(f"{name} {value}" for name, value in bridge.items() if name not in ("kind", "encoder_dim"))
        lines.append(f"- bridge: {_text(bridge['kind'])}, {_text(settings)}")
    if attention is not None:
        sizes = ", ".join(f"{name} {attention[name]}" for name in ("d_q", "d_k", "d_v"))
        lines.append(f"- cross-attention: {attention['heads']} heads, {sizes}")
    return "\n".join(lines)


def _front_matter(record: Mapping[str, Any], data: str) -> str:
    metrics = [{"type": name, "value": record["metrics"][name]} for name in SHOWN if name in record["metrics"]]
    task = _TASKS.get(record["encoder"]["modality"], "other")
    kind = "cross-attention" if record["bridge"] is None else record["bridge"]["kind"]
    captioning = "image-captioning" if task == "image-to-text" else "captioning"
    matter: dict[str, Any] = {
        "library_name": "lockdec",
        "license": "other",
        "pipeline_tag": task,
        "tags": ["lockdec", "plug", kind, captioning],
    }
    if source := record["decoder"]["source"]:
        matter["base_model"] = source
    results = [{"task": {"type": task}, "dataset": {"name": data, "type": data}, "metrics": metrics}]
    matter["model-index"] = [{"name": record["name"], "results": results}]
    # JSON is YAML, and no text in it can end the front matter or be anything but a text.
    return "\n".join(f"{name}: {json.dumps(value)}" for name, value in matter.items())


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else ""


def _text(value: Any) -> str:
    """A value as it can stand in Markdown: no markup, no control characters."""
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]<>#|!" else sign for sign in visible(str(value)))
