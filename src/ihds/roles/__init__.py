"""The institutions: holder, access body, authority, user; each one deep class on a node."""
