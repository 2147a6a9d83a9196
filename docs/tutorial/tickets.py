"""Writes five weeks of a made-up help desk into a folder: `tickets.csv` and `reopenings.csv`."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

DAYS, TICKETS_A_DAY, REQUESTERS = 35, 150, 300
START = pd.Timestamp("2025-01-01", tz="UTC")
END = START + pd.Timedelta(days=DAYS)
ISO = "%Y-%m-%dT%H:%M:%SZ"

random = np.random.default_rng(7)
count = DAYS * TICKETS_A_DAY
closed = START + pd.to_timedelta(np.sort(random.uniform(0, DAYS * 86_400, count)).round(), unit="s")
requester = random.integers(0, REQUESTERS, count)
team = random.choice(["billing", "network", "devices"], count, p=[0.5, 0.3, 0.2])
priority = random.choice(["low", "normal", "high"], count, p=[0.3, 0.5, 0.2])
minutes = random.gamma(2, 20, count).round(1)

# Some requesters are never satisfied, hasty answers come back, and the network is hard.
demanding = random.normal(0, 1.3, REQUESTERS)[requester]
score = -1.9 + demanding - 0.012 * minutes + 0.8 * (team == "network") + 0.5 * (priority == "high")
again = random.random(count) < 1 / (1 + np.exp(-score))
reopened = closed + pd.to_timedelta((random.exponential(2.0, count) * 86_400).round() + 60, unit="s")

tickets = pd.DataFrame(
    {
        "ticket_id": [f"T{n:06}" for n in range(count)],
        "requester": [f"R{n:03}" for n in requester],
        "team": team,
        "priority": priority,
        "minutes": minutes,
        "known_at": closed.strftime(ISO),
    }
)
seen = again & (reopened < END)
reopenings = tickets.loc[seen, ["ticket_id", "requester"]].assign(known_at=reopened[seen].strftime(ISO))

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
tickets.to_csv(folder / "tickets.csv", index=False)
reopenings.sort_values("known_at").to_csv(folder / "reopenings.csv", index=False)
