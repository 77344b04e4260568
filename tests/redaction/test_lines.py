"""Secrets that are known by what stands before them; ordinary lines are left as they are."""

from __future__ import annotations

import pytest

from lockdec.redaction import REDACTED, text

WORD, SIGNS, WORDS = "Tr0ub4dor-x91", "p@ss/w:rd!9", "correct horse battery staple"


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
        "def accept(self, kind: Kind, *, reject: Literal[True]) -> Token | None:",
        "pass_parent = _should_pass('_parent_'), and pass to `MaxUnpool2d`",
        "secrets (`Dict[str, str]`, *optional*): of the space",
        'the set of "green" tokens before the next token. "Red" tokens are',
        "FLAGS = {'--token', '--expose', '--type'}",
        "test_a_sweep_leaves_no_secret[launcher0-1]",
        "a key of 12 letters, key: value, the key 'caption'",
        "password for the file, and for user 'me'",
        "pretrain/0123456789abcdef0123456789abcdef01234567",
    ],
)
def test_lines_without_secrets(line: str) -> None:
    assert text(line) == line


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
