"""How one message of a job runs: its lease, its countdowns, the messages that follow it, and the job's end."""
