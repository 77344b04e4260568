"""Secrets are known by their names and their shapes, and everything else is left as it is."""

from __future__ import annotations

import base64
import json
import time

import pytest

from lockdec import redaction
from lockdec.config.schema import plain
from lockdec.redaction import REDACTED, is_secret, learn, redacted, text
from tests.conftest import composed

NAMES = (
    *("api_key", "api_keys", "HF_TOKEN", "dbPassword", "WANDB_API_KEY", "client.secret", "apikey", "Authorization"),
    *("X-Api-Key", "proxy-authorization", "it's_password", "access_key_id", "aws_secret_access_key", "refresh_tokens"),
    *("Cookie", "set-cookie", "token_b64", "password2", "mypassword", "db_pwd", "ssh_key", "credentials", "auth"),
    *("connection_string", "signature", "SLACK_WEBHOOK_URL"),
)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_secrets(name: str) -> None:
    assert is_secret(name)
    assert redacted({name: "value", "a": [{name: 1}]}) == {name: REDACTED, "a": [{name: REDACTED}]}
    assert redacted([f"+a.{name}=several words, and more"]) == [f"+a.{name}={REDACTED}"]
    assert text(f"x {name}=value y") == f"x {name}={REDACTED} y"


@pytest.mark.parametrize(
    "name",
    [
        *("batch_tokens", "token_f1", "key", "artifact_key", "tokenizer", "max_new_tokens", "d_k", "bos_token", "PWD"),
        *("eos_token_id", "author", "bypass", "sort_key", "caption_key", "compass", "authority", "tokens", "passes"),
    ],
)
def test_names_of_no_secrets(name: str) -> None:
    assert not is_secret(name)
    assert redacted({name: 3}) == {name: 3}
    assert text(f"{name}=value") == f"{name}=value"


@pytest.mark.parametrize(
    ("line", "safe"),
    [
        ("redis://:pw@host:6379/0", "redis://[redacted]@host:6379/0"),
        ("https://me:p@ss@host/a", "https://[redacted]@host/a"),
        ("postgres://me:p/w@host/db", "postgres://[redacted]@host/db"),
        ("https://ghx1234567890ab@github.com/a", "https://[redacted]@github.com/a"),
        ("https://x.org/?a=1&token=abc&key=k", "https://x.org/?a=1&token=[redacted]&key=[redacted]"),
        ("https://hooks.slack.com/services/T0/B0/abc", "https://hooks.slack.com/services/[redacted]"),
        ("Authorization: Bearer abc.def and more", "Authorization: [redacted]"),
        ("sent 'Bearer abcdefgh1'", "sent 'Bearer [redacted]'"),
        ("Cookie: a=b; c=d\nHost: x", "Cookie: [redacted]\nHost: x"),
        ("--password hunter2 --port 80", "--password [redacted] --port 80"),
        ('{"api_key": "a b", "n": 1}', '{"api_key": [redacted], "n": 1}'),
        (r"{\"api_key\": \"a b\", \"n\": 1}", r"{\"api_key\": [redacted], \"n\": 1}"),
        ("{'api_keys': ['a', 'b'], 'n': 1}", "{'api_keys': [redacted], 'n': 1}"),
        ("password=“correct horse” and", "password=[redacted] and"),
        ("password: |\n  one\n  two\nnext: 1", "password: [redacted]next: 1"),
        ("a -----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- b", "a [redacted] b"),
        ("curl -u me:hunter2-x https://host", "curl -u me:[redacted] https://host"),
        ("machine host login me password hunter2-x", "machine host login me password [redacted]"),
        ("<user>me</user><password>a b</password>", "<user>me</user><password>[redacted]</password>"),
        ("[('password', 'a b'), ('n', 'c')]", "[('password', [redacted]), ('n', 'c')]"),
        ("auth=('me', 'a b') timeout=3", "auth=[redacted] timeout=3"),
        ("next=%2Fx%3Fapi_key%3Dabc&n=1", "next=%2Fx%3Fapi_key%3D[redacted]&n=1"),
        ("password\u00a0=\u00a0abc", "password\u00a0=\u00a0[redacted]"),
        ("passwort=abc KAGGLE_KEY=abc db_pw=abc", "passwort=[redacted] KAGGLE_KEY=[redacted] db_pw=[redacted]"),
    ],
)
def test_lines_with_secrets(line: str, safe: str) -> None:
    assert text(line) == safe


@pytest.mark.parametrize(
    "line",
    [
        "callbacks.n.api_key: no such key (allowed: a, b)",
        "https://host:8080/@user",
        "git@github.com:a/b.git",
        "12 tokens, token_f1=0.3: attention=0.5",
        "pretrain: the loss is nan at step 3; lower pretrain.optimizer.learning_rate",
        "password=null api_key=??? token=''",
    ],
)
def test_lines_without_secrets(line: str) -> None:
    assert text(line) == line


@pytest.mark.parametrize(
    "key",
    [
        *("dckr_pat_", "glsa_", "shpat_", "sq0csp-", "xoxc-", "lin_api_", "whsec_", "tskey-auth-", "nvapi-", "hvs."),
        *("sntrys_", "ATATT3", "sk-ant-api03-", "hf_", "npm_"),
    ],
)
def test_formats_of_keys(key: str) -> None:
    """Without a name before them; the digits are nobody's."""
    assert text(f"sent {key}{'0a1b2c3d' * 5} there") == f"sent {REDACTED} there"


def test_what_was_seen_under_a_secret_key_is_found_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_learned", set())
    value = "correct 'horse'\nbattery/staple"
    learn(["+callbacks.n.password=" + value, {"headers": {"api_key": "k3y"}, "pass": "s3cr-t", "auth": "basic"}])
    for form in (value, repr(value), json.dumps(value), base64.b64encode(b"me:" + value.encode()).decode()):
        assert "battery" not in text(f"a {form} b")
        assert form not in text(f"a {form} b")
    assert text("s3cr-t, s3cr-ts and basic") == f"{REDACTED}, s3cr-ts and basic"


@pytest.mark.parametrize(
    "unit",
    [
        *("a", "/", "a/", "eyJ-", "eyJaaaaaaaaaaa.", "://a:", "a:", "a=", "password=", "password='", 'token: \\"'),
        *("-----BEGIN PRIVATE KEY-----", "--password ", "Bearer ", "\\", "'", "password:|\n", "password:{", "{", "-"),
        *("password=“x\n", "password='\\'", "SG.aaaaaaaaaaaaaaaaaa.", " ", "a: ", "api_key=[ ", "-u a:", "-u ", "<a>"),
        *("login a password ", "login ", "<password>x", "('password','", "('a', ", "a%3D", "%22%3A", "auth=('"),
    ],
)
def test_redaction_takes_time_that_is_linear_in_the_length(unit: str) -> None:
    """100 kB take well below a second; what is quadratic would take minutes."""
    line = unit * (100_000 // len(unit))
    since = time.monotonic()
    for value in (line, f"x={line}", f"{line}={line}"):
        redacted([value])
    assert time.monotonic() - since < 15


def test_nothing_of_the_default_config_is_taken_for_a_secret() -> None:
    for overrides in ((), ("debug=tiny",), ("experiment=translation",)):
        config = plain(composed(*overrides))
        assert redacted(config) == config
