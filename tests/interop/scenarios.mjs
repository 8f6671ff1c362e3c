// What every client has to live through. A scenario gets a client that is open but
// not yet told to connect, and returns, in words, what was seen; it fails by throwing.
import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { SAT_OP_LOG, sentOfType, socketsOpened } from './sockets.mjs'
import * as tokens from './tokens.mjs'

const AUTH_REQUIRED = 1

/**
 * `mode`: how the server authenticates. `token`: how to make one from the server's key;
 * without it the token is minted by `satellite token`. `withItems`: the client knows a
 * table, and so asks for replication with a schema version. `needs`: a call that the
 * client must have; versions without it have nothing to prove here.
 */
export const scenarios = [
  { name: 'insecure: unsigned token', mode: 'insecure', run: connectsAndStays },
  { name: 'secure: signed token', mode: 'secure', run: connects },
  { name: 'secure: signed by other means', mode: 'secure', token: tokens.handmade, run: connects },
  { name: 'secure: wrong signature', mode: 'secure', token: tokens.wrongSignature, run: isRefused },
  { name: 'secure: expired token', mode: 'secure', token: tokens.expired, run: isRefused },
  { name: 'secure: blank sub', mode: 'secure', token: tokens.blankSub, run: isRefused },
  { name: 'reconnects back to back', mode: 'secure', needs: 'disconnect', run: reconnects },
  { name: 'local writes survive', mode: 'secure', withItems: true, run: keepsLocalWrites },
  { name: 'shape of an unknown table', mode: 'secure', withItems: true, run: isToldOfUnknownTable },
]

async function connectsAndStays(client) {
  await connects(client)
  await sleep(2000)
  assert.ok(client.isConnected(), 'no longer connected after 2 s')
  assert.deepEqual(client.states, ['connected'])
  await client.stop()
  assert.ok(!client.isConnected(), 'still connected after the stop')
  assert.deepEqual(client.states, ['connected', 'disconnected'])
  return 'connected, still so after 2 s, disconnected by the stop'
}

async function connects(client) {
  await client.connect()
  assert.ok(client.isConnected(), 'connected, but isConnected says otherwise')
  assert.deepEqual(client.states, ['connected'])
  assert.equal(socketsOpened(client.wire), 1, 'took more than one socket')
  return 'connected'
}

async function isRefused(client) {
  const reason = await client.connect().then(
    () => assert.fail('it was let in'),
    (reason) => reason,
  )
  // Clients of all versions hand out the server's answer itself, not an Error.
  assert.equal(reason.$type, 'Electric.Satellite.SatErrorResp', `failed with ${reason}`)
  assert.equal(reason.errorType, AUTH_REQUIRED)
  assert.ok(!client.isConnected())
  assert.deepEqual(client.states, ['disconnected'])
  // A retry would come within a second; a refused token must not be offered again.
  await sleep(1500)
  assert.equal(socketsOpened(client.wire), 1, 'tried again')
  return `AUTH_REQUIRED ${JSON.stringify(reason.message ?? '')}, no retry`
}

async function reconnects(client) {
  const rounds = 5
  await connects(client)
  for (let round = 0; round < rounds; round++) {
    // Not a pause between them: the server has yet to see the old socket close.
    client.disconnect()
    assert.ok(!client.isConnected())
    await client.connect()
    assert.ok(client.isConnected(), `not connected after round ${round + 1}`)
  }
  assert.equal(socketsOpened(client.wire), 1 + rounds, 'some round took more than one socket')
  return `connected ${1 + rounds} times, ${1 + rounds} sockets`
}

async function keepsLocalWrites(client) {
  const { db, adapter } = client.electric
  const contents = async () => (await adapter.query({ sql: 'SELECT content FROM items ORDER BY id' })).map((row) => row.content)
  const pending = async () => (await adapter.query({ sql: 'SELECT * FROM _electric_oplog' })).length

  assert.ok(!client.isConnected(), 'connected too early for a write before that')
  await db.items.create({ data: { id: '1', content: 'before' } })
  await client.connect()
  await db.items.create({ data: { id: '2', content: 'after' } })
  // Long enough for the client to have noticed and sent them, had it been asked to.
  await sleep(1000)
  await client.stop()

  assert.deepEqual(await contents(), ['before', 'after'])
  // The server keeps no data and never asks for any, so the client keeps its log to itself.
  assert.equal(sentOfType(client.wire, SAT_OP_LOG), 0, 'the client sent its log')
  assert.equal(await pending(), 2, 'writes have left the log of what is to be sent')
  return 'both rows there, both still to be sent'
}

async function isToldOfUnknownTable(client) {
  await client.connect()
  const errors = []
  // The second one proves that the connection is still served after the first.
  for (let attempt = 0; attempt < 2; attempt++) {
    const error = await client.sync('items').then(
      () => assert.fail('the subscription was granted'),
      (error) => error,
    )
    assert.match(String(error.message), /shape error messages: ./, `failed with ${error}`)
    errors.push(error)
  }
  assert.ok(client.isConnected(), 'no longer connected')
  assert.deepEqual(client.states, ['connected'])
  assert.equal(socketsOpened(client.wire), 1, 'reconnected')
  return `twice ${JSON.stringify(errors[0].message)}, still connected`
}
