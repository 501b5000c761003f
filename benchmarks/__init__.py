"""How fast is tidelog, each figure as a ratio to a baseline that was measured in turn with it in the same run?

`python -m benchmarks` (or `./dev bench`) answers. One file per question, listed in __main__.py; what is timed, on both
sides, stands in the docstring of each. harness.py measures, baselines.c and baselines.py are what is measured against,
report.py prints, plots and keeps. test_*.py are for pytest-benchmark: `pytest benchmarks --benchmark-enable`.
"""
