#!/bin/sh
# Runs after the files are installed. Arguments of dpkg: configure and the previous version, if any;
# of rpm: the number of installed versions.
set -e
units="vllamad-http.socket vllamad-control.socket vllamad.service"

case "$1" in
configure) before=$2 ;;
1) before= ;;
[0-9]*) before=one ;;
*) exit 0 ;;
esac

systemd-sysusers vllamad.conf
systemd-tmpfiles --create vllamad.conf
# The service's user cannot write compiled Python files.
/usr/lib/vllamad/bin/python -m compileall -q /usr/lib/vllamad/lib || true

if command -v deb-systemd-helper >/dev/null; then
    for unit in $units; do
        # Whoever disabled or masked a unit finds it so after an upgrade.
        deb-systemd-helper unmask "$unit" >/dev/null || true
        if deb-systemd-helper --quiet was-enabled "$unit"; then
            deb-systemd-helper enable "$unit" >/dev/null || true
        else
            deb-systemd-helper update-state "$unit" >/dev/null || true
        fi
    done
elif [ -z "$before" ]; then
    systemctl --no-reload preset $units || true
fi

[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
if [ -n "$before" ]; then
    # Never the sockets: connections wait in them for the new version.
    systemctl try-restart vllamad.service 'vllamad@*.service' || true
elif command -v deb-systemd-invoke >/dev/null; then
    # Not fatal: something else, Ollama perhaps, may have the port.
    deb-systemd-invoke start $units >/dev/null || true
fi
