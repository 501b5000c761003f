"""How do programs talk to each other over channels, beyond sending and receiving?

Floor 7. `request` asks questions and gathers answers, `reply` answers them, `mailbox` is where answers arrive.
"""
