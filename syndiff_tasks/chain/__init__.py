"""Plain functions that join the rooms for the tasks: from a skycell's files to templates. None of them knows Luigi."""
