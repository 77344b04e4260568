"""The names that secrets have: of keys, options, headers, query parameters and environment variables."""

from __future__ import annotations

import re
from functools import lru_cache
from unicodedata import normalize


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The last word of a name.
_SECRETS = _words(
    """
    password passwords passwd passwds pass passcode passcodes passphrase passphrases passkey pswd passw pw secret
    secrets credential credentials cred creds token authorization auth bearer cookie cookies apikey apikeys authkey
    signature dsn otp webhook csrf xsrf jwt oauth mnemonic psk hmac sessionid jsessionid phpsessid connstr passwort
    kennwort geheimnis zugangsdaten passe motdepasse jeton contrasena contrasenya senha parola wachtwoord losenord
    passord adgangskode kodeord lykilor salasana salasona parool haslo heslo jelszo sifre lozinka geslo slaptazodis
    pasahitza pasfhocal fjalekalimi nenosiri
    """
)
_ENDINGS = re.compile(
    r"(?:password|passwd|passphrase|apikeys?|(?:auth|access|api|bot|csrf|zugangs)token|csrfmiddlewaretoken"
    r"|(?:secret|access|private|api|auth)key|(?:app|api|client|shared|consumer)secret|schlussel"
    r"|(?:my|pg|sql|smtp|ftp|mail|ldap|redis|ssh|db|user|admin|root|login|bind|key|store)(?:pass|pwd|pw)|pwhash)\Z"
)
_OTHER_SCRIPTS = re.compile(
    "парол|лозинк|гасло|密码|密碼|口令|密钥|パスワード|暗証番号|秘密鍵|비밀번호|암호|κωδικ|συνθηματικ|סיסמ"
    "|كلمة المرور|كلمة السر|رمز عبور|گذرواژه|कूटशब्द|पासवर्ड|รหัสผ่าน"
)
_QUALIFIERS = _words(  # after the word that decides
    """
    value values str string text plain base b hex pem id header url hash jar pypi new old current repeat confirm
    confirmation utente
    """
)
_PHRASES = {
    *(("connection", "string"), ("webhook", "url"), ("session", "key"), ("session", "id"), ("seed", "phrase")),
    *(("key", "data"), ("auth", "config"), ("credentials", "json"), ("credential", "json"), ("laravel", "session")),
    *(("security", "answer"), ("magic", "link"), ("presigned", "url"), ("signed", "url"), ("sas", "uri")),
    *(("connect", "sid"), ("github", "pat"), ("gh", "pat"), ("gitlab", "pat"), ("api", "hash"), ("kata", "sandi")),
    *(("mat", "khau"), ("parola", "chiave"), ("cle", "api"), ("cle", "secrete"), ("clave", "api")),
    *(("clave", "secreta"), ("chave", "api"), ("chave", "secreta"), ("api", "schlussel")),
}
_CODES = _words("recovery backup mfa unlock access auth authorization oauth device pairing pin verification")
_KEYS = _words(  # before `key`
    """
    api access private secret auth signing encryption account ssh deploy license licence master shared hmac service
    fernet ssl tls client subscription storage jwt admin bot app sa kms wrapping cipher aes rsa dsa ecdsa preshared
    pgp gpg unseal crypto secure symmetric consumer superuser server write activation product serial instrumentation
    functions openai anthropic wandb hf aws azure gcp google github kaggle comet neptune huggingface mistral cohere
    replicate gemini groq together deepseek datadog sentry pinecone elastic mapbox stripe twilio sendgrid mailgun
    pushover nvidia ngc serp serpapi tmdb maps
    """
)
_TOKENS = {"api", "access", "auth", "refresh", "bearer", "session", "secret", "csrf", "id"}  # before `tokens`
_SPECIAL_TOKENS = _words(  # before `token`: those of a vocabulary
    """
    bos eos pad unk mask cls sep special added begin end start stop next image audio padding unknown per first last
    prompt sos decoder of
    """
)
_IN_QUERY = {"key", "sig", "auth", "code", "hmac", "sas", "pwd", "pw", "sid", "phpsessid"}
_ORDINARY = _words(  # words that often stand beside others than secrets
    """
    token secret pass auth cookie cookies signature credential credentials bearer webhook mnemonic passe jeton hmac
    jwt oauth dsn pw cred creds
    """
)
WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@lru_cache(maxsize=4096)  # asked for every environment variable, whenever something is written
def is_secret(name: str) -> bool:
    """Whether a key, an option, a header or an environment variable of this name holds a secret.

    `api_keys`, `HF_TOKEN`, `dbPassword` and `X-Api-Key` do; `batch_tokens`, `token_f1` and `artifact_key` do not.
    """
    if not name.isascii():
        if _OTHER_SCRIPTS.search(name.replace("_", " ")):
            return True
        name = "".join(sign for sign in normalize("NFKD", name.replace("ł", "l")) if sign.isascii())  # without accents
    words = [word.lower() for word in WORDS.findall(name)]
    while len(words) > 1 and (words[-1].isdigit() or words[-1] in _QUALIFIERS) and tuple(words[-2:]) not in _PHRASES:
        words.pop()
    if not words:
        return False
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if last == "token":
        return before not in _SPECIAL_TOKENS
    if last in ("key", "keys"):
        return before in _KEYS or tuple(words[-3:-1]) == ("service", "account")
    if last in ("code", "codes"):
        return before in _CODES
    if last == "tokens":
        return before in _TOKENS
    if last == "pwd":
        return bool(before)  # PWD is the working directory
    return (
        last in _SECRETS
        or (before, last) in _PHRASES
        or bool(_ENDINGS.search(last))
        or (before == "pass" and last in ("word", "words", "phrase", "code"))
    )


def is_in_query(name: str) -> bool:
    """Whether a parameter of this name holds a secret in the query of a URL, where other names are common, too."""
    return is_secret(name) or name.lower() in _IN_QUERY


@lru_cache(maxsize=4096)
def is_unmistakable(name: str) -> bool:
    """Whether a name of a secret names nothing else: `password` and `auth_token` do, `token` and `secret` do not."""
    return is_secret(name) and name.lower() not in _ORDINARY
