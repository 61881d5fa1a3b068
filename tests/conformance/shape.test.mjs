// What a definition selects: where, params, columns, replica; and what a transaction looks like inside.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { describe, test } from 'node:test'
import {
  catchUp, changes, controls, db, deleteShape, eventually, follow, get, ident, issues, last, makeTable, next,
  transaction,
} from './support.mjs'

for (const liveSse of [false, true]) {
  describe(liveSse ? 'SSE' : 'long poll', () => {
    test('where filters the rows and the changes', async (t) => {
      const table = await issues(t, 'foo1', 'bar1')
      const [foo, bar] = table.ids
      const params = { table: table.name, where: "title LIKE 'foo%'" }
      const s = follow(t, { params, liveSse })
      await s.untilLive()
      assert.deepEqual(s.changes().map((m) => m.value.title), ['foo1'])

      await table.update(bar, 'bar2') // stays out
      await table.update(foo, 'foo2') // stays in
      await s.untilChanges(2)
      assert.equal(s.changes()[1].headers.operation, 'update')
      assert.deepEqual(s.changes()[1].value, { id: foo, title: 'foo2' })

      await table.update(bar, 'foo3') // enters
      await s.untilChanges(3)
      assert.equal(s.changes()[2].headers.operation, 'insert')
      assert.deepEqual(s.changes()[2].value, { id: bar, title: 'foo3', priority: 10 })

      await table.update(foo, 'bar4') // leaves
      await s.untilChanges(4)
      assert.equal(s.changes()[3].headers.operation, 'delete')
      assert.deepEqual(s.changes()[3].value, { id: foo })

      const handle = s.stream.shapeHandle
      s.stop()
      const gone = await deleteShape({ ...params, handle })
      assert.equal(gone.status, 202)
      assert.equal(gone.text, '')
    })

    test('columns are all that comes', async (t) => {
      const table = await issues(t, 'one')
      const [id] = table.ids
      const s = follow(t, { params: { table: table.name, columns: ['id', 'title'] }, liveSse })
      await s.untilLive()
      assert.deepEqual(s.changes()[0].value, { id, title: 'one' })
      await db.query(`UPDATE ${table.name} SET priority = 99 WHERE id = $1`, [id]) // not visible
      await table.update(id, 'two')
      await s.untilChanges(2)
      assert.deepEqual(s.changes()[1].value, { id, title: 'two' })
      assert.equal(s.changes().length, 2)
    })

    test('replica=full sends whole rows and what was before', async (t) => {
      const table = await issues(t, 'one')
      const [id] = table.ids
      const s = follow(t, { params: { table: table.name, replica: 'full' }, liveSse })
      await s.untilLive()
      await table.update(id, 'two')
      await s.untilChanges(2)
      assert.deepEqual(s.changes()[1].value, { id, title: 'two', priority: 10 })
      assert.deepEqual(s.changes()[1].old_value, { title: 'one' })
      await table.remove(id)
      await s.untilChanges(3)
      assert.deepEqual(s.changes()[2].value, { id, title: 'two', priority: 10 })
      assert.equal(s.changes()[2].old_value, undefined)
    })
  })
}

test('columns with odd names', async (t) => {
  const odd = ['normal', 'has space', 'has,comma', 'has"quote', 'CamelCase', 'dotted.name', 'ünï']
  const table = await makeTable(t, `id int PRIMARY KEY, ${odd.map((c) => `${ident(c)} text`).join(', ')}, hidden text`)
  await db.query(`INSERT INTO ${table.name} VALUES (1, ${odd.map((_, i) => `'v${i}'`).join(', ')}, 'h')`)
  const want = Object.fromEntries([['id', 1], ...odd.map((c, i) => [c, `v${i}`])])
  const s = follow(t, { params: { table: table.name, columns: ['id', ...odd] } })
  await s.untilLive()
  assert.deepEqual(s.changes()[0].value, want)
  await db.query(`UPDATE ${table.name} SET "has,comma" = 'x', "has""quote" = 'y'`)
  await s.untilChanges(2)
  assert.deepEqual(s.changes()[1].value, { id: 1, 'has,comma': 'x', 'has"quote': 'y' })
})

test('params stand for values', async (t) => {
  const table = await issues(t, 'one', "it's two", 'three')
  const matching = async (where, params) => {
    const s = follow(t, { params: { table: table.name, where, params }, subscribe: false })
    await s.upToDate()
    return s.changes().map((m) => m.value.title).sort()
  }
  assert.deepEqual(await matching('title = $1', ["it's two"]), ["it's two"])
  assert.deepEqual(await matching('id = $1', { 1: table.ids[0] }), ['one'])
  assert.deepEqual(await matching('title = $1 OR title = $2', ['one', 'three']), ['one', 'three'])
  assert.deepEqual(await matching('priority > $1 AND title <> $2', ['9', 'one']), ["it's two", 'three'])
  assert.deepEqual(await matching('priority BETWEEN $1 AND $2', ['11', '20']), [])
  assert.deepEqual(await matching('title IN ($1, $2)', ['three', 'x']), ['three'])
})

// Each condition is Postgres' own answer, in the snapshot and, for a row that comes later, in the stream.
test('conditions select what Postgres selects', async (t) => {
  const table = await makeTable(
    t,
    'id int PRIMARY KEY, n int, big bigint, f float8, d numeric, b bool, s text, u uuid, day date, at timestamptz',
  )
  const row = (id) => `(${id}, ${id % 3 ? id : 'NULL'}, ${id}000000000000, ${id}.5, ${id}.10, ${id % 2 === 0}, ` +
    `'Text ${id}%', '00000000-0000-0000-0000-00000000000${id}', '2024-01-0${id}', '2024-01-0${id} 12:00:00+02')`
  await db.query(`INSERT INTO ${table.name} VALUES ${[1, 2, 3, 4].map(row)}`)
  const conditions = [
    'n = 1', 'n <> 1', 'NOT (n = 1)', 'n IS NULL', 'n IS NOT NULL', 'n IN (1, 5, 7)', 'n BETWEEN 2 AND 5',
    'n + 1 > 4', 'big = 2000000000000', 'f > 2.5', 'd = 4.1', 'd >= 5.1', 'b', 'NOT b', 'b IS TRUE', "s LIKE '%4\\%'",
    "s ILIKE 'TEXT 5_'", "s > 'Text 4'", "u = '00000000-0000-0000-0000-000000000005'", "day < '2024-01-03'",
    "at >= '2024-01-04 10:00:00+00'", 'n = ANY(ARRAY[1, 8])', 'n IS DISTINCT FROM 1', 'id * 2 > 4 AND (n > 3 OR b)',
    'true', '1 = 2',
  ]
  const followed = []
  for (const where of conditions) {
    followed.push([where, last(await catchUp({ table: table.name, where }))])
  }
  await db.query(`INSERT INTO ${table.name} VALUES ${[5, 6, 7, 8].map(row)}`)
  for (const [where, reply] of followed) {
    const { rows } = await db.query(`SELECT id::text FROM ${table.name} WHERE ${where} ORDER BY id`)
    const want = rows.map((r) => r.id)
    await eventually(async () => {
      const tail = await catchUp({ table: table.name, where }, next(reply))
      const later = tail.flatMap((r) => changes(r.body)).map((m) => m.value.id)
      assert.deepEqual(later, want.filter((id) => id > '4'), `${where}, in the stream`)
    })
    const fresh = await catchUp({ table: table.name, where })
    assert.deepEqual(fresh.flatMap((r) => changes(r.body)).map((m) => m.value.id).sort(), want, where)
  }
})

test('a transaction of several tables counts its positions over all', async (t) => {
  const a = await issues(t)
  const b = await issues(t)
  const from = {}
  for (const table of [a, b]) from[table.name] = next(last(await catchUp({ table: table.name })))
  const insert = (table) => `INSERT INTO ${table.name} VALUES ('${randomUUID()}', 'x', 1)`
  await transaction(insert(a), insert(b), insert(a), insert(b))
  const read = async (table) => {
    const messages = (await catchUp({ table: table.name }, from[table.name])).flatMap((r) => changes(r.body))
    assert.equal(new Set(messages.map((m) => m.headers.lsn)).size, 1)
    return messages.map((m) => [m.headers.op_position, m.headers.last ?? false])
  }
  await eventually(async () => assert.deepEqual(await read(a), [[0, false], [4, true]]))
  await eventually(async () => assert.deepEqual(await read(b), [[2, false], [6, true]]))
})

test('what is rolled back never comes, what a savepoint keeps does', async (t) => {
  const table = await issues(t)
  const s = follow(t, { params: { table: table.name } })
  await s.untilLive()
  const insert = (title) => `INSERT INTO ${table.name} VALUES ('${randomUUID()}', '${title}', 1)`
  const conn = await db.connect()
  await conn.query('BEGIN')
  await conn.query(insert('gone'))
  await conn.query('ROLLBACK')
  conn.release()
  const xid = await transaction(
    insert('kept'), 'SAVEPOINT a', insert('undone'), 'ROLLBACK TO a', 'SAVEPOINT b', insert('released'), 'RELEASE b',
  )
  await s.untilChanges(2)
  assert.deepEqual(s.changes().map((m) => [m.value.title, m.headers.txids]), [['kept', [xid]], ['released', [xid]]])
})

test('a changed key is a delete and an insert', async (t) => {
  const table = await makeTable(t, 'a text, b int, v text, PRIMARY KEY (b, a)')
  await db.query(`INSERT INTO ${table.name} VALUES ('x/y', 1, 'v')`)
  const s = follow(t, { params: { table: table.name } })
  await s.untilLive()
  const [was, is] = [table.key(1, 'x/y'), table.key(2, 'x/y')]
  assert.equal(s.changes()[0].key, was)
  await db.query(`UPDATE ${table.name} SET b = 2`)
  await s.untilChanges(3)
  const [, remove, insert] = s.changes()
  assert.equal(remove.key, was)
  assert.deepEqual(remove.value, { a: 'x/y', b: 1 })
  assert.equal(remove.headers.key_change_to, is)
  assert.equal(remove.headers.op_position, 0)
  assert.equal(remove.headers.last, undefined)
  assert.equal(insert.key, is)
  assert.deepEqual(insert.value, { a: 'x/y', b: 2, v: 'v' })
  assert.equal(insert.headers.key_change_from, was)
  assert.equal(insert.headers.op_position, 1)
  assert.equal(insert.headers.last, true)
})

test('an update that changes nothing is not sent', async (t) => {
  const table = await issues(t, 'one')
  const s = follow(t, { params: { table: table.name } })
  await s.untilLive()
  await db.query(`UPDATE ${table.name} SET title = title`)
  await table.insert('two')
  await s.untilChanges(2)
  assert.deepEqual(s.changes().map((m) => m.headers.operation), ['insert', 'insert'])
})

test('a table without a primary key is keyed by all columns', async (t) => {
  const table = await makeTable(t, 'a text, b int')
  await db.query(`INSERT INTO ${table.name} VALUES ('x', 1), (NULL, 2)`)
  const rows = (await catchUp({ table: table.name })).flatMap((r) => changes(r.body))
  assert.deepEqual(rows.map((m) => m.key).sort(), [`${table.name}/"x"/"1"`, `${table.name}/_/"2"`].sort())
})

test('the definition is what counts for the handle', async (t) => {
  const table = await issues(t, 'one')
  const handle = async (params) => (await get({ offset: '-1', ...params })).headers.get('electric-handle')
  const plain = await handle({ table: table.name })
  assert.match(plain, /^[\d-]+$/)
  const unknown = { custom: 'x', cursor: '3', 'cache-buster': 'y', expired_handle: 'z' }
  assert.equal(await handle({ table: table.name, ...unknown }), plain)
  assert.equal(await handle({ table: table.name, handle: 'ignored-here' }), plain)
  assert.equal(await handle({ table: table.name, replica: 'default', log: 'full' }), plain)
  assert.notEqual(await handle({ table: table.name, replica: 'full' }), plain)
  assert.notEqual(await handle({ table: table.name, where: 'priority = 1' }), plain)
  assert.equal(
    await handle({ table: table.name, columns: 'id,title' }),
    await handle({ table: table.name, columns: '"title","id"' }),
  )
  assert.equal(controls((await get({ table: table.name, offset: '-1' })).body, 'snapshot-end').length, 1)
})
