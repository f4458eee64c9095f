"""The two cohorts of the initiative: codebooks and small real tables to try them with."""
