"""Models that can be pulled by a short name; `models/installed.py` has those that are here."""
