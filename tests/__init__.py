"""The test suite. A package, so that its lanes can share helpers and run as programs (`python -m tests.torture`)."""
