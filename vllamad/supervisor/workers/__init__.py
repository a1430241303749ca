"""Workers: the manager that carries out the schedule, their processes, leases and handover."""
