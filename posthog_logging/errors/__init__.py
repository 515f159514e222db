"""Exceptions for error tracking: lists, frames, limits, and what reports them."""
