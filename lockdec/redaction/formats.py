"""Secrets that are recognised without a name: by a prefix or a format of their own, or as text that was generated.

All patterns are linear in the length of the text: none starts within what another attempt has already read, and
repetitions are possessive.
"""

from __future__ import annotations

import re

REDACTED = "[redacted]"
_SHORTEST = 8  # characters of a secret that is found anywhere in a text


def _any_of(words: str) -> str:
    """A pattern of the words of a text, the longest first."""
    return "|".join(map(re.escape, sorted(words.split(), key=len, reverse=True)))


# Of keys. Nothing else starts with the first; after the others stand 20 letters and digits in a row, or 12 with a
# digit among them.
_PREFIXES = """
    sk-proj- sk-svcacct- sk-admin- sk-ant- sk-or-v1- AIza ya29. GOCSPX- 1//0 nvapi- tgp_v1_ pcsk_ lsv2_pt_ lsv2_sk_
    wandb_v1_ KGAT_ tvly- secret_lambda_ ABSK bedrock-api-key- bce-v3/ALTAK- AKLT github_pat_ glpat- gldt- glrt-
    glcbt- glptt- glft- glsoat- glimt- glagent- gloas- glffct- GR1348941 IQoJb3JpZ2lu FwoGZXIvYXdz LTAI AKID AQVN
    ATATT3 ATCTT3 ATBB ATTA y0_ dop_v1_ doo_v1_ dor_v1_ HRKU- fo1_ fm1_ fm2_ vercel_blob_rw_ sb_secret_ pscale_tkn_
    pscale_pw_ pscale_oauth_ mdb_sa_sk_ CCDB1_ xapp- xoxe. SG. xkeysib- xsmtpsib- whsec_ sq0csp- sq0atp- EAAA
    access_token$production$ access-production- access-sandbox- FLWSECK- shippo_live_ duffel_live_ pypi- dckr_pat_
    dckr_oat_ AKCp cmVmdGtu CLOJARS_ hvs. hvb. dp.pt. dp.ct. dp.sa. dp.scim. sha256~ CCIPAT_ bkua_ ops_eyJ
    AGE-SECRET-KEY-1 tskey- NRAK- NRII- NRJS- sntrys_ sntryu_ glsa_ glc_ eyJrIjoi dt0c01. dt0s01. pylf_v lin_oauth_
    figd_ CFPAT- PMAK- pat-na1- pat-eu1- fio-u- sk.eyJ p8e- dnkey- s-s4t2ud- tk-us- xprv9s21ZrQH143K v2.local.
    v4.local. v2.public. v4.public. MDAx amzn.mws. xaat-
"""
_WORDLIKE_PREFIXES = """
    hf_ api_org_ sk- sk_live_ sk_test_ sk_prod_ rk_live_ rk_test_ rzp_live_ gsk_ xai- pplx- r8_ csk- jina_ rpa_ e2b_
    bb_live_ esecret_ aph0_ ghp_ gho_ ghu_ ghs_ ghr_ nfp_ rnd_ sbp_ napi_ tsdb_ shpat_ shpca_ shppa_ shpss_ EZAK live_
    npm_ rubygems_ packagist_ pul- ico- hcaik_ phx_ sgp_ lin_api_ ntn_ secret_ tfp_ rdme_ pnu_ pnb_ sqp_ squ_ sqa_
    aio_ sm_pat_ API- waka_ unkey_ nsec1 rf_ fw_ sdk- pat. fc-
"""
_TAIL = r"[\w+/=~$-]{16,}+(?:\.[\w+/=~-]++)*+"
_PREFIXED = re.compile(
    rf"(?<![A-Za-z0-9_-])(?:(?:{_any_of(_PREFIXES)})(?=[A-Za-z_+/=~$-]{{0,60}}?(?:[0-9]|[a-z][A-Z]))"
    rf"|(?:{_any_of(_WORDLIKE_PREFIXES)})"
    rf"(?=[A-Za-z0-9]{{20}}|[\w+/=~$-]{{0,40}}?(?=[A-Za-z]{{0,30}}\d)[A-Za-z0-9]{{12}})){_TAIL}"
)
_SHAPES = re.compile(
    r"(?<![A-Za-z0-9_-])(?:xox[abceprsd][.-][A-Za-z0-9.-]{10,}+"
    r"|[MNO](?=[A-Za-z]*+\d)[A-Za-z0-9]{23,27}\.[\w-]{6}\.[\w-]{27,}+"
    r"|A(?:KI|SI|BI|CC)A[0-9A-Z]{16}(?![0-9A-Z])(?:[\s:,;|]{1,3}[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+]))?"
    r"|dapi[a-f0-9]{32}(?:-\d)?|SK[a-f0-9]{32}|[a-f0-9]{32}-(?:us\d\d?|[a-f0-9]{8}-[a-f0-9]{8})(?![a-f0-9-])"
    r"|pat[A-Za-z0-9]{14}\.[a-f0-9]{60,}+|v1\.0-[a-f0-9]{24}-[a-f0-9]{100,}+|\d{8,10}:AA[A-Za-z0-9_-]{32,}+"
    r"|[a-f0-9]{32}\.[A-Za-z0-9]{16}(?!\w)|[12]/\d{16}(?:/\d{16})?:[a-f0-9]{32}|pk_\d{6,9}_[A-Z0-9]{32}|u\+[\w-]{18}"
    r"|FlyV1 [\w+/=, -]{20,}+|Splunk [a-f0-9-]{36}|A3(?:-[A-Z0-9]{5,11}){4,6}|[a-f0-9]{36}NRAL|sk_[a-f0-9-]{36,}+"
    r"|oy2[a-z0-9]{43}|(?:ghs_|v\d\.)?eyJ[A-Za-z0-9_-]{10,}+\.[A-Za-z0-9_-]{10,}+(?:\.[A-Za-z0-9_-]{5,}+){1,3}"
    r"|key-[a-f0-9]{32}(?![a-f0-9])|dose[a-f0-9]{32}|EAA[A-Za-z0-9]{40,}+|dp\.st\.(?:\w{1,20}\.)?\w{40}"
    r"|t1\.[\w-]{40,}+\.[\w-]{60,}+|sl\.[\w-]{60,}+"
    r"|00D[A-Za-z0-9]{12,15}![\w.]{40,}+|A{20,}[A-Za-z0-9]{2,40}%3D[A-Za-z0-9%]{30,}+"
    r"|prod:[a-z]+-[a-z]+-\d+\|[\w+/=]{20,}+)"
    r"|\$(?:1|2[abxy]|5|6|y|apr1|argon2\w{1,2}|scrypt|pbkdf2[\w-]{0,10})\$[./A-Za-z0-9$=,+]{16,}+"  # of passwords
    r"|pbkdf2_sha\d{1,3}\$\d{1,9}\$[\w+/=$]{20,}+|scrypt:\d{1,7}:\d{1,3}:\d{1,3}\$[\w$]{20,}+"
    r"|\{S?SHA\d{0,3}\}[\w+/=]{20,}+"
    r"|SCRAM-SHA-\d{1,3}\$\d{1,7}:[\w+/=]{8,}+\$[\w+/=]{20,}+:[\w+/=]{20,}+"
    r"|(?<=\.atlasv1\.)\w{30,}+|(?<=hooks\.slack\.com/services/)[\w/]++|(?<=hooks\.slack\.com/workflows/)[\w/]++"
    r"|(?<=/api/webhooks/)[\w/-]++|(?<=api\.telegram\.org/bot)[\w:-]++|(?<=webhook\.office\.com/webhookb2/)[\w@/-]++"
    r"|(?<=hooks\.zapier\.com/hooks/catch/)[\w/-]++|(?<=/with/key/)[\w-]++|(?<=\.make\.com/)[a-z0-9]{24,}+"
)
_SCHEME = re.compile(
    r"(?i:\b(Bearer|Basic|Digest|Negotiate))(\s{1,3})(?=[A-Za-z._~+/-]{0,200}?(?:[0-9=]|[a-z][A-Z]))[\w.~+/=-]{8,}+"
)
_PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:(?!-----)[\s\S])*+(?:-----END [A-Z0-9 ]{0,40}-----)?"
    r"|---- BEGIN SSH2 [A-Z ]{0,20}PRIVATE KEY ----(?:(?!----)[\s\S])*+(?:---- END [A-Z0-9 ]{0,40} ----)?"
    r"|-----BEGIN PGP MESSAGE-----(?:(?!-----)[\s\S])*+(?:-----END PGP MESSAGE-----)?"
    r"|(?<=Private-Lines: )\d{1,4}\r?\n(?:[A-Za-z0-9+/=]{1,80}\r?\n?)++"  # of PuTTY
)
_PEM_END = re.compile(
    r"(?<![A-Za-z0-9+/=])(?:[A-Za-z0-9+/=]{16,200}+\s{1,4}){1,400}+-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----"
)
# A word that was generated, and its checks: content hashes in base64 stay, and what is longer is data.
_CANDIDATE = re.compile(r"(?<![\w/.+=~%\\@-])[\w+/=~-]{24,400}+(?![\w+/=~%-]|\.\w)")
_HASH = re.compile(r"(?:sha|md|blake)\d\w{0,3}[-:=]", re.IGNORECASE)
_LONGEST_GENERATED, _SHORTEST_GENERATED, _SHORTEST_WITH_SLASHES = 140, 24, 36
_ALTERNATIONS = 0.4  # of neighbours that are of different kinds; 0.62 are expected of 26 + 26 + 10 characters
_KINDS = re.compile(r"(?P<lower>[a-z]+)|(?P<upper>[A-Z]+)|(?P<digit>\d+)|(?P<other>[^A-Za-z0-9]+)")

_ADDRESS = re.compile(r"(?<=://)[^\s\"'<>`]++")
_ESCAPED_LOGIN = re.compile(r"(?<=%3A%2F%2F)(?:[^\s%]++|%(?!40|3A))*+%3A[^\s%]++(?=%40)", re.IGNORECASE)
_WITHOUT_SCHEME = re.compile(
    r"((?:(?<![\w@./:-])|(?<![^\s'\"])//)[A-Za-z][\w.-]{0,63}:)(?P<value>[^\s:@/'\"`,()]{8,200}+)(?=@[A-Za-z])"
)


def without_formats(line: str) -> str:
    """The text without secrets that have a format of their own."""
    if "-- BEGIN" in line or "--BEGIN" in line or "Private-Lines" in line:
        line = _PEM.sub(REDACTED, line)
    if "-----END" in line:
        line = _PEM_END.sub(REDACTED, line)
    if len(line) >= _SHORTEST:
        line = _SHAPES.sub(REDACTED, _PREFIXED.sub(REDACTED, line))
        line = _SCHEME.sub(rf"\1\2{REDACTED}", line)
    if len(line) >= _SHORTEST_GENERATED:
        line = _CANDIDATE.sub(_without_generated, line)
    if "://" in line:
        line = _ADDRESS.sub(_without_login, line)
    if "%2" in line:
        line = _ESCAPED_LOGIN.sub(REDACTED, line)
    if "@" in line and ":" in line:
        line = _WITHOUT_SCHEME.sub(_without_random, line)
    return line


def is_random(value: str) -> bool:
    """Whether a word has both letters and digits, as generated passwords have and few others."""
    return (
        len(value) >= _SHORTEST and any(map(str.isdigit, value)) and any(map(str.isalpha, value)) and " " not in value
    )


def is_generated(word: str) -> bool:
    """Whether a word of letters and digits is one that no person would write and no hash in hexadecimal digits has.

    Small letters, capitals and digits change places about as often as in random text; in `CamelCase` and in paths they
    do not.
    """
    found = [match.lastgroup for match in _KINDS.finditer(word)]
    longest = max((len(match[0]) for match in _KINDS.finditer(word)), default=0)
    return (
        {"lower", "upper", "digit"} <= set(found)
        and found.count("digit") >= 2
        and longest <= 7
        and len(found) - 1 >= _ALTERNATIONS * (len(word) - 1)
    )


def _without_generated(found: re.Match[str]) -> str:
    word = found[0]
    before = found.string[max(0, found.start() - 10) : found.start()]
    if len(word) > _LONGEST_GENERATED or word.startswith("eyJ") or _HASH.search(before + word[:-20]):
        return word
    parts = re.split(r"[_=~-]+", word)
    least = _SHORTEST_WITH_SLASHES if "/" in word or "+" in word else _SHORTEST_GENERATED
    longest = max(parts, key=len)
    if len(parts) > 3 or len(longest) < least - (len(word) > len(longest)) * 4:
        return word
    return REDACTED if is_generated(longest) else word


def _without_login(found: re.Match[str]) -> str:
    """What follows `://`, without the user and the password before `@`."""
    address = found[0]
    end = min((place for mark in "/?#" if (place := address.find(mark)) >= 0), default=len(address))
    authority, rest = address[:end], address[end:]
    user, at, host = authority.rpartition("@")
    if at:
        return f"{REDACTED}@{host}{rest}" if ":" in user or len(user) >= 12 or is_random(user) else address
    _, colon, port = authority.partition(":")
    if colon and not port.isdigit() and "@" in rest:  # a password with a slash
        return f"{REDACTED}@{rest.rpartition('@')[2]}"
    return address


def _without_random(found: re.Match[str]) -> str:
    return f"{found[1]}{REDACTED}" if is_random(found["value"]) else found[0]
