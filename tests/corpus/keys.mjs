// The keys of the corpus, as jose takes them. Made by keys.py.

import { createPrivateKey, createPublicKey } from "node:crypto";
import { readFileSync } from "node:fs";

const here = new URL("./", import.meta.url);

export const ALGORITHMS = {
  HS256: "hs256",
  HS384: "hs384",
  HS512: "hs512",
  RS256: "rsa2048",
  RS384: "rsa2048",
  RS512: "rsa2048",
  PS256: "rsa2048",
  PS384: "rsa2048",
  PS512: "rsa2048",
  ES256: "p256",
  ES384: "p384",
  ES512: "p521",
  EdDSA: "ed25519",
};

export const read = (path) => readFileSync(new URL(path, here));
export const readLines = (path) =>
  readFileSync(path, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));

export const signingKey = (name) =>
  name.startsWith("hs") ? read(`keys/${name}.txt`) : createPrivateKey(read(`keys/${name}.key.pem`));

export const verifyingKey = (file) =>
  file.endsWith(".txt") ? read(file) : createPublicKey(read(file));
