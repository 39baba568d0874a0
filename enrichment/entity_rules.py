"""The forms that names have in what agents talk about: one table of labels and patterns, earlier rows over later ones.

Rows `anywhere` hold in any text. Rows of `in code` hold on lines that look like code or commands (`is_code`): a dotted
word is an attribute there and a missing blank after a full stop elsewhere. Patterns are bounded or anchored where they
could otherwise be tried from every character of a long run: a text of MAX_TEXT characters that was made for it costs
some ten milliseconds, not seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from enrichment.known_names import AIRPORTS


@dataclass(frozen=True, slots=True)
class Rule:
    """A label and the form of its names. When the pattern has a group `name`, that is the name."""

    label: str
    pattern: re.Pattern[str]


_FILE_TYPES = (
    "py|pyi|js|jsx|ts|tsx|mjs|json|ndjson|jsonl|ya?ml|toml|ini|cfg|conf|env|md|rst|txt|csv|tsv|html?|css|scss|sql|sh|"
    "go|rs|java|kt|rb|php|c|h|cc|cpp|hpp|cs|swift|lua|xml|lock|log|pdf|png|jpe?g|svg|gif|zip|gz|tar|whl|ipynb|proto"
)
_THING = r"(?i:reservation|booking|confirmation|order|ticket|case|incident|invoice|tracking|flight)"
_TOP_DOMAINS = "com|org|net|io|edu|gov|dev|ai|co|uk|de|fr|eu|us|ca|au|jp|in|info|me|tv|app|cloud|local|internal"
_NO_HOST = "".join(rf"(?<!\.{ending})" for ending in _TOP_DOMAINS.split("|"))
_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|"
    r"Nov(?:ember)?|Dec(?:ember)?)"
)
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
_STREET = r"(?:Street|St|Drive|Dr|Avenue|Ave|Road|Rd|Lane|Ln|Boulevard|Blvd|Way|Court|Ct|Place|Square|Terrace|Parkway)"
_AIRPORT = "(?:" + "|".join(sorted(AIRPORTS)) + ")"
# A value behind a key, as results rendered for reading have them: `city: Phoenix, state: AZ`.
_VALUE = r"(?P<name>[A-Z][\w.'’-]*(?: [A-Z][\w.'’-]*){0,3})(?=\s*(?:[,;)\n]|$))"
_OWN = r"(?:self\.|cls\.)"  # in front of a name, and no part of it
_PERSON_KEY = r"(?i:(?:first|last|full|middle|given|family) name|surname|customer|passenger|author)"
_CODE_PLACE = r"(?i:origin|destination|departure airport|arrival airport|departs from|arrives at)"

ANYWHERE: tuple[Rule, ...] = (
    Rule("url", re.compile(r"\b(?:https?|ftp|wss?|redis|s3)://[^\s<>\"'`\])}|]+[^\s<>\"'`\])}|.,;:!?]")),
    Rule("date", re.compile(r"(?<![\w-])(?:19|20)\d\d-[01]\d-[0-3]\d(?![\d-])")),
    Rule("date", re.compile(rf"\b{_MONTH}\.? {_DAY}(?:,? (?:19|20)\d\d)?(?![\w:])")),
    Rule("date", re.compile(rf"(?<![\w.:]){_DAY} (?:of )?{_MONTH}\b\.?(?:,? (?:19|20)\d\d\b)?")),
    Rule("date", re.compile(rf"\b{_MONTH} (?:19|20)\d\d\b")),
    Rule("email", re.compile(r"\b[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}\b")),
    Rule("id", re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b")),
    Rule("host", re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d{2,5})?(?![\w.]\d)")),
    Rule(
        "path",
        re.compile(
            r"(?<![\w/.<)\]])(?:[A-Za-z]:\\|~/|\.{1,2}/|/)(?:[\w.@+-]+[/\\])*[\w.@+-]*[\w-]{2,}(?!\.?\w*\(|\w)"
        ),
    ),
    Rule("path", re.compile(rf"(?<![\w/.@+-])(?:[\w.@+-]+/)+[\w.@+-]+\.(?:{_FILE_TYPES})\b")),
    Rule("path", re.compile(rf"(?<![\w/.@-])[\w-]+(?:\.[\w-]+)*\.(?:{_FILE_TYPES})(?![\w(]|\.\w)")),
    Rule(
        "error",
        re.compile(r"\b(?:[a-z]\w{0,40}\.){0,6}[A-Z][A-Za-z0-9]{0,60}(?:Error|Exception|Warning|Failure|Fault)\b"),
    ),
    Rule("error", re.compile(r"\bE(?:NOENT|ACCES|PERM|EXIST|PIPE|TIMEDOUT|NOTFOUND|INVAL|RESOLVE|AI_AGAIN)\b")),
    Rule("error", re.compile(r"\b(?:ECONN|EADDR|ENOT|ERR_)[A-Z0-9_]{3,}\b")),
    Rule(
        "error", re.compile(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]*(?:ERROR|FAILED|DENIED|TIMEOUT|NOT_FOUND|INVALID|EXCEEDED)\b")
    ),
    Rule("error", re.compile(r"\b(?P<name>(?:HTTP|(?i:status(?:\s+code)?|error(?:\s+code)?))[ :=/]{1,2}[45]\d\d)\b")),
    # What compilers, linters and databases number their complaints with: `C0114: Missing docstring`, `ORA-00942: …`.
    Rule("error", re.compile(r"(?<![\w-])[A-Z]{1,4}-?\d{3,5}(?=: [A-Za-z])")),
    Rule("error", re.compile(r"\bSIG(?:KILL|TERM|SEGV|ABRT|INT|HUP|BUS|FPE|ILL|PIPE)\b")),
    Rule("id", re.compile(r"\bCVE-\d{4}-\d{4,}\b")),
    Rule("id", re.compile(r"(?<![\w&])#(?P<name>[A-Za-z]{0,4}\d{2,})\b")),
    Rule("id", re.compile(r"(?<![\w-])[a-z]{1,40}(?:[_-][a-z]{1,40}){0,6}[_-]\d{3,}\b")),
    Rule("id", re.compile(r"\b(?!(?:UTF|ISO|SHA|MD|BASE|COVID|RFC|HTTP|INT|UINT|FLOAT)-?\d)[A-Z]{2,8}-?\d{2,12}\b")),
    Rule("id", re.compile(r"\b(?=[A-Z]*\d)(?=\d*[A-Z])[A-Z0-9]{6,8}\b")),
    Rule(
        "id",
        re.compile(rf"\b{_THING}(?:\s+(?i:id|number|code|no\.?|ref))?\s*(?i:is|:|=|\()?\s+(?P<name>[A-Z0-9]{{6}})\b"),
    ),
    Rule("id", re.compile(r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{7,40}\b")),
    Rule("version", re.compile(r"(?<![\w.])v?\d+\.\d+\.\d+(?:[-+][A-Za-z][\w.]*)?(?![\w.]*\d)|\bv\d+(?:\.\d+)+\b")),
    Rule("money", re.compile(r"[$€£¥]\s?\d[\d,]*(?:\.\d+)?(?:\s?(?:k|m|bn|million|billion)\b)?")),
    Rule("money", re.compile(r"\b\d[\d,]*(?:\.\d+)?\s?(?:USD|EUR|GBP|CHF|dollars|euros|pounds)\b")),
    Rule("id", re.compile(r"(?<![\w.,$€£¥+-])\d{7,}(?![\w.,]*\d)")),
    Rule("place", re.compile(rf"(?<![\w#])\d{{1,5}} (?:[A-Z][a-z'’]+ ){{1,3}}{_STREET}\b")),
    Rule("place", re.compile(rf"\b{_CODE_PLACE}: (?P<name>[A-Z]{{3}})\b")),
    Rule("place", re.compile(rf"(?<![\w@#$./-]){_AIRPORT}(?![\w@/-]|\.\w)")),
    Rule("place", re.compile(rf"\b(?i:city|state|province|country|region): {_VALUE}")),
    Rule("person", re.compile(rf"\b{_PERSON_KEY}: {_VALUE}")),
    Rule("symbol", re.compile(rf"`{_OWN}?(?P<name>[A-Za-z_][\w.:]{{0,60}})(?:\([^`\s]{{0,40}}\))?`")),
    Rule("symbol", re.compile(r"(?:^|[\"'`|(\s])(?:class|def)\s+(?P<name>[A-Za-z_]\w{0,60})(?=[(:\"'`])", re.M)),
    Rule("symbol", re.compile(rf"\b{_OWN}?(?P<name>[A-Za-z_]\w{{0,60}}(?:\.[A-Za-z_]\w{{0,60}}){{1,6}})\(\)")),
    Rule("symbol", re.compile(r"\b(?P<name>[A-Za-z_]\w{2,60})\(\)")),
    # Two or more dots outside of host names: django.db.models, __main__.SaveTestCase; and Class.method.
    Rule(
        "symbol",
        re.compile(
            rf"(?<![\w@/.-]){_OWN}?(?P<name>(?!{_OWN})[a-z_]\w{{1,40}}(?:\.[A-Za-z_]\w{{1,60}}){{2,6}}){_NO_HOST}(?![\w@/-])"
        ),
    ),
    Rule("symbol", re.compile(rf"(?<![\w@/.-])[A-Z][a-z]+[A-Za-z0-9]*\.[a-z_]\w{{2,60}}{_NO_HOST}(?![\w@/.-])")),
    # Identifiers with an underscore inside, in front or behind.
    Rule(
        "symbol",
        re.compile(
            rf"(?<![\w@/.#-]){_OWN}?(?P<name>_{{0,2}}[A-Za-z][A-Za-z0-9]*(?:_+[A-Za-z0-9]+)+_{{0,2}}|_{{1,2}}[A-Za-z]\w*|"
            r"[a-z]\w{2,}_)(?![\w@/-]|\.\w)"
        ),
    ),
    Rule("symbol", re.compile(r"(?<![\w@/.#-])[a-z]{2}[a-z0-9]{0,40}(?:[A-Z][a-z0-9]{1,40}){1,8}\b")),
)  # fmt: skip

IN_CODE: tuple[Rule, ...] = (
    Rule("path", re.compile(r"(?<![\w/.@+<-])[a-z_.][\w.-]+(?:/[A-Za-z_][\w.-]*){2,}(?![\w/])")),
    Rule("symbol", re.compile(r"^\s*(?:\d+\s+)?(?:from|import)\s+\.*(?P<name>[A-Za-z_][\w.]*)")),
    Rule("symbol", re.compile(r"\bimport\s+(?:\([\s]*)?(?P<name>[A-Za-z_]\w*)")),
    Rule("symbol", re.compile(r"(?<![\w@/.])(?:self\.|cls\.)(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")),
    Rule("symbol", re.compile(r"(?<![\w@/.])(?!self\.|cls\.)[A-Za-z_]\w{0,60}(?:\.[A-Za-z_]\w{1,60}){1,6}(?![\w/])")),
)

# Anywhere in a text that has a line of code: a class by its humps, NdarrayMixin, NDimArray, _MergeResult.
BESIDE_CODE: tuple[Rule, ...] = (
    Rule("symbol", re.compile(r"(?<![\w@/.#-])_?(?:[A-Z]+[a-z0-9]+){2,8}[A-Z]{0,4}(?![\w@-])")),
)

_BACKTICKED = re.compile(r"`[^`\n]{1,80}`")
_CODE = re.compile(
    r"[{}]|==|!=|->|::|\\n|;\s*$|[\w\])]\[|\w\(\w*[,=)]|\w\(\S|\w=\S|</?\w+>|^```|\w\.\w+\(|(?<!\w)_?[a-z]+_[a-z_]+\b|"
    r"^\s*(?:from|import|def|class|return|if|for|try|except|raise|with)\b.*[:\w)]$|^\s*(?:\d+[:\t]|[#>$] |@\w)|"
    r"(?<!\S)--?[a-z][\w-]{0,30}(?=[ =]).{0,80}\.\w"
)


def is_code(line: str) -> bool:
    """Whether a line looks like code, a command or its output; what stands in backticks does not count."""
    return _CODE.search(_BACKTICKED.sub("", line)) is not None


def code_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a text that look like code, each with the place where it begins."""
    place = 0
    for line in text.split("\n"):
        if is_code(line):
            yield place, line
        place += len(line) + 1
