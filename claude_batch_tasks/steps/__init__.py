"""How one message of a job runs: its lease, its countdowns, what follows it, and how a job ends."""
