"""Keeps secrets out of everything that a run writes or prints.

Writers pass values through `redacted` while they are still containers, so that a key and its value are seen together,
and lines that already are text through `text`. A secret is recognised in three ways: by the name of its key, option,
header or query parameter; by its format, for well-known kinds of keys; and by its value, if the value is in an
environment variable with such a name, or has been seen under such a key (`learn`). Secrets found by value are also
found in base64, in URLs and with escapes.

All patterns are linear in the length of the text: none starts within what another attempt has already read, and
repetitions are possessive.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any
from unicodedata import normalize
from urllib.parse import quote, quote_plus

REDACTED = "[redacted]"
_SHORTEST = 8  # characters of a secret that is found anywhere in a text
_SHORTEST_WORD = 4  # characters of one that is found where it stands alone, if it has more than letters
_LONGEST_PARSED = 100_000  # characters of a string that is parsed
_NEAR = 200  # characters in which a brace makes `name: value` an entry instead of a sentence
_LONGEST_QUOTED = 20_000  # characters between two quotes
_LONGEST_NESTED = 2_000  # characters in which nested brackets are matched

_LAST_WORDS = {
    *("password", "passwords", "passwd", "passwds", "pass", "passcode", "passphrase", "passphrases"),
    *("secret", "secrets", "credential", "credentials", "cred", "creds", "token", "authorization", "auth", "bearer"),
    *("cookie", "cookies", "apikey", "apikeys", "signature", "dsn", "otp", "webhook", "pw", "pswd", "passw"),
    *("csrf", "xsrf", "jwt", "oauth", "mnemonic", "sessionid", "connstr"),
    *("passwort", "kennwort", "passe", "contrasena", "senha", "wachtwoord", "losenord", "passord", "adgangskode"),
    *("salasana", "heslo", "jelszo", "parool", "haslo", "sifre", "lozinka", "geslo", "slaptazodis", "parola"),
}
_ENDINGS = (
    *("password", "passwd", "passphrase", "apikey", "apikeys"),
    *(
        "authtoken",
        "accesstoken",
        "apitoken",
        "secretkey",
        "accesskey",
        "privatekey",
        "appsecret",
        "apisecret",
        "clientsecret",
        "userpw",
        "rootpw",
    ),
)
_OTHER_SCRIPTS = re.compile(
    "парол|лозинк|密码|密碼|口令|パスワード|暗証番号|비밀번호|암호|κωδικ|סיסמ|كلمة المرور|कूटशब्द|पासवर्ड|รหัสผ่าน"
)
_QUALIFIERS = {
    *("value", "values", "str", "string", "text", "plain", "base", "b", "hex", "pem", "id", "header", "url", "hash"),
}
_PHRASES = {
    *(("connection", "string"), ("webhook", "url"), ("session", "key"), ("session", "id"), ("seed", "phrase")),
    *(("recovery", "code"), ("mfa", "code"), ("unlock", "code"), ("github", "pat"), ("sas", "url")),
}
_KEYS = {
    *("api", "access", "private", "secret", "auth", "signing", "encryption", "account", "ssh", "deploy", "license"),
    *("master", "shared", "hmac", "service", "fernet", "ssl", "tls", "client", "subscription", "storage", "jwt"),
    *("admin", "bot", "app", "openai", "anthropic", "wandb", "hf", "aws", "azure", "gcp", "google", "github"),
    *("kaggle", "comet", "neptune", "huggingface", "mistral", "cohere", "replicate", "gemini", "groq", "together"),
    *(
        "deepseek",
        "datadog",
        "sentry",
        "pinecone",
        "elastic",
        "mapbox",
        "stripe",
        "twilio",
        "sendgrid",
        "nvidia",
        "ngc",
    ),
}
_TOKENS = {"api", "access", "auth", "refresh", "bearer", "session", "secret", "csrf", "id"}  # with `tokens`
_SPECIAL_TOKENS = {  # of a vocabulary
    *("bos", "eos", "pad", "unk", "mask", "cls", "sep", "special", "added", "begin", "end", "start", "stop", "next"),
    *("image", "audio", "padding", "unknown", "per", "first", "last", "prompt", "sos", "decoder", "of"),
}
_IN_QUERY = {"key", "sig", "auth", "code", "hmac", "sas", "pwd", "pw"}  # names that are secrets in a URL alone
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

_SHAPES = re.compile(
    r"(?<![A-Za-z0-9_-])(?:hf_[A-Za-z0-9]{20,}+|sk-[A-Za-z0-9_-]{16,}+|sk_[a-f0-9]{40,}+|[rs]k_(?:live|test)_[A-Za-z0-9]{16,}+"
    r"|gh[pousr]_[A-Za-z0-9]{20,}+|github_pat_[A-Za-z0-9_]{20,}+|xox[abceprsd][.-][A-Za-z0-9.-]{10,}+|1//0[\w-]{30,}+"
    r"|A(?:KI|SI|BI|CC)A[0-9A-Z]{16}(?![0-9A-Z])(?:[\s:,;|]{1,3}[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+]))?"
    r"|xapp-[A-Za-z0-9-]{10,}+|gl(?:pat|dt|rt|cbt|ptt|ft|soat|imt|agent)-[A-Za-z0-9_-]{16,}+|wandb_v\d_[A-Za-z0-9_]{20,}+"
    r"|AIza[A-Za-z0-9_-]{30,}+|GOCSPX-[\w-]{20,}+|npm_[A-Za-z0-9]{30,}+|pypi-[A-Za-z0-9_-]{30,}+|r8_[A-Za-z0-9]{30,}+"
    r"|do[opr]_v1_[a-f0-9]{40,}+|ya29\.[A-Za-z0-9_-]{20,}+|SG\.[A-Za-z0-9_-]{16,}+\.[A-Za-z0-9_-]{16,}+|gsk_\w{30,}+"
    r"|dckr_pat_[A-Za-z0-9_-]{16,}+|gl(?:sa|c)_[A-Za-z0-9_=]{16,}+|shp(?:at|ca|pa|ss)_[A-Za-z0-9]{16,}+|ntn_\w{30,}+"
    r"|sq0(?:csp|atp)-[A-Za-z0-9_-]{16,}+|lin_api_[A-Za-z0-9]{16,}+|whsec_[A-Za-z0-9+/]{16,}+|tskey-[a-z]+-[\w-]{16,}+"
    r"|sgp_[A-Za-z0-9_]{16,}+|nvapi-[A-Za-z0-9_-]{30,}+|hv[bs]\.[A-Za-z0-9_-]{20,}+|sntry[su]_[A-Za-z0-9+/=_]{16,}+"
    r"|dp\.(?:pt|st|ct|sa)\.\w{20,}+|dt0[a-z]\d\d\.[A-Z0-9]{20,}+\.\w{30,}+|NRAK-[A-Z0-9]{20,}+"
    r"|dapi[a-f0-9]{32}|SK[a-f0-9]{32}|key-[a-f0-9]{32}|[a-f0-9]{32}-us\d\d?|PMAK-[a-f0-9]{20,}+-[a-f0-9]{30,}+"
    r"|pat[A-Za-z0-9]{14}\.[a-f0-9]{60,}+|v1\.0-[a-f0-9]{24}-[a-f0-9]{100,}+|pul-[a-f0-9]{40}|lsv2_[ps][tk]_\w{32,}+"
    r"|[MNO](?=[A-Za-z]*+\d)[A-Za-z0-9]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}+|\d{8,10}:AA[A-Za-z0-9_-]{32,}+|EAACEd\w{20,}+"
    r"|(?:secret_(?:lambda_)?|figd_|pnu_|rubygems_|sbp_|vercel_\w+_rw_|pscale_\w{2,5}_|tgp_v\d_|jina_|pcsk_|KGAT_|rpa_|phx_)"
    r"(?=[a-z_.-]*+[0-9A-Z])[\w.-]{32,}+|(?:api_org|fm\d)_[\w+/=]{30,}+|(?:pplx|xai|csk|HRKU)-[\w-]{30,}+|(?:fw|rf)_(?=[a-z]*+[0-9A-Z])[A-Za-z0-9]{20,}+|ops_eyJ[\w-]{40,}+"
    r"|(?:AT(?:ATT3|BB)|LTAI|AKID|AQVN)[A-Za-z0-9_=-]{20,}+|AGE-SECRET-KEY-1[A-Z0-9]{30,}+|sk\.eyJ[\w-]{10,}+\.[\w-]{10,}+"
    r"|eyJ[A-Za-z0-9_-]{10,}+\.[A-Za-z0-9_-]{10,}+\.[A-Za-z0-9_-]{5,}+)"
    r"|\$(?:1|2[abxy]|5|6|y|apr1|argon2\w{1,2}|scrypt|pbkdf2[\w-]{0,10})\$[./A-Za-z0-9$=,+]{16,}+"  # of passwords
    r"|(?<=\.atlasv1\.)\w{30,}+|(?<=hooks\.slack\.com/services/)[\w/]++|(?<=/api/webhooks/)[\w/-]++|(?<=api\.telegram\.org/bot)[\w:-]++"
    r"|(?<=webhook\.office\.com/webhookb2/)[\w@/-]++|(?<=hooks\.zapier\.com/hooks/catch/)[\w/-]++|(?<=/with/key/)[\w-]++"
)
_SCHEME = re.compile(r"\b(Bearer|Basic|Digest|Negotiate)(\s{1,3})([A-Za-z0-9._~+/=-]{8,}+)", re.IGNORECASE)
_PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:(?!-----)[\s\S])*+(?:-----END [A-Z0-9 ]{0,40}-----)?"
    r"|---- BEGIN SSH2 [A-Z ]{0,20}PRIVATE KEY ----(?:(?!----)[\s\S])*+(?:---- END [A-Z0-9 ]{0,40} ----)?"
    r"|(?<=Private-Lines: )\d{1,4}\r?\n(?:[A-Za-z0-9+/=]{1,80}\r?\n?)++"  # of PuTTY
)
_PEM_END = re.compile(
    r"(?<![A-Za-z0-9+/=])(?:[A-Za-z0-9+/=]{16,200}+\s{1,4}){1,400}+-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----"
)
_ENCODED = re.compile(r"(?<![A-Za-z0-9+/_=-])eyJ[A-Za-z0-9+/_=-]{20,20000}+")  # JSON in base64
_LOGIN = re.compile(r"(?<![\w-])((?:-u ?|(?:--user|--proxy-user)[ =])['\"]?[^\s:'\"]{1,200}+:)[^\s'\"]++")  # of curl
_NETRC = re.compile(r"\b(login\s{1,8}\S{1,200}+\s{1,8}password\s{1,8})\S++")
_COMMANDS = re.compile(
    r"(?<![\w.-])(?P<before>"
    r"(?:sshpass|mysql\w{0,10}|redis-cli|ldap\w{1,10}|(?:docker|podman|helm registry|az|oc) login)"
    r" (?:[^\s|;&]{1,80}+ ){0,8}?-[pwa] ?['\"]?|(?:wandb|hf|kaggle|comet|huggingface-cli) login (?:--relogin )?"
    r"|(?:set -\w{1,3}|setenv|setx) (?P<name>\w{1,80}+) )(?P<value>[^\s'\"-][^\s'\"]*+)"
)
_WITHOUT_SCHEME = re.compile(
    r"(?<![\w@./:-])([A-Za-z][\w.-]{0,63}:)(?P<value>[^\s:@/'\"`,()]{8,200}+)(?=@[\w-]{1,60}+[.:/])"
)
_NAME_VALUE = re.compile(
    r"(?<![\w-])(?P<before>\\{0,8}[\"']?(?:name|key|header)\\{0,8}[\"']?\s{0,2}[:=]\s{0,2}(?P<mark>\\{0,8}[\"'])"
    r"(?P<name>[\w. -]{1,100}+)(?P=mark),?\s{0,4}\\{0,8}[\"']?(?:value|content)\\{0,8}[\"']?\s{0,2}[:=]\s{0,2}"
    r"(?P=mark))(?P<value>[^\"'\n\\]++)|(?P<form>name=\"(?P<field>[\w.-]{1,100}+)\"(?:\r?\n){2})[^\r\n]++"
)
_PROSE = re.compile(  # "invalid password 'x'", "the API key is x", "Incorrect API key provided: x"
    r"(?P<before>(?:pass(?:word|phrase|wd|code)|passwort|kennwort|secret|token|"
    r"(?:api|access|private)[ _-]?key)(?!\w)"
    r"(?: (?:is|was|were|provided|given|received|used|lautet|ist|for [\w@.-]{1,40}+)){0,2}+"
    r"(?:[:?]|[ \t]{0,2}(?:->|>|==|!=|\||,|;|\u2014|\())?[ \t]{0,4}['\"`]?)"
    r"(?P<value>(?=[A-Za-z]*+[^A-Za-z\s])(?=\S{0,20}[0-9])(?=\S{0,20}[A-Za-z])[\w$!#@%&*+^][^\s'\"`)|,;=]{7,200}+)(?![=.])",
    re.IGNORECASE,
)
_QUOTED_PROSE = re.compile(
    r"(?<![\w.-])(?P<before>(?:password|passphrase|passwd|passwort|kennwort)[ \t]{1,4}(?P<quote>['\"`]))"
    r"(?P<value>[^'\"`\n]{4,200}+)(?=(?P=quote))",
    re.IGNORECASE,
)
_ELEMENT = re.compile(r"<(?P<name>[\w.:-]{1,100}+)>(?P<value>[^<>\n]++)(?=</)")
_PAIR = re.compile(
    r"(?P<open>[(\[])b?(?P<name>'[\w.-]{1,100}+'|\"[\w.-]{1,100}+\"),(?P<space> ?)"
    r"(?P<value>b?'[^'\n]*+'|b?\"[^\"\n]*+\")"
)
_ADDRESS = re.compile(r"(?<=://)[^\s\"'<>`]++")
_QUOTES = "\"'`\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb"
_CLOSING = {"\u2018": "\u2019", "\u201c": "\u201d", "\u201e": "\u201c\u201d", "\u00ab": "\u00bb"}
_STYLE = r"(?:\x1b\[[\d;]{0,12}m|\*{1,3})"  # of a terminal, or of Markdown
_NAMED = re.compile(
    rf"(?<![\w.@+~/$-])(?P<dashes>--?)?(?P<name>[\w.@+~/$-]++)(?P<quoted>\\{{0,8}}[{_QUOTES}])?\]?{_STYLE}?"
    r"[ \t\u00a0]{0,4}"
    r"(?:(?P<sign>=>|:=|->(?=[ \t]{0,4}['\"])|[=!]=(?=[ \t]{0,4}['\"])|=(?!=)|\uff1d|\uff1a|:(?![:/])"
    rf"|(?:%(?:25)*22)?%(?:25)*3[ADad](?:%(?:25)*22)?){_STYLE}?[ \t\u00a0]{{0,4}}|(?<=[ \t\u00a0]))"
)
_QUOTED = re.compile(
    rf"(?:[bruf]{{1,2}}|[A-Za-z_][\w.]{{0,40}}\()?(?P<quote>(?P<escape>\\{{0,8}})(?P<mark>\"\"\"|\'\'\'|[{_QUOTES}]))"
)
_BLOCK = re.compile(r"[|>][+-]?[ \t]*+\r?\n(?:[ \t]++[^\n]*+\n?)++")
_NESTED = re.compile(r"(?P<indent>[ \t]*+)(?P<item>-[ \t]+)?[^\s:][^\n]*+\n?")
_BEGIN = re.compile(r"[ \t]*+(?:- |export |set |ENV |setx? )?[ \t]*+")  # of a line that is an assignment
_KEY_ALONE = re.compile(rf"[ \t]*+(?:- )?[{_QUOTES}]?[\w.-]++[{_QUOTES}]?:[ \t]*+")
_SENTENCE = re.compile(rf"[^\s{_QUOTES}]++(?:[ \t]++(?![\w.+~-]++=|[-|=])[^\s{_QUOTES}]++)*+(?<![,(])(?=\r?\n|\Z)")
_MORE_WORDS = re.compile(rf"(?:[ \t]++(?![\w.+~-]++=|-)[^\s{_QUOTES}]++)++")
_BRACKETS = re.compile(r"[{}\[\]()]")
_TOKEN = re.compile(rf"(?:(?:Bearer|Basic|Digest|Token)[ \t]{{1,3}})?[^\s,;&}}\]){_QUOTES}]++", re.IGNORECASE)
_REST_OF_LINE = re.compile(rf"[^\n{_QUOTES}]++")
_HEX = re.compile(r"[0-9A-Fa-f]{2}")
_LIST_OF_FIELDS = re.compile(r"(?:Digest|AWS4-HMAC-SHA256|OAuth|Hawk|Signature)\b[^\n]++", re.IGNORECASE)
_HEADERS = {"authorization", "cookie", "cookies"}
_ASSIGNMENT = re.compile(r"\s*(?P<key>[+~]{0,2}[^\s=:{}()\[\],]+(?: [^\s=:{}()\[\],]+){0,3})=(?!=)(?P<value>[\s\S]+)")
_EMPTY = {"", "null", "none", "true", "false", "???", REDACTED.lower(), REDACTED.strip("[]")}

_learned: set[str] = set()


@lru_cache(maxsize=4096)  # asked for every environment variable, whenever something is written
def is_secret(name: str) -> bool:
    """Whether a key, an option, a header or an environment variable of this name holds a secret.

    `api_keys`, `HF_TOKEN`, `dbPassword` and `X-Api-Key` do; `batch_tokens`, `token_f1` and `artifact_key` do not.
    """
    if not name.isascii():
        if _OTHER_SCRIPTS.search(name):
            return True
        name = "".join(sign for sign in normalize("NFKD", name.replace("ł", "l")) if sign.isascii())  # without accents
    words = [word.lower() for word in _WORDS.findall(name)]
    while len(words) > 1 and (words[-1].isdigit() or words[-1] in _QUALIFIERS) and tuple(words[-2:]) not in _PHRASES:
        words.pop()
    if not words:
        return False
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if last == "token":
        return before not in _SPECIAL_TOKENS
    if last in ("key", "keys"):
        return before in _KEYS
    if last == "tokens":
        return before in _TOKENS
    if last == "pwd":
        return bool(before)  # PWD is the working directory
    return last in _LAST_WORDS or last.endswith(_ENDINGS) or (before, last) in _PHRASES


def learn(value: Any) -> None:
    """Remember the secrets in a value made of plain containers, so that `text` finds them in any later line.

    The command does so for its arguments and its config: an error may quote a value without the name of its key.
    """
    _learned.update(_found(value))


def redacted(value: Any) -> Any:
    """A value made of plain containers, without its secrets. A string `key=value` is read as an override."""
    return _redacted(value, known([*_found(value)]))


def text(line: str, secrets: Sequence[str] | None = None) -> str:
    """The text without its secrets.

    Args:
        secrets: what `known` returns, so that many texts can share one call; None calls it.
    """
    for secret in known() if secrets is None else secrets:
        if secret in line:
            line = _without(line, secret)
    if "-- BEGIN" in line or "--BEGIN" in line or "Private-Lines" in line:
        line = _PEM.sub(REDACTED, line)
    if "-----END" in line:
        line = _PEM_END.sub(REDACTED, line)
    if "eyJ" in line:
        line = _ENCODED.sub(_without_encoded, line)
    if len(line) >= _SHORTEST:
        line = _SCHEME.sub(rf"\1\2{REDACTED}", _SHAPES.sub(REDACTED, line))
    if "://" in line:
        line = _ADDRESS.sub(_without_login, line)
    if "@" in line and ":" in line:
        line = _WITHOUT_SCHEME.sub(_without_random, line)
    if " -" in line or "login " in line or "set" in line:
        line = _COMMANDS.sub(_without_argument, line)
    if "-u" in line or "login" in line:
        line = _NETRC.sub(rf"\1{REDACTED}", _LOGIN.sub(rf"\1{REDACTED}", line))
    if "</" in line:
        line = _ELEMENT.sub(_without_content, line)
    if "'," in line or '",' in line:
        line = _PAIR.sub(_without_second, line)
    if "name" in line or "key" in line or "header" in line:
        line = _NAME_VALUE.sub(_without_named_value, line)
    if any(sign in line for sign in ("=", ":", "--", "%3", "->", "\uff1d", "\uff1a")):
        line = _without_named(line)
    return _QUOTED_PROSE.sub(_without_value, _PROSE.sub(_without_value, line))


def known(more: Sequence[str] = ()) -> list[str]:
    """The secrets that are known by value, in all forms they may be written in, the longest first: one may be part of
    another. They come from the environment, from `learn` and from `more`."""
    plain = {value for name, value in os.environ.items() if len(value) >= _SHORTEST and is_secret(name)}
    forms = {form for value in {*plain, *_learned, *more} for form in _forms(value)}
    return sorted(forms, key=len, reverse=True)


def _redacted(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, Mapping):
        hidden = {name for name, inner in value.items() if _is_filled(inner) and is_secret(str(name))}
        if _pair(value):
            hidden.add("value")
        return {
            text(str(name), secrets): REDACTED if name in hidden else _redacted(inner, secrets)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        secret = _places(value)
        return [REDACTED if place in secret else _redacted(inner, secrets) for place, inner in enumerate(value)]
    return _redacted_string(value, secrets) if isinstance(value, str) else value


def _redacted_string(value: str, secrets: Sequence[str]) -> str:
    if (inner := _parsed(value)) is not None:
        safe = _redacted(inner, secrets)
        return text(value, secrets) if safe == inner else json.dumps(safe, ensure_ascii=False)
    if found := _ASSIGNMENT.fullmatch(value):
        key, typed = found["key"], found["value"]
        if is_secret(key):
            return f"{key}={REDACTED}" if _is_filled(typed) else value
        inner = _parsed_override(typed)
        if inner is not None and (safe := _redacted(inner, secrets)) != inner:
            return f"{text(key, secrets)}={_as_override(safe)}"
        without = text(typed, secrets)
        if inner is None and without != typed and any(mark in typed for mark in "{[("):
            return f"{text(key, secrets)}={REDACTED}"  # where it ends is not known
        return text(f"{key}={without}", secrets)
    return text(value, secrets)


def _found(value: Any) -> Iterator[str]:
    """The secrets in plain containers, by the names of their keys, as strings."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _strings(inner) if is_secret(str(name)) else _found(inner)
        if _pair(value):
            yield from _strings(value["value"])
    elif isinstance(value, list | tuple):
        secret = _places(value)
        for place, inner in enumerate(value):
            yield from _strings(inner) if place in secret else _found(inner)
    elif isinstance(value, str):
        if (inner := _parsed(value)) is not None:
            yield from _found(inner)
        elif found := _ASSIGNMENT.fullmatch(value):
            if is_secret(found["key"]):
                inner = _parsed_override(found["value"])
                yield from _strings(found["value"])
                yield from _strings(inner) if inner is not None else ()
            elif (inner := _parsed_override(found["value"])) is not None:
                yield from _found(inner)
            elif any(mark in found["value"] for mark in "{[(") and text(found["value"], ()) != found["value"]:
                yield found["value"]  # where the secret in it ends is not known


def _strings(value: Any) -> Iterator[str]:
    """The strings in a secret that are specific enough to be found elsewhere."""
    if isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(inner)
    elif isinstance(value, str) and _is_filled(value) and len(value) >= _SHORTEST_WORD:
        yield value
        yield from (line for line in value.splitlines() if len(line) >= 2 * _SHORTEST)
        if found := _SCHEME.fullmatch(value):
            yield found[3]


def _pair(value: Mapping[Any, Any]) -> bool:
    """Whether it is `{name: api_key, value: ...}`, as environments and headers are often written."""
    names = (value.get(word) for word in ("name", "key", "header"))
    return "value" in value and any(isinstance(name, str) and is_secret(name) for name in names)


def _places(value: Sequence[Any]) -> set[int]:
    """Where in a list the value of an option stands, as after `--password`, or of a pair [Authorization, ...]."""
    options = (isinstance(inner, str) and inner.startswith("-") and is_secret(inner) for inner in value)
    places = {place + 1 for place, is_option in enumerate(options) if is_option}
    if len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], str):
        is_pair = len(_WORDS.findall(value[0])) > 1 or value[0].lower() in _HEADERS or _is_random(value[1])
        places |= {1} if is_secret(value[0]) and is_pair else set()
    return places


def _parsed(value: str) -> Any:
    """The containers in a JSON text; None where it is none."""
    if value[:1] in ("{", "[") and len(value) <= _LONGEST_PARSED:
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict | list) else None
    return None


@lru_cache(maxsize=1024)
def _parsed_override(typed: str) -> Any:
    """The containers that an override's value stands for; None where there are none, or Hydra cannot read it."""
    if not any(mark in typed for mark in "{[") or len(typed) > _LONGEST_PARSED:
        return None
    from hydra.core.override_parser.types import ChoiceSweep, Override

    try:
        value = _parser().parse_override(f"x={typed}").value()
        if isinstance(value, ChoiceSweep):
            value = [Override._convert_value(one) for one in value.list]
    except Exception:  # whatever Hydra's grammar raises: it will say so itself
        return None
    return value if isinstance(value, dict | list) else None


@cache
def _parser() -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create()


def _as_override(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_as_override(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_as_override, value)) + "]"
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    plain = not isinstance(value, str) or value == REDACTED or re.fullmatch(r"[\w./:+-]+", value)
    return str(value) if plain else json.dumps(value, ensure_ascii=False)


@lru_cache(maxsize=1024)
def _forms(secret: str) -> frozenset[str]:
    """The forms in which a secret may stand in a text: as it is, escaped, in a URL, in base64."""
    forms = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    forms |= {quote(secret, safe=""), quote(secret), quote_plus(secret), secret.replace("'", "''")}
    forms |= {secret.replace("'", "'\"'\"'"), " ".join(secret.split())}
    content = secret.encode("utf-8", "surrogatepass")
    if len(content) >= _SHORTEST:
        for shift in range(3):  # where it starts within a group of three bytes
            encoded = base64.b64encode(bytes(shift) + content)
            inside = encoded[(0, 2, 3)[shift] : len(encoded) - (0, 4, 4)[(shift + len(content)) % 3]].decode()
            forms |= {inside, inside.translate(str.maketrans("+/", "-_"))}
    return frozenset(form for form in forms if len(form) >= _SHORTEST_WORD)


def _without(line: str, secret: str) -> str:
    if len(secret) >= _SHORTEST and not secret.isalpha():
        return line.replace(secret, REDACTED)
    if secret.isalpha() and len(secret) < _SHORTEST:
        return line  # an ordinary word
    return re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", REDACTED, line)


def _without_content(found: re.Match[str]) -> str:
    return f"<{found['name']}>{REDACTED}" if is_secret(found["name"]) and _is_filled(found["value"]) else found[0]


def _without_second(found: re.Match[str]) -> str:
    """A pair in a text; in brackets it may also be a list of names, so what follows has to look like a secret."""
    hidden = is_secret(found["name"]) and _is_filled(found["value"])
    if found["open"] == "[":
        hidden = hidden and (len(_WORDS.findall(found["name"])) > 1 or _is_random(found["value"]))
    before = found[0].removesuffix(found["value"])
    return f"{before}{REDACTED}" if hidden else found[0]


def _without_named_value(found: re.Match[str]) -> str:
    """What stands in a text as `"name": "api_key", "value": "..."`, or in a field of a form that was sent."""
    if found["form"]:
        return f"{found['form']}{REDACTED}" if is_secret(found["field"]) else found[0]
    hidden = is_secret(found["name"]) and _is_filled(found["value"])
    return f"{found['before']}{REDACTED}" if hidden else found[0]


def _without_argument(found: re.Match[str]) -> str:
    """The password of a command that takes one without naming it."""
    if found["name"] is not None and not is_secret(found["name"]):
        return found[0]
    return f"{found[0].removesuffix(found['value'])}{REDACTED}"


def _without_value(found: re.Match[str]) -> str:
    return f"{found['before']}{REDACTED}" if _is_filled(found["value"]) else found[0]


def _without_random(found: re.Match[str]) -> str:
    return f"{found[1]}{REDACTED}" if _is_random(found["value"]) else found[0]


def _without_encoded(found: re.Match[str]) -> str:
    """JSON in base64, if there is a secret in it."""
    try:
        content = base64.b64decode(found[0] + "=" * (-len(found[0]) % 4), b"-_" if set(found[0]) & set("-_") else None)
        inner = json.loads(content)
    except (ValueError, RecursionError):
        return found[0]
    return REDACTED if any(_found(inner)) else found[0]


def _is_random(value: str) -> bool:
    """Whether a word has both letters and digits, as generated passwords have and few others."""
    value = value.strip(f"b{_QUOTES}")
    return (
        len(value) >= _SHORTEST and any(map(str.isdigit, value)) and any(map(str.isalpha, value)) and " " not in value
    )


def _without_login(found: re.Match[str]) -> str:
    """What follows `://`, without the user and the password before `@`."""
    address = found[0]
    end = min((place for mark in "/?#" if (place := address.find(mark)) >= 0), default=len(address))
    authority, rest = address[:end], address[end:]
    user, at, host = authority.rpartition("@")
    if at:
        return f"{REDACTED}@{host}{rest}" if ":" in user or len(user) >= 12 else address
    _, colon, port = authority.partition(":")
    if colon and not port.isdigit() and "@" in rest:  # a password with a slash
        return f"{REDACTED}@{rest.rpartition('@')[2]}"
    return address


def _without_named(line: str) -> str:
    """The text without what follows the name of a secret: `name=value`, `"name": "value"`, `--name value`."""
    parts, done, place = [], 0, 0
    while found := _NAMED.search(line, place):
        place = found.end()
        name, sign = found["name"], found["sign"]
        if line[found.start() - 1 : found.start()] == "%" and _HEX.match(name):  # the rest of %3F and the like
            name = name[2:]
        if "\x1b" in line[max(0, found.start() - 8) : found.start()]:  # the rest of a terminal's style
            name = name.partition("m")[2] or name
        in_query = line[found.start() - 1 : found.start()] in ("?", "&", ";") and name.lower() in _IN_QUERY
        is_option = found["dashes"] == "--" or name.startswith("--")
        if not (in_query or is_secret(name)) or (sign is None and not is_option):
            continue
        end = _end_of_value(line, place, name, sign or "")
        if sign and not is_option:
            end = _end_of_words(line, found, end)
        value = line[place:end]
        if value.strip(f"\\{_QUOTES} ").lower() in _EMPTY:
            continue
        parts += [line[done:place], REDACTED]
        done = place = end
    return "".join([*parts, line[done:]]) if parts else line


def _end_of_value(line: str, start: int, name: str, sign: str) -> int:
    """Where the value that starts there ends; the start where it is no value."""
    if block := _BLOCK.match(line, start):
        return block.end()
    if sign == ":" and (end := _end_of_nested(line, start)) > start:
        return end
    if quoted := _QUOTED.match(line, start):
        for mark in _CLOSING.get(quoted["mark"], (quoted["mark"],)):
            limit = quoted.end() + _LONGEST_QUOTED
            close = line.find(quoted["escape"] + mark, quoted.end(), limit)
            while close > 0 and not quoted["escape"] and (line[close - 1] == "\\" or _is_doubled(line, close, quoted)):
                close = line.find(mark, close + 1 + _is_doubled(line, close, quoted), limit)
            if close >= 0:
                return close + len(quoted["escape"]) + len(mark)
        start = quoted.end()
        return found.end() if (found := _REST_OF_LINE.match(line, start)) else start
    if line[start : start + 1] and line[start] in "{[(":  # a list, a dict or a tuple: to its end, if that is near
        return _end_of_brackets(line, start)
    words = [word.lower() for word in _WORDS.findall(name)]
    if sign == ":" and words and words[-1] in _HEADERS:
        found = _LIST_OF_FIELDS.match(line, start) or _REST_OF_LINE.match(line, start)
        return found.end() if found else start
    if not (found := _TOKEN.match(line, start)):
        return start
    is_sentence = sign == ":" and line[start - 1] != ":" and "{" not in line[max(0, start - _NEAR) : start]
    if is_sentence and found[0].isalpha() and found[0].islower():
        return start  # a sentence goes on after a colon
    return found.end()


def _end_of_words(line: str, found: re.Match[str], end: int) -> int:
    """The end of a value of several words without quotation marks: that of its line, where nothing else stands on it.

    Or of the quotation marks around the key and its value.
    """
    start, place = found.start(), found.end()
    around = line[start - 1 : start]
    if around and around in "\"'" and not found["quoted"]:
        close = line.find(around, place, place + _LONGEST_QUOTED)
        return max(end, close) if "\n" not in line[place : max(place, close)] else end
    if (line[end : end + 1] not in (" ", "\t", "") and end > place) or line[place : place + 1] in set(_QUOTES):
        return end
    if found["sign"] == ":" and "." in found["name"]:
        return end  # an error that begins with a key
    begin = max(line.rfind("\n", max(0, start - 80), start) + 1, start - 80)
    if not _BEGIN.fullmatch(line, begin, start):
        return end
    words = _MORE_WORDS.match(line, end) if end > place else _SENTENCE.match(line, place)
    return words.end() if words else end


def _is_doubled(line: str, close: int, quoted: re.Match[str]) -> bool:
    """Whether a quotation mark inside a value is written twice, as in YAML and SQL."""
    return quoted["mark"] == "'" and line[close : close + 2] == "''" and close > quoted.end()


def _end_of_brackets(line: str, start: int) -> int:
    depth = 0
    for found in _BRACKETS.finditer(line, start, start + _LONGEST_NESTED):
        depth += 1 if found[0] in "{[(" else -1
        if depth == 0:
            return found.end()
    token = _TOKEN.match(line, start)
    ending = {"{": "}", "[": "]", "(": ")"}[line[start]]
    return max(token.end() if token else start, line.find(ending, start, start + _LONGEST_QUOTED) + 1)


def _end_of_nested(line: str, start: int) -> int:
    """The end of the lines of YAML below a key: those that are indented further, or are items of its list."""
    begin = line.rfind("\n", max(0, start - _NEAR), start) + 1
    if line[start : start + 1] not in ("\n", "\r") or not _KEY_ALONE.fullmatch(line, begin, start):
        return start
    indent, end = len(line[begin:start]) - len(line[begin:start].lstrip(" \t")), line.find("\n", start) + 1
    first = end
    while (found := _NESTED.match(line, end)) and end < first + _LONGEST_QUOTED:
        if len(found["indent"]) <= indent and not (found["item"] and len(found["indent"]) == indent):
            break
        end = found.end()
    if end == first:  # a single word on the next line
        word = re.compile(r"[ \t]*+(\S{8,200}+)[ \t]*+(?=\r?\n|\Z)").match(line, first)
        return word.end() if word and _is_random(word[1]) else start
    return end - line[:end].endswith("\n") if end > first else start


def _is_filled(value: Any) -> bool:
    return not isinstance(value, bool) and str("" if value is None else value).strip("'\" ").lower() not in _EMPTY
