"""Which files can be code or a recipe, and which look like a secret: by their names. No torch."""

from __future__ import annotations

import fnmatch
from pathlib import Path

# Written as text, a line a kind, because that is how one reads and extends them.
_CODE_SUFFIXES = """
.py .pyi .pyx .pxd .ipynb .c .cc .cpp .cxx .h .hh .hpp .hxx .inc .cu .cuh .s .sh .bash .jl .r .lua
.rs .go
.toml .cfg .ini .conf .yaml .yml .json .cmake .mk .patch .diff
"""
_CODE_NAMES = "makefile dockerfile cmakelists.txt requirements.txt constraints.txt dvc.lock"
_SECRET_NAMES = """
.env .env.* *.env .envrc .netrc _netrc .pypirc .npmrc .pgpass .git-credentials .htpasswd .dockercfg
*.pem *.key *.p12 *.pfx *.jks *.keystore *.kdbx *.ppk *.ovpn *.token token token.* *_token.*
id_rsa* id_dsa* id_ecdsa* id_ed25519* *credential* *secret* *password* *passwd* *apikey* *api_key*
service-account*.json service_account*.json kubeconfig auth.json
"""
CODE_SUFFIXES, CODE_NAMES = frozenset(_CODE_SUFFIXES.split()), frozenset(_CODE_NAMES.split())
SECRET_NAMES = tuple(_SECRET_NAMES.split())
SECRET_FOLDERS = frozenset((".ssh", ".aws", ".gnupg", ".kube", ".docker", ".azure", ".gcloud"))


def is_code(name: str) -> bool:
    """Whether a file can be code or a recipe, by its name."""
    path = Path(name.lower())
    return path.suffix in CODE_SUFFIXES or path.name in CODE_NAMES


def is_secret(name: str) -> bool:
    """Whether a file looks like a secret, by its name or a folder of it."""
    path = Path(name.lower())
    return any(
        fnmatch.fnmatchcase(path.name, pattern) for pattern in SECRET_NAMES
    ) or not SECRET_FOLDERS.isdisjoint(path.parts[:-1])
