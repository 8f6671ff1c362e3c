// The package's own WebSocket class, watched: which sockets it opens, which frames pass.
// The first byte of a frame is the message type.

export const SAT_OP_LOG = 9

/** Subclasses `WebSocketNode` so that everything it does is noted in `wire`. */
export function watched(WebSocketNode, wire) {
  return class extends WebSocketNode {
    open(options) {
      wire.push({ what: 'open' })
      const opened = super.open(options)
      this.socket.on('message', (data) => wire.push({ what: 'received', data }))
      this.socket.on('close', (code, reason) => wire.push({ what: 'close', code, reason: String(reason) }))
      return opened
    }
    write(data) {
      wire.push({ what: 'sent', data })
      return super.write(data)
    }
  }
}

export const socketsOpened = (wire) => wire.filter(({ what }) => what === 'open').length
export const sentOfType = (wire, type) => wire.filter(({ what, data }) => what === 'sent' && data[0] === type).length

/** For a failure's report. Frames are cut: whole ones would carry the token. */
export const wireInWords = (wire) =>
  wire.map(({ what, data, code, reason }) => {
    if (data) return `${what} type ${data[0]}, ${data.length} bytes: ${Buffer.from(data).toString('hex').slice(0, 80)}`
    return what === 'close' ? `close ${code} ${JSON.stringify(reason)}` : what
  })
