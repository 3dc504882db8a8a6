"""THE WORLD: what is fetched, read and written; no arithmetic."""
