#!/bin/sh
# Before the files go. Of dpkg: remove, or upgrade; of rpm: how many versions are left.
set -e
case "$1" in
remove | 0)
    if [ -d /run/systemd/system ]; then
        systemctl stop vllamad.service vllamad-http.socket vllamad-control.socket \
            vllamad.target 'vllamad@*.service' 'vllamad-http@*.socket' 'vllamad-control@*.socket' \
            || true
    fi
    if [ "$1" = 0 ]; then
        systemctl --no-reload disable \
            vllamad.service vllamad-http.socket vllamad-control.socket || true
    fi
    ;;
esac
# On an upgrade too: another version may have other modules. By rpm's the new one is there already.
[ "$1" = 1 ] || find /usr/lib/vllamad -name __pycache__ -prune -exec rm -rf {} + || true
