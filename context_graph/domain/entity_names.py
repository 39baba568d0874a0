"""What a name is reduced to before two are compared, and under which words its entity is looked up.

`normal` is the first tier of resolution: names with one normal form are one thing (`May 20, 2024` and 2024-05-20, USA
and United States, `./src/a.py` and src/a.py). `blocks` are the keys that names which might be one thing share: whoever
looks for the others of a name reads its blocks and nothing else. Pure functions of label and name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from decimal import Decimal

from context_graph.domain.amounts import AMOUNT, plain_amount

PARTIAL_LABELS = frozenset(("path", "symbol", "error", "date"))
"""Labels whose names may be written in part: a file without its folders, a symbol without its module, a day without its
year. A person's first name is not among them: in a tenant of many people it is anybody's."""
FUZZY_LABELS = frozenset(("person", "org", "product", "place", "work", "event"))
"""Labels whose names people misspell; of ids, versions and money another character is another thing."""
INITIALS_OF = frozenset(("org", "place", "product"))
"""Labels that an acronym may stand for."""

_MONTHS = {
    name: number
    for number, names in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)
    for name in (names,)
}
_ISO_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)")
_WORDS = re.compile(r"[a-z]+|\d+")
_STATES = dict(
    pair.split("=")
    for pair in """
    al=alabama ak=alaska az=arizona ar=arkansas ca=california co=colorado ct=connecticut de=delaware fl=florida
    ga=georgia hi=hawaii id=idaho il=illinois in=indiana ia=iowa ks=kansas ky=kentucky la=louisiana me=maine
    md=maryland ma=massachusetts mi=michigan mn=minnesota ms=mississippi mo=missouri mt=montana ne=nebraska
    nv=nevada nj=new+jersey nm=new+mexico ny=new+york nc=north+carolina nd=north+dakota oh=ohio ok=oklahoma
    or=oregon pa=pennsylvania ri=rhode+island sc=south+carolina sd=south+dakota tn=tennessee tx=texas ut=utah
    vt=vermont va=virginia wa=washington wv=west+virginia wi=wisconsin wy=wyoming""".split()
)
_PLACES: Mapping[str, str] = {
    **{short: name.replace("+", " ") for short, name in _STATES.items()},
    **dict.fromkeys(("usa", "us", "u.s.", "u.s.a.", "united states of america", "america"), "united states"),
    **dict.fromkeys(("uk", "u.k.", "great britain"), "united kingdom"),
    **dict.fromkeys(("uae",), "united arab emirates"),
    **dict.fromkeys(("nyc", "new york city"), "new york"),
    **dict.fromkeys(("dc", "d.c.", "washington dc", "washington d.c."), "washington d.c."),
    **dict.fromkeys(("sf",), "san francisco"),
    **dict.fromkeys(("la", "l.a."), "los angeles"),
}
_HONORIFICS = frozenset("mr mrs ms miss dr prof sir madam herr frau".split())
_COMPANY_ENDS = frozenset("inc corp corporation ltd llc plc gmbh ag co company sa".split())
_STREETS = {
    "st": "street",
    "ave": "avenue",
    "dr": "drive",
    "rd": "road",
    "ln": "lane",
    "blvd": "boulevard",
    "ct": "court",
}
_CURRENCIES = {"$": "usd", "€": "eur", "£": "gbp", "¥": "jpy", "dollar": "usd", "euro": "eur", "pound": "gbp"}
_SCALES = {"k": 10**3, "m": 10**6, "million": 10**6, "b": 10**9, "bn": 10**9, "billion": 10**9}
_SCALE = re.compile(rf"\s?({'|'.join(_SCALES)})\b")
_AMOUNT = re.compile(AMOUNT)
_GENERIC_FILES = frozenset(
    """
    __init__.py __main__.py conf.py main.py models.py utils.py tests.py test.py setup.py base.py index.html
    index.js readme.md""".split()
)


def plain(name: str) -> str:
    """Case folded, compatibility form, without accents, one blank between words."""
    folded = unicodedata.normalize("NFKD", name).casefold()
    return " ".join("".join(letter for letter in folded if not unicodedata.combining(letter)).split())


def split_id(entity_id: str) -> tuple[str, str]:
    """Label and name of an entity's id."""
    label, _, name = entity_id.partition(":")
    return label, name


def normal(label: str, name: str) -> str:
    """The normal form of a name; what is empty after reduction is as it was."""
    reduced = plain(name)
    return _NORMAL.get(label, _same)(reduced) or reduced


def blocks(label: str, name: str) -> frozenset[str]:
    """Keys of a name: its normal form, and the parts by which it may be found though written differently."""
    form = normal(label, name)
    keys = {f"={form}", *(f"={part}" for part in parts(label, name))}
    words = form.split()
    if label in FUZZY_LABELS:
        keys |= {f"~{word}" for word in words if len(word) > 3}
        joined = "".join(words)
        keys |= {f"~{joined[:4]}", f"~{joined[-4:]}"} if len(joined) > 5 else set()
    if label in INITIALS_OF and len(words) > 1:
        keys.add(f"={''.join(word[0] for word in words)}")
    if label == "id":
        digits = "".join(re.findall(r"\d+", form)[-1:])
        keys |= {f"={digits}"} if len(digits) > 5 else set()
    return frozenset(keys)


def parts(label: str, name: str) -> frozenset[str]:
    """Shorter ways to write a name that are still distinctive."""
    form = normal(label, name)
    if label == "path":
        pieces = form.split("/")
        tails = ("/".join(pieces[start:]) for start in range(1, len(pieces)))
        return frozenset(tail for tail in tails if tail and "." in tail and tail not in _GENERIC_FILES)
    if label in ("symbol", "error"):
        last = re.split(r"\.|::", form)[-1]
        return frozenset((last,)) if last != form and len(last) > 7 else frozenset()
    if label == "date" and _ISO_DATE.fullmatch(form):
        return frozenset((f"--{form[5:]}",))
    return frozenset()


def _same(name: str) -> str:
    return name


def _id(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name)


def _path(name: str) -> str:
    path = re.sub(r"/{2,}", "/", name.replace("\\", "/"))
    path = re.sub(r"^(?:[ab]/(?=[\w.-]+/)|(?:\./)+)", "", path)
    return path.rstrip("/") or path


def _url(name: str) -> str:
    return re.sub(r"^https?://(?:www\.)?", "", name).partition("#")[0].rstrip("/")


def _date(name: str) -> str:
    if _ISO_DATE.fullmatch(name):
        return name
    month = day = year = None
    for word in _WORDS.findall(name):
        if word[:3] in _MONTHS and not word.isdigit():
            month = month or _MONTHS[word[:3]]
        elif word.isdigit() and len(word) == 4:
            year = word
        elif word.isdigit() and len(word) <= 2 and day is None:
            day = int(word)
    if month is None or day is None:
        return name
    return f"{year or '-'}-{month:02}-{day:02}"


def _money(name: str) -> str:
    """Amount and currency; a range (`$5 to $10`) stays as it is."""
    amounts = list(_AMOUNT.finditer(name))
    signed = next((code for sign, code in _CURRENCIES.items() if sign in name), None)
    named = re.search(r"\b(?:usd|eur|gbp|chf|jpy)\b", name)
    unit = named.group() if named else signed
    if len(amounts) != 1 or unit is None:
        return name
    amount = Decimal(plain_amount(amounts[0].group()))
    scale = _SCALE.match(name, amounts[0].end())
    if scale is not None:
        amount *= _SCALES[scale[1]]
    return f"{amount.normalize():f} {unit}"


def _person(name: str) -> str:
    last, comma, first = name.partition(", ")
    words = (f"{first} {last}" if comma else name).replace(".", " ").split()
    return " ".join(word for word in words if word not in _HONORIFICS)


def _org(name: str) -> str:
    words = re.sub(r"[.,]", " ", name).split()
    while len(words) > 1 and words[-1] in _COMPANY_ENDS:
        words.pop()
    return " ".join(words[1:] if words[:1] == ["the"] and len(words) > 1 else words)


def _place(name: str) -> str:
    known = _PLACES.get(name)
    if known is not None:
        return known
    words = name.split()
    if words and words[0].isdigit():
        words[-1] = _STREETS.get(words[-1].rstrip("."), words[-1])
    return " ".join(words)


def _error(name: str) -> str:
    status = re.fullmatch(r"(?:http|status(?: code)?|error(?: code)?)[ :=/]{1,2}([45]\d\d)", name)
    return f"http {status[1]}" if status else name


_NORMAL: Mapping[str, Callable[[str], str]] = {
    "id": _id,
    "path": _path,
    "url": _url,
    "date": _date,
    "money": _money,
    "person": _person,
    "org": _org,
    "place": _place,
    "acronym": _place,
    "error": _error,
    "version": lambda name: name.removeprefix("v"),
    "symbol": lambda name: name.removesuffix("()").removeprefix("self."),
    "tool": lambda name: re.sub(r"[\s.-]+", "_", name),
}
