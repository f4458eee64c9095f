"""Where a node keeps what it must not forget: records and the log, in one transaction."""
