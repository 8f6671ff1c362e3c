// Mints or verifies a token with jose; see run.
//
//   node jose.mjs mint ALGORITHM KEY_FILE USER
//   node jose.mjs verify ALGORITHM KEY_FILE USER TOKEN

import { createPrivateKey, createPublicKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// It is installed with the corpus, which has it pinned.
const { resolve } = createRequire(new URL("../corpus/package.json", import.meta.url));
const jose = await import(pathToFileURL(resolve("jose")));

function mint(algorithm, key, user) {
  const now = Math.floor(Date.now() / 1000);
  return new jose.SignJWT({ sub: user, iat: now, exp: now + 300 })
    .setProtectedHeader({ alg: algorithm, typ: "JWT" })
    .sign(algorithm.startsWith("HS") ? key : createPrivateKey(key));
}

async function verify(algorithm, key, user, token) {
  const options = { algorithms: [algorithm], requiredClaims: ["sub", "iat", "exp"] };
  const verifying = algorithm.startsWith("HS") ? key : createPublicKey(key);
  try {
    const { payload } = await jose.jwtVerify(token, verifying, options);
    return payload.sub === user ? "accepted" : `another user: ${JSON.stringify(payload)}`;
  } catch (error) {
    if (!(error instanceof jose.errors.JOSEError)) throw error;
    return `refused: ${error.message}`;
  }
}

const [command, algorithm, keyFile, ...rest] = process.argv.slice(2);
console.log(await { mint, verify }[command](algorithm, readFileSync(keyFile), ...rest));
