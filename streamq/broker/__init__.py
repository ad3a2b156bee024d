"""What streamq does in Redis: one function per script, batches in, values out.

`calls` builds the calls, `producer` and `fleet` run them for those who enqueue and for those who work.
"""
