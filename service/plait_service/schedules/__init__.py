"""Schedules: which specs are submitted when, what is waited for, and where the newest result lies."""
