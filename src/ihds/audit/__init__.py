"""What happened, provably: every write carries its event into an append-only signed log."""
