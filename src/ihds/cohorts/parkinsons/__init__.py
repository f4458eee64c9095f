"""Parkinson's disease: codebooks of patients, controls and visits, simulated persons, ready studies."""
