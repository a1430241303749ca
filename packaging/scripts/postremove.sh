#!/bin/sh
# Runs after the files are removed. Arguments of dpkg: remove, purge, upgrade and more; of rpm: a
# number.
set -e
units="vllamad-http.socket vllamad-control.socket vllamad.service"

if [ "$1" = remove ] && command -v deb-systemd-helper >/dev/null; then
    for unit in $units; do
        deb-systemd-helper mask "$unit" >/dev/null || true
    done
fi
if [ "$1" = purge ]; then
    if command -v deb-systemd-helper >/dev/null; then
        for unit in $units; do
            deb-systemd-helper purge "$unit" >/dev/null || true
            deb-systemd-helper unmask "$unit" >/dev/null || true
        done
    fi
    # A purge removes models and runtimes too. The user stays, as Debian's policy requires.
    rm -rf /var/lib/vllamad /var/cache/vllamad /var/log/vllamad /run/vllamad /etc/vllamad \
        /var/lib/vllamad-[0-9]* /var/cache/vllamad-[0-9]* /var/log/vllamad-[0-9]* \
        /etc/systemd/system/vllamad*.d /etc/systemd/system.control/vllamad*.d \
        /etc/systemd/system/vllamad.target.wants
    # The links of enabled instances.
    find /etc/systemd/system -type l \( -name 'vllamad*@*' -o -name vllamad.target \) \
        -exec rm -f {} +
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
