"""Persons as PostHog makes them: what merges into what, and what is refused."""

from __future__ import annotations

import json
import urllib.request

from typing import Any

from posthog_logging.inspector import Inspector
from posthog_logging.inspector.identity import Persons


KEY = "phc_a_project_key_of_this_test"


def send(inspector: Inspector, event: str, distinct_id: str, **properties: Any) -> None:
    body = {"event": event, "distinct_id": distinct_id, "api_key": KEY, "properties": properties}
    request = urllib.request.Request(f"{inspector.url}/e/", json.dumps(body).encode())
    urllib.request.urlopen(request, timeout=10).close()


def alias(inspector: Inspector, visitor: str, user: str, **more: Any) -> None:
    send(inspector, "$create_alias", visitor, alias=user, **more)


def login(inspector: Inspector, visitor: str, user: str, **more: Any) -> None:
    send(inspector, "$identify", user, **{"$anon_distinct_id": visitor}, **more)


def warnings(inspector: Inspector) -> list[str]:
    return [text.partition(":")[0] for event in inspector.events for text in event.warnings]


def test_a_login_merges_the_visitor_into_the_user(inspector: Inspector) -> None:
    """`$identify` with `$anon_distinct_id` makes one person of both, for every device."""
    login(inspector, "visitor-1", "ada")
    login(inspector, "visitor-2", "ada")

    person = inspector.person("visitor-2")
    assert (["ada", "visitor-1", "visitor-2"], True) == (person.ids, person.is_identified)
    assert [("visitor-1", "ada"), ("visitor-2", "ada")] == [one[:2] for one in person.merges]
    assert [] == warnings(inspector)


def test_an_alias_serves_the_first_device_alone(inspector: Inspector) -> None:
    """An alias merges the user into the visitor: right once, refused for the next device."""
    alias(inspector, "visitor-1", "ada")
    alias(inspector, "visitor-2", "ada")

    assert ["visitor-1", "ada"] == inspector.person("ada").ids
    assert ["cannot_merge_already_identified"] == warnings(inspector)
    (merge,) = inspector.person("visitor-2").merges
    assert ("ada", "visitor-2", True) == (merge.source, merge.target, merge.refused)


def test_an_alias_of_an_identified_user_is_refused(inspector: Inspector) -> None:
    """Whoever was identified is never merged into somebody else."""
    send(inspector, "$identify", "ada", **{"$set": {"plan": "family"}})
    alias(inspector, "visitor", "ada")

    (text,) = inspector.events[-1].warnings
    assert text.startswith("cannot_merge_already_identified: 'ada' was identified before")
    assert "'visitor'" in text
    assert "$anon_distinct_id" in text


def test_a_login_cannot_take_another_user(inspector: Inspector) -> None:
    """An id that is somebody's already is no visitor's."""
    login(inspector, "visitor", "ada")
    login(inspector, "ada", "grace")

    assert ["cannot_merge_already_identified"] == warnings(inspector)
    assert ["grace"] == inspector.person("grace").ids


def test_what_is_merged_already_is_fine(inspector: Inspector) -> None:
    """The same login once more, or the alias after it, asks for nothing new."""
    login(inspector, "visitor", "ada")
    login(inspector, "visitor", "ada")
    alias(inspector, "visitor", "ada")

    assert [] == warnings(inspector)


def test_dangerous_merges_are_not_refused(inspector: Inspector) -> None:
    """`$merge_dangerously` merges also who is identified."""
    send(inspector, "$identify", "old")
    send(inspector, "$merge_dangerously", "new", alias="old")

    assert [] == warnings(inspector)
    assert ["new", "old"] == inspector.person("old").ids


def test_without_a_person_nothing_merges(inspector: Inspector) -> None:
    """An identity event without person processing is dropped later, and merges nobody."""
    login(inspector, "visitor", "ada", **{"$process_person_profile": False})

    assert ["ada"] == inspector.person("ada").ids


def test_an_alias_to_itself_is_pointless(inspector: Inspector) -> None:
    """Twice the same id merges nothing, and is worth a warning."""
    alias(inspector, "ada", "ada")

    assert ["alias to itself"] == warnings(inspector)
    assert [] == inspector.person("ada").merges


def test_segment_calls_are_the_same_persons(inspector: Inspector) -> None:
    """A refused merge is known whatever dialect asked for it."""
    login(inspector, "visitor-1", "ada")
    call = {"type": "alias", "previousId": "visitor-2", "userId": "ada", "context": {}}
    body = {"writeKey": "wk", "sentAt": "x", "batch": [{**call, "messageId": "m-1"}]}
    request = urllib.request.Request(f"{inspector.url}/v1/batch", json.dumps(body).encode())
    urllib.request.urlopen(request, timeout=10).close()

    assert ["cannot_merge_already_identified"] == warnings(inspector)


def test_the_api_shows_a_person(inspector: Inspector) -> None:
    """The page asks for a person by any of the ids; a reset forgets all of them."""
    login(inspector, "visitor", "ada")

    def person() -> Any:
        with urllib.request.urlopen(f"{inspector.url}/api/person?distinct_id=visitor") as answer:
            return json.load(answer)

    merge = {
        "source": "visitor",
        "target": "ada",
        "event": "$identify",
        "number": 1,
        "refused": False,
    }
    assert {"ids": ["ada", "visitor"], "is_identified": True, "merges": [merge]} == person()
    inspector.reset()
    assert {"ids": ["visitor"], "is_identified": False, "merges": []} == person()


def test_persons_are_bounded() -> None:
    """A million visitors of one user, and ids of any length, take a bounded place."""
    persons = Persons(100)
    for number in range(5000):
        persons.see("$identify", "ada", {"$anon_distinct_id": f"{number}" * 300}, number)

    person = persons.find("ada")
    assert (1000, 50) == (len(person.ids), len(person.merges))
    assert max(map(len, person.ids)) == 200
