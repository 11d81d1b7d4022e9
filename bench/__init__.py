"""How fast lcbatch is, beside what else one would use: `make bench`, docs/performance.md."""
