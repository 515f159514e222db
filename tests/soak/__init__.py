"""Outages, kills and restarts, for as long as one likes."""
