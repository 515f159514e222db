"""
What each count means, and what to do about it: the table behind warnings, help and guides.

A test fails if the code counts under a reason that is missing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


__all__ = ["LOSSES", "OTHER_COUNTS", "Reason", "sentence"]


class Reason(NamedTuple):
    """What a count means, and what to do if it grows; "" if there is nothing to do."""

    meaning: str
    remedy: str = ""


#: Counts that are no losses.
OTHER_COUNTS: Mapping[str, Reason] = {
    "accepted": Reason("events that log calls handed over, and events adopted"),
    "delivered": Reason("events that the server has"),
    "waiting": Reason("events in the queue, in the spool, in the broker or on their way"),
    "retried": Reason("events that were sent another time"),
    "adopted": Reason("accepted events that another process had left in the spool"),
    "scrubbed": Reason("values that were secret, and were replaced by `[scrubbed]`"),
}

#: Every way to lose an event. ``accepted == delivered + waiting + the sum of these``.
LOSSES: Mapping[str, Reason] = {
    "queue_full": Reason(
        "the queue was full, and the newest or the oldest event gave way",
        "raise max_queue_size or max_queue_bytes, or set overflow='block'; "
        "if the server is slow or away, give a spool",
    ),
    "spool_full": Reason(
        "the spool reached max_spool_bytes, or its disk is full",
        "make room on the disk, or raise max_spool_bytes",
    ),
    "broken": Reason(
        "an event in the spool was damaged and cannot be read",
        "check the disk, and keep other programs from writing into the spool's folder",
    ),
    "shutdown": Reason(
        "the process ended before the event was delivered",
        "raise shutdown_timeout, call flush() before the end, or give a spool",
    ),
    "returned": Reason(
        "the broker took a relay's message back, and delivers it again, perhaps to another relay",
    ),
    "duplicates": Reason(
        "the event came twice with one uuid and was sent once, so nothing is missing",
        "give each event a uuid of its own, or none",
    ),
    "expired": Reason(
        "the event was older than max_age before it could be delivered",
        "raise max_age, and look for what keeps the server away",
    ),
    "retries_exhausted": Reason(
        "the event was sent max_retries times more, or alone a hundred times, and always failed",
        "raise max_retries, or leave it None; `posthog-logging doctor` looks for the cause",
    ),
    "throttled": Reason(
        "the server asked for a pause of more than twelve hours",
        "look at the project's quota with the provider",
    ),
    "rejected": Reason(
        "the server refused the request and would refuse it again",
        "`posthog-logging doctor` checks key, host and dialect",
    ),
    "dropped": Reason(
        "the server took the request and refused this event in it",
        "log the same event against `posthog-logging serve`, which says what is wrong with it",
    ),
    "unconfirmed": Reason(
        "the server answered with success, but not what became of the event",
        "check that host is the address of the endpoint and not of a web page",
    ),
    "oversized": Reason(
        "the event is larger than the endpoint takes, even with its properties cut",
        "log less in one event: identifiers instead of whole documents",
    ),
    "no_event": Reason(
        "a message in the broker has a line that is no JSON object with an `event`",
        "read the dead letter, and mend what publishes to the queue",
    ),
    "unreadable": Reason(
        "a message in the broker cannot be unpacked as its content_encoding says, or is too large",
        "read the dead letter, and mend what publishes to the queue",
    ),
    "unknown_schema": Reason(
        "a message in the broker names a schema that this relay does not know",
        "update the relay, then deliver the dead letter again",
    ),
    "no_event_name": Reason(
        "the event has no name, or a blank one",
        "give the log call a message or extra={'event': …}, and Analytics.capture its second"
        " argument",
    ),
    "bad_event_name": Reason(
        "the event's name is not text",
        "give a string as extra={'event': …}",
    ),
    "no_distinct_id": Reason(
        "identify, set or alias was called without the person's id",
        "give distinct_id, or bind it with context.identity",
    ),
    "no_previous_id": Reason(
        "alias was called without the id that the person had before",
        "give previous_id",
    ),
    "alias_to_itself": Reason(
        "alias was called with the same id twice",
        "give two ids; for a login, extras.identify(user, anonymous_id=visitor)",
    ),
    "no_group": Reason(
        "a group event has no type or no key",
        "give both: extras.group('company', 'acme')",
    ),
    "empty_set": Reason(
        "set was called without a property",
        "give at least one property",
    ),
    "blank_log": Reason(
        "a line for PostHog Logs has no text",
        "give the log call a message",
    ),
    "before_send": Reason("before_send returned None for the event, which drops it"),
    "before_send_failed": Reason(
        "before_send raised, or returned something that is not an event",
        "mend before_send: it returns the event, changed or not, or None",
    ),
    "filter_failed": Reason(
        "a filter of the handler raised",
        "mend the filter: it returns whether a record may pass",
    ),
    "select_failed": Reason(
        "the select= of PostHogProcessor raised",
        "mend select: it returns whether an entry is an event",
    ),
    "bad_arguments": Reason(
        "a call was made with arguments that it does not take",
        "compare the call with the signature of the method",
    ),
    "rate_limited": Reason(
        "more exceptions of one type, or more log lines, came than the limit allows",
        "raise exception_rate or rate_cap, or mend what raises so often",
    ),
    "rolled_back": Reason(
        "the event was held back in a block or a transaction that was rolled back"
    ),
    "held_full": Reason(
        "one block or transaction held back more than 10,000 events, or 32 MiB",
        "end blocks and transactions sooner, or log after their end",
    ),
    "sampled": Reason("the event is of a person who is not in its sample"),
    "person_limited": Reason(
        "one person sent more events than person_rate allows",
        "raise person_rate, or look for what logs so much about one person",
    ),
    "send_is_off": Reason("send=False is set, which builds and counts events and sends none"),
    "no_api_key": Reason(
        "there is no key to send with",
        "set POSTHOG_API_KEY, or give api_key",
    ),
    "internal_error": Reason(
        "this library failed on the event, or an object in it did",
        "look at the named exception; if it is ours, please report it",
    ),
}


def sentence(reason: str, count: int = 1, detail: str = "") -> str:
    """
    Return the warning for *count* events lost under *reason*: what happened and what to do.

    Args:
        detail: what is known of this case: names and sizes, never payloads or keys.
    """
    known = LOSSES.get(reason, Reason(reason))
    lost = "1 event was lost" if count == 1 else f"{count} events were lost"
    about = f" [{detail}]" if detail else ""
    advice = f" To do: {known.remedy}." if known.remedy else ""
    return f"{lost} ({reason}): {known.meaning}{about}.{advice}"
