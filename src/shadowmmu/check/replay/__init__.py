"""Replay: captures of a real kernel's shadow MMU against the engine, event by event.

`capture` and `kit` hold and read captures; `driver` feeds one to a VM; `match`, `dumps` and `counters` compare;
`result` says what came out. What is not compared stands in `ignore`, with reasons.
"""
