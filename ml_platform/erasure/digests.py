"""What the audit keeps of an erased entity: a digest that only who has the key can compare."""

import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path

from ml_platform.erasure.entity import Entity
from ml_platform.settings import Settings

KEY_BYTES = 32


def digest_of(settings: Settings, entity: Entity, *, make_key: bool = True) -> str:
    """A keyed digest of an entity; the key is a file beside the ends of the audit.

    make_key: whether it is made where there is none; else the digest is empty then.

    Numbers of customers are few: from a digest without a key whoever reads the audit could find
    them by trying. Without the file the digests say nothing to anybody.
    """
    file = settings.root / "audit" / "erasures.key"
    if not file.exists() and not make_key:
        return ""
    content = json.dumps(dict(sorted(entity.values.items()))).encode()
    return hmac.new(_key(file), content, hashlib.sha256).hexdigest()


def _key(file: Path) -> bytes:
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return bytes.fromhex(file.read_text())
    with os.fdopen(descriptor, "w") as made:
        made.write(secrets.token_hex(KEY_BYTES))
    return bytes.fromhex(file.read_text())
