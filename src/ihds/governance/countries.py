"""Groups of countries the rules speak of, by their codes (ISO 3166-1)."""

from __future__ import annotations

EU_EEA = frozenset(
    "AT BE BG HR CY CZ DK EE FI FR DE GR HU IE IT LV LT LU MT NL PL PT RO SK SI ES SE IS LI NO".split()  # noqa: SIM905
)

#: 28 CFR 202.601: China with Hong Kong and Macau, Cuba, Iran, North Korea, Russia, Venezuela.
COUNTRIES_OF_CONCERN = frozenset(["CN", "HK", "MO", "CU", "IR", "KP", "RU", "VE"])
