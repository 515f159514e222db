"""What an event costs, here and elsewhere, in one run: ``python -m tests.benchmarks``."""
