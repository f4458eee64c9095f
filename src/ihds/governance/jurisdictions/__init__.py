"""The legal regimes IHDS knows; one file each, every rule with its article."""
