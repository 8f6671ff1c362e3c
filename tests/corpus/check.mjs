// Prints what jose says of each token of a secure configuration: `{name: [signature, token]}`,
// each "ok" or the text of an error. check.py compares it with the corpus.

import * as jose from "jose";
import { read, readLines, verifyingKey } from "./keys.mjs";

const LEEWAY = 2;

async function outcome(verification) {
  try {
    await verification;
    return "ok";
  } catch (error) {
    return `${error.code ?? error.name}: ${error.message}`;
  }
}

function options(config, now) {
  return {
    algorithms: [config.alg],
    currentDate: new Date(now * 1000),
    clockTolerance: LEEWAY,
    requiredClaims: ["iat", "exp"],
    // A limit that nothing reaches: without one jose does not look at iat.
    maxTokenAge: Number.MAX_VALUE,
    ...(config.iss.length > 0 ? { issuer: config.iss } : {}),
    ...(config.aud.length > 0 ? { audience: config.aud } : {}),
  };
}

const configs = JSON.parse(read("configs.json"));
const verdicts = {};
for (const { name, config: configName, now, token } of readLines(new URL("tokens.jsonl", import.meta.url))) {
  const config = configs[configName];
  if (config.mode !== "secure") continue;
  const key = verifyingKey(config.key_file);
  verdicts[name] = [
    await outcome(jose.compactVerify(token, key, { algorithms: [config.alg] })),
    await outcome(jose.jwtVerify(token, key, options(config, now))),
  ];
}
console.log(JSON.stringify(verdicts));
