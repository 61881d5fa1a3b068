// The end of a shape: deleted, truncated or altered. Clients get 409, start again under a new handle and see each row
// once.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Shape } from '@electric-sql/client'
import { catchUp, db, deleteShape, eventually, follow, get, issues, last, next, sleep } from './support.mjs'

const mustRefetch = [{ headers: { control: 'must-refetch' } }]

for (const liveSse of [false, true]) {
  describe(liveSse ? 'SSE' : 'long poll', () => {
    test('a shape deleted under a client: 409, then all of it again, once', async (t) => {
      const table = await issues(t, 'one')
      const s = follow(t, { params: { table: table.name }, liveSse })
      await s.untilLive()
      const handle = s.stream.shapeHandle
      assert.ok(s.requests.every((r) => r.status === undefined || r.status === 200))
      const [second] = await table.insert('two')
      await s.untilChanges(2)

      const gone = await deleteShape({ table: table.name, handle })
      assert.equal(gone.status, 202)
      await s.until('must-refetch', (r) => r.controls('must-refetch').length > 0, 5000)
      const again = () => s.messages.slice(s.messages.findIndex((m) => m.headers.control === 'must-refetch'))
      await s.until('the rows again', () => again().filter((m) => m.key).length >= 2, 5000)
      await s.until('up to date again', () => again().some((m) => m.headers.control === 'up-to-date'), 5000)

      const keys = again().filter((m) => m.key).map((m) => m.key)
      assert.deepEqual(keys.sort(), [table.key(table.ids[0]), table.key(second)].sort())
      assert.notEqual(s.stream.shapeHandle, handle)
      const statuses = s.requests.map((r) => r.status).filter((status) => status !== undefined)
      assert.equal(statuses.filter((status) => status === 409).length, 1)
      assert.equal(statuses[statuses.indexOf(409) + 1], 200)

      await table.insert('three')
      await s.until('a change after it', () => again().filter((m) => m.key).length === 3, 5000)
    })

    test('a Shape over a deletion', async (t) => {
      const table = await issues(t, 'one')
      const { stream, untilLive } = follow(t, { params: { table: table.name }, liveSse })
      const shape = new Shape(stream)
      const seen = []
      shape.subscribe(({ rows }) => seen.push(rows.map((r) => r.title).sort().join()))
      await shape.rows
      await untilLive()
      await deleteShape({ table: table.name, handle: stream.shapeHandle })
      await table.insert('two')
      await eventually(async () => assert.equal(last(seen), 'one,two'))
    })
  })
}

test('409 names a living handle, for a dead, an unknown and another shape’s', async (t) => {
  const table = await issues(t, 'one')
  const first = await get({ table: table.name, offset: '-1' })
  const dead = first.headers.get('electric-handle')
  await deleteShape({ table: table.name, handle: dead })
  const other = await get({ table: table.name, offset: '-1', where: 'priority = 10' })
  const handles = { dead, unknown: '1234-5678', odd: 'not a handle', other: other.headers.get('electric-handle') }
  for (const [what, handle] of Object.entries(handles)) {
    for (const live of [{}, { live: '' }]) {
      const reply = await get({ table: table.name, offset: '0_0', handle, ...live })
      assert.equal(reply.status, 409, what)
      assert.deepEqual(reply.body, mustRefetch, what)
      const named = reply.headers.get('electric-handle')
      assert.ok(named && named !== handle, `${what}: ${named}`)
      assert.equal(reply.headers.get('cache-control'), 'public, max-age=60, must-revalidate', what)
      assert.equal(reply.headers.has('electric-offset'), false, what)
      assert.equal(reply.headers.has('electric-schema'), false, what)
      const fresh = await get({ table: table.name, offset: '-1', handle: named })
      assert.equal(fresh.status, 200, what)
      assert.equal(fresh.headers.get('electric-handle'), named, what)
    }
  }
})

test('a deletion wakes a parked poll at once', async (t) => {
  const table = await issues(t, 'one')
  const at = next(last(await catchUp({ table: table.name })))
  const poll = get({ table: table.name, ...at, live: 'true' })
  await sleep(200)
  const started = Date.now()
  assert.equal((await deleteShape({ table: table.name, handle: at.handle })).status, 202)
  const reply = await poll
  assert.ok(Date.now() - started < 3000, `woken after ${Date.now() - started} ms`)
  assert.equal(reply.status, 409)
  assert.deepEqual(reply.body, mustRefetch)
  assert.notEqual(reply.headers.get('electric-handle'), at.handle)
  assert.match(reply.headers.get('cache-control'), /^public, max-age=(60|1), must-revalidate$/)
})

test('a deletion closes an SSE stream', async (t) => {
  const table = await issues(t, 'one')
  const at = next(last(await catchUp({ table: table.name })))
  const poll = get({ table: table.name, ...at, live: 'true', live_sse: 'true' })
  await sleep(200)
  const started = Date.now()
  await deleteShape({ table: table.name, handle: at.handle })
  const reply = await poll
  assert.ok(Date.now() - started < 3000)
  assert.equal(reply.status, 200)
  assert.ok(!reply.text.includes('must-refetch'), reply.text)
})

const ends = {
  TRUNCATE: (name) => `TRUNCATE ${name}`,
  'a column added': (name) => `ALTER TABLE ${name} ADD COLUMN more text`,
  'a column dropped': (name) => `ALTER TABLE ${name} DROP COLUMN priority`,
  'a type changed': (name) => `ALTER TABLE ${name} ALTER COLUMN priority TYPE bigint`,
}
for (const [what, statement] of Object.entries(ends)) {
  test(`${what} ends the shape; a client goes on with the new one`, async (t) => {
    const table = await issues(t, 'one')
    const s = follow(t, { params: { table: table.name } })
    await s.untilLive()
    const handle = s.stream.shapeHandle
    await db.query(statement(table.name))
    const columns = what === 'a column dropped' ? 'id, title' : 'id, title, priority'
    const values = what === 'a column dropped' ? "'two'" : "'two', 10"
    await db.query(`INSERT INTO ${table.name} (${columns}) VALUES (gen_random_uuid(), ${values})`)
    await s.until('the new row behind a must-refetch', (r) => {
      const at = r.messages.findIndex((m) => m.headers.control === 'must-refetch')
      return at >= 0 && r.messages.slice(at).some((m) => m.value?.title === 'two')
    })
    assert.notEqual(s.stream.shapeHandle, handle)
    const at = s.messages.findIndex((m) => m.headers.control === 'must-refetch')
    const titles = s.messages.slice(at).filter((m) => m.key).map((m) => m.value.title).sort()
    assert.deepEqual(titles, what === 'TRUNCATE' ? ['two'] : ['one', 'two'])
  })
}
