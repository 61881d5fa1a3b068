// A long log comes in pieces of the size that was asked for.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { catchUp, changes, db, env, eventually, follow, issues, last, next, transaction } from './support.mjs'

const rows = 35
const title = (i) => `${i}-`.padEnd(1000, 'x')
const skip = env.chunkBytes !== 10_000 && 'needs ELECTRIC_SHAPE_CHUNK_BYTES_THRESHOLD=10000'

/** sizes asserts that every reply but the last ones, whose number is open, is about as long as the threshold. */
function sizes(replies, open) {
  const bytes = replies.map((r) => Buffer.byteLength(r.text))
  assert.ok(bytes.length - open >= 2, `${bytes}`)
  for (const n of bytes.slice(0, -open)) assert.ok(n >= 8_000 && n <= 12_000, `${bytes}`)
  for (const n of bytes.slice(-open)) assert.ok(n < 11_000, `${bytes}`)
}

test('a large snapshot and a large transaction come in chunks', { skip }, async (t) => {
  const table = await issues(t, ...Array.from({ length: rows }, (_, i) => title(i)))
  const snapshot = await catchUp({ table: table.name })
  // The last page of the snapshot is as full as it is, and up-to-date comes behind it.
  sizes(snapshot, 2)
  assert.equal(new Set(snapshot.flatMap((r) => changes(r.body)).map((m) => m.key)).size, rows)
  assert.deepEqual(
    snapshot.map((r) => r.headers.get('electric-offset')),
    [...snapshot.slice(1).map((_, i) => `0_${i}`), '0_inf'],
  )
  const again = await catchUp({ table: table.name })
  assert.deepEqual(again.slice(0, -1).map((r) => r.text), snapshot.slice(0, -1).map((r) => r.text))

  await transaction([
    `INSERT INTO ${table.name}
     SELECT gen_random_uuid(), n || '-' || repeat('y', 997), n FROM generate_series(1, ${rows}) n`,
  ])
  const log = await eventually(async () => {
    const replies = await catchUp({ table: table.name }, next(last(snapshot)))
    assert.equal(replies.flatMap((r) => changes(r.body)).length, rows)
    return replies
  })
  sizes(log, 1)
  const messages = log.flatMap((r) => changes(r.body))
  assert.equal(new Set(messages.map((m) => m.headers.lsn)).size, 1)
  assert.deepEqual(messages.map((m) => m.headers.op_position), messages.map((_, i) => 2 * i))
  for (const reply of log) {
    const end = last(changes(reply.body))
    assert.equal(reply.headers.get('electric-offset'), `${end.headers.lsn}_${end.headers.op_position}`)
  }
  // Closed chunks are frozen, whatever comes later.
  await table.insert('later')
  await eventually(async () => {
    const replies = await catchUp({ table: table.name }, next(last(snapshot)))
    assert.equal(replies.flatMap((r) => changes(r.body)).length, rows + 1)
    assert.deepEqual(replies.slice(0, log.length - 1).map((r) => r.text), log.slice(0, -1).map((r) => r.text))
  })
})

test('a client reads through chunks, in the snapshot and live', { skip }, async (t) => {
  const table = await issues(t, ...Array.from({ length: rows }, (_, i) => title(i)))
  for (const liveSse of [false, true]) {
    const s = follow(t, { params: { table: table.name }, liveSse })
    await s.untilLive()
    const before = s.changes().length
    await db.query(`UPDATE ${table.name} SET title = title || '!'`)
    const { rowCount } = await db.query(`SELECT 1 FROM ${table.name}`)
    await s.untilChanges(before + rowCount)
    const updates = s.changes().slice(before)
    assert.equal(new Set(updates.map((m) => m.key)).size, rows)
    await s.until('up to date at the end', (r) => last(r.messages).headers.control === 'up-to-date')
    s.stop()
  }
})
