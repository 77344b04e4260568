"""Makes run and sweep folders as lockdec.run leaves them. Their figures are invented, for tests only."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lockdec.evaluation.metrics import score
from lockdec.evaluation.result import CONTROLS
from lockdec.report.results import Run, Scalar

METRICS = (
    "bleu1",
    "bleu2",
    "bleu3",
    "bleu4",
    "rouge_l",
    "cider_d",
    "chrf",
    "token_f1",
    "exact",
    "distinct",
    "loss",
)
DRAWINGS = {
    "1F469-1F3FD-200D-1F692": "woman firefighter medium skin tone",
    "1F1E9-1F1EA": "flag germany",
    "2764": "red heart",
    "1F408-200D-2B1B": "black cat",
    "1F468-1F3FB-200D-1F33E": "man farmer light skin tone",
    "1F6B4-1F3FF": "person biking dark skin tone",
}


def result(
    dims: tuple[int, int, int] = (8, 8, 8),
    shots: int = 256,
    seed: int = 0,
    encoder: str = "efficientnet_lite0",
    unlock: str = "zero_output",
    heads: int = 6,
    overrides: tuple[str, ...] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """A result.json with scores that grow with dimensions and shots, and jitter with the seed."""
    d_q, d_k, d_v = dims
    draw = random.Random(repr((dims, shots, encoder, unlock, heads, seed)))
    shared = random.Random(seed).gauss(0, 0.012)  # what makes pairing by seed worth it
    size = math.log2(1 + min(d_k, d_q)) * 0.4 + math.log2(1 + d_v) * 0.6
    f1 = 0.22 + 0.075 * math.log2(shots / 4) * (1 - math.exp(-size / 1.3)) * (1.0 if "net" in encoder else 0.6)
    f1 = min(0.97, f1 + shared + draw.gauss(0, 0.006))

    def metrics(value: float, loss: bool = True) -> dict[str, float]:
        scores = {
            "bleu1": value * 0.95,
            "bleu2": value * 0.8,
            "bleu3": value * 0.65,
            "bleu4": value * 0.5,
            "rouge_l": value * 0.98,
            "cider_d": value * 5,
            "chrf": value * 88,
            "token_f1": value,
            "exact": max(0.0, value - 0.6) * 0.8,
            "distinct": min(1.0, value + 0.2),
        }
        return scores | ({"loss": 3.2 - 2 * value} if loss else {})

    controls = {
        "prior": metrics(0.24 + shared / 2),
        "locked": metrics(0.22 + shared / 2),
        "shuffled": metrics(0.28 + shared / 2),
        "nearest_neighbour": metrics(0.24 + 0.055 * math.log2(shots / 4), loss=False),
    }
    own = metrics(f1)
    parameters = 4 * heads * (192 * d_q + 1280 * (d_k + d_v) + 192 * d_v + (d_q * d_k if d_q != d_k else 0))
    first = (dims, shots, seed) == ((1, 1, 1), 16, 0)
    overrides = overrides or (
        f"cross_attention.d_q={d_q}",
        f"cross_attention.d_k={d_k}",
        f"cross_attention.d_v={d_v}",
        f"fewshot.shots={shots}",
        f"seed={seed}",
    )
    made: dict[str, Any] = {
        "schema": 3,
        "status": "ok",
        "error": None,
        "name": "how_low",
        "sweep_name": "how_low",
        "command": "python -m lockdec.run -m cross_attention.d_k=1,2 fewshot.shots=16,256 seed=0,1,2",
        "overrides": list(overrides),
        "seed": seed,
        "stages": {
            "pretrain": {"key": "a" * 64, "reused": not first, "seconds": 210.0 if first else 0.4},
            "attach": {"key": f"{encoder:b<64}"[:64], "reused": not first, "seconds": 25.0 if first else 0.2},
            "finetune": {"key": f"{draw.getrandbits(256):064x}", "reused": False, "seconds": 12.5},
            "evaluate": {"key": f"{draw.getrandbits(256):064x}", "reused": False, "seconds": 3.1},
        },
        "encoder": {"name": encoder, "dim": 1280},
        "data": {
            "name": "openmoji",
            "split": "compositional",
            "split_seed": 0,
            "train": 3153,
            "val": 400,
            "test": 400,
            "evaluated": "test",
        },
        "cross_attention": {
            "heads": heads,
            "d_q": d_q,
            "d_k": d_k,
            "d_v": d_v,
            "layers": "all",
            "unlock": unlock,
            "parameters": parameters,
        },
        "parameters": {
            "total": 2_600_000 + parameters,
            "trainable": parameters,
            "per_module": {"decoder": 2_600_000, "cross_attention": parameters},
        },
        "fewshot": {"shots": shots, "support_seed": seed},
        "metrics": own,
        "controls": controls,
        "gap_over_prior": {name: own[name] - controls["prior"][name] for name in own},
        "unlock": {"max_abs_logit_delta": 0.0},
        "frozen": {"encoder_ok": True, "decoder_ok": True},
        "looking": {"attention_entropy": 2.1, "cross_to_residual_norm": 0.31},
        "cost": {"seconds": 16.2 + shots / 50, "peak_memory_mb": 812.5},
        "versions": {"lockdec": "0.1.0", "torch": "2.13.0", "lightning": "2.6.6", "python": "3.11.7"},
        "started": "2026-11-20T10:00:00",
        "finished": f"2026-11-20T10:{seed:02d}:30",
    }
    return made | changes


def write_run(
    folder: Path,
    content: dict[str, Any] | None = None,
    captions: dict[str, str] | None = None,
    extras: bool = True,
    picture: bytes = b"",
) -> Path:
    """A run folder; with `extras` also captions, drawings, attention, learning curves and config.yaml."""
    folder.mkdir(parents=True)
    content = result() if content is None else content
    (folder / "result.json").write_text(json.dumps(content), encoding="utf-8")
    if not extras:
        return folder
    captions = captions or DRAWINGS
    rows = [
        {
            "id": name,
            "references": [text],
            "caption": text.replace("medium", "light"),
            "nearest_neighbour": "man firefighter light skin tone",
            "prior": "person light skin tone",
            "locked": "flag france",
            "shuffled": "red apple",
        }
        for name, text in captions.items()
    ]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    looks = []
    for number, row in enumerate(rows):
        words = str(row["caption"]).split()
        weights = []
        for place in range(len(words)):
            raw = [math.exp(-abs(state - 3 * place - number) / 2) for state in range(16)]
            weights.append([weight / sum(raw) for weight in raw])
        looks.append({"id": row["id"], "words": words, "grid": [4, 4], "weights": weights})
    (folder / "attention.jsonl").write_text("".join(json.dumps(row) + "\n" for row in looks), encoding="utf-8")
    if picture:
        (folder / "drawings").mkdir()
        for name in captions:
            (folder / "drawings" / f"{name}.png").write_bytes(picture)
    for stage, steps in (("pretrain", 400), ("finetune", 60)):
        (folder / "stages" / stage).mkdir(parents=True)
        lines = ["epoch,step,lr,train/loss,val/loss"]
        for step in range(0, steps, 10):
            lines.append(f"0,{step},0.001,{4 * math.exp(-step / steps) + 0.5:.4f},")
            lines.append(f"0,{step},,,{4 * math.exp(-step / steps) + 0.7:.4f}")
        (folder / "stages" / stage / "metrics.csv").write_text("\n".join(lines) + "\n")
    (folder / "config.yaml").write_text("cross_attention:\n  d_k: 8\nseed: 0\n")
    return folder


def captioned_run(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A run that kept these rows of captions.jsonl, with the scores that they have."""
    references = [row["references"] for row in rows]
    scores = {who: score([row[who] for row in rows], references) for who in ("caption", *CONTROLS) if who in rows[0]}
    own = scores.pop("caption")
    write_run(folder, result() | {"metrics": own, "controls": scores}, extras=False)
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def write_sweep(
    folder: Path,
    dims: tuple[tuple[int, int, int], ...] = ((1, 1, 1), (2, 2, 2), (4, 4, 4), (8, 8, 8)),
    shots: tuple[int, ...] = (16, 256),
    seeds: tuple[int, ...] = (0, 1, 2),
    first: int = 0,
    **more: Any,
) -> Path:
    """A sweep folder of cells with nothing but result.json."""
    cells = [(one, few, seed) for one in dims for few in shots for seed in seeds]
    for number, (one, few, seed) in enumerate(cells, start=first):
        write_run(folder / str(number), result(one, few, seed, **more), extras=False)
    return folder


def run_of(
    f1: float,
    dims: tuple[int, int, int] = (8, 8, 8),
    seed: int = 0,
    shots: int = 64,
    parameters: int = 100,
    controls: Mapping[str, float] | None = None,
    overrides: tuple[str, ...] = (),
    also: Mapping[str, Scalar] | None = None,
) -> Run:
    """A run in memory with little but a token F1; `also` has further values under their dotted names."""
    values: dict[str, Scalar] = {
        "status": "ok",
        "seed": seed,
        "fewshot.shots": shots,
        "metrics.token_f1": f1,
        "parameters.trainable": parameters,
    }
    values |= {f"cross_attention.{name}": size for name, size in zip(("d_q", "d_k", "d_v"), dims, strict=True)}
    values |= {f"controls.{name}.token_f1": value for name, value in (controls or {}).items()}
    label = f"{dims}/{shots}/{seed}"
    return Run(Path(label), label, values | dict(also or {}), (), overrides)
