// Runs one scenario with one client, in this process alone: what the package leaves
// behind (sockets, failed promises) is then part of the outcome.
// Takes its orders from INTEROP_SCENARIO; prints `outcome {"passed":…,"seen":…}`.
import { setTimeout as sleep } from 'node:timers/promises'
import { inspect } from 'node:util'
import { strayRejections } from './rejections.mjs'
import { scenarios } from './scenarios.mjs'
import { wireInWords } from './sockets.mjs'

const CLOSING_LIMIT = 5000

const { version, database, scenario: name, url, token } = JSON.parse(process.env.INTEROP_SCENARIO)
const { open } = await import(`./${version}/client.mjs`)
const { run, withItems = false } = scenarios.find((scenario) => scenario.name === name)

/**
 * Waits until no TCP connection of this process is left: a client that closes keeps its
 * end until the server has answered the close frame (and for 30 s if it does not).
 */
async function connectionsClosed() {
  const open = () => process.getActiveResourcesInfo().includes('TCPSocketWrap')
  for (const end = Date.now() + CLOSING_LIMIT; open(); await sleep(20)) {
    if (Date.now() > end) throw new Error(`the server left the closing handshake open for ${CLOSING_LIMIT / 1000} s`)
  }
}

let client
async function outcome() {
  try {
    client = await open({ url, token, database, withItems, debug: process.env.INTEROP_DEBUG === '1' })
    const seen = await run(client)
    await client.stop()
    await connectionsClosed()
    await client.close()
    const [stray] = strayRejections()
    if (stray) throw new Error(`a promise failed unseen: ${inspect(stray)}`)
    return { passed: true, seen }
  } catch (error) {
    // An assertion puts its headline first and a picture of the difference below.
    const said = error instanceof Error ? error.message : inspect(error)
    return { passed: false, seen: said.replaceAll(/\s+/g, ' ').slice(0, 300), wire: client && wireInWords(client.wire) }
  }
}

// The package keeps timers that would hold the process up, hence the exit.
process.stdout.write(`outcome ${JSON.stringify(await outcome())}\n`, () => process.exit(0))
