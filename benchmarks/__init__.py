"""What is fast, measured against what others would use: ``make bench``."""
