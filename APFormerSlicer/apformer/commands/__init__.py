"""One file per command. Each has `add_parser`, which imports nothing heavy, and a function that does the work.

The room itself loads none of them: hosts with a window use some of their words (`durations`, `options`).
"""
