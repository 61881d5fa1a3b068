// A server with a secret, and with a long-poll time-out of one second: who is let in, and what waiting ends with.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { catchUp, changes, controls, env, eventually, get, issues, last, next, sleep } from './support.mjs'

const skip = !env.altUrl && 'SHAPELINE_ALT_URL is not set'
const url = `${env.altUrl}/v1/shape`
const secret = env.altSecret

test('the secret', { skip }, async (t) => {
  const { name: table } = await issues(t, 'one')
  const refused = async (params, init) => {
    const reply = await get({ table, offset: '-1', ...params }, { url, ...init })
    assert.equal(reply.status, 401, reply.text)
    return reply
  }
  assert.deepEqual((await refused({})).body, { message: 'Unauthorized - Invalid API secret' })
  for (const wrong of ['', 'wrong', secret + 'x', secret.slice(1), secret.toUpperCase()]) {
    await refused({ secret: wrong })
  }
  await refused({ secret: 'wrong', api_secret: secret })
  await refused({}, { headers: { authorization: `Bearer ${secret}` } })
  for (const method of ['HEAD', 'DELETE', 'POST']) await refused({}, { method })
  for (const name of ['secret', 'api_secret']) {
    assert.equal((await get({ table, offset: '-1', [name]: secret }, { url })).status, 200)
  }
  // These need none.
  assert.equal((await get({}, { url: `${env.altUrl}/v1/health` })).status, 200)
  assert.equal((await get({}, { url: `${env.altUrl}/` })).status, 200)
  assert.equal((await fetch(url, { method: 'OPTIONS' })).status, 204)
  assert.equal((await get({}, { url: `${env.altUrl}/v1/other` })).status, 404)
})

const spellings = ['/v1/shape', '/v1/shape/', '/v1//shape', '//v1/shape', '/v1/shape//', '/v1/%73hape', '/%76%31/shape']

test('no spelling of the path goes round the secret', { skip }, async (t) => {
  const { name: table } = await issues(t, 'one')
  const query = new URLSearchParams({ table, offset: '-1' })
  for (const path of spellings) {
    const without = await fetch(`${env.altUrl}${path}?${query}`, { redirect: 'manual' })
    assert.equal(without.status, 401, path)
    const withIt = await fetch(`${env.altUrl}${path}?${query}&secret=${secret}`, { redirect: 'manual' })
    assert.equal(withIt.status, 200, path)
    assert.match(withIt.headers.get('access-control-allow-methods'), /DELETE/, path)
  }
})

test('an open server knows the same spellings', async (t) => {
  const { name: table } = await issues(t, 'one')
  for (const path of spellings) {
    const res = await fetch(`${env.url}${path}?${new URLSearchParams({ table, offset: '-1' })}`, { redirect: 'manual' })
    assert.equal(res.status, 200, path)
    await res.arrayBuffer()
  }
})

test('a poll that times out', { skip }, async (t) => {
  const { name: table } = await issues(t, 'one')
  const at = next(last(await catchUp({ table })))
  const started = Date.now()
  const poll = async () => get({ table, ...at, live: 'true', secret }, { url })
  const reply = await poll()
  const took = Date.now() - started
  assert.ok(took > 700 && took < 5000, `${took} ms`)
  assert.equal(reply.status, 200)
  assert.deepEqual(reply.body.map((m) => m.headers.control), ['up-to-date'])
  assert.match(reply.body[0].headers.global_last_seen_lsn, /^\d+$/)
  assert.equal(reply.headers.get('electric-offset'), at.offset)
  assert.equal(reply.headers.get('electric-has-data'), 'false')
  assert.equal(reply.headers.get('electric-up-to-date'), '')
  assert.match(reply.headers.get('electric-cursor'), /^\d+$/)
  const etag = reply.headers.get('etag')
  assert.ok(etag.startsWith(`"${at.handle}:${at.offset}:${at.offset}:`), etag)
  const again = await get({ table, ...at, live: 'true', secret }, { url, headers: { 'if-none-match': etag } })
  assert.equal(again.status, 200)
  assert.notEqual(again.headers.get('etag'), etag)
})

test('an idle shape learns how far the others are', { skip }, async (t) => {
  const idle = await issues(t, 'one')
  const busy = await issues(t)
  const at = next(last(await catchUp({ table: idle.name })))
  const from = next(last(await catchUp({ table: busy.name })))
  await busy.insert('x')
  const lsn = await eventually(async () => {
    const [m] = (await catchUp({ table: busy.name }, from)).flatMap((r) => changes(r.body))
    return BigInt(m.headers.lsn)
  })
  await eventually(async () => {
    const reply = await get({ table: idle.name, ...at })
    const seen = BigInt(controls(reply.body, 'up-to-date')[0].headers.global_last_seen_lsn)
    assert.ok(seen >= lsn, `${seen} < ${lsn}`)
  })
})

test('an offset behind the end waits for half a poll and is then refused', { skip }, async (t) => {
  const { name: table } = await issues(t, 'one')
  const { handle } = next(last(await catchUp({ table })))
  for (const live of [{}, { live: 'true' }]) {
    const started = Date.now()
    const reply = await get({ table, handle, offset: '9223372036854775000_0', secret, ...live }, { url })
    assert.ok(Date.now() - started > 300, 'refused at once')
    assert.equal(reply.status, 400)
    assert.deepEqual(reply.body, {
      message: 'Invalid request',
      errors: { offset: ['out of bounds for this shape'] },
    })
  }
})

test('clients that go away release what they waited on', { skip }, async (t) => {
  const table = await issues(t, 'one')
  const at = next(last(await catchUp({ table: table.name })))
  for (let i = 0; i < 50; i++) {
    const aborter = new AbortController()
    const poll = get({ table: table.name, ...at, live: 'true' }, { signal: aborter.signal }).catch(() => {})
    await sleep(5)
    aborter.abort()
    await poll
  }
  const poll = get({ table: table.name, ...at, live: 'true' })
  await table.insert('two')
  assert.equal(changes((await poll).body)[0].value.title, 'two')
})
