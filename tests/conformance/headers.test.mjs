// Status lines and headers, exactly: caching, etags, cursors, CORS, and the routes beside the shape's.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  catchUp, cleanUp, changes, controls, env, eventually, get, issues, last, next, schema, shapeUrl, sleep, transaction,
} from './support.mjs'

const firstPage = 'public, max-age=604800, s-maxage=3600, stale-while-revalidate=2629746'
const others = `public, max-age=${env.maxAge}, stale-while-revalidate=${env.staleAge}`
const live = 'public, max-age=5, stale-while-revalidate=5'

test('the first page', async (t) => {
  const table = await issues(t, 'one')
  const { status, headers, body } = await get({ table: table.name, offset: '-1' })
  assert.equal(status, 200)
  assert.equal(headers.get('content-type'), 'application/json; charset=utf-8')
  assert.equal(headers.get('cache-control'), firstPage)
  assert.equal(headers.get('electric-offset'), '0_0')
  assert.equal(headers.get('electric-has-data'), 'true')
  assert.equal(headers.has('electric-up-to-date'), false)
  assert.equal(headers.has('electric-cursor'), false)
  assert.equal(headers.has('set-cookie'), false)
  assert.equal(headers.get('etag'), `"${headers.get('electric-handle')}:-1:0_0"`)
  assert.deepEqual(JSON.parse(headers.get('electric-schema')), {
    id: { type: 'uuid', pk_index: 0, not_null: true },
    title: { type: 'text', not_null: true },
    priority: { type: 'int4', not_null: true },
  })
  assert.equal(body.length, 2)
  assert.deepEqual(body[0], {
    key: `"${schema}"."${table.bare}"/"${table.ids[0]}"`,
    value: { id: table.ids[0], title: 'one', priority: '10' },
    headers: { operation: 'insert', relation: [schema, table.bare] },
  })
  assert.deepEqual(Object.keys(body[1].headers).sort(), ['control', 'xip_list', 'xmax', 'xmin'])
})

test('the end of the snapshot', async (t) => {
  const table = await issues(t)
  const first = await get({ table: table.name, offset: '-1' })
  assert.equal(first.body.length, 1)
  assert.equal(first.headers.has('electric-up-to-date'), false)
  const { status, headers, body } = await get({ table: table.name, ...next(first) })
  assert.equal(status, 200)
  assert.equal(headers.get('electric-up-to-date'), '')
  assert.equal(headers.get('electric-offset'), '0_inf')
  assert.equal(headers.get('electric-has-data'), 'true')
  assert.equal(headers.get('cache-control'), others)
  assert.equal(headers.get('etag'), `"${headers.get('electric-handle')}:0_0:0_inf"`)
  assert.ok(headers.has('electric-schema'))
  assert.equal(body.length, 1)
  assert.deepEqual(Object.keys(body[0].headers).sort(), ['control', 'global_last_seen_lsn'])
  assert.equal(body[0].headers.control, 'up-to-date')
  assert.match(body[0].headers.global_last_seen_lsn, /^\d+$/)
})

test('etags: the first page is frozen, the tail is not', async (t) => {
  const table = await issues(t, 'one')
  const first = await get({ table: table.name, offset: '-1' })
  const tail = await get({ table: table.name, ...next(first) })
  for (let i = 0; i < 5; i++) await table.insert(`row ${i}`)
  await eventually(async () => {
    const now = await get({ table: table.name, ...next(first) })
    assert.notEqual(now.headers.get('etag'), tail.headers.get('etag'))
  })
  const again = await get({ table: table.name, offset: '-1' })
  assert.equal(again.headers.get('etag'), first.headers.get('etag'))
  assert.equal(again.text, first.text)
  assert.notEqual(tail.headers.get('etag'), first.headers.get('etag'))
})

test('If-None-Match', async (t) => {
  const table = await issues(t)
  const first = await get({ table: table.name, offset: '-1' })
  for (let i = 0; i < 9; i++) await table.insert(`row ${i}`)
  const tail = await eventually(async () => {
    const reply = await get({ table: table.name, ...next(first) })
    assert.equal(changes(reply.body).length, 9)
    return reply
  })
  assert.equal(tail.body.length, 10)
  assert.equal(last(tail.body).headers.control, 'up-to-date')
  const lsn = BigInt(last(changes(tail.body)).headers.lsn)
  assert.equal(tail.headers.get('electric-offset'), `${lsn}_0`)

  const handle = tail.headers.get('electric-handle')
  for (const offset of ['-1', '0_0', `${lsn - 1n}_0`, `${lsn}_0`]) {
    const params = { table: table.name, handle, offset }
    const full = await get(params)
    assert.equal(full.status, 200)
    const etag = full.headers.get('etag')
    for (const value of [etag, `W/${etag}`, `"other", ${etag}`, etag.slice(1, -1)]) {
      const { status, headers, text } = await get(params, { headers: { 'if-none-match': value } })
      assert.equal(status, 304, `${offset} ${value}`)
      assert.equal(text, '')
      for (const name of ['etag', 'cache-control', 'electric-handle', 'electric-offset']) {
        assert.equal(headers.get(name), full.headers.get(name), `${name} of the 304 at ${offset}`)
      }
      assert.equal(headers.has('electric-schema'), false)
    }
    assert.equal((await get(params, { headers: { 'if-none-match': '"other"' } })).status, 200)
  }
  await table.insert('one more')
  await eventually(async () => {
    const reply = await get({ table: table.name, handle, offset: '0_0' }, {
      headers: { 'if-none-match': tail.headers.get('etag') },
    })
    assert.equal(reply.status, 200)
  })
})

test('a live reply', async (t) => {
  const table = await issues(t)
  const at = next(last(await catchUp({ table: table.name })))
  const poll = get({ table: table.name, ...at, live: 'true', cursor: '' })
  await sleep(200)
  const xid = await transaction(`INSERT INTO ${table.name} VALUES (gen_random_uuid(), 'x', 1)`)
  const { status, headers, body } = await poll
  assert.equal(status, 200)
  assert.equal(headers.get('cache-control'), live)
  assert.equal(headers.has('electric-schema'), false)
  assert.equal(headers.get('electric-up-to-date'), '')
  assert.equal(headers.get('electric-has-data'), 'true')
  assert.match(headers.get('electric-cursor'), /^\d+$/)
  assert.deepEqual(body[0].headers.txids, [xid])
  assert.equal(headers.get('electric-offset'), `${body[0].headers.lsn}_0`)
  assert.equal(body[1].headers.global_last_seen_lsn, body[0].headers.lsn)
  assert.equal(headers.get('etag'), `"${at.handle}:${at.offset}:${headers.get('electric-offset')}"`)
  assert.equal(headers.get('vary')?.toLowerCase().replace('accept-encoding', '') ?? '', '')

  // Data that is there already is the answer to every spelling of live at once, with equal bytes and cursors.
  for (const spelling of [{ live: 'true' }, { live: '' }, { live: '1' }]) {
    const again = await get({ table: table.name, ...at, ...spelling })
    assert.equal(again.headers.get('cache-control'), live)
    assert.deepEqual(again.body[0], body[0])
  }
  const not = await get({ table: table.name, ...at, live: 'false' })
  assert.equal(not.headers.has('electric-cursor'), false)
  assert.equal(not.headers.get('cache-control'), others)
})

test('the cursor names a stretch of time, and moves on from the one that was sent', async (t) => {
  const table = await issues(t)
  const at = next(last(await catchUp({ table: table.name })))
  await table.insert('x')
  const cursor = async (sent) => {
    const reply = await eventually(async () => {
      const r = await get({ table: table.name, ...at, live: 'true', cursor: sent })
      assert.equal(r.status, 200)
      return r
    })
    return Number(reply.headers.get('electric-cursor'))
  }
  const seconds = Math.floor((Date.now() - Date.UTC(2024, 9, 9)) / 1000)
  const [a, b] = await Promise.all([cursor(''), cursor('nonsense')])
  assert.ok(a === b || b === a + 20, `${a} and ${b}`) // a border may fall between the two
  assert.equal(a % 20, 0)
  assert.ok(a >= seconds - 2 && a <= seconds + 42, `${a} at ${seconds}`)
  const jumped = await cursor(String(a + 100))
  assert.ok(jumped > a + 100 && jumped <= a + 100 + 3600, `${jumped}`)
})

test('offset=now', async (t) => {
  const table = await issues(t, 'one')
  const { status, headers, body } = await get({ table: table.name, offset: 'now' })
  assert.equal(status, 200)
  assert.equal(headers.get('electric-offset'), '0_inf')
  assert.equal(headers.get('electric-up-to-date'), '')
  assert.equal(headers.get('electric-has-data'), 'false')
  assert.equal(headers.get('cache-control'), others)
  assert.ok(headers.has('electric-schema'))
  assert.ok(headers.get('etag').startsWith(`"${headers.get('electric-handle')}:now:0_inf:`), headers.get('etag'))
  assert.deepEqual(body.map((m) => m.headers.control), ['up-to-date'])
  const again = await get({ table: table.name, offset: 'now' }, { headers: { 'if-none-match': headers.get('etag') } })
  assert.equal(again.status, 200)
})

test('an SSE reply: headers at once, frames as changes come', async (t) => {
  const table = await issues(t)
  const at = next(last(await catchUp({ table: table.name })))
  const aborter = new AbortController()
  cleanUp(t, () => aborter.abort())
  const query = new URLSearchParams({ table: table.name, ...at, live: 'true', live_sse: 'true' })
  const res = await fetch(`${shapeUrl}?${query}`, { signal: aborter.signal })
  assert.equal(res.status, 200)
  assert.match(res.headers.get('content-type'), /^text\/event-stream/)
  assert.equal(res.headers.get('cache-control'), 'public, max-age=59')
  assert.equal(res.headers.get('electric-handle'), at.handle)
  assert.equal(res.headers.get('electric-offset'), at.offset)
  assert.match(res.headers.get('electric-cursor'), /^\d+$/)
  assert.equal(res.headers.has('electric-schema'), false)

  await table.insert('one')
  let text = ''
  const frames = () => text.split('\n\n').slice(0, -1)
  for await (const chunk of res.body.pipeThrough(new TextDecoderStream())) {
    text += chunk
    if (frames().length >= 2) break
  }
  assert.ok(frames().every((f) => f.startsWith('data: ')), text)
  const messages = frames().map((f) => JSON.parse(f.slice('data: '.length)))
  assert.equal(messages[0].headers.operation, 'insert')
  assert.equal(messages[1].headers.control, 'up-to-date')
  const [lsn, seen] = [BigInt(messages[0].headers.lsn), BigInt(messages[1].headers.global_last_seen_lsn)]
  assert.ok(seen === lsn || seen === lsn + 1n, `${seen} for ${lsn}`)

  // The client comes back at <seen>_0, an offset that need not exist.
  const back = await get({ table: table.name, handle: at.handle, offset: `${seen}_0` })
  assert.equal(back.status, 200)
  assert.deepEqual(changes(back.body), [])
})

test('HEAD has the headers of GET', async (t) => {
  const table = await issues(t, 'one')
  const first = await get({ table: table.name, offset: '-1' })
  for (const at of [{ offset: '-1' }, next(first)]) {
    const want = await get({ table: table.name, ...at })
    const got = await get({ table: table.name, ...at }, { method: 'HEAD' })
    assert.equal(got.status, 200)
    assert.equal(got.text, '')
    const pick = (headers) => {
      const own = /^(x-request-id|date|connection|keep-alive|transfer-encoding|content-length|server-timing)$/
      return Object.fromEntries([...headers].filter(([name]) => !own.test(name)))
    }
    assert.deepEqual(pick(got.headers), pick(want.headers))
  }
})

test('OPTIONS', async () => {
  for (const asked of ['if-none-match', 'traceparent', 'content-type', 'authorization,content-type']) {
    const res = await fetch(shapeUrl, {
      method: 'OPTIONS',
      headers: { origin: 'http://app.example', 'access-control-request-headers': asked },
    })
    assert.equal(res.status, 204)
    assert.equal(await res.text(), '')
    assert.equal(res.headers.get('access-control-allow-methods'), 'GET, POST, HEAD, DELETE, OPTIONS')
    assert.match(res.headers.get('access-control-allow-origin'), /^(\*|http:\/\/app\.example)$/)
    assert.equal(res.headers.get('access-control-max-age'), '86400')
    assert.equal(res.headers.has('cache-control'), false)
    const allowed = (res.headers.get('access-control-allow-headers') ?? '').toLowerCase().split(/\s*,\s*/)
    for (const name of asked.split(',')) assert.ok(allowed.includes(name), `${name} in ${allowed}`)
  }
})

test('every reply can be read from another origin', async (t) => {
  const table = await issues(t)
  const exposed = 'electric-cursor,electric-handle,electric-has-data,electric-offset,electric-schema,' +
    'electric-up-to-date,electric-internal-known-error,retry-after'
  const replies = {
    'a shape': await get({ table: table.name, offset: '-1' }, { headers: { origin: 'http://app.example' } }),
    'a 400': await get({ table: table.name }),
    'a 404': await get({}, { url: `${env.url}/v1/nothing` }),
    health: await get({}, { url: `${env.url}/v1/health` }),
  }
  for (const [what, { headers }] of Object.entries(replies)) {
    assert.match(headers.get('access-control-allow-origin'), /^(\*|http:\/\/app\.example)$/, what)
    const names = (headers.get('access-control-expose-headers') ?? '').split(/\s*,\s*/)
    for (const name of exposed.split(',')) assert.ok(names.includes(name), `${what}: ${name}`)
    const methods = what === 'a shape' || what === 'a 400' ? 'GET, POST, HEAD, DELETE, OPTIONS' : 'GET, HEAD'
    assert.equal(headers.get('access-control-allow-methods'), methods, what)
    assert.ok(headers.get('electric-server'), what)
    assert.ok(headers.get('x-request-id'), what)
  }
  const id = 'abcdefghijklmnopqrstuvwxyz0123456789'
  const echoed = await get({ table: table.name, offset: '-1' }, { headers: { 'x-request-id': id } })
  assert.equal(echoed.headers.get('x-request-id'), id)
})

test('the other routes', async () => {
  const root = await get({}, { url: `${env.url}/` })
  assert.deepEqual([root.status, root.text], [200, ''])
  const health = await get({}, { url: `${env.url}/v1/health` })
  assert.equal(health.status, 200)
  assert.equal(health.text, '{"status":"active"}')
  assert.equal(health.headers.get('content-type'), 'application/json; charset=utf-8')
  assert.equal(health.headers.get('cache-control'), 'no-cache, no-store, must-revalidate')
  const missing = await get({}, { url: `${env.url}/v1/nothing` })
  assert.deepEqual([missing.status, missing.text], [404, 'Not found'])
})

test('what a transaction says about itself', async (t) => {
  const table = await issues(t)
  const at = next(last(await catchUp({ table: table.name })))
  const insert = `INSERT INTO ${table.name} VALUES (gen_random_uuid(), 'x', 1)`
  const xid = await transaction(insert, insert, insert)
  const messages = await eventually(async () => {
    const list = (await catchUp({ table: table.name }, at)).flatMap((r) => r.body)
    assert.equal(changes(list).length, 3)
    return list
  })
  const [a, b, c] = changes(messages)
  assert.deepEqual([a, b, c].map((m) => m.headers.op_position), [0, 2, 4])
  assert.deepEqual([a, b, c].map((m) => m.headers.last), [undefined, undefined, true])
  for (const { headers } of [a, b, c]) {
    assert.equal(typeof headers.lsn, 'string')
    assert.deepEqual(headers.txids, [xid])
    assert.ok(xid < 2 ** 32)
  }
  const seen = BigInt(controls(messages, 'up-to-date')[0].headers.global_last_seen_lsn)
  assert.ok(seen >= BigInt(c.headers.lsn))
})
