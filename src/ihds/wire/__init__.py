"""Bytes without meaning: signatures, DID documents and HTTP."""
