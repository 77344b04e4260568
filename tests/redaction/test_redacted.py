"""Containers are redacted by key and value, what was learnt is found again, and all of it takes linear time."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from lockdec import redaction
from lockdec.config.checking import plain
from lockdec.redaction import REDACTED, learn, of_error, redacted, text
from tests.conftest import composed

WORD = "Tr0ub4dor-x91"


@pytest.mark.parametrize(
    "value",
    [
        *({"pass word": WORD}, {"API Key": WORD}, {"PASS_WORD": WORD}, {"wandb": {"key": WORD}}, {"db": {"pwd": WORD}}),
        *({"Name": "password", "Value": WORD}, {"key": "api_key", "val": WORD}, {"field": "password", "content": WORD}),
        *(
            {"variable": "TOKEN", "value": WORD},
            {"name": "password", "default": [WORD]},
            {"headers": [["X-Api-Key", WORD]]},
        ),
        *({"arguments": ["--password", WORD]}, [("password", WORD)], {"cookie_jar": {"sid": WORD}}),
        *(
            {"a": json.dumps(json.dumps({"password": WORD}))},
            {"a": f"password: {WORD}"},
            {"password": {"a": {"b": [WORD]}}},
        ),
    ],
)
def test_a_secret_is_found_wherever_its_name_stands(value: Any) -> None:
    assert WORD not in json.dumps(redacted(value))
    assert REDACTED in json.dumps(redacted(value))


@pytest.mark.parametrize(
    "value",
    [
        *(
            {"keys": {"pretrain": "0a1b2c3d" * 8}},
            {"tokens": {"batch": 4096}},
            {"sort": {"key": "caption"}},
            {"key": WORD},
        ),
        *({"name": "token_f1", "value": 0.5}, {"name": "seed", "default": 3}, {"paths": {"code": "/x"}}),
    ],
)
def test_other_values_stay(value: Any) -> None:
    assert redacted(value) == value


def test_json_in_base64_is_redacted_if_it_holds_a_secret() -> None:
    def encoded(value: object) -> str:
        return base64.b64encode(json.dumps(value).encode()).decode()

    assert text(f"sent {encoded({'api_address': 'x', 'api_key': WORD})} there") == f"sent {REDACTED} there"
    plain = encoded({"api_address": "x", "seed": 3, "name": "nobody"})
    assert text(f"sent {plain} there") == f"sent {plain} there"


def test_what_was_seen_under_a_secret_key_is_found_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_learned", set())
    value = "correct 'horse'\nbattery/staple"
    learn(["+callbacks.n.password=" + value, {"headers": {"api_key": "k3y"}, "pass": "s3cr-t", "auth": "basic"}])
    for form in (value, repr(value), json.dumps(value), base64.b64encode(b"me:" + value.encode()).decode()):
        assert "battery" not in text(f"a {form} b")
        assert form not in text(f"a {form} b")
    assert text("s3cr-t, s3cr-ts and basic") == f"{REDACTED}, s3cr-ts and basic"


@pytest.mark.parametrize("key", ["Authorization", "cookie", "password", "callbacks.n.api_key", "HF_TOKEN"])
@pytest.mark.parametrize(
    "reason",
    [
        "no such key (allowed: seed, name)",
        "no such key, nor a stage of this name (allowed: seed, name)",
        "Cannot convert 'ListConfig' to string: '[]'",
        "Incompatible value 'None' for field of type 'str'",
    ],
)
def test_the_reason_of_an_error_about_the_key_of_a_secret_survives_every_reader(key: str, reason: str) -> None:
    line = of_error(f"{key}: {reason}")
    assert line == f"{key} - {reason}"
    assert text(line) == redacted(line) == of_error(line) == line
    assert WORD not in of_error(f"{key}={WORD}: {reason}")


@pytest.mark.parametrize(
    "unit",
    [
        *("a", "/", "a/", "eyJ-", "eyJaaaaaaaaaaa.", "://a:", "a:", "a=", "password=", "password='", 'token: \\"'),
        *("-----BEGIN PRIVATE KEY-----", "--password ", "Bearer ", "\\", "'", "password:|\n", "password:{", "{", "-"),
        *("password=“x\n", "password='\\'", "SG.aaaaaaaaaaaaaaaaaa.", " ", "a: ", "api_key=[ ", "-u a:", "-u ", "<a>"),
        *("password:\n", "password:\n- a\n", "password: a ", "password is ", "mysql a -p ", '"password=', "a1:b1@"),
        *(
            '"name": "password", "value": ',
            "eyJhIjoiYiJ9 ",
            "aaaaaaaaaaaaaaaa ",
            "-----END ",
            "password=[{(",
            "secret_a",
        ),
        *("password=''", '["password", ', "set -x A ", "\x1b[1m", "password%25253D", "token 1a"),
        *(
            "\u0902",
            "<a ",
            "<a name='password' ",
            "<key>password</key>",
            "login('me', '",
            "SecretStr('a ",
            "%3A%2F%2F",
            "%2F%3A",
        ),
        *(
            "IDENTIFIED BY '",
            "PASSWORD = ",
            "echo me:x | ",
            "mysql -p",
            "name: password\n",
            "name: a\n value: ",
            "api key ",
        ),
        *(
            "password for 'a' ",
            "password: str = ",
            "password=a or ",
            "password=f(",
            "a1B2c3D4e5",
            "a1B2c3D4e5/",
            "_a1",
            "hf_a",
        ),
        *(
            "sk-a1",
            "pat.",
            "AAAA",
            "eyJa.",
            "prod:a",
            "$6$",
            "password&quot;:&quot;",
            "--password,'",
            "//a:b1",
            "<![CDATA[",
        ),
        *("login a password ", "login ", "<password>x", "('password','", "('a', ", "a%3D", "%22%3A", "auth=('"),
    ],
)
def test_redaction_takes_time_that_is_linear_in_the_length(unit: str) -> None:
    """25 kB take well below a second; what is quadratic would take a minute."""
    line = unit * (25_000 // len(unit))
    since = time.process_time()  # however busy the machine is
    for value in (line, f"x={line}", f"{line}={line}"):
        redacted([value])
    assert time.process_time() - since < 5


def test_nothing_of_the_default_config_is_taken_for_a_secret() -> None:
    for overrides in ((), ("debug=tiny",), ("experiment=translation",)):
        config = plain(composed(*overrides))
        assert redacted(config) == config
