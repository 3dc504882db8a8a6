"""What is fast, measured against what others would use: ``make bench``."""

# First of all, for it keeps NumPy's matrix products to one thread, as in a run.
import syndiff_tasks  # noqa: F401
