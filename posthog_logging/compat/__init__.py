"""
Replacements for other clients' modules, with their names and argument orders, on `Analytics`.

To begin a migration, change one import; every call keeps working::

    from posthog_logging.compat import posthog

    posthog.api_key = "phc_project_key"
    posthog.capture("user-1", "movie played", {"movie_id": "123"})

The modules are `posthog`, `segment`, `metarouter` and `rudderstack`. A name of the old client that
has no counterpart here raises ``AttributeError``, with what to use instead.
"""
