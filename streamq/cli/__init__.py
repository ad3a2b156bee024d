"""The command line: one module a command, thin over the app, the worker and the inspector."""
