"""Secrets in lines of text that are recognised by the name before them, or by the program that is given them.

All patterns are linear in the length of the text: none starts within what another attempt has already read, and
repetitions are possessive.
"""

from __future__ import annotations

import re

from lockdec.redaction.formats import REDACTED, is_random
from lockdec.redaction.names import WORDS, is_in_query, is_secret, is_unmistakable

_NEAR = 200  # characters in which a brace makes `name: value` an entry instead of a sentence
_LONGEST_QUOTED = 20_000  # characters between two quotes
_LONGEST_NESTED = 2_000  # characters in which nested brackets are matched
_EMPTY = {"", "null", "none", "true", "false", "???", REDACTED.lower(), REDACTED.strip("[]")}
HEADERS = {"authorization", "cookie", "cookies"}

_QUOTES = "\"'`\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb"
_CLOSING = {"\u2018": "\u2019", "\u201c": "\u201d", "\u201e": "\u201c\u201d", "\u00ab": "\u00bb"}
_ENTITY = r"&(?:quot|apos|#3[49]|#x2[27]);"  # of a quotation mark, in HTML
_BLANKS = "[ \t\u00a0\u200b-\u200d\u2060\ufeff]"
_MARKS = "\u0300-\u036f\u064b-\u065f\u0900-\u0dff\u0e31-\u0e4e"  # of letters, as Hindi and Thai write their vowels
_STYLE = r"(?:\x1b\[[\d;]{0,12}m|\*{1,3})"  # of a terminal, or of Markdown
_NAMED = re.compile(
    rf"(?<![\w.@+~/${_MARKS}-])(?P<dashes>--?)?(?P<name>[\w.@+~/${_MARKS}-]++)(?P<quoted>\\{{0,8}}[{_QUOTES}]|{_ENTITY})?\]?"
    rf"{_STYLE}?{_BLANKS}{{0,4}}"
    rf"(?:(?P<sign>=>|:=|->(?=[ \t]{{0,4}}['\"])|[=!]=(?=[ \t]{{0,4}}['\"])|[?|]{{1,2}}=|\\?=(?!=)"
    r"|\uff1d|\uff1a|:(?![:/])"
    rf"|(?:%(?:25)*22)?%(?:25)*3[ADad](?:%(?:25)*22)?|,(?=[ ]?[\"'])){_STYLE}?{_BLANKS}{{0,4}}"
    rf"|(?<={_BLANKS})|(?=[\u2192\u2026>|~,;\u2013\u2014.:\\?\r\n-]))"
)
_OTHER_WORD = re.compile(r"([A-Za-z]{2,20})[ _-]\Z")
_IN_PROSE = {"token", "secret"}  # that are followed by one, if a word of letters and digits follows
_ENDS_OF_NAMES = {"key", "keys", "code", "codes", "phrase", "string", "word"}  # of names that have spaces
_QUOTED = re.compile(
    rf"(?:[bruf$]{{1,2}}|[A-Za-z_][\w.]{{0,40}}\((?:[a-z_]{{1,20}}=)?)?"
    rf"(?P<quote>(?P<escape>\\{{0,8}})(?P<mark>\"\"\"|\'\'\'|[{_QUOTES}]|{_ENTITY}))"
)
_ANNOTATION = re.compile(r"[A-Za-z][\w.\[\]| ,]{0,60}?[ ]?=[ ]?(?=[bruf$]{0,2}['\"`])")  # of a type
_BEFORE_QUOTED = re.compile(r"(?:string|str|String|default) ?:?= ?(?=['\"`])")
_BLOCK = re.compile(r"[|>][+-]?[ \t]*+\r?\n(?:[ \t]++[^\n]*+\n?)++")
_NESTED = re.compile(r"(?P<indent>[ \t]*+)(?P<item>-[ \t]+)?[^\s:][^\n]*+\n?")
_NEXT_LINE = re.compile(r"\\?\r?\n[ \t]*+(?::[ \t])?(?P<value>\S{8,200}+)[ \t]*+(?=\r?\n|\Z)")
_BEGIN = re.compile(r"[ \t]*+(?:- |export |set |ENV |setx? )?[ \t]*+")  # of a line that is an assignment
_KEY_ALONE = re.compile(rf"[ \t]*+(?:[-?] )?[{_QUOTES}]?[\w.-]++[{_QUOTES}]?[:=]?[ \t]*+")
_SENTENCE = re.compile(rf"[^\s{_QUOTES}]++(?:[ \t]++(?![\w.+~-]++=|[-|=])[^\s{_QUOTES}]++)*+(?<![,(])(?=\r?\n|\Z)")
_MORE_WORDS = re.compile(rf"(?:[ \t]++(?![\w.+~-]++=|-)[^\s{_QUOTES}]++)++")
_BRACKETS = re.compile(r"[{}\[\]()]")
_TOKEN = re.compile(rf"(?:(?:Bearer|Basic|Digest|Token)[ \t]{{1,3}})?[^\s,;&}}\]){_QUOTES}]++", re.IGNORECASE)
_CALL = re.compile(r"[\w.]{1,80}\(")
_OR_ELSE = re.compile(
    r"(?:[\w.]{1,80}+|(?<=\)))[ ](?:or|else|if [\w. ]{1,40}? else|\|\||\?\?)[ ]"
    r"b?(?P<mark>['\"`])[^'\"`\n]{0,200}+(?P=mark)"
)
_REST_OF_LINE = re.compile(rf"[^\n{_QUOTES}]++")
_HEX = re.compile(r"[0-9A-Fa-f]{2}")
_LIST_OF_FIELDS = re.compile(r"(?:Digest|AWS4-HMAC-SHA256|OAuth|Hawk|Signature)\b[^\n]++", re.IGNORECASE)
# What may stand between the name of a secret and the secret: "the API key for x is: y", "invalid password 'y'".
_BETWEEN = (
    r"(?:(?:is|was|were|are|has been|provided|given|received|used|changed|from|to|lautet|ist|value"
    r"|for (?:user )?'[^'\n]{1,60}+'"
    r"|for [\w@.-]{1,40}+)[ \t:]{1,3}|\([a-z]{1,10}\):? )"
)
_SEPARATORS = r"(?:[:?|,;>~(\[{<\u2192\u2026\u2013\u2014\\]|->|--|-|\.\.\.|[=!]=)"
_PROSE = re.compile(
    rf"{_BETWEEN}{{0,3}}+{_SEPARATORS}{{0,2}}[ \t]{{0,4}}['\"`]?"
    r"(?P<value>(?=[A-Za-z]*+[^A-Za-z\s])(?=\S{0,20}[0-9])(?=\S{0,20}[A-Za-z])[\w$!#@%&*+^][^\s'\"`)|,;=>\]}]{7,200}+)(?![=.])",
    re.IGNORECASE,
)
_QUOTED_PROSE = re.compile(
    rf"{_BETWEEN}{{0,3}}+b?(?P<quote>['\"])(?P<value>[^'\"\n]{{4,200}}+)(?=(?P=quote))", re.IGNORECASE
)

_LOGIN = re.compile(  # of curl and httpie
    r"(?<![\w-])((?:-[ua] ?|(?:--user|--proxy-user|--auth)[ =])['\"]?[^\s:'\"]{1,200}+:"
    r"|(?:-b|--cookie)[ =]?['\"]?[\w.-]{1,80}+=)[^\s'\"]++"
)
_NETRC = re.compile(r"\b(login\s{1,8}\S{1,200}+\s{1,8}password\s{1,8})\S++")
_SIGNED_IN = re.compile(  # auth=HTTPBasicAuth('me', 'secret')
    r"(?<!\w)(?P<before>(?:login\(key=[bruf]?['\"]|(?:HTTP(?:Basic|Digest|Proxy)Auth|BasicAuth|Credentials|login)\(\s?[bruf]?(?P<mark>['\"])[^'\"\n]{1,100}+"
    r"(?P=mark),\s?[bruf]?(?P=mark)))(?P<value>[^'\"\n]++)"
)
_WRAPPED = re.compile(  # SecretStr('secret'), set_password('secret')
    r"(?<![\w.])(?P<before>(?:Secret(?:Str|Bytes)?|ApiKey|APIKey|Fernet|[\w.]{0,60}?(?:[Pp]assword|set_?[Tt]oken|[Aa]pi_?[Kk]ey))"
    r"\((?:\w{1,20}=)?b?(?P<mark>['\"]))(?P<value>[^'\"\n]++)"
)
_DATABASE = re.compile(  # SQL
    r"\b(?P<before>(?:IDENTIFIED BY|PASSWORD(?: FOR [^\s=]{1,80}+)?(?: ?=)?)\s{1,3}|PASSWORD = PASSWORD\()"
    r"'(?P<value>[^'\n]++)",
    re.IGNORECASE,
)
_COMMANDS = re.compile(
    r"(?<![\w.-])(?P<before>(?:"
    r"(?:sshpass|mysql\w{0,10}|mariadb|mongo\w{0,4}|redis-cli|ldap\w{1,10}|sqlcmd|bcp|cqlsh|user(?:add|mod)|zip|unzip|7za?|unrar"
    r"|ssh-keygen|psexec|rdesktop|ipmitool|poetry publish|hatch publish|twine upload|gem push|dotnet nuget push"
    r"|chef-solo|doctl auth init|gh secret set|gh auth login|(?:docker|podman|helm registry|az|oc) login)"
    r" (?:[^\s|;&]{1,80}+ ){0,8}?-(?:[pPwatkNb]) ?['\"]?"
    r"|rar (?:[^\s|;&]{1,80}+ ){0,4}?-h?p|openssl enc (?:[^\s|;&]{1,80}+ ){0,8}?-k "
    r"|(?:smbclient|rpcclient|winexe) (?:[^\s|;&]{1,80}+ ){0,4}?-U ?[^\s%]{1,80}+%"
    r"|(?:xfreerdp|signtool sign) (?:[^\s|;&]{1,80}+ ){0,4}?/p[: ]|lftp (?:[^\s|;&]{1,80}+ ){0,4}?-u [^\s,]{1,80}+,"
    r"|(?:sqlplus|jdbc:oracle:thin:)[ ]?\w{1,60}+/|htpasswd (?:-nb|-b \S{1,80}+) \S{1,80}+ "
    r"|(?:wandb|hf|kaggle|comet|neptune|huggingface-cli|cargo|vault) login (?:--relogin )?"
    r"|(?:hf|heroku|flyctl) auth[: ](?:login|token) |vault operator unseal |zerotier-cli join "
    r"|(?:requirepass|masterauth) "
    r"|echo '?(?:\w{1,40}:)?(?=[^\s']{1,200}'? \| (?:sudo|docker|podman|chpasswd|passwd|kinit|helm|hf|gh|wandb)\b)"
    r"|(?:poetry config (?:http-basic|pypi-token)|composer config http-basic)\.\S{1,60}+ (?:\w{1,60}+ )?(?=\S*+$)"
    r"|(?:^|(?<=\n))AUTH (?:PLAIN |LOGIN )?|(?<!\w)PASS (?=\S{8})"
    r")|(?:set -\w{1,3}|setenv|setx) (?P<name>\w{1,80}+) )(?P<value>[^\s'\"-][^\s'\"]*+)",
)
_NAME_VALUE = re.compile(
    r"(?<![\w-])(?P<before>\\{0,8}[\"']?(?:name|key|header|variable|field)\\{0,8}[\"']?\s{0,2}[:=]\s{0,2}(?P<mark>\\{0,8}[\"'])"
    r"(?P<name>[\w. -]{1,100}+)(?P=mark),?\s{0,4}\\{0,8}[\"']?(?:value|content|default)\\{0,8}[\"']?\s{0,2}[:=]\s{0,2}"
    r"(?P=mark))(?P<value>[^\"'\n\\]++)|(?P<form>name=\"(?P<field>[\w.-]{1,100}+)\"(?:\r?\n){2})[^\r\n]++",
    re.IGNORECASE,
)
_ENTRY = re.compile(  # of a list in YAML
    r"(?P<before>(?:name|key):[ ]['\"]?(?P<name>[\w.-]{1,100}+)['\"]?[ ]*+\r?\n[ \t]{0,80}+value:[ ]++)"
    r"(?P<value>[^\r\n]++)"
)
_ELEMENT = re.compile(
    r"<(?P<name>[\w.:-]{1,100}+)(?P<attributes>\s[^<>]{0,400}+)?>(?:<!\[CDATA\[)?(?P<value>[^<>\n]++)(?=</|>)"
)
_PROPERTY = re.compile(
    r"<key>(?P<name>[\w.-]{1,100}+)</key>\s{0,80}<\w{1,20}+>(?P<value>[^<>\n]++)(?=</)"
)  # of a plist
_TAG = re.compile(r"<[A-Za-z][^<>]{5,2000}+>")
_ATTRIBUTE = re.compile(r"(?<![\w-])(?:name|key|id)=(?P<mark>[\"'])(?P<name>[\w. -]{1,100}+)(?P=mark)", re.IGNORECASE)
_VALUE = re.compile(
    r"(?<![\w-])(?P<before>(?:value|content|default)=(?P<mark>[\"']))(?P<value>[^\"'<>]++)", re.IGNORECASE
)
_TAG_NAME = re.compile(r"<(?P<name>[\w.:-]{1,100}+)")
_PAIR = re.compile(
    r"(?P<open>[(\[]) ?b?(?P<name>'[\w.-]{1,100}+'|\"[\w.-]{1,100}+\"),(?P<space> ?(?:default=)?)"
    r"(?P<value>b?'[^'\n]*+'|b?\"[^\"\n]*+\")"
)


def without_named(line: str) -> str:
    """The text without what is named or known to be a secret, in the many ways of writing `name=value`."""
    line = _COMMANDS.sub(_without_argument, line)
    if "-" in line or "login" in line:
        line = _NETRC.sub(rf"\1{REDACTED}", _LOGIN.sub(rf"\1{REDACTED}", line))
    if "(" in line:
        line = _WRAPPED.sub(_without_value, _SIGNED_IN.sub(_without_value, line))
    if " '" in line or "('" in line:
        line = _DATABASE.sub(lambda found: f"{found['before']}'{REDACTED}", line)
    if "<" in line and ">" in line:
        line = _TAG.sub(_without_attribute, _PROPERTY.sub(_without_content, _ELEMENT.sub(_without_content, line)))
    if "'," in line or '",' in line:
        line = _PAIR.sub(_without_second, line)
    if "name" in line or "key" in line or "Name" in line or "Key" in line or "header" in line:
        line = _ENTRY.sub(_without_named_value, _NAME_VALUE.sub(_without_named_value, line))
    return _without_assigned(line)


def is_filled(value: object) -> bool:
    """Whether there is a value to hide."""
    return not isinstance(value, bool) and str("" if value is None else value).strip("'\" ").lower() not in _EMPTY


def _without_content(found: re.Match[str]) -> str:
    names = [found["name"]]
    if attributes := found.groupdict().get("attributes"):
        names += [attribute["name"] for attribute in _ATTRIBUTE.finditer(attributes)]
    hidden = any(map(is_secret, names)) and is_filled(found["value"])
    return f"{found[0].removesuffix(found['value'])}{REDACTED}" if hidden else found[0]


def _without_attribute(found: re.Match[str]) -> str:
    """A tag of HTML or XML without its value, if its name or an attribute of it is that of a secret."""
    tag = found[0]
    head = _TAG_NAME.match(tag)
    names = [*([head["name"]] if head else []), *(attribute["name"] for attribute in _ATTRIBUTE.finditer(tag))]
    return _VALUE.sub(_without_value, tag) if any(map(is_secret, names)) else tag


def _without_second(found: re.Match[str]) -> str:
    """A pair in a text; in brackets it may also be a list of names, so what follows has to look like a secret."""
    hidden = is_secret(found["name"]) and is_filled(found["value"])
    if found["open"] == "[":
        hidden = hidden and (len(WORDS.findall(found["name"])) > 1 or is_random(found["value"].strip("b'\"")))
    before = found[0].removesuffix(found["value"])
    return f"{before}{REDACTED}" if hidden else found[0]


def _without_named_value(found: re.Match[str]) -> str:
    """What stands in a text as `"name": "api_key", "value": "..."`, or in a field of a form that was sent."""
    groups = found.groupdict()
    if groups.get("form"):
        return f"{groups['form']}{REDACTED}" if is_secret(groups["field"]) else found[0]
    hidden = is_secret(found["name"]) and is_filled(found["value"])
    return f"{found['before']}{REDACTED}" if hidden else found[0]


def _without_argument(found: re.Match[str]) -> str:
    """The password of a command that takes one without naming it."""
    if found["name"] is not None and not is_secret(found["name"]):
        return found[0]
    return f"{found[0].removesuffix(found['value'])}{REDACTED}"


def _without_value(found: re.Match[str]) -> str:
    return f"{found['before']}{REDACTED}" if is_filled(found["value"]) else found[0]


def _without_assigned(line: str) -> str:
    """The text without what follows the name of a secret: `name=value`, `"name": "value"`, `--name value`, prose."""
    parts, done, place = [], 0, 0
    while found := _NAMED.search(line, place):
        place = found.end()
        name, sign, start = found["name"], found["sign"], found.start()
        if line[start - 1 : start] == "%" and _HEX.match(name):  # the rest of %3F and the like
            name = name[2:]
        if "\x1b" in line[max(0, start - 8) : start]:  # the rest of a terminal's style
            name = name.partition("m")[2] or name
        if name.lower() in _ENDS_OF_NAMES and (before := _OTHER_WORD.search(line, max(0, start - 22), start)):
            name = f"{before[1]}_{name}"
        if found["dashes"] == "-" and name[0] in "DP":  # of Java and its kin
            name = name[1:]
        known = is_in_query(name) if line[start - 1 : start] in ("?", "&", ";") else is_secret(name)
        if not known:
            continue
        is_option = (bool(found["dashes"]) and (found["dashes"] == "--" or is_unmistakable(name))) or name.startswith(
            "--"
        )
        if sign == "," and not is_option:
            sign, place = None, found.end("name")
        span = _span(line, found, name, sign, place, is_option)
        if span and line[slice(*span)].strip(f"\\{_QUOTES} ").lower() not in _EMPTY:
            parts += [line[done : span[0]], REDACTED]
            done = place = span[1]
    return "".join([*parts, line[done:]]) if parts else line


def _span(
    line: str, found: re.Match[str], name: str, sign: str | None, place: int, is_option: bool
) -> tuple[int, int] | None:
    """From where to where the value of a secret's name reaches."""
    if sign is None and not is_option:
        return _in_prose(line, name, place)
    if sign == "," and is_option:
        place += line[place : place + 1] == " "
        if line[place + 1 : place + 2] == "-":  # another option, in a list of them
            return None
    pattern = _ANNOTATION if sign == ":" and name.lower() not in HEADERS else _BEFORE_QUOTED
    if typed := pattern.match(line, place):
        place = typed.end()
    end = _end_of_value(line, place, name, sign or "")
    if sign and not is_option:
        end = _end_of_words(line, found, end, place)
    if end == place and sign == ":":
        return _in_prose(line, name, place)
    return place, end


def _in_prose(line: str, name: str, place: int) -> tuple[int, int] | None:
    if default := _BEFORE_QUOTED.match(line, place):
        place = default.end()
        return place, _end_of_value(line, place, name, "=")
    if is_unmistakable(name) and (found := _QUOTED_PROSE.match(line, place)):
        return found.span("value")
    if (is_unmistakable(name) or name.lower() in _IN_PROSE) and (found := _PROSE.match(line, place)):
        return found.span("value")
    begin = line.rfind("\n", max(0, place - _NEAR), place) + 1
    if (found := _NEXT_LINE.match(line, place)) and is_unmistakable(name) and _KEY_ALONE.fullmatch(line, begin, place):
        return found.span("value") if is_random(found["value"]) else None
    return None


def _end_of_value(line: str, start: int, name: str, sign: str) -> int:
    """Where the value that starts there ends; the start where it is no value."""
    if block := _BLOCK.match(line, start):
        return block.end()
    if sign in (":", "=", "") and (end := _end_of_nested(line, start)) > start:
        return end
    if quoted := _QUOTED.match(line, start):
        for mark in _CLOSING.get(quoted["mark"], (quoted["mark"],)):
            limit = quoted.end() + _LONGEST_QUOTED
            close = line.find(quoted["escape"] + mark, quoted.end(), limit)
            while close > 0 and not quoted["escape"] and (line[close - 1] == "\\" or _is_doubled(line, close, quoted)):
                close = line.find(mark, close + 1 + _is_doubled(line, close, quoted), limit)
            if close >= 0:
                end = close + len(quoted["escape"]) + len(mark)
                return _end_of_alternative(line, start, end)
        start = quoted.end()
        return found.end() if (found := _REST_OF_LINE.match(line, start)) else start
    if line[start : start + 1] and line[start] in "{[(":  # a list, a dict or a tuple: to its end, if that is near
        return _end_of_brackets(line, start, start)
    words = [word.lower() for word in WORDS.findall(name)]
    if sign == ":" and words and words[-1] in HEADERS:
        found = _LIST_OF_FIELDS.match(line, start) or _REST_OF_LINE.match(line, start)
        return found.end() if found else start
    if sign in ("=", ":"):
        if found := _OR_ELSE.match(line, start):
            return found.end()
        if call := _CALL.match(line, start):
            return _end_of_alternative(line, start, _end_of_brackets(line, start, call.end() - 1))
    if not (found := _TOKEN.match(line, start)):
        return start
    is_sentence = sign == ":" and line[start - 1] != ":" and "{" not in line[max(0, start - _NEAR) : start]
    if is_sentence and found[0].isalpha() and found[0].islower():
        return start  # a sentence goes on after a colon
    return found.end()


def _end_of_alternative(line: str, start: int, end: int) -> int:
    """The end of `os.getenv("X") or "secret"`, whose first part ends at `end`."""
    bracket = end + (line[end : end + 1] == ")")
    found = _OR_ELSE.match(line, bracket) if line[bracket - 1 : bracket] == ")" and bracket > start else None
    return found.end() if found else end


def _end_of_words(line: str, found: re.Match[str], end: int, place: int) -> int:
    """The end of a value of several words without quotation marks: that of its line, where nothing else stands on it.

    Or of the quotation marks around the key and its value.
    """
    start = found.start()
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


def _end_of_brackets(line: str, start: int, place: int) -> int:
    """The end of the brackets that open at `place`."""
    depth = 0
    for found in _BRACKETS.finditer(line, place, place + _LONGEST_NESTED):
        depth += 1 if found[0] in "{[(" else -1
        if depth == 0:
            return found.end()
    token = _TOKEN.match(line, start)
    ending = {"{": "}", "[": "]", "(": ")"}[line[place]]
    return max(token.end() if token else start, line.find(ending, place, place + _LONGEST_QUOTED) + 1)


def _end_of_nested(line: str, start: int) -> int:
    """The end of the lines of YAML below a key: those that are indented further, or are items of its list."""
    begin = line.rfind("\n", max(0, start - _NEAR), start) + 1
    if line[start : start + 1] not in ("\n", "\r", "\\") or not _KEY_ALONE.fullmatch(line, begin, start):
        return start
    indent, end = len(line[begin:start]) - len(line[begin:start].lstrip(" \t")), line.find("\n", start) + 1
    first = end
    while line[start] != "\\" and (found := _NESTED.match(line, end)) and end < first + _LONGEST_QUOTED:
        if len(found["indent"]) <= indent and not (found["item"] and len(found["indent"]) == indent):
            break
        end = found.end()
    if end == first:  # a single word on the next line
        word = _NEXT_LINE.match(line, start)
        return word.end() if word and is_random(word["value"]) else start
    return end - line[:end].endswith("\n") if end > first else start
