"""Claims: a prediction, a margin, and the verdict that follows from the runs. No torch."""
