"""What turns the public API into work: one module per engine, and in `base` what all of them agree on.

Floors 4 and 5; importing this package costs nothing. Thread rule: each module says its own.
"""
