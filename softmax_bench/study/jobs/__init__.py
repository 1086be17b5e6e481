"""One job: its process, its lock, its log of events."""
