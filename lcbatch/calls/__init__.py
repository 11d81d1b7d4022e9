"""The call stack: layers around one model call. Each is a pure policy and a thin async shell; `wiring.py` orders them."""
