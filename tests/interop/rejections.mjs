// Promises of the package that fail where the application cannot catch them.
// 0.7.1 tells of a refused connection in no other way, so they are part of its behaviour.

const uncaught = []
let waiting

process.on('unhandledRejection', (reason) => {
  if (waiting) waiting(reason)
  else uncaught.push(reason)
  waiting = undefined
})

/** The next one, or the oldest that nobody has asked for. */
export function nextRejection() {
  if (uncaught.length > 0) return Promise.resolve(uncaught.shift())
  return new Promise((resolve) => (waiting = resolve))
}

/** Those that nobody asked for: a scenario that leaves any has failed. */
export const strayRejections = () => uncaught
