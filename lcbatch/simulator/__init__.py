"""An OpenAI-shaped HTTP provider on loopback: for rehearsals, for measuring, and for torture tests.

It imports nothing of lcbatch's outside itself and no LangChain. `settings.Settings` says how it behaves,
`server.serve` runs it inside an event loop, `server.run_blocking` as a program, `process.SimulatorProcess` in a
process of its own.
"""
