// What is refused, with the exact bodies; and that nothing is created by it.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { db, deleteShape, follow, get, issues, makeTable, schema } from './support.mjs'

/** refused asserts the 400 for params; errors is the whole object under "errors". */
async function refused(params, errors, init) {
  const reply = await get(params, init)
  const what = JSON.stringify(params)
  assert.equal(reply.status, 400, `${what}: ${reply.text}`)
  if (errors) assert.deepEqual(reply.body, { message: 'Invalid request', errors }, what)
  if (init?.method === undefined) {
    assert.equal(reply.headers.get('cache-control'), 'no-store', what)
    assert.equal(reply.headers.get('surrogate-control'), 'no-store', what)
  } else {
    assert.equal(reply.headers.get('cache-control'), 'no-cache', what)
  }
  assert.equal(reply.headers.get('content-type'), 'application/json; charset=utf-8', what)
  assert.equal(reply.headers.has('electric-handle'), false, what)
  return reply.body
}

test('parameters', async (t) => {
  const { name: table } = await issues(t, 'one')
  const blank = ["can't be blank"]
  const cases = [
    [{ offset: '-1' }, { table: blank }],
    [{ table, offset: '' }, { offset: blank }],
    [{ table, offset: ' ' }, { offset: blank }],
    [{ table }, { offset: blank }],
    [{ table, offset: '-1', replica: 'some' }, { replica: ['is invalid'] }],
    [{ table, offset: '-1', log: 'some' }, { log: ['is invalid'] }],
    [{ table, offset: '-1', params: '{"1":"a"}' }, { params: ['is invalid'] }],
    [{ table, offset: '0_0' }, { handle: ["can't be blank when offset != -1"] }],
    [{ table, offset: '-1', live: 'true' }, { live: ["can't be true when offset == -1"] }],
    [{ table, offset: '-1', live: '' }, { live: ["can't be true when offset == -1"] }],
    [{ table, offset: 'now', live: 'true' }, { live: ["can't be true when offset is 'now'"] }],
    [{ table, offset: '-1', live_sse: 'true' }, { live_sse: ["can't be true unless live is also true"] }],
    [
      { table, offset: '-1', where: 'title = $2', 'params[2]': 'x' },
      { params: ['Parameters must be numbered sequentially, starting from 1'] },
    ],
    [
      { table, offset: '-1', where: 'title = $1', 'params[a]': 'x' },
      { params: ['Parameters can only use numbers as keys'] },
    ],
  ]
  for (const offset of ['10', '1_2_3', '1_2 ', '10_32.1', '-1_1', '5_-1', 'foo', '_', '1_', '_1', 'inf_1', '+1_1']) {
    cases.push([{ table, offset, handle: '1-0' }, { offset: ['has invalid format'] }])
  }
  for (const [params, errors] of cases) await refused(params, errors)
  assert.equal((await deleteShape({ table })).status, 404, 'a shape was created')
})

test('table names', async (t) => {
  const long = 'x'.repeat(64)
  const missing = (schema, name) =>
    `Table "${schema}"."${name}" does not exist. If the table name contains capitals or special characters ` +
    'you must quote it.'
  for (const [table, text] of [
    ['""', 'Invalid zero-length delimited identifier'],
    ['public.', 'Invalid zero-length delimited identifier'],
    ['foo bar', 'Invalid unquoted identifier contains special characters: foo bar'],
    ['1foo', 'Invalid unquoted identifier contains special characters: 1foo'],
    ['foo"bar', 'Invalid unquoted identifier contains special characters: foo"bar'],
    ['"foo"bar"', 'Invalid identifier with unescaped quote: foo"bar'],
    [long, 'Identifier is too long (max length is 63)'],
    ['a.b.c', 'Invalid relation identifier, too many delimiters: a.b.c'],
    ['Missing_Table', missing('public', 'missing_table')],
    ['"Missing.Table"', missing('public', 'Missing.Table')],
    [`${schema}.nothing`, missing(schema, 'nothing')],
  ]) {
    await refused({ table, offset: '-1' }, { table: [text] })
  }
  const base = await makeTable(t, 'id int PRIMARY KEY')
  const view = `${schema}.view_${Date.now()}`
  await db.query(`CREATE VIEW ${view} AS SELECT * FROM ${base.name}`)
  try {
    await refused({ table: view, offset: '-1' })
  } finally {
    await db.query(`DROP VIEW ${view}`)
  }
})

test('columns', async (t) => {
  const { name: table } = await makeTable(
    t, 'a int, b int, v text, g int GENERATED ALWAYS AS (a + b) STORED, PRIMARY KEY (a, b)',
  )
  for (const [columns, text] of [
    ['a,,b', 'Invalid zero-length delimited identifier'],
    ['a,b,', 'Invalid zero-length delimited identifier'],
    ['v', 'The list of columns must include all primary key columns, missing: a, b'],
    ['v,b', 'The list of columns must include all primary key columns, missing: a'],
    ['a,b,x,y', 'The following columns are not found on the table: x, y'],
  ]) {
    await refused({ table, offset: '-1', columns }, { columns: [text] })
  }
  const generated = /^The following columns are generated and cannot be included in the shape: g/
  for (const columns of [{ columns: 'a,b,g' }, {}]) {
    const body = await refused({ table, offset: '-1', ...columns })
    assert.match(body.errors.columns[0], generated)
  }
  assert.equal((await get({ table, offset: '-1', columns: 'a,b,v' })).status, 200)
})

test('conditions', async (t) => {
  const { name: table } = await issues(t, 'one')
  const syntax = { message: 'Invalid request', errors: { where: ['At location 17: syntax error at or near "x"'] } }
  const other = await get({ table, offset: '-1', where: 'priority = 1' })
  const handle = other.headers.get('electric-handle')
  for (const extra of [{}, { handle }]) {
    assert.deepEqual((await get({ table, offset: '-1', where: '1 x 1', ...extra })).body, syntax)
  }
  assert.equal((await get({ table, offset: '-1', where: '1=1' })).status, 200)

  for (const [params, pattern] of [
    [{ where: 'title = $1' }, /^At location \d+: parameter \$1 was not provided$/],
    [{ where: 'nothing = 1' }, /nothing/],
    [{ where: 'title' }, /./], // not a condition
    [{ where: 'title = 1 AND' }, /^At location \d+: syntax error at end of input$/],
    [{ where: "title = 'open" }, /^At location \d+: unterminated quoted string/],
    [{ where: 'true; DROP TABLE x' }, /./],
    [{ where: 'id IN (SELECT 1)' }, /./],
    [{ where: 'pg_sleep(1) IS NULL' }, /./],
    [{ where: 'now() > now()' }, /./],
    [{ where: 'count(*) > 1' }, /./],
    [{ where: 'priority = $1', 'params[1]': 'not a number' }, /./],
    [{ where: '/* ' }, /./],
    [{ where: 'x'.repeat(70) + ' = 1' }, /./],
  ]) {
    const body = await refused({ table, offset: '-1', ...params })
    const [field] = Object.keys(body.errors)
    assert.ok(['where', 'params'].includes(field), JSON.stringify(body))
    assert.match(body.errors[field][0], pattern, JSON.stringify(params))
  }
  assert.equal((await deleteShape({ table })).status, 404, 'a shape was created')
})

test('a client is told of a bad condition', async (t) => {
  const table = await issues(t, 'one')
  for (const liveSse of [false, true]) {
    const s = follow(t, { params: { table: table.name, where: '1 x 1' }, liveSse })
    await s.until('an error', (r) => r.errors.length > 0)
    assert.equal(s.errors[0].status, 400)
    assert.deepEqual(s.errors[0].json, {
      message: 'Invalid request',
      errors: { where: ['At location 17: syntax error at or near "x"'] },
    })
    assert.deepEqual(s.messages, [])
  }
})

test('deletion', async (t) => {
  const { name: table } = await issues(t, 'one')
  assert.deepEqual((await deleteShape({})).body, {
    message: 'Invalid request',
    errors: { handle: ["can't be blank when shape definition is missing"] },
  })
  for (const params of [{ table }, { handle: '123-456' }]) {
    const reply = await deleteShape(params)
    assert.equal(reply.status, 404)
    assert.deepEqual(reply.body, { message: 'No existing shape found' })
  }
  const handle = (await get({ table, offset: '-1' })).headers.get('electric-handle')
  const mismatch = await deleteShape({ table, handle: '123-456' })
  assert.equal(mismatch.status, 400)
  assert.deepEqual(mismatch.body, {
    message: 'The specified shape definition and handle do not match. Please ensure the shape definition is correct ' +
      'or omit the shape handle from the request to obtain a new one.',
  })
  await refused({ table, handle, live: 'banana' }, { live: ['is invalid'] }, { method: 'DELETE' })
  const gone = await deleteShape({ handle })
  assert.deepEqual([gone.status, gone.text, gone.headers.get('cache-control')], [202, '', 'no-cache'])
  assert.equal((await get({ table, offset: '0_0', handle })).status, 409)
})

test('nonsense does not harm', async (t) => {
  const { name: table } = await issues(t, 'one')
  for (const query of [
    '?table=%00&offset=-1', '?table=%ff%fe&offset=-1', '?table=a%2', '?&&&==&offset=-1',
    `?table=${'x'.repeat(5000)}&offset=-1`,
    `?table=${encodeURIComponent(table)}&offset=${'9'.repeat(200)}_0&handle=1-0`,
    `?table=${encodeURIComponent(table)}&offset=18446744073709551616_0&handle=1-0`,
    `?table=${encodeURIComponent(table)}&offset=-1&where=${encodeURIComponent('('.repeat(3000))}`,
    `?table=${encodeURIComponent(table)}&offset=-1&where=${encodeURIComponent('NOT '.repeat(1500) + 'true')}`,
    `?table=${encodeURIComponent(table)}&offset=-1&where=%00`,
    `?table=${encodeURIComponent(table)}&offset=-1&where=%ff`,
  ]) {
    const res = await fetch(`${process.env.SHAPELINE_URL}/v1/shape${query}`)
    await res.arrayBuffer()
    assert.ok(res.status < 500, `${res.status} for ${query.slice(0, 80)}`)
  }
  assert.equal((await get({ table, offset: '-1' })).status, 200)
})
