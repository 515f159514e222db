"""
Identity and properties of a request, bound in `posthog_logging.context` while it is served.

One module for each kind of application; each imports its framework where it needs it.
"""
