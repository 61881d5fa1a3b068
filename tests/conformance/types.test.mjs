// Values of every kind: in the snapshot, through replication, on the wire and as the client parses them.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { catchUp, changes, cleanUp, db, eventually, follow, get, last, makeTable, next, schema } from './support.mjs'

let made = 0

/** types creates mood, complex and posint under fresh names, and drops them after the test. */
async function types(t) {
  const n = `${Date.now()}_${made++}`
  const name = (what) => `${schema}.${what}_${n}`
  await db.query(`CREATE TYPE ${name('mood')} AS ENUM ('sad', 'ok', 'happy')`)
  await db.query(`CREATE TYPE ${name('complex')} AS (r float8, i float8)`)
  await db.query(`CREATE DOMAIN ${name('posint')} AS integer CHECK (VALUE > 0)`)
  cleanUp(t, async () => {
    await db.query(`DROP TYPE ${name('mood')}, ${name('complex')}`)
    await db.query(`DROP DOMAIN ${name('posint')}`)
  })
  return { mood: name('mood'), complex: name('complex'), posint: name('posint') }
}

test('the client parses all of it, from the snapshot and after an update', async (t) => {
  const { mood, complex, posint } = await types(t)
  const table = await makeTable(
    t,
    `txt varchar PRIMARY KEY, i2 int2, i4 int4, i8 int8, f8 float8, b boolean, json json, jsonb jsonb, ints int8[],
     ints2 int8[][], int4s int4[], doubles float8[], bools boolean[], moods ${mood}[], moods2 ${mood}[][],
     complexes ${complex}[], posints ${posint}[], jsons jsonb[], txts text[], value json`,
  )
  await db.query(`INSERT INTO ${table.name} VALUES ('test', 1, 2147483647, 9223372036854775807, 4.5, true,
    '{"foo": "bar"}', '{"foo": "bar"}', '{1,2,3}', '{{1,2,3},{4,5,6}}', '{1,2,3}',
    '{1.1,2.2,3.3,Infinity,-Infinity,NaN}',
    '{true,false,true}', '{sad,ok,happy}', '{{sad,ok},{ok,happy}}', '{"(1.1,2.2)","(3.3,4.4)"}', '{5,9,2}',
    ARRAY['{"foo": "bar"}'::jsonb, '{"bar": "baz"}'::jsonb],
    '{foo,bar,baz,"a \\"b\\", c",NULL}', '{"a":1}')`)
  const first = {
    txt: 'test', i2: 1, i4: 2147483647, i8: 9223372036854775807n, f8: 4.5, b: true, json: { foo: 'bar' },
    jsonb: { foo: 'bar' }, ints: [1n, 2n, 3n], ints2: [[1n, 2n, 3n], [4n, 5n, 6n]], int4s: [1, 2, 3],
    doubles: [1.1, 2.2, 3.3, Infinity, -Infinity, NaN], bools: [true, false, true], moods: ['sad', 'ok', 'happy'],
    moods2: [['sad', 'ok'], ['ok', 'happy']], complexes: ['(1.1,2.2)', '(3.3,4.4)'], posints: ['5', '9', '2'],
    jsons: [{ foo: 'bar' }, { bar: 'baz' }], txts: ['foo', 'bar', 'baz', 'a "b", c', null], value: { a: 1 },
  }
  const s = follow(t, { params: { table: table.name } })
  await s.untilLive()
  assert.deepEqual(s.changes()[0].value, first)

  await db.query(`UPDATE ${table.name} SET i2 = 10, i4 = 20, i8 = 30, f8 = 40.5, b = false, json = '{"bar": "foo"}',
    jsonb = '{"bar": "foo"}', ints = '{4,5,6}', ints2 = '{{4,5},{7,8}}', int4s = '{4,5,6}',
    doubles = '{4.4,Infinity,NaN}', bools = '{false,true,false}', moods = '{sad,happy}', moods2 = '{{sad,happy}}',
    complexes = '{"(2.2,3.3)"}', posints = '{6,10}', jsons = '{}', txts = '{new}', value = NULL`)
  await s.untilChanges(2)
  assert.deepEqual(s.changes()[1].value, {
    txt: 'test', i2: 10, i4: 20, i8: 30n, f8: 40.5, b: false, json: { bar: 'foo' }, jsonb: { bar: 'foo' },
    ints: [4n, 5n, 6n], ints2: [[4n, 5n], [7n, 8n]], int4s: [4, 5, 6], doubles: [4.4, Infinity, NaN],
    bools: [false, true, false], moods: ['sad', 'happy'], moods2: [['sad', 'happy']], complexes: ['(2.2,3.3)'],
    posints: ['6', '10'], jsons: [], txts: ['new'], value: null,
  })
})

// column type → [value as SQL, text on the wire, schema entry]. The texts are Postgres' own, so that snapshot and
// stream agree.
const wire = {
  'boolean': ['true', ['t', 'true'], { type: 'bool' }],
  'smallint': ['-7', ['-7'], { type: 'int2' }],
  'float4': ['1.5', ['1.5'], { type: 'float4' }],
  'float8': ["'-Infinity'", ['-Infinity'], { type: 'float8' }],
  'numeric(10,2)': ['12.5', ['12.50'], { type: 'numeric', precision: 10, scale: 2 }],
  'numeric': ["'NaN'", ['NaN'], { type: 'numeric' }],
  'numeric(5)': ['7', ['7'], { type: 'numeric', precision: 5, scale: 0 }],
  'text': [`E'q" b\\\\ t\\t n\\n é 😀 \\u0001'`, ['q" b\\ t\t n\n é 😀 \u0001'], { type: 'text' }],
  'varchar(9)': ["''", [''], { type: 'varchar', max_length: 9 }],
  'char(4)': ["'ab'", ['ab  '], { type: 'bpchar', length: 4 }],
  'bytea': [`'\\x0001fffe'`, ['\\x0001fffe'], { type: 'bytea' }],
  'uuid': ["'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", ['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'], { type: 'uuid' }],
  'date': ["'2024-02-29'", ['2024-02-29'], { type: 'date' }],
  'time': ["'12:34:56.5'", ['12:34:56.5'], { type: 'time' }],
  'timestamp(3)': ["'2024-01-01 10:00:00.123456'", ['2024-01-01 10:00:00.123'], { type: 'timestamp', precision: 3 }],
  'timestamptz': ["'2024-01-01 02:00:00+02'", ['2024-01-01 00:00:00+00'], { type: 'timestamptz' }],
  'interval': ["'1 day 2 hours'", ['P1DT2H'], { type: 'interval' }],
  'interval day to second': ["'1 day 2 hours'", ['P1DT2H'], { type: 'interval', fields: 'DAY TO SECOND' }],
  'json': [`'{"foo":"bar"}'`, ['{"foo":"bar"}'], { type: 'json' }],
  'jsonb': [`'{"foo":"bar"}'`, ['{"foo": "bar"}'], { type: 'jsonb' }],
  'inet': ["'10.0.0.1'", ['10.0.0.1', '10.0.0.1/32'], { type: 'inet' }],
  'bit(3)': ["'101'", ['101'], { type: 'bit', length: 3 }],
  'bool[]': ["'{t,f,t}'", ['{t,f,t}'], { type: 'bool', dims: 1 }],
  'text[][]': [`'{{a,"b c"},{NULL,"\\"x"}}'`, ['{{a,"b c"},{NULL,"\\"x"}}'], { type: 'text', dims: 2 }],
  'int4range': ["'[1,5)'", ['[1,5)'], { type: 'int4range' }],
  'point': ["'(1,2)'", ['(1,2)'], { type: 'point' }],
}

test('texts and schema on the wire; snapshot and stream write alike', async (t) => {
  const kinds = Object.entries(wire)
  const columns = kinds.map(([type], i) => `c${i} ${type}`).join(', ')
  const table = await makeTable(t, `id bigint PRIMARY KEY, ${columns}, n text NOT NULL`)
  const values = kinds.map(([, [sql]]) => sql).join(', ')
  const insert = (id) => db.query(`INSERT INTO ${table.name} VALUES (${id}, ${values}, '')`)
  await insert(1)
  const replies = await catchUp({ table: table.name })
  const snapshot = changes(replies[0].body)[0].value
  const schemaHeader = JSON.parse(replies[0].headers.get('electric-schema'))
  assert.deepEqual(schemaHeader.id, { type: 'int8', pk_index: 0, not_null: true })
  assert.deepEqual(schemaHeader.n, { type: 'text', not_null: true })
  await insert(2)
  const stream = await eventually(async () => {
    const [m] = (await catchUp({ table: table.name }, next(last(replies)))).flatMap((r) => changes(r.body))
    return m.value
  })
  kinds.forEach(([type, [, texts, entry]], i) => {
    assert.ok(texts.includes(snapshot[`c${i}`]), `${type}: ${JSON.stringify(snapshot[`c${i}`])}`)
    assert.equal(stream[`c${i}`], snapshot[`c${i}`], `${type} in the stream`)
    // Of an interval without a precision, the precision may be left out or be what Postgres keeps for "none".
    const { precision, ...rest } = schemaHeader[`c${i}`]
    assert.deepEqual(entry.type === 'interval' ? rest : schemaHeader[`c${i}`], entry, type)
  })
  assert.equal(snapshot.id, '1')
})

test('NULLs, and values too large to be stored in the row', async (t) => {
  const table = await makeTable(t, 'id int PRIMARY KEY, small text, big text')
  await db.query(`ALTER TABLE ${table.name} ALTER COLUMN big SET STORAGE EXTERNAL`)
  const big = 'x'.repeat(200_000)
  await db.query(`INSERT INTO ${table.name} VALUES (1, NULL, $1), (2, '', NULL)`, [big])
  for (const replica of ['default', 'full']) {
    const s = follow(t, { params: { table: table.name, replica } })
    await s.untilLive()
    const rows = Object.fromEntries(s.changes().map((m) => [m.value.id, m.value]))
    assert.deepEqual(rows, { 1: { id: 1, small: null, big }, 2: { id: 2, small: '', big: null } })
    await db.query(`UPDATE ${table.name} SET small = $1 WHERE id = 1`, [replica]) // big is not sent again by Postgres
    await s.untilChanges(3)
    const changed = { id: 1, small: replica }
    assert.deepEqual(s.changes()[2].value, replica === 'full' ? { ...changed, big } : changed)
    await db.query(`UPDATE ${table.name} SET small = NULL WHERE id = 1`)
    await s.untilChanges(4)
    assert.equal(s.changes()[3].value.small, null)
    s.stop()
  }
})

test('nullability shows in the schema', async (t) => {
  const table = await makeTable(t, 'id int PRIMARY KEY, a text NOT NULL, b text')
  const reply = await get({ table: table.name, offset: '-1', columns: 'id,b' })
  assert.deepEqual(JSON.parse(reply.headers.get('electric-schema')), {
    id: { type: 'int4', pk_index: 0, not_null: true },
    b: { type: 'text' },
  })
})
