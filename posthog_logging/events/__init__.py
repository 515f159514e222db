"""What an event is: pure, without a thread, a file or a socket."""
