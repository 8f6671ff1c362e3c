// electric-sql 0.7.1: the token is in the configuration, `electrify` connects in the
// background, and there is no call to disconnect; stopping the client is all there is.
import Database from 'better-sqlite3'
import { DbSchema } from 'electric-sql/client/model'
import { makeMigration } from 'electric-sql/migrators'
import { electrify } from 'electric-sql/node'
import { EventNotifier } from 'electric-sql/notifiers'
import { globalRegistry } from 'electric-sql/satellite'
import * as z from 'zod'
import { itemsMigration, itemsTable } from '../items.mjs'
import { nextRejection } from '../rejections.mjs'
import { watched } from '../sockets.mjs'
// Not in the package's list of exports, hence by its path.
import { WebSocketNode } from './node_modules/electric-sql/dist/sockets/node.js'

export async function open({ url, token, clientId, withItems, debug }) {
  const wire = []
  const states = []
  const conn = new Database(':memory:')
  const schema = withItems
    ? new DbSchema({ items: itemsTable(z) }, [makeMigration(itemsMigration)])
    : new DbSchema({}, [])

  const notifier = new EventNotifier(conn.name)
  const connected = new Promise((resolve) => {
    notifier.subscribeToConnectivityStateChanges(({ connectivityState }) => {
      states.push(connectivityState)
      if (connectivityState === 'connected') resolve()
    })
  })
  const config = { url, auth: { token, clientId }, debug }
  const electric = await electrify(conn, schema, config, { notifier, socketFactory: watched(WebSocketNode, wire) })

  return {
    wire,
    states,
    electric,
    isConnected: () => electric.isConnected,
    // A refusal reaches no promise that the application holds.
    connect: () => Promise.race([connected, nextRejection().then((reason) => Promise.reject(reason))]),
    sync: async (table) => (await electric.db[table].sync()).synced,
    stop: () => globalRegistry.stop(conn.name),
    close: () => conn.close(),
  }
}
