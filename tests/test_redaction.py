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
        "for char in token:\n    if one_token:\n        return token.gather(1, torch.minimum(place, last))",
        "no token of its tokenizer: token 50256, and the last is 'zebra'",
        "token: str | bool | None = None,",
        "libsecret-common_0.20.5-3",
        "12:30@home and 0.5:0.95 on a@b.c",
        "the secret garden, a secret 'place of wonder'",
        "fw_attention_is_all_you_need secret_santa_of_the_whole_neighbourhood",
        "pretrain/0123456789abcdef0123456789abcdef01234567",
    ],
)
def test_lines_without_secrets(line: str) -> None:
    assert text(line) == line


WORD, SIGNS, WORDS = "Tr0ub4dor-x91", "p@ss/w:rd!9", "correct horse battery staple"
FORMS = {  # how a name and its value are written; those that also hold several words, and those that hold one
    WORDS: (
        *("{n}='{v}'", '{{"{n}": "{v}", "n": 1}}', "{{'{n}': '{v}', 'n': 1}}", '  {n}: "{v}"', "<{n}>{v}</{n}>"),
        *("f({n}='{v}', x=1)", "{n}='{v}'", '{n} = "{v}"', "('{n}', '{v}')", "d['{n}'] = '{v}'", "{n}={v}", "{n}: {v}"),
        *("export {n}={v}\n", "a: 1\n{n}: {v}\nb: 2", "+a.{n}={v}", "{n}:\n  {v}", '"{n}={v}"', "{n}=b'{v}'"),
        *('{n}="""{v}"""', "{n}=SecretStr('{v}')", "{n} == '{v}'", "{n} -> '{v}'", "{n}\uff1d{v}", "{n}\uff1a{v}"),
        *('{{"name": "{n}", "value": "{v}"}}', '<input name="{n}" value="{v}">', r"{{\"{n}\": \"{v}\"}}"),
        *('form-data; name="{n}"\r\n\r\n{v}', "{n}: |\n  {v}\n", "{n}:\n- {v}\n- b", "{n}: {{a: {{b: x}}, c: {v}}}"),
    ),
    SIGNS: ("{n}={v} next", "--{n} {v} --port 80", "--{n}={v}", "a={n}={v}", "-e {n}={v} image", "{n} => {v}"),
    WORD: (
        *("https://h/x?a=1&{n}={v}&b=2", '["{n}", "{v}"]', "setenv {n} {v}", "x {n} is {v}", "| {n} | {v} |"),
        *("KeyError: {n} '{v}' not valid", "\x1b[1m{n}\x1b[0m={v}", "**{n}**: {v}", "{n}%253D{v}", "{n}\t{v}"),
    ),
}


@pytest.mark.parametrize(("value", "form"), [(value, form) for value, forms in FORMS.items() for form in forms])
def test_a_named_value_is_found_however_it_is_written(value: str, form: str) -> None:
    for name in ("password", "api_key", "AUTH_TOKEN", "clientSecret"):
        out = text(form.format(n=name, v=value))
        assert value.split()[-1] not in out, (name, out)
        assert REDACTED in out, (name, out)


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("curl -ume:{} https://host", WORD),
        ("curl --user 'me:{}' https://host", WORD),
        ("mysql -u root -p{} db", WORD),
        ("sshpass -p '{}' ssh host", SIGNS),
        ("redis-cli -a {} ping", WORD),
        ("docker login -u me -p {} registry", SIGNS),
        ("wandb login {}", "0a1b2c3d" * 5),
        ("set -x API_KEY {}", WORD),
        ("Server=h;Uid=me;Pwd={};", WORD),
        ("machine api.wandb.ai\n  login user\n  password {}", WORD),
        ("connect to me:{}@host:5432/db", WORD),
        ("https://outlook.webhook.office.com/webhookb2/{}", WORD),
        ("Incorrect API key provided: {}", WORD),
        ("invalid password '{}'", WORDS),
        ("AKIA0123456789ABCDEF,{}", "0a1B/+cD" * 5),
        ('Authorization: Digest username="me", response="{}"', "0a1b2c3d" * 4),
        ('"cookies": {{"sid": "{}"}}', WORD),
        ("secrets:\n  first: {}\n  second: b\nnext: 1", WORDS),
        ("password='it''s {}'", WORDS),
        ("\u043f\u0430\u0440\u043e\u043b\u044c={}", WORD),
        ("\u5bc6\u7801\uff1a{}", WORD),
        ("contrase\u00f1a={}", WORD),
        ("root:$6$saltsalt${}:18000:0:", "0a1B2c3D" * 5),
        ("MIIE{0}\n{0}\n-----END RSA PRIVATE KEY-----", "0a1B2c3D" * 8),
        ("---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\n{}\n---- END SSH2 ENCRYPTED PRIVATE KEY ----", "0a1B2c3D" * 8),
        ("PuTTY-User-Key-File-2: ssh-rsa\nPrivate-Lines: 1\n{}\nPrivate-MAC: a", "0a1B2c3D" * 8),
    ],
)
def test_what_programs_write_without_naming_it(line: str, secret: str) -> None:
    assert secret not in text(line.format(secret))
    assert REDACTED in text(line.format(secret))


def test_json_in_base64_is_redacted_if_it_holds_a_secret() -> None:
    def encoded(value: object) -> str:
        return base64.b64encode(json.dumps(value).encode()).decode()

    assert text(f"sent {encoded({'api_address': 'x', 'api_key': WORD})} there") == f"sent {REDACTED} there"
    plain = encoded({"api_address": "x", "seed": 3, "name": "nobody"})
    assert text(f"sent {plain} there") == f"sent {plain} there"


@pytest.mark.parametrize(
    "key",
    [
        *("gldt-", "GOCSPX-", "figd_", "tgp_v1_", "pplx-", "xai-", "lsv2_pt_", "rpa_", "jina_", "pcsk_", "KGAT_"),
        *("dp.pt.", "vercel_blob_rw_", "phx_", "ATBB", "LTAI", "ops_eyJ"),
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
        *("login a password ", "login ", "<password>x", "('password','", "('a', ", "a%3D", "%22%3A", "auth=('"),
    ],
)
def test_redaction_takes_time_that_is_linear_in_the_length(unit: str) -> None:
    """50 kB take well below a second; what is quadratic would take a minute."""
    line = unit * (50_000 // len(unit))
    since = time.process_time()  # however busy the machine is
    for value in (line, f"x={line}", f"{line}={line}"):
        redacted([value])
    assert time.process_time() - since < 8


def test_nothing_of_the_default_config_is_taken_for_a_secret() -> None:
    for overrides in ((), ("debug=tiny",), ("experiment=translation",)):
        config = plain(composed(*overrides))
        assert redacted(config) == config
