"""What each sub-command of ``syndiff_tasks`` does; `cli` declares their options and imports one when it is run."""
