"""May they? Applications, permits, policies and jurisdictions as data and pure functions."""
