"""The metadata files of a package: copyright, licences of bundled packages, Debian's changelog."""

from __future__ import annotations

import email.utils
import os
import re
import time
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: vllamad
Comment: usr/lib/vllamad holds Python packages by others; their licences are listed in
 /usr/share/doc/vllamad/third-party.txt.

Files: *
Copyright: 2026 the authors of vllamad
License: Apache-2.0

License: Apache-2.0
 On Debian systems, the full text of the Apache License, version 2.0, is in
 /usr/share/common-licenses/Apache-2.0.
"""
_OURS = "vllamad"
_TEXTS = re.compile(r"(licen[sc]e|copying|notice|authors)", re.IGNORECASE)


def third_party(site: Path, installed_at: str) -> str:
    """List each bundled package: name, version, licence, and the paths of its licence files."""
    bundled = {dist.name: dist for dist in distributions(path=[str(site)]) if dist.name != _OURS}
    lines = ["Python packages in /usr/lib/vllamad, as their own metadata says.", ""]
    for name in sorted(bundled, key=str.lower):
        lines.append(f"{name} {bundled[name].version}: {licence(bundled[name])}")
        lines += [f"  {installed_at}/{path}" for path in license_files(bundled[name])]
    return "\n".join(lines) + "\n"


def licence(dist: Distribution) -> str:
    """Return the licence from the most exact metadata field that is set."""
    field = dist.metadata.get("License-Expression") or dist.metadata.get("License") or ""
    if field and "\n" not in field:
        return field
    kinds = [kind for kind in dist.metadata.get_all("Classifier") or [] if "License ::" in kind]
    names = [kind.rpartition(" :: ")[2] for kind in kinds]
    if not names:
        raise SystemExit(f"✗ package: cannot find the licence of {dist.name}")
    return ", ".join(names)


def license_files(dist: Distribution) -> Iterator[str]:
    for path in sorted(dist.files or [], key=str):
        if ".dist-info" in path.parts[0] and _TEXTS.match(path.name):
            yield str(path)


def debian_changelog(version: str, maintainer: str) -> str:
    """Return one entry, which refers to the project's own changelog."""
    made = float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    return (
        f"vllamad ({version}) unstable; urgency=medium\n\n"
        "  * See changelog.gz, the project's own.\n\n"
        f" -- {maintainer}  {email.utils.formatdate(made)}\n"
    )
