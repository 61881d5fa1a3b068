// What a client of one table sees: the rows, then every change. Each test runs with long polls and with SSE.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { describe, test } from 'node:test'
import { Shape } from '@electric-sql/client'
import { follow, isLive, issues, last, schema, sleep, transaction } from './support.mjs'

for (const liveSse of [false, true]) {
  describe(liveSse ? 'SSE' : 'long poll', () => {
    test('an empty table comes up to date without a change', async (t) => {
      const table = await issues(t)
      const s = follow(t, { params: { table: table.name }, subscribe: false, liveSse })
      await s.upToDate()
      assert.deepEqual(s.changes(), [])
      assert.equal(s.controls('snapshot-end').length, 1)
      assert.deepEqual(s.errors, [])
    })

    test('an idle table waits: the first second', async (t) => {
      const table = await issues(t)
      const s = follow(t, { params: { table: table.name }, liveSse })
      await sleep(1000)
      const params = s.requests.map((r) => r.url.searchParams)
      if (liveSse) assert.equal(params.length, 3)
      else assert.ok(params.length > 2, `${params.length} requests`)
      assert.ok(params.length < 5, `${params.length} requests`)
      assert.equal(params[0].get('offset'), '-1')
      assert.equal(params[0].has('live'), false)
      assert.equal(params[1].get('offset'), '0_0')
      assert.notEqual(last(params).get('offset'), '-1')
      assert.equal(last(params).get('live'), 'true')
      assert.ok(last(params).has('cursor'))
      assert.equal(s.controls('up-to-date').length, 1)
    })

    test('rows come before up-to-date', async (t) => {
      const table = await issues(t, 'one')
      const s = follow(t, { params: { table: table.name }, liveSse })
      await s.upToDate()
      assert.deepEqual(s.messages[0], {
        key: table.key(table.ids[0]),
        value: { id: table.ids[0], title: 'one', priority: 10 },
        headers: { operation: 'insert', relation: [schema, table.bare] },
      })
      const end = s.controls('snapshot-end')
      assert.equal(end.length, 1)
      assert.match(end[0].headers.xmin, /^\d+$/)
      assert.match(end[0].headers.xmax, /^\d+$/)
      assert.ok(end[0].headers.xip_list.every((x) => /^\d+$/.test(x)))
      assert.match(s.controls('up-to-date')[0].headers.global_last_seen_lsn, /^\d+$/)
    })

    test('insert, update, delete follow live, exactly', async (t) => {
      const table = await issues(t, 'one')
      const [id] = table.ids
      const s = follow(t, { params: { table: table.name }, liveSse })
      await s.untilLive()

      const updated = await transaction([`UPDATE ${table.name} SET title = $2 WHERE id = $1`, [id, 'new']])
      await s.untilChanges(2)
      const second = randomUUID()
      const inserted = await transaction([`INSERT INTO ${table.name} VALUES ($1, 'two', 10)`, [second]])
      await s.untilChanges(3)
      const deleted = await transaction([`DELETE FROM ${table.name} WHERE id = $1`, [id]])
      await s.untilChanges(4)

      const [, update, insert, remove] = s.changes()
      const headers = (op, xid, m) => {
        assert.match(m.headers.lsn, /^\d+$/)
        return {
          operation: op,
          relation: [schema, table.bare],
          txids: [xid],
          lsn: m.headers.lsn,
          op_position: 0,
          last: true,
        }
      }
      assert.deepEqual(update, {
        key: table.key(id),
        value: { id, title: 'new' },
        headers: headers('update', updated, update),
      })
      assert.deepEqual(insert, {
        key: table.key(second),
        value: { id: second, title: 'two', priority: 10 },
        headers: headers('insert', inserted, insert),
      })
      assert.deepEqual(remove, {
        key: table.key(id),
        value: { id },
        headers: headers('delete', deleted, remove),
      })
      assert.ok(BigInt(update.headers.lsn) < BigInt(insert.headers.lsn))
      assert.ok(BigInt(insert.headers.lsn) < BigInt(remove.headers.lsn))
    })

    test('a Shape adds up to the table', async (t) => {
      const table = await issues(t, 'a', 'b')
      const { stream } = follow(t, { params: { table: table.name }, liveSse })
      const shape = new Shape(stream)
      assert.equal((await shape.rows).length, 2)
      const settled = new Promise((resolve) => {
        shape.subscribe(({ rows }) => {
          const titles = rows.map((r) => r.title).sort()
          if (titles.join() === 'B,c,d') resolve()
        })
      })
      await table.insert('c', 'd')
      await table.remove(table.ids[0])
      await table.update(table.ids[1], 'B')
      await settled
      assert.equal(shape.isLoading(), false)
      assert.ok(shape.isConnected())
      assert.match(shape.lastOffset, /^\d+_\d+$/)
    })

    test('two clients that start together share the shape', async (t) => {
      const table = await issues(t, 'one')
      const both = [0, 1].map(() => follow(t, { params: { table: table.name }, liveSse }))
      await Promise.all(both.map((s) => s.untilLive()))
      assert.equal(both[0].stream.shapeHandle, both[1].stream.shapeHandle)
      await table.update(table.ids[0], 'new')
      for (const s of both) {
        await s.untilChanges(2)
        assert.deepEqual(s.changes()[1].value, { id: table.ids[0], title: 'new' })
      }
    })

    test('a client that was away gets what it missed, once', async (t) => {
      const table = await issues(t, 'one')
      const first = follow(t, { params: { table: table.name }, liveSse })
      await first.untilLive()
      await table.insert('two', 'three')
      await first.untilChanges(3)
      await first.until('up to date behind them', (r) => last(r.messages).headers.control === 'up-to-date')
      const { lastOffset: offset, shapeHandle: handle } = first.stream
      first.stop()

      const seen = new Set(first.changes().map((m) => m.key))
      const [a] = await table.insert('four')
      for (let i = 0; i < 4; i++) await table.insert(`more ${i}`)
      await table.update(a, 'FOUR')
      await table.update(table.ids[0], 'ONE')
      await table.remove(a)
      await table.remove(table.ids[0])
      const again = follow(t, { params: { table: table.name }, liveSse, offset, handle })
      await again.untilChanges(9)
      await again.upToDate()
      const ops = again.changes().map((m) => m.headers.operation)
      assert.deepEqual(ops, [
        ...Array(5).fill('insert'), 'update', 'update', 'delete', 'delete',
      ])
      for (const m of again.changes()) {
        if (m.headers.operation === 'insert') assert.ok(!seen.has(m.key), `${m.key} came again`)
      }
    })

    test('an error that onError retries goes on from the same offset', async (t) => {
      const table = await issues(t, 'one')
      let calls = 0
      const s = follow(t, {
        params: { table: table.name },
        liveSse,
        backoffOptions: { initialDelay: 1, maxDelay: 1, multiplier: 1 },
        onError: () => ({}),
        fetchClient: (input, init) => {
          calls++
          if (calls !== 2) return fetch(input, init)
          return Promise.resolve(new Response('{"message":"no"}', { status: 400 }))
        },
      })
      await s.upToDate()
      await s.untilLive()
      assert.deepEqual(
        s.requests.slice(0, 3).map((r) => r.url.searchParams.get('offset')),
        ['-1', '0_0', '0_0'],
      )
      assert.equal(s.changes().length, 1)
    })

    test('a slow subscriber holds nobody else up', async (t) => {
      const table = await issues(t, 'one')
      const slow = follow(t, { params: { table: table.name }, liveSse })
      let release
      const blocked = new Promise((resolve) => (release = resolve))
      slow.stream.subscribe(() => blocked)
      const other = follow(t, { params: { table: table.name }, liveSse })
      await other.untilLive()
      await table.insert('two')
      await other.untilChanges(2)
      assert.ok(slow.changes().length < 2)
      release()
      await slow.untilChanges(2)
    })
  })
}

test('forceDisconnectAndRefresh fetches at once', async (t) => {
  const table = await issues(t, 'one')
  const s = follow(t, { params: { table: table.name } })
  await s.untilLive()
  const seen = s.requests.length
  assert.deepEqual(
    s.requests.map((r) => [r.url.searchParams.get('offset'), isLive(r)]),
    [['-1', false], ['0_0', false], ['0_inf', true]],
  )
  const started = Date.now()
  await s.stream.forceDisconnectAndRefresh()
  const refresh = s.requests[seen]
  assert.equal(refresh.url.searchParams.get('offset'), '0_inf')
  assert.equal(isLive(refresh), false)
  assert.ok(Date.now() - started < 5000, 'the refresh waited')

  // With a change in the log that the live request has not delivered, the refresh brings it.
  await table.update(table.ids[0], 'new')
  await s.stream.forceDisconnectAndRefresh()
  await s.untilChanges(2)
  assert.deepEqual(s.changes()[1].value, { id: table.ids[0], title: 'new' })
  await s.until('live again', (r) => isLive(last(r.requests)))
})

test('SSE delivers in batches, each up to date, without repeats', async (t) => {
  const table = await issues(t)
  const s = follow(t, { params: { table: table.name }, liveSse: true })
  await s.untilLive()
  for (let i = 1; i <= 5; i++) {
    await table.insert(`row ${i}`)
    await s.untilChanges(i)
  }
  await s.stream.forceDisconnectAndRefresh()
  await table.insert('row 6')
  await s.untilChanges(6)
  const keys = s.changes().map((m) => m.key)
  assert.equal(new Set(keys).size, 6, 'a key came twice')
  for (const batch of s.batches.filter((b) => b.some((m) => m.headers.lsn))) {
    assert.equal(last(batch).headers.control, 'up-to-date')
    const lsns = batch.filter((m) => m.headers.lsn).map((m) => BigInt(m.headers.lsn))
    assert.ok(BigInt(last(batch).headers.global_last_seen_lsn) >= last(lsns))
  }
})

test('offset=now skips what there was', async (t) => {
  const table = await issues(t, 'old')
  const s = follow(t, { params: { table: table.name }, offset: 'now' })
  await s.upToDate()
  assert.deepEqual(s.changes(), [])
  const [id] = await table.insert('new')
  await s.untilChanges(1, 3000)
  assert.deepEqual(s.changes().map((m) => m.value.id), [id])
})

test('changes_only starts empty and brings updates as they are', async (t) => {
  const table = await issues(t, 'old')
  const s = follow(t, { params: { table: table.name }, log: 'changes_only' })
  await s.upToDate()
  assert.deepEqual(s.changes(), [])
  assert.equal(s.controls('snapshot-end').length, 1)
  await s.untilLive()
  await table.update(table.ids[0], 'new')
  await s.untilChanges(1)
  assert.equal(s.changes()[0].headers.operation, 'update')
  assert.deepEqual(s.changes()[0].value, { id: table.ids[0], title: 'new' })
  await table.remove(table.ids[0])
  await s.untilChanges(2)
  assert.deepEqual(s.changes()[1].value, { id: table.ids[0] })

  // The default log of the same table is another shape.
  const full = follow(t, { params: { table: table.name } })
  await full.upToDate()
  assert.notEqual(full.stream.shapeHandle, s.stream.shapeHandle)
})
