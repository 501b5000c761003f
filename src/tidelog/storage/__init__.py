"""What stands in a store directory beside the log itself: channel definitions and what is derived from the segments.

Floor 4: the modules here may import floors 1 to 3. This file imports nothing.
Thread rule: stated by each module.
"""
