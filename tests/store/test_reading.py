"""Reading files of strangers as data: what is not data is refused by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from lockdec.errors import StoreError
from lockdec.store.reading import MOST_NESTED, read_config, read_dataclass, read_json, read_object


@dataclass
class Sizes:
    d_model: int
    layers: list[int]


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("text", ["NaN", "{", "[" * 100_000, ""])
def test_what_is_no_json_is_refused_by_name(text: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"a\.json: not JSON"):
        read_json(written(tmp_path / "a.json", text))


def test_an_object_is_asked_for(tmp_path: Path) -> None:
    assert read_object(written(tmp_path / "a.json", '{"a": 1}')) == {"a": 1}
    with pytest.raises(StoreError, match=r"a\.json: not a JSON object"):
        read_object(written(tmp_path / "a.json", "[]"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"d_model": "8", "layers": []}', "d_model"),
        ('{"d_model": 8, "layers": [1.5]}', r"layers\.0"),
        ('{"d_model": 8}', "layers"),
        ('{"d_model": 8, "layers": [], "heads": 2}', "unknown key heads"),
    ],
)
def test_a_dataclass_names_the_field_that_is_wrong(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=rf"a\.json: not a Sizes \({problem}"):
        read_dataclass(written(tmp_path / "a.json", text), Sizes)


def test_a_dataclass_is_read_with_its_types(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", '{"d_model": 8, "layers": [1, 2]}')
    assert read_dataclass(path, Sizes) == Sizes(8, [1, 2])


def test_a_config_may_be_nested_so_deep_and_no_deeper(tmp_path: Path) -> None:
    def nested(levels: int) -> str:
        return "a: " + "[" * (levels - 1) + "]" * (levels - 1)

    assert read_config(written(tmp_path / "config.yaml", nested(MOST_NESTED)))
    with pytest.raises(StoreError, match="nested too deeply"):
        read_config(written(tmp_path / "config.yaml", nested(MOST_NESTED + 1)))
