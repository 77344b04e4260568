"""The command line: what users type becomes what Hydra reads, or one line that says what to type."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st

from lockdec.config.overrides import arranged
from lockdec.errors import ConfigError


def read(word: str) -> object:
    """The value that Hydra reads."""
    return OverridesParser.create().parse_override(word).value()


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1))
@example("photos (1)")
@example("a=b")
@example("it's")
@example('a"b')
@example("a#b&c;d")
@example("[x]")
@example("{x: 1}")
@example("été/日本")
@example("2024")
@example("1_000")
@example("true")
@example(" x ")
@example("x\\")
@example("a\\'b")
def test_a_path_is_the_text_that_was_typed(path: str) -> None:
    """Whatever it is made of; but for quotes around it, ${...}, null, ~ and commas, which keep Hydra's meaning."""
    if path[0] in "'\"~" or path[0].isspace() or path.lower() == "null" or "," in path or "$" in path:
        return
    (word,) = arranged([f"data.path={path}"])
    assert read(word) == path or "\\" in path  # Hydra lets a backslash escape its own characters


@pytest.mark.parametrize(
    "value", ["'a b'", '"a"', "null", "${oc.env:HOME}/x", "a/b.json", "..", "*.png", "x:y", "hub/model"]
)
def test_what_hydra_reads_as_it_is_typed_stays(value: str) -> None:
    assert arranged([f"data.path={value}"]) == [f"data.path={value}"]


def test_the_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert arranged(["data.path=~/my pictures (1)"]) == ["data.path='/home/ada/my pictures (1)'"]
    assert arranged(["~callbacks"]) == ["~callbacks"]


def test_a_comma_is_part_of_a_path_that_exists(tmp_path: Path) -> None:
    (tmp_path / "a,b").mkdir()
    assert arranged([f"data.path={tmp_path}/a,b"]) == [f"data.path='{tmp_path}/a,b'"]
    with pytest.raises(ConfigError, match="several values are a sweep"):
        arranged([f"data.path={tmp_path}/a,c"])
    assert arranged(["-m", "data.path=a,b"]) == ["-m", "data.path=a,b"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("seed=0,1 -m debug=tiny", ["-m", "seed=0,1", "debug=tiny"]),
        ("debug=tiny --multirun seed=0,1", ["--multirun", "debug=tiny", "seed=0,1"]),
        ("debug=tiny --cfg job seed=1 -p trainer", ["--cfg", "job", "-p", "trainer", "debug=tiny", "seed=1"]),
        ("--cfg=job --info seed=1", ["--cfg=job", "--info", "seed=1"]),
        ("--info plugins", ["--info", "plugins"]),
        ("+a.b=1 ++a=2 hydra/launcher=joblib data@x=y", ["+a.b=1", "++a=2", "hydra/launcher=joblib", "data@x=y"]),
        ("experiment=[a,b] pair={heads:8,d:1}", ["experiment=[a,b]", "pair={heads:8,d:1}"]),
        (
            "-m x='interval(0,1)' y='tag(log,interval(1e-4,1))'",
            ["-m", "x=interval(0,1)", "y=tag(log,interval(1e-4,1))"],
        ),
        ("name='my run (1)'", ["name='my run (1)'"]),
        ("data.caption='a caption: été'", ["data.caption='a caption: été'"]),
    ],
)
def test_options_come_first_and_overrides_keep_their_order(typed: str, words: list[str]) -> None:
    assert arranged(shlex.split(typed)) == words


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("seed=0,1 name=x", "seed=0,1: several values are a sweep: python -m lockdec.run -m seed=0,1 name=x; for one "
                            "text, quote it: \"seed='0,1'\""),
        ("seed = 1", "'seed': an override is key=value without spaces, such as seed=1"),
        ("seed =1", "'seed': an override is key=value without spaces, such as seed=1"),
        ("seed= 1", "'seed=' and '1': write seed=1 without a space"),
        ("foo seed=1", "'foo': an override is key=value without spaces, such as foo=VALUE"),
        ("=3 seed=1", "'=3': an override is key=value without spaces, such as key=VALUE"),
        ("seed 1", "'seed': an override is key=value without spaces, such as seed=1"),
        ("-seed=1", "-seed=1: write it without dashes: seed=1"),
        ("--dry-run=true", "--dry-run=true: write it without dashes: dry_run=true"),
        ("--tiny", "--tiny: no such option (there are: -m, --multirun, -h, --help, ...); a choice is written "
                   "tiny=VALUE"),
        ("finetune.steps=range(1,3", "finetune.steps=range(1,3: Hydra cannot read this; for a text, quote it: "
                                     "\"finetune.steps='range(1,3'\""),
        ("-m 'data.path=a (1),b (2)'", "data.path=a (1),b (2): Hydra cannot read this; quote each value: "
                                       "\"data.path='a (1)','b (2)'\""),
        ("'paths.stores=[~/stages, /a b]'", "paths.stores=[~/stages, /a b]: Hydra cannot read this; quote each text: "
                                            "\"paths.stores=['~/stages','/a b']\""),
        ("'x y=1'", "'x y=1': 'x y' is not a key; an override is key=value without spaces"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_answered_with_what_to_type(typed: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        arranged(shlex.split(typed))
    assert str(error.value) == message
    if "quote" in message:  # what the line says to type can be read
        arranged(["-m", *shlex.split(message.rpartition(": ")[2])])


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ConfigError, match="on the command line is not UTF-8"):
        arranged(["name=\udcff"])
