"""The rows of the campaign: each is the function `run` of a module of this package."""

from __future__ import annotations

# Name of the row, and the module it is in. A row that is played in several ways has the name of one after its number;
# for a negative control that is what is taken out.
ROWS = {
    "1": "everything",
    "2": "long_tasks",
    "3": "lost_replies",
    "4": "rolling_restart",
    "5 always": "server_kills",
    "5 everysec": "server_kills",
    "6": "frozen",
    "7": "blocked",
    "8": "pool_deaths",
    "9": "poison",
    "10": "vanished",
    "11": "full",
    "12": "killed_producers",
    "13": "due_times",
    "14": "new_release",
    "15": "broadcast",
    "16": "failover",
    "17 fence": "controls",
    "17 once": "controls",
    "17 renew_pel": "controls",
    "17 ack_first": "controls",
    "17 redis_retries": "controls",
    "18": "limits",
    "19": "order",
    "20": "flows",
}


def chosen(numbers: str | None) -> list[str]:
    """Name the rows with these numbers, joined by commas; None: all.

    Raises:
        KeyError: there is no such row.
    """
    if numbers is None:
        return list(ROWS)
    found = []
    for number in numbers.split(","):
        some = [name for name in ROWS if number.strip() in (name, name.partition(" ")[0])]
        if not some:
            raise KeyError(number)
        found += some
    return found
