"""The contestants' programs. Each runs by itself: `python -m bench.clients.NAME ROWS OUT CONCURRENCY`."""
