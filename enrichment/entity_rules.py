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

from context_graph.domain.amounts import AMOUNT, AMOUNT_IN_ONE_WORD
from enrichment.known_names import AIRPORTS


@dataclass(frozen=True, slots=True)
class Rule:
    """A label and the form of its names. When the pattern has a group `name`, that is the name."""

    label: str
    pattern: re.Pattern[str]


# Letters and digits that a name in ASCII may not touch: Latin ones, with their marks. Kana, han and hangul stand right
# beside a name, without a blank, and are no part of it; so `\b` and `\w` would lose the name or swallow the text.
_WORD = r"0-9A-Za-z_\u00aa\u00b5\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0300-\u036f\u1e00-\u1eff"
_BEGIN = rf"(?<![{_WORD}])"
_END = rf"(?![{_WORD}])"
# What ends a URL: blanks, brackets, quotes, and the letters and punctuation of scripts that put no blank behind it.
# The price is a URL that has such letters itself; percent-encoded and in Punycode, as programs write it, it has none.
_NO_URL = (
    r"\s<>\"'`\])}|\u00ab\u00bb\u2018-\u201f\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3000-\u9fff\ua960-\ua97f"
    r"\uac00-\ud7ff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff"
)
_SCALE = rf"(?:\s?(?:k|K|m|M|bn|B|million|billion){_END})?"
_CURRENCY = r"(?:USD|EUR|GBP|CHF|JPY)"
_UNIT = rf"(?:(?:{_CURRENCY}|dollars?|euros?|pounds?){_END}|[$€£¥]{_END})"
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
    Rule("url", re.compile(rf"{_BEGIN}(?:https?|ftp|wss?|redis|s3)://[^{_NO_URL}]+[^{_NO_URL}.,;:!?]")),
    Rule("date", re.compile(rf"(?<![{_WORD}-])(?:19|20)\d\d-[01]\d-[0-3]\d(?![\d-])")),
    Rule("date", re.compile(rf"\b{_MONTH}\.? {_DAY}(?:,? (?:19|20)\d\d)?(?![\w:])")),
    Rule("date", re.compile(rf"(?<![\w.:]){_DAY} (?:of )?{_MONTH}\b\.?(?:,? (?:19|20)\d\d\b)?")),
    Rule("date", re.compile(rf"\b{_MONTH} (?:19|20)\d\d\b")),
    Rule(
        "email",
        re.compile(rf"{_BEGIN}[A-Za-z0-9][{_WORD}.+-]{{0,63}}@(?:[A-Za-z0-9-]{{1,63}}\.){{1,6}}[A-Za-z]{{2,24}}{_END}"),
    ),
    # Before hosts, versions and ids, which have forms of amounts: 1.234.567 EUR. One pattern, so the left one of two
    # amounts has the currency between them: 20 € 30 €.
    Rule(
        "money",
        re.compile(
            rf"[$£¥]\s?{AMOUNT_IN_ONE_WORD}{_SCALE}|(?:€|{_BEGIN}{_CURRENCY})\s?{AMOUNT}{_SCALE}|"
            rf"{_BEGIN}(?<![0-9][.,'’]){AMOUNT}{_SCALE}\s?{_UNIT}"
        ),
    ),
    Rule("id", re.compile(rf"{_BEGIN}[0-9a-fA-F]{{8}}-(?:[0-9a-fA-F]{{4}}-){{3}}[0-9a-fA-F]{{12}}{_END}")),
    Rule("host", re.compile(rf"(?<![{_WORD}.])\d{{1,3}}(?:\.\d{{1,3}}){{3}}(?::\d{{2,5}})?(?![{_WORD}.]\d)")),
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
        re.compile(
            rf"{_BEGIN}(?:[a-z]\w{{0,40}}\.){{0,6}}[A-Z][A-Za-z0-9]{{0,60}}"
            rf"(?:Error|Exception|Warning|Failure|Fault){_END}"
        ),
    ),
    Rule(
        "error",
        re.compile(rf"{_BEGIN}E(?:NOENT|ACCES|PERM|EXIST|PIPE|TIMEDOUT|NOTFOUND|INVAL|RESOLVE|AI_AGAIN){_END}"),
    ),
    Rule("error", re.compile(rf"{_BEGIN}(?:ECONN|EADDR|ENOT|ERR_)[A-Z0-9_]{{3,}}{_END}")),
    Rule(
        "error",
        re.compile(
            rf"{_BEGIN}[A-Z][A-Z0-9]*_[A-Z0-9_]*"
            rf"(?:ERROR|FAILED|DENIED|TIMEOUT|NOT_FOUND|INVALID|EXCEEDED){_END}"
        ),
    ),
    Rule(
        "error",
        re.compile(
            rf"{_BEGIN}(?P<name>(?:HTTP|(?i:status(?:\s+code)?|error(?:\s+code)?))[ :=/]{{1,2}}[45]\d\d){_END}"
        ),
    ),
    # What compilers, linters and databases number their complaints with: `C0114: Missing docstring`, `ORA-00942: …`.
    Rule("error", re.compile(rf"(?<![{_WORD}-])[A-Z]{{1,4}}-?\d{{3,5}}(?=: [A-Za-z])")),
    Rule("error", re.compile(rf"{_BEGIN}SIG(?:KILL|TERM|SEGV|ABRT|INT|HUP|BUS|FPE|ILL|PIPE){_END}")),
    Rule("id", re.compile(rf"{_BEGIN}CVE-\d{{4}}-\d{{4,}}{_END}")),
    Rule("id", re.compile(rf"(?<![{_WORD}&])#(?P<name>[A-Za-z]{{0,4}}\d{{2,}}){_END}")),
    Rule("id", re.compile(rf"(?<![{_WORD}-])[a-z]{{1,40}}(?:[_-][a-z]{{1,40}}){{0,6}}[_-]\d{{3,}}{_END}")),
    Rule(
        "id",
        re.compile(
            rf"{_BEGIN}(?!(?:UTF|ISO|SHA|MD|BASE|COVID|RFC|HTTP|INT|UINT|FLOAT)-?\d)"
            rf"[A-Z]{{2,8}}-?\d{{2,12}}(?:-\d{{1,12}}){{0,6}}{_END}"
        ),
    ),
    Rule("id", re.compile(rf"{_BEGIN}(?=[A-Z]*\d)(?=\d*[A-Z])[A-Z0-9]{{6,8}}{_END}")),
    Rule(
        "id",
        re.compile(rf"{_BEGIN}{_THING}(?:\s+(?i:id|number|code|no\.?|ref))?\s*(?i:is|:|=|\()?\s+(?P<name>[A-Z0-9]{{6}}){_END}"),
    ),
    Rule("id", re.compile(rf"{_BEGIN}(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{{7,40}}{_END}")),
    Rule("version", re.compile(rf"(?<![{_WORD}.])v?\d+\.\d+\.\d+(?:[-+][A-Za-z][{_WORD}.]*)?(?![{_WORD}.]*\d)")),
    Rule("version", re.compile(rf"{_BEGIN}v\d+(?:\.\d+)+{_END}")),
    Rule("id", re.compile(rf"(?<![{_WORD}.,$€£¥+-])\d{{7,}}(?![{_WORD}.,]*\d)")),
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
