"""The only room that knows Redis: connections, keys, scripts, and what its errors mean."""
