"""Statistics as sums over sites: pure mathematics that knows no file, socket, clock or permit."""
