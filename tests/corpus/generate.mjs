// Writes the part of the corpus that is signed by jose.
//
//   node generate.mjs DIRECTORY
//
// reads `claims.jsonl` in DIRECTORY (written by generate.py) and puts `jose.jsonl` beside it.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import * as jose from "jose";
import { ALGORITHMS, read, readLines, signingKey, verifyingKey } from "./keys.mjs";

const NOW = 1_700_000_000;
const VERSION = JSON.parse(read("package-lock.json")).packages["node_modules/jose"].version;
const SOURCE = `jose ${VERSION}`;
const BASE = { sub: "user-1", iat: NOW - 10, exp: NOW + 600 };

const entries = [];

function add(name, config, verdict, token, why, user) {
  entries.push({
    name: `jose/${name}`,
    source: SOURCE,
    config,
    now: NOW,
    token,
    verdict,
    ...(user === undefined ? {} : { user }),
    why,
  });
}

// Signing

const keyOf = (alg, name = ALGORITHMS[alg]) => signingKey(name);
const otherKeyOf = (alg) => signingKey(`${ALGORITHMS[alg]}-other`);

const signBytes = (alg, payload, header = {}, key = keyOf(alg), options = {}) =>
  new jose.CompactSign(payload).setProtectedHeader({ alg, ...header }).sign(key, options);

const signText = (alg, text, ...rest) => signBytes(alg, Buffer.from(text), ...rest);

const signClaims = (alg, claims, header = {}, key = keyOf(alg)) =>
  new jose.SignJWT(claims).setProtectedHeader({ alg, typ: "JWT", ...header }).sign(key);

// Every algorithm

async function everyAlgorithm() {
  for (const alg of Object.keys(ALGORITHMS)) {
    await goodTokens(alg);
    await badClaims(alg);
    await damaged(alg);
    add(
      `${alg}/other-key`,
      alg.toLowerCase(),
      "signature",
      await signClaims(alg, BASE, {}, otherKeyOf(alg)),
      "Signed with another key of the same kind.",
    );
  }
}

async function goodTokens(alg) {
  const good = (name, token, why, user = "user-1") =>
    add(`${alg}/${name}`, alg.toLowerCase(), "ok", token, why, user);
  const times = { iat: NOW - 10, exp: NOW + 600 };

  good("good", await signClaims(alg, BASE), "The least a token must hold.");
  good(
    "good-user-id",
    await signClaims(alg, { user_id: "user-2", ...times }),
    "The older claim for the user id.",
    "user-2",
  );
  const full = await new jose.SignJWT({ roles: ["admin", { scope: null }], rate: 0.25 })
    .setProtectedHeader({ alg, typ: "JWT" })
    .setIssuer("https://issuer.example/")
    .setAudience(["a", "b"])
    .setSubject("user-1")
    .setJti("0f8fad5b-d9cb-469f-a165-70867728950e")
    .setNotBefore(NOW - 10)
    .setIssuedAt(NOW - 10)
    .setExpirationTime(NOW + 600)
    .sign(keyOf(alg));
  good("good-full", full, "Every registered claim, and more than those.");
  const dated = await new jose.SignJWT({})
    .setProtectedHeader({ alg })
    .setSubject("пользователь 🛰")
    .setIssuedAt(new Date(NOW * 1000))
    .setExpirationTime(new Date((NOW + 86_400) * 1000))
    .sign(keyOf(alg));
  good("good-dates", dated, "Times given as dates, and a user id beyond ASCII.", "пользователь 🛰");
  good(
    "good-kid",
    await signClaims(alg, BASE, { kid: "2023-11", typ: "at+jwt" }),
    "kid and another typ change nothing.",
  );
}

async function badClaims(alg) {
  const cases = [
    ["expired", "expired", { exp: NOW - 60 }, "Expired a minute ago."],
    ["not-yet-valid", "not_yet_valid", { nbf: NOW + 60 }, "Valid in a minute."],
    ["issued-in-the-future", "claims", { iat: NOW + 60 }, "Issued a minute from now."],
    ["no-exp", "missing_claim", { exp: undefined }, "exp is required."],
    ["no-iat", "missing_claim", { iat: undefined }, "iat is required."],
    ["no-user", "user_id", { sub: undefined }, "Neither sub nor user_id."],
  ];
  for (const [name, verdict, change, why] of cases) {
    const token = await signClaims(alg, { ...BASE, ...change });
    add(`${alg}/${name}`, alg.toLowerCase(), verdict, token, why);
  }
}

async function damaged(alg) {
  const token = await signClaims(alg, BASE);
  const [header, payload, signature] = token.split(".");
  const raw = jose.base64url.decode(signature);
  const bad = (name, verdict, broken, why) =>
    add(`${alg}/${name}`, alg.toLowerCase(), verdict, broken, why);
  const withSignature = (bytes) => `${header}.${payload}.${jose.base64url.encode(bytes)}`;

  bad(
    "header-flip-typ",
    "signature",
    `${respelled(header, '"JWT"', '"JWU"')}.${payload}.${signature}`,
    "One bit of the typ differs.",
  );
  const changed = alg.slice(0, -1) + String.fromCharCode(alg.charCodeAt(alg.length - 1) ^ 1);
  bad(
    "header-flip-alg",
    "algorithm_mismatch",
    `${respelled(header, alg, changed)}.${payload}.${signature}`,
    "One bit of the alg differs.",
  );
  bad(
    "payload-flip-user",
    "signature",
    `${header}.${respelled(payload, "user-1", "user-0")}.${signature}`,
    "One bit of the sub differs.",
  );
  bad(
    "payload-flip-exp",
    "signature",
    `${header}.${respelled(payload, `${NOW + 600}`, `${NOW + 1_600}`)}.${signature}`,
    "The exp was moved.",
  );
  bad("signature-flip-first", "signature", withSignature(flipped(raw, 0)), "First byte, lowest bit.");
  bad(
    "signature-flip-middle",
    "signature",
    withSignature(flipped(raw, raw.length >> 1)),
    "A bit in the middle of the signature.",
  );
  bad(
    "signature-flip-last",
    "signature",
    withSignature(flipped(raw, raw.length - 1)),
    "Last byte, lowest bit.",
  );
  bad("signature-cut-byte", "signature", withSignature(raw.slice(0, -1)), "The last byte is cut off.");
  const cut = signature.slice(0, -1);
  const left = isCanonical(cut);
  bad(
    "signature-cut-char",
    left ? "signature" : "malformed",
    token.slice(0, -1),
    `The last character is cut off; what is left is ${
      left ? "canonical base64url of too few bytes." : "no canonical base64url."
    }`,
  );
  bad("signature-empty", "signature", `${header}.${payload}.`, "The signature is empty.");
  bad(
    "signature-extra-byte",
    "signature",
    withSignature(Buffer.concat([raw, Buffer.of(0)])),
    "A zero byte is appended.",
  );
  bad(
    "signature-zeros",
    "signature",
    withSignature(new Uint8Array(raw.length)),
    "All zeros, of the right length.",
  );
  const swapped = await signClaims(alg, { ...BASE, sub: "admin" });
  bad(
    "signature-of-another",
    "signature",
    `${header}.${payload}.${swapped.split(".")[2]}`,
    "The good signature of another token by the same key.",
  );
}

function respelled(segment, before, after) {
  const text = Buffer.from(segment, "base64url").toString();
  if (!text.includes(before)) throw new Error(`${before} is not in ${text}`);
  return Buffer.from(text.replace(before, after)).toString("base64url");
}

function flipped(bytes, index) {
  const changed = Uint8Array.from(bytes);
  changed[index] ^= 1;
  return changed;
}

const isCanonical = (segment) =>
  segment.length % 4 !== 1 && Buffer.from(segment, "base64url").toString("base64url") === segment;

// The table of payloads

async function claimTable(cases) {
  for (const item of cases.filter((one) => !one.once)) {
    const token = await signBytes("ES256", Buffer.from(item.payload, "base64"));
    const name = `claims${item.variant}/${item.name}`;
    add(name, `es256${item.variant}`, item.verdict, token, item.why, item.user ?? undefined);
  }
}

// Algorithm confusion

async function confusion() {
  const algorithms = Object.keys(ALGORITHMS);
  for (const [index, configured] of algorithms.entries()) {
    const signedAs = algorithms[(index + 1) % algorithms.length];
    add(
      `confusion/${signedAs}-for-${configured}`,
      configured.toLowerCase(),
      "algorithm_mismatch",
      await signClaims(signedAs, BASE),
      `A good ${signedAs} token where ${configured} is configured.`,
    );
    add(
      `none/${configured}`,
      configured.toLowerCase(),
      "algorithm_mismatch",
      new jose.UnsecuredJWT(BASE).encode(),
      "An unsigned token.",
    );
    const swapped = await signClaims(configured, BASE);
    const [header, payload, signature] = swapped.split(".");
    for (const spelling of ["none", "None", signedAs]) {
      add(
        `header-says/${configured}/${spelling}`,
        configured.toLowerCase(),
        "algorithm_mismatch",
        `${respelled(header, configured, spelling)}.${payload}.${signature}`,
        `The header was changed to ${spelling}, the signature is the configured algorithm's.`,
      );
    }
  }
  for (const alg of ["RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA"]) {
    const pem = read(`keys/${ALGORITHMS[alg]}.pub.pem`);
    const jwk = JSON.stringify(await jose.exportJWK(verifyingKey(`keys/${ALGORITHMS[alg]}.pub.pem`)));
    const forms = {
      pem,
      der: verifyingKey(`keys/${ALGORITHMS[alg]}.pub.pem`).export({ type: "spki", format: "der" }),
      jwk: Buffer.from(jwk),
    };
    for (const [form, secret] of Object.entries(forms)) {
      const token = await signClaims("HS256", BASE, {}, secret);
      const why = `HS256 with the public ${alg} key (${form}) as its secret`;
      add(`confusion/HS256-by-${alg}-public-${form}`, alg.toLowerCase(), "algorithm_mismatch", token, `${why}.`);
      const [header, payload, signature] = token.split(".");
      add(
        `confusion/${alg}-header-hmac-by-public-${form}`,
        alg.toLowerCase(),
        "signature",
        `${respelled(header, "HS256", alg)}.${payload}.${signature}`,
        `${why}, under a header that says ${alg}.`,
      );
    }
  }
  add(
    "confusion/Ed25519-for-EdDSA",
    "eddsa",
    "algorithm_mismatch",
    await signClaims("Ed25519", BASE, {}, keyOf("EdDSA")),
    "Ed25519 is the newer name of the same algorithm, but alg must be exactly EdDSA.",
  );
}

// Headers

async function headerParameters() {
  for (const alg of ["HS512", "PS256", "EdDSA"]) {
    const config = alg.toLowerCase();
    const bad = (name, verdict, token, why) => add(`header/${alg}/${name}`, config, verdict, token, why);
    const text = JSON.stringify(BASE);

    const extension = { crit: { zzz: true } };
    bad(
      "crit",
      "unsupported",
      await signText(alg, text, { crit: ["zzz"], zzz: 1 }, keyOf(alg), extension),
      "crit is refused whatever it names.",
    );
    bad(
      "crit-b64-true",
      "unsupported",
      await signText(alg, text, { crit: ["b64"], b64: true }),
      "crit is refused whatever it names.",
    );
    const detached = await new jose.FlattenedSign(Buffer.from(text))
      .setProtectedHeader({ alg, crit: ["b64"], b64: false })
      .sign(keyOf(alg));
    bad(
      "b64-false",
      "unsupported",
      `${detached.protected}..${detached.signature}`,
      "A detached, unencoded payload is not supported.",
    );
    bad(
      "nested",
      "unsupported",
      await signText(alg, await signClaims("HS256", BASE), { cty: "JWT" }),
      "A token inside a token.",
    );
    bad(
      "nested-unannounced",
      "malformed",
      await signText(alg, await signClaims("HS256", BASE)),
      "A token inside a token, unannounced: the payload is no JSON object.",
    );
    bad(
      "zip",
      "unsupported",
      await signText(alg, text, { zip: "DEF" }),
      "Compression is not supported.",
    );
    bad(
      "general-json",
      "malformed",
      JSON.stringify(
        await new jose.GeneralSign(Buffer.from(text))
          .addSignature(keyOf(alg))
          .setProtectedHeader({ alg })
          .done()
          .sign(),
      ),
      "The general JSON serialisation of JWS.",
    );
    bad(
      "flattened-json",
      "malformed",
      JSON.stringify(
        await new jose.FlattenedSign(Buffer.from(text)).setProtectedHeader({ alg }).sign(keyOf(alg)),
      ),
      "The flattened JSON serialisation of JWS.",
    );
    add(
      `header/${alg}/many`,
      config,
      "ok",
      await signText(alg, text, {
        typ: "application/jwt",
        cty: "application/json",
        kid: "../../x' OR 1=1 --",
        jku: "https://attacker.example/jwks.json",
        x5u: "https://attacker.example/cert.pem",
        nonce: "🛰",
      }),
      "Parameters that are not looked at.",
      "user-1",
    );
  }
  for (const alg of ["RS384", "PS512", "ES256", "ES512", "EdDSA"]) {
    const jwk = await jose.exportJWK(verifyingKey(`keys/${ALGORITHMS[alg]}-other.pub.pem`));
    const kid = await jose.calculateJwkThumbprint(jwk);
    add(
      `attacker/${alg}/jwk`,
      alg.toLowerCase(),
      "signature",
      await signClaims(alg, BASE, { jwk, kid }, otherKeyOf(alg)),
      "Keys come from the configuration only; this one is the attacker's.",
    );
  }
}

// Encrypted tokens

async function encrypted() {
  const bad = (name, config, token) =>
    add(`encrypted/${name}`, config, "unsupported", token, "Five segments are the form of an encrypted token.");
  const jwe = (alg, key) =>
    new jose.EncryptJWT(BASE).setProtectedHeader({ alg, enc: "A256GCM" }).encrypt(key);
  bad("dir", "hs256", await jwe("dir", read("keys/hs256.txt")));
  bad("a256kw", "hs256", await jwe("A256KW", read("keys/hs256.txt")));
  bad("rsa-oaep", "rs256", await jwe("RSA-OAEP-256", verifyingKey("keys/rsa2048.pub.pem")));
  bad("ecdh-es", "es256", await jwe("ECDH-ES", verifyingKey("keys/p256.pub.pem")));
  const nested = await new jose.CompactEncrypt(Buffer.from(await signClaims("ES256", BASE)))
    .setProtectedHeader({ alg: "ECDH-ES", enc: "A256GCM", cty: "JWT" })
    .encrypt(verifyingKey("keys/p256.pub.pem"));
  bad("signed-then-encrypted", "es256", nested);
}

// Insecure mode

async function insecure() {
  const ok = (name, token, why) => add(`insecure/${name}`, "insecure", "ok", token, why, "user-1");
  ok("unsecured", new jose.UnsecuredJWT({ sub: "user-1" }).encode(), "An unsigned token.");
  ok(
    "unsecured-times",
    new jose.UnsecuredJWT({ sub: "user-1" })
      .setIssuedAt(NOW)
      .setNotBefore(NOW)
      .setExpirationTime(NOW + 60)
      .encode(),
    "An unsigned token with good times.",
  );
  for (const alg of Object.keys(ALGORITHMS)) {
    ok(`signed-${alg}`, await signClaims(alg, { sub: "user-1" }), "The signature is not looked at.");
  }
  add(
    "insecure/expired",
    "insecure",
    "expired",
    new jose.UnsecuredJWT({ sub: "user-1" }).setExpirationTime(NOW - 60).encode(),
    "exp is judged when present.",
  );
}

const ascii = (json) =>
  json.replace(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);

const directory = process.argv[2];
await everyAlgorithm();
await claimTable(readLines(join(directory, "claims.jsonl")));
await confusion();
await headerParameters();
await encrypted();
await insecure();
writeFileSync(
  join(directory, "jose.jsonl"),
  entries.map((entry) => `${ascii(JSON.stringify(entry))}\n`).join(""),
);
