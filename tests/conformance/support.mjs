// What the tests share: the server and the database named by the environment, tables of their own, raw requests,
// and a recorder around the real client.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after } from 'node:test'
import { ShapeStream, isChangeMessage, isControlMessage } from '@electric-sql/client'
import pg from 'pg'

export const env = {
  url: required('SHAPELINE_URL'),
  maxAge: Number(process.env.ELECTRIC_CACHE_MAX_AGE ?? 60),
  staleAge: Number(process.env.ELECTRIC_CACHE_STALE_AGE ?? 300),
  chunkBytes: Number(process.env.ELECTRIC_SHAPE_CHUNK_BYTES_THRESHOLD ?? 10485760),
  // A second server with a secret and a long-poll time-out of one second; absent: its tests are skipped.
  altUrl: process.env.SHAPELINE_ALT_URL,
  altSecret: process.env.SHAPELINE_ALT_SECRET,
}

function required(name) {
  const value = process.env[name]
  if (!value) throw new Error(`${name} is not set`)
  return value
}

export const shapeUrl = `${env.url}/v1/shape`

export const schema = 'electric_test'
export const db = new pg.Pool({ connectionString: required('DATABASE_URL'), max: 4 })
after(() => db.end())
await db.query(`CREATE SCHEMA IF NOT EXISTS ${schema}`).catch((err) => {
  // Test files that start together may both find it missing.
  if (err.code !== '23505' && err.code !== '42P06') throw err
})

const cleanups = new WeakMap()

/** cleanUp runs fn after the test, last registered first, as what uses a table goes before the table. */
export function cleanUp(t, fn) {
  if (!cleanups.has(t)) {
    const stack = []
    cleanups.set(t, stack)
    t.after(async () => {
      while (stack.length > 0) await stack.pop()()
    })
  }
  cleanups.get(t).push(fn)
}

/** ident quotes a name as SQL and the table parameter want it. */
export const ident = (name) => `"${name.replaceAll('"', '""')}"`

/**
 * makeTable creates a table with the columns given as SQL and drops it, and its default shape, after the test. The
 * name has a space in it, as the upstream fixtures have. The table parameter is `.name`, in SQL and in requests.
 */
export async function makeTable(t, columns) {
  const bare = `issues for ${randomUUID().slice(0, 8)}`
  const name = `${ident(schema)}.${ident(bare)}`
  await db.query(`CREATE TABLE ${name} (${columns})`)
  cleanUp(t, async () => {
    await deleteShape({ table: name })
    await db.query(`DROP TABLE IF EXISTS ${name}`)
  })
  return { name, bare, key: (...pk) => [name, ...pk.map((v) => `"${String(v).replaceAll('/', '//')}"`)].join('/') }
}

/** issues is the upstream fixture: id uuid, title text, priority int. */
export async function issues(t, ...titles) {
  const table = await makeTable(t, 'id uuid PRIMARY KEY, title text NOT NULL, priority int NOT NULL')
  const insert = async (...titles) => {
    const ids = titles.map(() => randomUUID())
    const values = titles.map((_, i) => `($${2 * i + 1}::uuid, $${2 * i + 2}, 10)`).join(', ')
    await db.query(`INSERT INTO ${table.name} VALUES ${values}`, titles.flatMap((title, i) => [ids[i], title]))
    return ids
  }
  const update = (id, title) => db.query(`UPDATE ${table.name} SET title = $2 WHERE id = $1`, [id, title])
  const remove = (id) => db.query(`DELETE FROM ${table.name} WHERE id = $1`, [id])
  const ids = titles.length ? await insert(...titles) : []
  return { ...table, ids, insert, update, remove }
}

/** transaction runs statements in one and returns its 32-bit id as a number. */
export async function transaction(...statements) {
  const conn = await db.connect()
  try {
    await conn.query('BEGIN')
    for (const s of statements) await conn.query(...(Array.isArray(s) ? s : [s]))
    const { rows } = await conn.query('SELECT pg_current_xact_id()::xid::text AS id')
    await conn.query('COMMIT')
    return Number(rows[0].id)
  } finally {
    conn.release()
  }
}

/** get makes one raw request; params are encoded as given. */
export async function get(params, { url = shapeUrl, ...init } = {}) {
  const signal = AbortSignal.timeout(40_000) // twice the longest poll
  const res = await fetch(`${url}?${new URLSearchParams(params)}`, { redirect: 'manual', signal, ...init })
  const text = await res.text()
  const body = res.headers.get('content-type')?.startsWith('application/json') && text !== '' ? JSON.parse(text) : text
  return { status: res.status, headers: res.headers, text, body }
}

export const deleteShape = (params) => get(params, { method: 'DELETE' })

/** next is what follows a reply: its handle and offset as parameters. */
export const next = (reply) => ({
  handle: reply.headers.get('electric-handle'),
  offset: reply.headers.get('electric-offset'),
})

/** catchUp follows a shape with raw requests until it is up to date and returns all replies. */
export async function catchUp(params, from = { offset: '-1' }) {
  const replies = []
  let at = from
  for (;;) {
    const reply = await get({ ...params, ...at })
    assert.equal(reply.status, 200, reply.text)
    replies.push(reply)
    if (reply.headers.has('electric-up-to-date')) return replies
    assert.notEqual(reply.headers.get('electric-offset'), at.offset, 'not up to date, and the offset stands')
    at = next(reply)
  }
}

/**
 * eventually repeats check, which throws while it does not hold, until it does: what has been committed takes a moment
 * to be served.
 */
export async function eventually(check, ms = 5000) {
  const deadline = Date.now() + ms
  for (;;) {
    try {
      return await check()
    } catch (err) {
      if (Date.now() > deadline) throw err
      await sleep(20)
    }
  }
}

export const last = (list) => list[list.length - 1]
export const changes = (messages) => messages.filter((m) => m.key !== undefined)
export const controls = (messages, name) => messages.filter((m) => m.headers.control === name)

/**
 * follow runs the real client and records. `messages` are all messages delivered, `requests` all requests with their
 * URL, status and headers in the order they were sent, `errors` what reached onError.
 */
export function follow(t, { params, fetchClient = fetch, ...options }) {
  const aborter = new AbortController()
  const rec = { messages: [], batches: [], requests: [], errors: [], aborter }
  const waiters = new Set()
  const poke = () => waiters.forEach((check) => check())
  rec.stream = new ShapeStream({
    url: shapeUrl,
    params,
    signal: aborter.signal,
    warnOnHttp: false,
    fetchClient: async (input, init) => {
      const request = { url: new URL(input.toString()), at: Date.now() }
      rec.requests.push(request)
      poke()
      const res = await fetchClient(input, init)
      Object.assign(request, { status: res.status, headers: res.headers, answered: Date.now() })
      poke()
      return res
    },
    onError: (err) => {
      rec.errors.push(err)
      poke()
    },
    ...options,
  })
  rec.stream.subscribe(
    (batch) => {
      rec.batches.push(batch)
      rec.messages.push(...batch)
      poke()
    },
    (err) => {
      rec.errors.push(err)
      poke()
    },
  )
  /** until resolves when cond is true; it is looked at whenever something happens. */
  rec.until = (what, cond, ms = 10_000) =>
    new Promise((resolve, reject) => {
      const late = setTimeout(() => {
        waiters.delete(check)
        reject(new Error(`not within ${ms} ms: ${what}\n${summary(rec)}`))
      }, ms)
      const check = () => {
        if (!cond(rec)) return
        clearTimeout(late)
        waiters.delete(check)
        resolve(rec)
      }
      waiters.add(check)
      check()
    })
  rec.changes = () => rec.messages.filter(isChangeMessage)
  rec.controls = (name) => rec.messages.filter((m) => isControlMessage(m) && m.headers.control === name)
  rec.upToDate = () => rec.until('up to date', () => rec.controls('up-to-date').length > 0)
  rec.untilChanges = (n, ms) => rec.until(`${n} changes`, () => rec.changes().length >= n, ms)
  rec.untilLive = () => rec.until('a live request', () => rec.requests.some((r) => isLive(r)))
  rec.stop = () => aborter.abort()
  cleanUp(t, rec.stop)
  return rec
}

export const isLive = (request) => request.url.searchParams.get('live') === 'true'

function summary(rec) {
  const requests = rec.requests.map((r) => `  ${r.status ?? '...'} ${decodeURIComponent(r.url.search)}`)
  const messages = rec.messages.map((m) => '  ' + JSON.stringify(m, (_, v) => (typeof v === 'bigint' ? `${v}n` : v)))
  return [
    ...requests.slice(-12),
    ...messages.slice(-12),
    ...rec.errors.map((e) => `  error ${e.status ?? ''} ${e.message} ${JSON.stringify(e.json ?? e.text ?? null)}`),
  ].join('\n')
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
