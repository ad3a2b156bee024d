"""Channels: typed messages between processes, told as they are published, and kept where they must arrive."""
