"""Writes configs.json and the part of the corpus made in Python.

    python generate.py DIRECTORY

puts `pyjwt.jsonl` (tokens signed by PyJWT, handmade ones, and the recorded ones) and
`claims.jsonl` (the payload table, for generate.mjs to sign again) into DIRECTORY.
"""

import json
import sys
from base64 import b64encode
from pathlib import Path

import algorithms
import claims
import confusion
import forms
import headers
import insecure
import keys
import signatures
from claims import NAMESPACE
from making import Corpus


def main(directory):
    keys.make_missing()
    write_configs()
    corpus = Corpus()
    for group in (
        algorithms.per_algorithm,
        algorithms.claim_table,
        algorithms.other_key_sizes,
        confusion.algorithm_matrix,
        confusion.relabelled,
        confusion.public_key_as_secret,
        confusion.no_algorithm,
        confusion.algorithm_spellings,
        signatures.hmac_signatures,
        signatures.ecdsa_signatures,
        signatures.rsa_signatures,
        signatures.eddsa_signatures,
        headers.headers,
        headers.header_parameters,
        headers.attacker_keys,
        forms.segments,
        forms.encodings,
        forms.order,
        insecure.insecure,
        recorded,
    ):
        group(corpus)
    write_lines(directory / "pyjwt.jsonl", corpus.entries)
    write_lines(directory / "claims.jsonl", [table_line(case) for case in claims.cases()])


def write_lines(path, entries):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def table_line(case):
    line = dict(vars(case))
    line["payload"] = b64encode(case.payload).decode()
    return line


def write_configs():
    configs = {}

    def secure(name, alg, key_file, namespace=None, iss=(), aud=()):
        configs[name] = config("secure", alg, key_file, namespace, iss, aud)

    for alg, key in keys.ALGORITHMS.items():
        secure(alg.lower(), alg, keys.verifying_file(key))
    for alg in ("HS256", "ES256"):
        key_file = keys.verifying_file(keys.ALGORITHMS[alg])
        for suffix, settings in {
            "iss": {"iss": ["issuer-1"]},
            "aud": {"aud": ["audience-1"]},
            "many": {
                "iss": ["issuer-1", "https://issuer-2.example/"],
                "aud": ["audience-1", "audience-2"],
            },
            "ns": {"namespace": NAMESPACE},
            "ns-dotted": {"namespace": "electric.claims"},
            "all": {"namespace": NAMESPACE, "iss": ["issuer-1"], "aud": ["audience-1"]},
        }.items():
            secure(f"{alg.lower()}-{suffix}", alg, key_file, **settings)
    secure("rs256-3072", "RS256", keys.verifying_file("rsa3072"))
    secure("rs512-4096", "RS512", keys.verifying_file("rsa4096"))
    secure("ps256-4096", "PS256", keys.verifying_file("rsa4096"))
    secure("electric-hs256", "HS256", "keys/electric-hs256.txt")
    secure("electric-es256", "ES256", "keys/electric-es256.pub.pem")
    secure("electric-rs256", "RS256", "keys/electric-rs256.pub.pem")
    secure(
        "electric-hs256-iss-aud",
        "HS256",
        "keys/electric-hs256.txt",
        iss=["issuer-1"],
        aud=["audience-1"],
    )
    configs["insecure"] = config("insecure")
    configs["insecure-ns"] = config("insecure", namespace=NAMESPACE)
    configs["insecure-iss-aud"] = config("insecure", iss=["issuer-1"], aud=["audience-1"])
    (keys.HERE / "configs.json").write_text(json.dumps(configs, indent=2) + "\n")


def config(mode, alg=None, key_file=None, namespace=None, iss=(), aud=()):
    return {
        "mode": mode,
        "alg": alg,
        "key_file": key_file,
        "namespace": namespace,
        "iss": list(iss),
        "aud": list(aud),
    }


def recorded(corpus):
    """These tokens cannot be made again: they are taken over from the corpus as it is."""
    with open(keys.HERE / "tokens.jsonl", encoding="utf-8") as lines:
        entries = map(json.loads, lines)
        corpus.entries += [e for e in entries if e["source"].startswith("electric ")]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
