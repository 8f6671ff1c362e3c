"""Mints or verifies a token with PyJWT; see run.

python pyjwt.py mint ALGORITHM KEY_FILE USER
python pyjwt.py verify ALGORITHM KEY_FILE USER TOKEN
"""

import sys
import time
from pathlib import Path

import jwt


def mint(algorithm, key, user):
    now = int(time.time())
    return jwt.encode({"sub": user, "iat": now, "exp": now + 300}, key, algorithm)


def verify(algorithm, key, user, token):
    required = {"require": ["sub", "iat", "exp"]}
    try:
        claims = jwt.decode(token, key, [algorithm], options=required)
    except jwt.InvalidTokenError as error:
        return f"refused: {error}"
    return "accepted" if claims["sub"] == user else f"another user: {claims}"


command, algorithm, key_file, *rest = sys.argv[1:]
print({"mint": mint, "verify": verify}[command](algorithm, Path(key_file).read_bytes(), *rest))
