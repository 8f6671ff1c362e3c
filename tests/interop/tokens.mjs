// Tokens made without this crate. Those of the program itself come from `satellite token`.
import { createHmac } from 'node:crypto'

const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')

function sign(claims, key) {
  const signed = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode(claims)}`
  return `${signed}.${createHmac('sha256', key).update(signed).digest('base64url')}`
}

// Each differs from a good token in one respect only.
const now = Math.floor(Date.now() / 1000)
const good = { sub: 'user-1', iat: now - 60, exp: now + 3600 }

/** Not wrong: proves that what is refused below is refused for its one flaw. */
export const handmade = (key) => sign(good, key)
export const wrongSignature = (key) => sign(good, `${key}, but not this one`)
export const expired = (key) => sign({ ...good, iat: now - 7200, exp: now - 3600 }, key)
export const blankSub = (key) => sign({ ...good, sub: ' ' }, key)
