"""A campaign of faults that accounts for every task: ``python -m tests.chaos --seed 1 --server redis:7.0 --rows 1,3``.

Each row of `rows.ROWS` is one story: a workload, faults, and what must hold. It runs in a process of its own, with a
server, a proxy and workers of its own, and prints one line.

To add a row:

1. Write ``rows/NAME.py`` with ``def run(case: Case) -> Report``. Open a `Stage`, start workers with ``stage.fleet``,
   have ``stage.producer`` enqueue tasks of `app` (add some there if need be; each begins with ``ledger.counted()``),
   do harm, and ``return stage.finish()``, which waits, looks, and makes the report. What else must hold goes into
   ``report.require(whether, why)``, figures of the row's own into ``report.more``.
2. Add one line to `rows.ROWS`.
3. All chance comes from ``stage.random``; ``stage.strike(kind, pids)`` notes each fault.

Where the parts are: `server` (kill -9, restart), `fleet` (workers, and signals to them), `tests.proxy` (the
network), `ledger` (runs, counted before the body), `instrument` (commits, counted in the script that commits; mutants),
`check` (what became of each task, and what is left).
"""
