"""
Persons: which ids PostHog takes for one person, and which merges it refuses.

``$identify`` with ``$anon_distinct_id`` merges the visitor into the user of the event.
``$create_alias`` merges the person of ``alias`` into that of ``distinct_id``: the other way
round than a login needs, and refused as soon as the user is identified. The rules are those of
PostHog's person-merge-service: a person that is identified is never merged into another one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


__all__ = [
    "ILLEGAL_IDS",
    "Merge",
    "Person",
    "Persons",
    "is_illegal",
    "merge_of",
    "warnings_of",
]

#: Ids that PostHog never merges; ``message`` has a list of its own, so that each checks the other.
ILLEGAL_IDS = frozenset(
    """0 00000000-0000-0000-0000-000000000000 anonymous anonymous-user backend distinct_id
    distinctid email false guest id nan none not_authenticated null system true undefined
    user""".split()
) | {"[object object]"}

_LONGEST = 200  # characters of an id
_MOST_MERGES = 50  # remembered of one person
_MOST_IDS = 1000  # of one person


class Merge(NamedTuple):
    """A merge that an event asks for: the person of ``source`` becomes that of ``target``."""

    source: str
    target: str
    event: str
    number: int = 0
    refused: bool = False


@dataclass
class Person:
    """One person; its ids are in the order of their arrival."""

    ids: list[str]
    is_identified: bool = False
    merges: list[Merge] = field(default_factory=list)


class Persons:
    """
    The persons of the identity events that arrived.

    Args:
        most: how many ids are remembered.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_id: OrderedDict[str, Person] = OrderedDict()

    def find(self, distinct_id: str) -> Person:
        """Return the person of *distinct_id*; without identity events that is its only id."""
        return self._by_id.get(distinct_id[:_LONGEST]) or Person([distinct_id[:_LONGEST]])

    def see(
        self, event: str, distinct_id: str, properties: Mapping[str, Any], number: int
    ) -> tuple[str, ...]:
        """Record an accepted event; return a warning if it asks for a refused merge."""
        merge = merge_of(event, distinct_id, properties)
        if merge is None:
            if event == "$identify":
                self._known(distinct_id).is_identified = True
            return ()
        if merge.source == merge.target or is_illegal(merge.source) or is_illegal(merge.target):
            return ()
        return self._merged(merge._replace(number=number))

    def _merged(self, merge: Merge) -> tuple[str, ...]:
        source, target = self._known(merge.source), self._known(merge.target)
        target.is_identified = True
        if source is target:
            return ()
        refused = source.is_identified and merge.event != "$merge_dangerously"
        target.merges = [*target.merges, merge._replace(refused=refused)][-_MOST_MERGES:]
        if refused:
            return (_REFUSED.format(*merge),)
        target.ids = [*target.ids, *source.ids][:_MOST_IDS]
        self._by_id.update(dict.fromkeys(source.ids, target))
        return ()

    def _known(self, distinct_id: str) -> Person:
        distinct_id = distinct_id[:_LONGEST]
        person = self._by_id.setdefault(distinct_id, Person([distinct_id]))
        self._by_id.move_to_end(distinct_id)
        if len(self._by_id) > self._most:
            self._by_id.popitem(last=False)
        return person


_REFUSED = (
    "cannot_merge_already_identified: {0!r} was identified before, so PostHog does not merge it "
    "into {1!r}; for a login send $identify with $anon_distinct_id instead of an alias"
)
_TO_ITSELF = (
    "alias to itself: distinct_id and alias are both {0!r}, so nothing is merged; "
    "give the visitor's id and the user's"
)
_ILLEGAL = "cannot_merge_with_illegal_distinct_id: {0!r} is no person's id, so nothing is merged"
_NO_ALIAS = "$create_alias without an alias: nothing is merged"


def merge_of(event: str, distinct_id: str, properties: Mapping[str, Any]) -> Merge | None:
    """Return the merge that an event asks for, or None."""
    name = _OTHER_ID.get(event)
    other = properties.get(name) if name else None
    if other in (None, "") or properties.get("$process_person_profile") is False:
        return None
    return Merge(str(other)[:_LONGEST], distinct_id[:_LONGEST], event)


_OTHER_ID: Mapping[str, str] = {
    "$create_alias": "alias",
    "$identify": "$anon_distinct_id",
    "$merge_dangerously": "alias",
}


def warnings_of(event: str, distinct_id: str, properties: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what is wrong with the merge that an event asks for, whatever came before it."""
    merge = merge_of(event, distinct_id, properties)
    if merge is None:
        return (_NO_ALIAS,) if event == "$create_alias" and not properties.get("alias") else ()
    if merge.source == merge.target:
        return (_TO_ITSELF.format(merge.source),) if event == "$create_alias" else ()
    return (_ILLEGAL.format(merge.source),) if is_illegal(merge.source) else ()


def is_illegal(distinct_id: str) -> bool:
    """Return whether PostHog never makes a person of *distinct_id*."""
    return distinct_id.strip().lower() in ILLEGAL_IDS
