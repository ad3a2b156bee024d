"""An app without tasks, as a worker of an older version might have."""

from streamq import StreamQ

app = StreamQ()
