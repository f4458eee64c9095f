"""The kinds of source a holder may have; one file each."""
