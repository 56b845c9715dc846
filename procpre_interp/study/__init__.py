"""Claims as experiments: what to run, what to measure, how to judge."""
