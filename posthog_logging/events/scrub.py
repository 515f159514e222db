"""
Secrets stay here: values under keys that name secrets, and passwords in URLs, are replaced.

The only module that decides which key names a secret. A key is judged by its words, once:
`Scrubber.is_harmless` asks a set, so an event without a secret costs one look-up a key.
"""

from __future__ import annotations

import re
import unicodedata

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote, unquote_plus

from . import jsonable
from .reentry import Guard


__all__ = [
    "SCRUBBED",
    "Decide",
    "Replace",
    "Scrubber",
    "is_plain_text",
    "named_values",
    "names_secret",
    "words_of",
]

#: What stands where a secret stood.
SCRUBBED = "[scrubbed]"

#: Says whether a key names a secret; None leaves it to the built-in names.
Decide = Callable[[str], "bool | None"]
#: Returns what is sent in place of a value.
Replace = Callable[[Any], Any]

# The names, without the marks between their words; the British spelling is one, too.
_NAMES = """password passwd secret apikey authorization authorisation cookie privatekey
accesstoken refreshtoken clientsecret sessiontoken""".split()
# Frameworks put their own words behind these: `csrfmiddlewaretoken`, `X-XSRF-TOKEN`.
_BEGINNINGS = ("csrf", "xsrf")

# Such a key speaks about a secret and holds none: `has_password`, `cookie_consent`,
# `password_changed_at`, `access_token_expires_in`.
_ABOUT = re.compile(
    r"(?:has|is|was|needs|requires|without) .*"
    r"|.* (?:count|length|strength|score|age|expires|expiry|expired|expires (?:in|on)|\w+ed at"
    r"|expires at|changed|updated|rotated|required|requested|enabled|disabled|consent|policy"
    r"|banner|accepted|shown|valid|invalid|verified|attempts|failures|type|status|method|version)"
)

_MARKS = re.compile(r"[\W_\u115f\u1160]+")  # the two are letters that nobody sees
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_DIGITS = re.compile(r"(?<=\d)(?=[^\W\d_])|(?<=[^\W\d_])(?=\d)")
_DOTLESS = {0x131: "i"}  # what Turkish makes of a capital I

_LONGEST_KEY = 200  # characters of a key that is remembered, and there are so many of them:
_MOST_KEYS = 4096

_DEEPEST = 32
_MOST_VALUES = 10_000
_ATOMS = frozenset({int, float, bool, type(None)})

# `name=value` behind a mark of a query or at the beginning: forms are sent like that, too.
_PARAMETER = re.compile(r"((?:^|[?&#;])\s*)([^=&#?;\s\"'<>]{1,200})=([^&#;\s\"'<>]+)")
# A password may hold marks that should have been escaped, but a port is none.
_URL_PASSWORD = re.compile(
    r"(//[^\s/:@?#\"'<>]{0,256}:)(?!\d*(?:[/?#\s]|$))"
    r"([^\s/?#\"'<>]{1,1024}|[^\s@\"'<>]{1,1024})(?=@)"
)
_WORD = r"\w$.\[\]\-\u00ad\u200b-\u200f\u2060\ufeff"
_KEY = re.compile(
    rf"(?<![{_WORD}])([{_WORD}]{{3,200}})(\\{{0,4}}['\"]?\s{{0,8}}(?:=>|=(?!=)|:(?!//))\s{{0,8}}"
    r"|\\{0,4}['\"]\s{0,8},\s{0,8})"
)
# What stands before a name that a comma parts from its value, in the repr of a list of pairs.
_BEFORE_PAIR = re.compile(r"(?:[\[({]|[)\]],)\s{0,8}[\[(]\s{0,8}[bru]{0,2}\\{0,4}['\"]\Z")
_LONGEST_BEFORE = 32
# These headers have values of several words, and of several pairs.
_HEADER = re.compile(r"(?:.*[\W_])?(?:authori[sz]ation|cookie2?)", re.IGNORECASE)
_LINE = re.compile(r"[^\r\n\"']+")
_VALUE = re.compile(
    r"(?P<open>[bruf]{0,2}(?P<quote>\\{0,4}[\"']))(?:(?!(?P=quote))(?:[^\\]|\\.))*"
    r"|\[[^\]]*\]?|\{[^}]*\}?|\([^)]*\)?|<[^>]*>?|[\w.]+\([^)]*\)?|[^\s,;&\"'<>()\[\]{}]+",
    re.DOTALL,
)

# `named_values` in the repr of an object, or in JSON that was cut.
_NAMED_VALUE = re.compile(
    r"((?P<q>\\{0,4}[\"'])(?:[Nn]ame|[Kk]ey)(?P=q)\s{0,8}:\s{0,8}(?P=q)(?P<name>[^\"'\\]{1,200})(?P=q)"
    r"\s{0,8},\s{0,8}(?P=q)[Vv]alue(?P=q)\s{0,8}:\s{0,8}(?P<open>\\{0,4}[\"']))"
    r"(?P<value>(?:(?!(?P=open))(?:[^\\]|\\.))*)",
    re.DOTALL,
)

# What shows the program itself, and no value of it.
_SOURCE = frozenset({"context_line", "pre_context", "post_context"})


def words_of(key: str) -> tuple[str, str]:
    """
    Return the words of *key* in small letters: parted at its marks only, and at capitals, too.

    Both are needed: `apiKey` is two words, and `pAsSwOrD` is one. Forms of one letter (full
    width, Turkish) are the same letter, and what cannot be seen counts as a mark.
    """
    text = unicodedata.normalize("NFKD", key).translate(_DOTLESS)
    return _parted(text), _parted(_CAMEL.sub(" ", text))


def names_secret(key: str) -> bool:
    """Return whether *key* names a secret by one of the built-in names."""
    return _names_one(_BUILT_IN, key)


def named_values(members: Mapping[Any, Any]) -> tuple[list[str], list[str]]:
    """
    Return the keys of the values in an object that names them, and its names.

    HAR, HTML forms, Postman, OTLP and AWS write a header, a field or a variable like this:
    ``{"name": "Authorization", "value": "Bearer …"}``, or with ``key`` for ``name``.
    """
    values = [key for key in _VALUES if key in members]
    found = [members[key] for key in _NAMES_OF_VALUES if values and key in members]
    return values, [name for name in found if isinstance(name, str)]


_VALUES = ("value", "Value")
_NAMES_OF_VALUES = frozenset({"name", "key", "Name", "Key"})


def _parted(text: str) -> str:
    return _DIGITS.sub(" ", _MARKS.sub(" ", text)).casefold().strip()


def _pattern(names: Iterable[str], beginnings: Iterable[str] = ()) -> re.Pattern[str]:
    """Return what finds one of *names* among words, its own words parted or not."""
    spaced = [*map(_spaced, names), *(rf"{_spaced(one)}\w*" for one in beginnings)]
    return re.compile(rf"(?:^| )(?:{'|'.join(spaced)})(?= |$)")


def _spaced(name: str) -> str:
    return " ?".join(map(re.escape, name))


def _names_one(pattern: re.Pattern[str], key: str) -> bool:
    return any(pattern.search(one) and not _ABOUT.fullmatch(one) for one in words_of(key))


_BUILT_IN = _pattern(_NAMES, _BEGINNINGS)


class Scrubber:
    """
    Replaces secrets by ``[scrubbed]``, and other values as *rules* say.

    Args:
        names: further names of secrets; whole words count, in any spelling.
        decide: says for a key whether it names a secret, None where the names decide. One
            that raises, or says neither, makes the key a secret.
        rules: called with a key; returns what replaces values under it, or None. It goes
            before everything else.
        built_in: whether the built-in names, and passwords in URLs, count.
    """

    def __init__(
        self,
        names: Iterable[str] = (),
        decide: Decide | None = None,
        rules: Callable[[str], Replace | None] | None = None,
        built_in: bool = True,
    ) -> None:
        further = ["".join(words_of(name)[0].split()) for name in names]
        self._patterns = [_BUILT_IN] if built_in else []
        self._patterns += [_pattern(filter(None, further))] if further else []
        self._decide = decide
        self._guard = Guard()
        self._rules = rules
        self._urls = built_in
        self._found: dict[str, Replace | None] = {}
        #: Keys that are known to name nothing that is replaced; it only grows, up to a bound.
        self.harmless: set[str] = set()
        self._kept: set[str] = set()  # these, and `value`, which another member may name a secret

    @classmethod
    def of(
        cls, given: Any, rules: Callable[[str], Replace | None] | None = None
    ) -> Scrubber | None:
        """
        Return the scrubber that an option means; None where there is nothing to replace.

        True is the built-in names, a list of names adds to them, a callable decides for each
        key, False is only *rules*, as None is. Raises ``TypeError`` and ``ValueError``.
        """
        if isinstance(given, Scrubber):
            return given
        if given is False or given is None:
            return None if rules is None else cls(rules=rules, built_in=False)
        if given is True:
            return cls(rules=rules)
        if callable(given):
            return cls(decide=given, rules=rules)
        names = [given] if isinstance(given, str) else given
        if not isinstance(names, Iterable) or isinstance(names, (bytes, Mapping)):
            raise TypeError(
                "scrub: must be True, False, further names or a callable,"
                f" not a value of type {type(given).__name__}"
            )
        names = list(names)
        if not all(isinstance(name, str) for name in names):
            raise TypeError("scrub: all further names must be strings")
        if not all("".join(words_of(name)) for name in names):
            raise ValueError("scrub: each name must have a letter or a digit in it")
        return cls(names, rules=rules)

    def is_harmless(self, properties: Mapping[str, Any]) -> bool:
        """Return whether no key of *properties*, at the first level, names what is replaced."""
        if self.harmless.issuperset(properties):
            return True
        if not (self._kept.issuperset(properties) or all(map(self._is_harmless, properties))):
            return False
        return _NAMES_OF_VALUES.isdisjoint(properties) or self.named_values(properties)[1] is None

    def may_have_secret(self, chunk: bytes) -> bool:
        """
        Return whether the values in *chunk* may hold anything to replace; False is certain.

        It is encoded JSON, also several objects in a row without their first braces, whose
        keys at the first level were found harmless before.
        """
        return (
            _EQUALS in chunk
            or _BACKSLASH in chunk
            or _BRACE in chunk
            or (_AT in chunk and b"//" in chunk)
            or (_BRACKET in chunk and _MAY_BE_PAIRS.search(chunk) is not None)
        )

    def has_secret(self, rest: bytes) -> bool:
        """Return whether there is something to replace in *rest*: an object without its brace."""
        if not self.may_have_secret(rest):
            return False
        properties = jsonable.decode(b"{" + rest)
        return self.scrubbed(properties)[0] is not properties

    def scrubbed(
        self, properties: dict[str, Any], prose: bool = False
    ) -> tuple[dict[str, Any], int]:
        """
        Return *properties* without secrets, and how many there were.

        It is the same object where nothing had to be replaced. Values that are no plain JSON
        are made so, since their fields have names, too. Where they are *prose*, and in reports
        of exceptions, `password=…` in the middle of a text is a secret, too.
        """
        walk = _Walk(self, prose=prose or "$exception_list" in properties)
        try:
            found = walk.object(properties, 0)
        except Exception:  # endless, huge, or changed meanwhile: what is sent is bounded
            walk = _Walk(self, walk.prose, bounded=True)
            found = walk.object(jsonable.jsonable(properties), 0)
        return found, walk.count

    def text(self, text: str) -> tuple[str, int]:
        """Return prose, such as a log's message, without secrets, and how many there were."""
        walk = _Walk(self, prose=True)
        return walk.text(text, 0), walk.count

    def name(self, name: str) -> tuple[str, int]:
        """Return an event's name without secrets, and how many there were."""
        walk = _Walk(self, prose=False, label=_LABEL)
        return walk.text(name, 0), walk.count

    def replacement(self, key: str) -> Replace | None:
        """Return what replaces the values under *key*; None where they stay."""
        try:
            return self._found[key]
        except KeyError:
            if self._guard.is_inside():  # *decide* logs: what it has not judged stays here
                return _hide
            found = self._judge(key)
            if len(key) <= _LONGEST_KEY:
                self._remember(key, found)
            return found

    def _remember(self, key: str, found: Replace | None) -> None:
        if len(self._found) >= _MOST_KEYS:
            self._found.clear()
            self.harmless.clear()
            self._kept.clear()
        self._found[key] = found
        if found is None:
            self._kept.add(key)
            if key not in _VALUES:
                self.harmless.add(key)

    def named_values(self, members: Mapping[Any, Any]) -> tuple[list[str], Replace | None]:
        """Return the keys of values that another member names, and what replaces these."""
        keys, names = named_values(members)
        return keys, next(filter(None, map(self.replacement, names)), None)

    def _judge(self, key: str) -> Replace | None:
        rule = self._rules(key) if self._rules is not None else None
        if rule is not None:
            return rule
        decided = self._ask(key) if self._decide is not None else None
        if decided is None:
            decided = any(_names_one(pattern, key) for pattern in self._patterns)
        return _hide if decided else None

    def _ask(self, key: str) -> bool | None:
        try:
            decided = self._guard.run(self._decide, key) if self._decide is not None else None
        except Exception:
            return True
        return decided if decided is None or isinstance(decided, bool) else True

    def _is_harmless(self, key: Any) -> bool:
        return type(key) is str and self.replacement(key) is None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def _hide(value: Any) -> Any:
    return SCRUBBED


def is_plain_text(text: str) -> bool:
    """Return whether *text* has neither JSON in it nor a URL's password nor a query."""
    return not ("=" in text or "@" in text or text[:1] in _MAY_BEGIN_JSON)


def _may_be_json(text: str) -> bool:
    return text[:1] in _MAY_BEGIN_JSON and text.lstrip()[:1] in _BEGINS_JSON


def _is_pair(value: Any) -> bool:
    """Return whether *value* may be a name and its value, as headers and forms come in lists."""
    return (
        isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], (str, bytes))
    )


def _text_of(name: str | bytes) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else str(name)


def _never(text: str) -> bool:
    return False


class _Walk:
    """One pass over the properties of one event, and what was replaced in it."""

    def __init__(
        self,
        scrubber: Scrubber,
        prose: bool,
        bounded: bool = False,
        label: re.Pattern[str] | None = None,
    ) -> None:
        self.count = 0
        self.prose = prose
        self._label = label
        self._replacement = scrubber.replacement
        self._named_values = scrubber.named_values
        self._harmless = scrubber.harmless
        self._urls = scrubber._urls
        self._is_plain = _never if prose else is_plain_text
        self._left = jsonable.DEFAULT_LIMITS.values * 2 if bounded else _MOST_VALUES
        self._deepest = 2 * _DEEPEST if bounded else _DEEPEST

    def object(self, members: dict[Any, Any], depth: int) -> dict[str, Any]:
        """Return *members*, the same object where nothing is replaced."""
        replace = None
        known = self._harmless.issuperset(members)
        if not known and not all(type(key) is str for key in members):
            return self.object(jsonable.jsonable(members), depth)
        named, hide = ([], None) if known else self._named_values(members)
        changed: dict[str, Any] = {}
        for key, value in members.items():
            if not known:
                replace = (hide if key in named else None) or self._replacement(key)
            if replace is not None:
                found = self._put(replace, value)
            else:
                kind = type(value)
                if kind in _ATOMS or (kind is str and self._is_plain(value)):
                    continue
                found = self._visit(value, depth, key)
            if found is not value:
                changed[key] = found
        return {**members, **changed} if changed else members

    def text(self, text: str, depth: int) -> str:
        """Return *text* without the secrets in it: JSON, URLs and, in prose, assignments."""
        found = self._json(text, depth) if _may_be_json(text) else None
        if found is not None:
            return found
        found = text
        if self._urls and "@" in found and "//" in found:
            found = _URL_PASSWORD.sub(self._without_password, found)
        is_label = self._label is not None and self._label.match(text)
        if self.prose or (_may_be_json(text) and not is_label):  # a repr, or JSON that was cut
            found = self._assignments(found)
            if "alue" in found:
                found = _NAMED_VALUE.sub(self._without_value, found)
        if "=" in found:
            found = _PARAMETER.sub(lambda match: self._parameter(match, depth), found)
        return text if found == text else found

    def _visit(self, value: Any, depth: int, key: str = "") -> Any:
        kind = type(value)
        if kind in _ATOMS:
            return value
        self._left -= 1
        if self._left < 0 or depth > self._deepest:
            raise RecursionError
        if kind is str:
            return value if self.prose and key in _SOURCE else self.text(value, depth)
        if kind is dict:
            return self.object(value, depth + 1)
        if kind is list or kind is tuple:
            if key in _SOURCE:
                return value
            return self._array(value, depth + 1)
        return self._visit(jsonable.jsonable(value), depth + 1, key)

    def _array(self, members: Any, depth: int) -> Any:
        visit = self._pair if members and all(map(_is_pair, members)) else self._visit
        found = [visit(member, depth) for member in members]
        same = all(map(_is, found, members))
        return members if same else found

    def _pair(self, pair: Any, depth: int) -> Any:
        """Return a name and its value, in a list of such, as a member of an object."""
        name, value = pair
        replace = self._replacement(_text_of(name))
        if replace is None:
            return self._visit(pair, depth)
        found = self._put(replace, value)
        return pair if found is value else [self._visit(name, depth + 1), found]

    def _put(self, replace: Replace, value: Any) -> Any:
        if replace is not _hide:
            return replace(value)
        if type(value) is str and value == SCRUBBED:
            return value
        self.count += 1
        return SCRUBBED

    def _json(self, text: str, depth: int) -> str | None:
        """Return a JSON text without secrets, None where it is not JSON, or too deep or large."""
        left, self._left = self._left, _MOST_VALUES
        try:
            value = jsonable.decode(text)
            found = self._visit(value, depth + 1)
        except (ValueError, RecursionError):
            return None
        finally:
            self._left = left
        return text if found is value else jsonable.encode(found).decode()

    def _parameter(self, match: re.Match[str], depth: int) -> str:
        before, name, value = match.groups()
        replace = self._replacement(unquote_plus(name))
        if replace is not None:
            found = self._put(replace, value)
        elif "%" in value and depth <= self._deepest:  # an address within an address
            inner = unquote(value)
            clean = self.text(inner, depth + 1)
            found = value if clean == inner else quote(clean, safe="[]")
        else:
            found = value
        return f"{before}{name}={found}"

    def _without_password(self, match: re.Match[str]) -> str:
        if match[2] == SCRUBBED:
            return match[0]
        self.count += 1
        return f"{match[1]}{SCRUBBED}"

    def _without_value(self, match: re.Match[str]) -> str:
        replace = self._replacement(match["name"])
        return match[0] if replace is None else f"{match[1]}{self._put(replace, match['value'])}"

    def _assignments(self, text: str) -> str:
        """Return *text* without the values that stand behind a secret's name."""
        pieces: list[str] = []
        end = 0
        for match in _KEY.finditer(text):
            replace = self._replacement(match[1]) if match.start() >= end else None
            if replace is not None and "," in match[2] and not _is_in_pair(match):
                continue
            value = _value_behind(match) if replace is not None else None
            if replace is not None and value is not None:
                opening = value.groupdict().get("open") or ""
                secret = value[0].removeprefix(opening)
                pieces += [text[end : value.start()], opening, str(self._put(replace, secret))]
                end = value.end()
        return "".join([*pieces, text[end:]]) if pieces else text


def _is_in_pair(key: re.Match[str]) -> bool:
    """Return whether a quoted name begins a pair of a list: not so any two texts with a comma."""
    start = key.start()
    return _BEFORE_PAIR.search(key.string, max(0, start - _LONGEST_BEFORE), start) is not None


def _value_behind(key: re.Match[str]) -> re.Match[str] | None:
    """Return the value that stands behind a name and its mark in a text."""
    text, begins = key.string, key.end()
    if ":" in key[2] and text[begins : begins + 1] not in _OPENING and _HEADER.fullmatch(key[1]):
        return _LINE.match(text, begins)
    return _VALUE.match(text, begins)


# How a name begins that is neither JSON nor a list's or an object's repr: "[Checkout] …".
_LABEL = re.compile(r"\s*[\[{](?!\s*[\"'\[{])")
_OPENING = frozenset("{[\"'")
_BEGINS_JSON = frozenset('{["')
_MAY_BEGIN_JSON = _BEGINS_JSON | frozenset(" \t\r\n")
_EQUALS, _BACKSLASH, _BRACE, _AT, _BRACKET = b"=\\{@["
# A list in a list, which pairs are, and in a text one at its beginning, which may be JSON.
_MAY_BE_PAIRS = re.compile(rb'\[(?<=["\[ ]\[)')


def _is(one: Any, other: Any) -> bool:
    return one is other
