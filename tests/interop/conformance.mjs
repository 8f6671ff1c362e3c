// A published client as the client of the conformance suite. `conformance` runs it:
//
//   satellite conformance client -- node tests/interop/conformance.mjs 0.12.1 [pglite]
//
// What to do comes in the environment; `satellite conformance client --help` says how.
import { inspect } from 'node:util'

const [version, database = 'better-sqlite3'] = process.argv.slice(2)
const { SATELLITE_URL: url, SATELLITE_TOKEN: token, SATELLITE_CLIENT_ID: clientId, SATELLITE_TASK: task } = process.env
const { open } = await import(`./${version}/client.mjs`)

const UNABLE = 77

// An application that survives what the package lets fall, and says so.
const told = (what) => (reason) => console.log(`${what}: ${inspect(reason).split('\n')[0]}`)
process.on('unhandledRejection', told('a promise failed unseen'))
process.on('uncaughtException', told('an exception was not caught'))

// The package may have nothing left to do, and an application goes on all the same.
setInterval(() => {}, 60_000)

let client
process.on('SIGTERM', async () => {
  await client?.stop()
  // The close frame is on its way, and its answer may never come.
  setTimeout(() => process.exit(0), 200)
})

const tasks = {
  start: async () => {},
  subscribe: () => client.sync('items'),
  unsubscribe: () => client.unsubscribe('items'),
  write: () => client.electric.db.items.create({ data: { id: '1', content: 'one' } }),
}

client = await open({ url, token, clientId, database, withItems: true, debug: process.env.INTEROP_DEBUG === '1' })
if (!tasks[task] || (task === 'unsubscribe' && !client.unsubscribe)) process.exit(UNABLE)
// A refusal is the end of it for this application; what the package does by itself is judged.
client.connect().then(tasks[task]).then(() => console.log('done'), told('failed'))
