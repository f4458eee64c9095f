"""How strangers come to an agreement: claims about who they are, contracts, transfers."""
