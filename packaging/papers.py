"""The papers of a package: copyright, the licences of what is bundled, Debian's changelog."""

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


def third_party(site: Path, there: str) -> str:
    """Each bundled package: name, version, licence, and where its texts lie in the package."""
    found = {one.name: one for one in distributions(path=[str(site)]) if one.name != _OURS}
    lines = ["Python packages in /usr/lib/vllamad, as they tell of themselves.", ""]
    for name in sorted(found, key=str.lower):
        lines.append(f"{name} {found[name].version}: {licence(found[name])}")
        lines += [f"  {there}/{path}" for path in texts(found[name])]
    return "\n".join(lines) + "\n"


def licence(one: Distribution) -> str:
    """Of the fields that may tell it, the most exact one that is filled."""
    told = one.metadata.get("License-Expression") or one.metadata.get("License") or ""
    if told and "\n" not in told:
        return told
    kinds = [kind for kind in one.metadata.get_all("Classifier") or [] if "License ::" in kind]
    names = [kind.rpartition(" :: ")[2] for kind in kinds]
    if not names:
        raise SystemExit(f"✗ package: cannot tell the licence of {one.name}")
    return ", ".join(names)


def texts(one: Distribution) -> Iterator[str]:
    for path in sorted(one.files or [], key=str):
        if ".dist-info" in path.parts[0] and _TEXTS.match(path.name):
            yield str(path)


def debian_changelog(version: str, maintainer: str) -> str:
    """One entry: what changed stands in the project's own changelog, beside it."""
    made = float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    return (
        f"vllamad ({version}) unstable; urgency=medium\n\n"
        "  * See changelog.gz, the project's own.\n\n"
        f" -- {maintainer}  {email.utils.formatdate(made)}\n"
    )
