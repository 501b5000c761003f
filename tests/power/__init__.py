"""Power cuts, simulated and on real file systems, and full disks."""
