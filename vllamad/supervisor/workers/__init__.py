"""Workers: their schedule carried out, their lives, their leases, their handover."""
