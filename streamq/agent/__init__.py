"""Agents: processes that know of each other, tell and ask each other things, and share out work."""
