"""
Middlewares that bind a request's identity and properties in `posthog_logging.context`.

There is one module per kind of application. No module imports a framework before it is used.
"""
