"""Where records are read from: one kind of source a file, named by a data yaml's `_target_`."""
