"""The Dataspace Protocol 2025-1: catalog, contract negotiation, transfer process, HTTPS binding."""
