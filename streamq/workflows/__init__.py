"""Calls that belong together: chains, groups, chords and graphs, and how they become the nodes of a flow."""
