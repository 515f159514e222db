"""Log records as events: pure code, without threads, files or sockets."""
