// electric-sql 0.12.1, on SQLite or on PGlite: `electrify` stays offline,
// `connect(token)` settles with the outcome, `disconnect()` and `close()` end it.
import { PGlite } from '@electric-sql/pglite'
import Database from 'better-sqlite3'
import { DbSchema } from 'electric-sql/client/model'
import { makeMigration, pgBuilder, sqliteBuilder } from 'electric-sql/migrators/builder'
import { electrify as electrifySqlite } from 'electric-sql/node'
import { EventNotifier } from 'electric-sql/notifiers'
import { electrify as electrifyPglite } from 'electric-sql/pglite'
import { WebSocketNode } from 'electric-sql/sockets/node'
import * as z from 'zod'
import { itemsMigration, itemsTable } from '../items.mjs'
import { watched } from '../sockets.mjs'

const databases = {
  'better-sqlite3': { make: () => new Database(':memory:'), electrify: electrifySqlite, name: (conn) => conn.name },
  pglite: { make: () => new PGlite(), electrify: electrifyPglite, name: () => 'memory' },
}

export async function open({ url, token, clientId, withItems, database, debug }) {
  const wire = []
  const states = []
  const { make, electrify, name } = databases[database]
  const conn = make()
  const schema = withItems
    ? new DbSchema(
        { items: itemsTable(z) },
        [makeMigration(itemsMigration, sqliteBuilder)],
        [makeMigration(itemsMigration, pgBuilder)],
      )
    : new DbSchema({}, [], [])

  const notifier = new EventNotifier(name(conn))
  notifier.subscribeToConnectivityStateChanges(({ connectivityState: { status } }) => {
    // Told once more of the state it has when it stops.
    if (states.at(-1) !== status) states.push(status)
  })
  // PGlite's driver would take the browser's WebSocket, which Node 20 lacks.
  const options = { notifier, socketFactory: watched(WebSocketNode, wire) }
  const electric = await electrify(conn, schema, { url, auth: { clientId }, debug }, options)

  return {
    wire,
    states,
    electric,
    isConnected: () => electric.isConnected,
    connect: () => electric.connect(token),
    disconnect: () => electric.disconnect(),
    sync: async (table) => (await electric.db[table].sync()).synced,
    unsubscribe: async (table) => {
      const shape = await electric.db[table].sync()
      await shape.synced
      await electric.sync.unsubscribe([shape.key])
    },
    // `close()` alone would leave `isConnected` as it was.
    stop: () => {
      electric.disconnect()
      return electric.close()
    },
    close: () => conn.close(),
  }
}
