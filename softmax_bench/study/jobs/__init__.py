"""A single job: its process, its lock and its log of events."""
