// Smoke suite of node-postgres. Usage: node smoke.js DSN
'use strict'

const assert = require('node:assert/strict')
const { Readable } = require('node:stream')
const { pipeline } = require('node:stream/promises')
const { Client, Pool } = require('pg')
const { from: copyFrom, to: copyTo } = require('pg-copy-streams')
const Cursor = require('pg-cursor')

const connectionString = process.argv[2]
const table = 'drv_node'

const fails = (code, promise) =>
  assert.rejects(promise, (error) => {
    assert.equal(error.code, code, error.message)
    return true
  })

async function rows(client) {
  const at = new Date('2024-02-29T12:30:00.123Z')
  const doc = { k: [1, null, 'x'] }
  const insert = `INSERT INTO ${table} VALUES ($1, $2, $3, $4, $5, $6)`
  await client.query(insert, [1, 'ünï 日本 🐘 \'quoted\' \\', ['a', 'b"c', null], at, doc, Buffer.from([0, 255])])
  await client.query(insert, ['9223372036854775807', null, null, null, null, null])
  for (let i = 0; i < 5; i++) {
    const { rows } = await client.query({ name: 'read', text: `SELECT * FROM ${table} WHERE user_id = $1`, values: [1] })
    assert.deepEqual(rows, [{
      user_id: '1', name: 'ünï 日本 🐘 \'quoted\' \\', tags: ['a', 'b"c', null], at, doc, raw: Buffer.from([0, 255]),
    }])
  }
  const big = await client.query({ text: `SELECT name, user_id FROM ${table} WHERE user_id = $1`, values: ['9223372036854775807'], rowMode: 'array' })
  assert.deepEqual(big.rows, [[null, '9223372036854775807']])
  const any = await client.query(`SELECT user_id FROM ${table} WHERE user_id = ANY ($1)`, [[1, '9223372036854775807']])
  assert.equal(any.rowCount, 2)
  const none = await client.query(`SELECT name FROM ${table} WHERE user_id = $1`, [404])
  assert.equal(none.rowCount, 0)
  const binary = await client.query({ text: `SELECT user_id::int4 AS n FROM ${table} WHERE user_id = $1`, values: [1], binary: true })
  assert.deepEqual(binary.rows, [{ n: 1 }])
}

async function severalStatements(client) {
  const results = await client.query(`INSERT INTO ${table} (user_id) VALUES (20); SELECT user_id FROM ${table} WHERE user_id = 20; DELETE FROM ${table} WHERE user_id = 20`)
  assert.deepEqual(results.map((r) => [r.command, r.rowCount]), [['INSERT', 1], ['SELECT', 1], ['DELETE', 1]])
}

async function transactions(client) {
  for (const [end, want] of [['ROLLBACK', 0], ['COMMIT', 4]]) {
    await client.query('BEGIN')
    for (let key = 30; key < 34; key++) {
      await client.query(`INSERT INTO ${table} (user_id, name) VALUES ($1, $2)`, [key, 'in a transaction'])
    }
    await client.query('SAVEPOINT s')
    await fails('23505', client.query(`INSERT INTO ${table} (user_id) VALUES (30)`))
    await fails('25P02', client.query('SELECT 1'))
    await client.query('ROLLBACK TO s')
    await client.query(end)
    const { rowCount } = await client.query(`SELECT 1 FROM ${table} WHERE user_id IN (30, 31, 32, 33)`)
    assert.equal(rowCount, want)
  }
}

async function copy(client) {
  const lines = Array.from({ length: 200 }, (_, i) => `${1000 + i}\tcopied\\t${i}\n`)
  await pipeline(Readable.from(lines), client.query(copyFrom(`COPY ${table} (user_id, name) FROM STDIN`)))
  const { rows } = await client.query(`SELECT name FROM ${table} WHERE user_id = 1007`)
  assert.deepEqual(rows, [{ name: 'copied\t7' }])
  let out = ''
  for await (const chunk of client.query(copyTo(`COPY ${table} (user_id, name) TO STDOUT`))) out += chunk
  assert.ok(out.includes('1007\tcopied\\t7\n'))
}

async function cursor(client) {
  const c = client.query(new Cursor(`SELECT g FROM generate_series(1, 10) g, ${table} WHERE user_id = $1`, [1]))
  const sizes = []
  for (let batch = await c.read(4); batch.length > 0; batch = await c.read(4)) sizes.push(batch.length)
  assert.deepEqual(sizes, [4, 4, 2])
  await c.close()
}

async function errors(client) {
  await fails('42703', client.query(`SELECT nosuch FROM ${table} WHERE user_id = $1`, [1]))
  await fails('22012', client.query(`SELECT 1 / (user_id - 1) FROM ${table} WHERE user_id = $1`, [1]))
  await fails('42601', client.query('SELEC 1'))
  await fails('22P02', client.query(`SELECT name FROM ${table} WHERE user_id = $1`, ['x']))
}

async function pool() {
  const pool = new Pool({ connectionString, max: 8 })
  await Promise.all(Array.from({ length: 100 }, async (_, i) => {
    await pool.query(`INSERT INTO ${table} (user_id, name) VALUES ($1, $2)`, [5000 + i, `p${i}`])
    const { rows } = await pool.query(`SELECT name FROM ${table} WHERE user_id = $1`, [5000 + i])
    assert.deepEqual(rows, [{ name: `p${i}` }])
  }))
  await pool.end()
}

async function timeout() {
  const client = new Client({ connectionString, statement_timeout: 100 })
  await client.connect()
  await fails('57014', client.query('SELECT pg_sleep(30)'))
  assert.deepEqual((await client.query('SHOW statement_timeout')).rows, [{ statement_timeout: '100ms' }])
  await client.end()
}

async function main() {
  const client = new Client({ connectionString })
  await client.connect()
  await client.query(`DROP TABLE IF EXISTS ${table}`)
  await client.query(`CREATE TABLE ${table} (user_id bigint PRIMARY KEY, name text, tags text[], at timestamptz, doc jsonb, raw bytea)`)
  for (const part of [rows, severalStatements, transactions, copy, cursor, errors]) await part(client)
  await pool()
  await timeout()
  await client.query(`DROP TABLE ${table}`)
  await client.end()
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
