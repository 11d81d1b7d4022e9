"""Executors: run work over rows, bounded. The local one is asyncio's."""
