"""Which names are those of secrets."""

from __future__ import annotations

import pytest

from lockdec.redaction import REDACTED, is_secret, redacted, text
from lockdec.redaction.names import is_in_query, is_unmistakable

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


def test_some_names_are_those_of_secrets_only_in_a_url_or_beside_a_clear_sign() -> None:
    assert is_in_query("sig")
    assert not is_secret("sig")
    assert is_unmistakable("auth_token")
    assert is_secret("token")
    assert not is_unmistakable("token")
