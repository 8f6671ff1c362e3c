// Every scenario with every client: a server of its own and a process of its own for
// each, then a line of the table. `run` calls this after it has built and installed.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { scenarios } from './scenarios.mjs'

const clients = [
  { name: '0.7.1 better-sqlite3', version: '0.7.1', database: 'better-sqlite3', calls: [] },
  { name: '0.12.1 better-sqlite3', version: '0.12.1', database: 'better-sqlite3', calls: ['disconnect'] },
  { name: '0.12.1 pglite', version: '0.12.1', database: 'pglite', calls: ['disconnect'] },
]

const SATELLITE = process.env.SATELLITE
const JWT_KEY = 'a key for tests only, long enough for HS256'
const SCENARIO_LIMIT = 30_000
const SERVER_LIMIT = 10_000

/** Each word of the command line must occur in "client scenario". */
const wanted = (client, scenario) =>
  process.argv.slice(2).every((word) => `${client.name} ${scenario.name}`.includes(word))

/** This process's environment, with the server's settings in place of any it may hold. */
function serverEnv(mode) {
  const kept = Object.entries(process.env).filter(([name]) => !name.startsWith('AUTH_'))
  const secure = { AUTH_MODE: 'secure', AUTH_JWT_ALG: 'HS256', AUTH_JWT_KEY: JWT_KEY }
  return { ...Object.fromEntries(kept), HTTP_PORT: '0', ...(mode === 'secure' ? secure : { AUTH_MODE: mode }) }
}

function mint({ mode, token }) {
  if (token) return token(JWT_KEY)
  return execFileSync(SATELLITE, ['token', '--sub', 'user-1'], { env: serverEnv(mode), encoding: 'utf8' }).trim()
}

// Whatever ends this process ends its children.
const running = new Set()
const killAll = () => running.forEach((child) => child.kill('SIGKILL'))
process.on('exit', killAll)
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(130))

function start(command, args, env) {
  const child = spawn(command, args, { env, stdio: ['ignore', 'pipe', 'pipe'] })
  running.add(child)
  child.log = ''
  child.stderr.on('data', (data) => (child.log += data))
  child.ended = once(child, 'close').then(() => running.delete(child))
  child.ended.catch(() => {})
  return child
}

async function startServer(mode) {
  const server = start(SATELLITE, ['serve'], serverEnv(mode))
  const limit = setTimeout(() => server.kill('SIGKILL'), SERVER_LIMIT)
  for await (const line of createInterface({ input: server.stdout })) {
    const port = line.match(/^listening on ws:\/\/.*:(\d+)\/ws$/)?.[1]
    if (!port) continue
    clearTimeout(limit)
    server.stdout.resume()
    // It may say 0.0.0.0, which is no address to connect to.
    return { process: server, url: `http://127.0.0.1:${port}` }
  }
  clearTimeout(limit)
  throw Object.assign(new Error('the server ended before it listened'), { log: server.log })
}

/** What is wrong with the server at the end of a scenario, if anything. */
async function stopServer({ process: server }) {
  // By now null, unless it has ended.
  const endedBy = server.signalCode ?? server.exitCode
  const limit = setTimeout(() => server.kill('SIGKILL'), SERVER_LIMIT)
  server.kill('SIGTERM')
  await server.ended
  clearTimeout(limit)
  if (endedBy !== null) return `the server ended early, by ${endedBy}`
  if (server.log.includes('panicked')) return 'the server panicked'
  if (server.signalCode === 'SIGKILL') return `the server did not stop within ${SERVER_LIMIT / 1000} s`
}

async function runScenario({ version, database }, { name }, { url, process: server }, token) {
  const env = { ...process.env, INTEROP_SCENARIO: JSON.stringify({ version, database, scenario: name, url, token }) }
  const child = start(process.execPath, [fileURLToPath(new URL('one.mjs', import.meta.url))], env)
  const limit = setTimeout(() => child.kill('SIGKILL'), SCENARIO_LIMIT)
  // Without a server the client would only go on trying until the limit.
  server.once('exit', () => child.kill('SIGKILL'))
  let outcome
  for await (const line of createInterface({ input: child.stdout })) {
    if (line.startsWith('outcome ')) outcome = JSON.parse(line.slice('outcome '.length))
    else child.log += `${line}\n`
  }
  await child.ended
  clearTimeout(limit)
  const silent = child.signalCode ? `no end after ${SCENARIO_LIMIT / 1000} s` : `ended with ${child.exitCode}, no outcome`
  return { ...(outcome ?? { passed: false, seen: silent }), log: child.log }
}

/** One cell of the table: {passed, seen} and, for a failure, what was said on the way. */
async function attempt(client, scenario) {
  let server
  try {
    const token = mint(scenario)
    server = await startServer(scenario.mode)
    const outcome = await runScenario(client, scenario, server, token)
    const complaint = await stopServer(server)
    const logs = { wire: outcome.wire?.join('\n'), client: outcome.log, server: server.process.log }
    return complaint ? { passed: false, seen: complaint, logs } : { ...outcome, logs }
  } catch (error) {
    return { passed: false, seen: error.message.split('\n')[0], logs: { server: error.log ?? String(error.stderr ?? '') } }
  } finally {
    server?.process.kill('SIGKILL')
  }
}

const nameWidth = Math.max(...clients.map(({ name }) => name.length))
const scenarioWidth = Math.max(...scenarios.map(({ name }) => name.length))
const row = (client, scenario, result, seen) =>
  console.log(`${client.padEnd(nameWidth)}  ${scenario.padEnd(scenarioWidth)}  ${result.padEnd(6)}  ${seen}`)

const count = { passed: 0, failed: 0 }
row('client', 'scenario', 'result', 'seen')
for (const client of clients) {
  for (const scenario of scenarios) {
    if (scenario.needs && !client.calls.includes(scenario.needs)) continue
    if (!wanted(client, scenario)) continue
    const { passed, seen, logs } = await attempt(client, scenario)
    const result = passed ? 'passed' : 'failed'
    count[result]++
    row(client.name, scenario.name, result, seen)
    if (passed) continue
    for (const [whose, text] of Object.entries(logs)) {
      if (!text) continue
      for (const line of text.trim().split('\n').slice(-40)) console.log(`    ${whose}: ${line}`)
    }
  }
}
console.log(`${count.passed} passed, ${count.failed} failed`)
process.exitCode = count.failed > 0 || count.passed === 0 ? 1 : 0
