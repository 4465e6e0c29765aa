"""What the audit keeps of an erased entity: a digest that only who has the key can compare."""

import hashlib
import hmac
import json
import os
import secrets

from ml_platform.erasure.entity import Entity
from ml_platform.settings import Settings

KEY_BYTES = 32


def digest_of(settings: Settings, entity: Entity) -> str:
    """A keyed digest of an entity; the key is a file beside the ends of the audit.

    Numbers of customers are few: from a digest without a key whoever reads the audit could find
    them by trying. Without the file the digests say nothing to anybody.
    """
    content = json.dumps(dict(sorted(entity.values.items()))).encode()
    return hmac.new(_key(settings), content, hashlib.sha256).hexdigest()


def _key(settings: Settings) -> bytes:
    file = settings.root / "audit" / "erasures.key"
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return bytes.fromhex(file.read_text())
    with os.fdopen(descriptor, "w") as made:
        made.write(secrets.token_hex(KEY_BYTES))
    return bytes.fromhex(file.read_text())
