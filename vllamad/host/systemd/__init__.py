"""systemd: notification, watchdog, inherited sockets, descriptor store, journal, unit jobs."""
