"""
The old clients' modules, with their names and orders of arguments, over `Analytics`.

One changed import is the whole first step of a migration; every call keeps working::

    from posthog_logging.compat import posthog

    posthog.api_key = "phc_project_key"
    posthog.capture("user-1", "movie played", {"movie_id": "123"})

There are `posthog`, `segment`, `metarouter` and `rudderstack`. What an old client has and this
library has not raises an AttributeError that names the replacement.
"""
