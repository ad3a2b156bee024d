"""What runs tasks: a supervisor, and in each of its children one service a file.

supervisor  starts children, replaces them, hands back what a dead one held      (process of its own; imports little)
process     one child, as the supervisor sees it      tally       what children have reported
health      answers probes                            exposition  metrics for Prometheus
child       joins the services below and knows in which order they start and stop
fetcher     reads messages           executor   runs them            pool      the threads of sync tasks
committer   writes outcomes          lease      renews what is held  reaper    takes over what dead workers held
promoter    moves delayed tasks      heartbeat  says that it lives   watchdog  watches the event loop, and reports
"""
