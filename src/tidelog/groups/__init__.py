"""Who of a consumer group reads which partition?

Floor 4. `assignment` decides it, purely; `coordinator` takes part in a group of an embedded store.
"""
