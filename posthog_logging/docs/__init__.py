"""The guides, one Markdown file a topic; ``posthog-logging docs`` shows them in a terminal."""
