#!/bin/sh
# Runs before the files are removed. Arguments of dpkg: remove or upgrade; of rpm: the number of
# versions left.
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
# Also on an upgrade, since versions differ in modules. In an upgrade by rpm the new files are already
# installed.
[ "$1" = 1 ] || find /usr/lib/vllamad -name __pycache__ -prune -exec rm -rf {} + || true
